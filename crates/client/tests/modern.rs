//! The modern fields, against a server that says what a script tells it to.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use client::{
    Client, Closed, Code, Error, Member, Options, Outcome, Placed, Position, Push, Resume, Seen,
    Transport,
};
use futures_util::{SinkExt as _, StreamExt as _};
use model::Term;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_tungstenite::tungstenite::{
    Message as Frame,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use wire::{
    RequestId,
    pomelo::{
        Message, RouteName,
        packet::{self, Decoder, Kind},
    },
};

const ENTER: &str = "connector.entryHandler.enter";
const SEND: &str = "chat.chatHandler.send";
const QUERY: &str = "gate.gateHandler.queryEntry";
/// Stands for any text in what a script expects.
const ANY: &str = "…";

/// What a server does, one after the other.
enum Step {
    /// Waits for a request of this route and body.
    Ask(&'static str, Value),
    /// Answers it.
    Answer(Value),
    /// Pushes to the client.
    Push(Value),
}
use Step::{Answer, Ask, Push as Tell};

/// A server that plays one script per connection; each ends without a word.
struct Server {
    listener: TcpListener,
    /// The ids of all sends.
    ids: Vec<String>,
}

impl Server {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (Self { listener, ids: Vec::new() }, address)
    }

    /// Names itself as the connector to whoever asks it as a gate.
    async fn gate(&mut self, resumed: &str) {
        self.gate_with_slot(resumed, 0).await;
    }

    /// The same, but for so many milliseconds later.
    async fn gate_with_slot(&mut self, resumed: &str, after: u64) {
        let port = self.listener.local_addr().unwrap().port();
        let answer = json!({"code": 200, "host": "127.0.0.1", "port": port, "after": after});
        let asked = json!({"uid": "alice", "rid": "r"});
        let mut stream = self.play(&[Ask(QUERY, asked), Answer(answer)], resumed).await;
        // Until the client goes: what it has not read yet would be lost.
        let _ = stream.read(&mut [0; 64]).await;
    }

    async fn play(&mut self, steps: &[Step], what: &str) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut decoder = Decoder::new(1 << 16);
        let mut id = RequestId(0);
        let hello = receive(&mut stream, &mut decoder, Kind::Handshake).await;
        let hello: Value = serde_json::from_slice(&hello).unwrap();
        assert_eq!(hello["user"], json!({"tangelo": 1}), "{what}");
        let answer = json!({"code": 200, "sys": {"heartbeat": 3}, "user": {"tangelo": 1}});
        write(&mut stream, Kind::Handshake, answer.to_string().as_bytes()).await;
        receive(&mut stream, &mut decoder, Kind::HandshakeAck).await;
        for step in steps {
            match step {
                Ask(route, expected) => {
                    let data = receive(&mut stream, &mut decoder, Kind::Data).await;
                    let Ok(Message::Request { id: asked, route: RouteName::Text(name), body }) =
                        Message::decode(&data)
                    else {
                        panic!("{what}: no request with a route in text");
                    };
                    id = asked;
                    let mut body: Value = serde_json::from_slice(body).unwrap();
                    if let Some(text) = body.get_mut("id") {
                        self.ids.push(text.as_str().unwrap().to_owned());
                        *text = ANY.into();
                    }
                    assert_eq!((&*name, &body), (*route, expected), "{what}");
                }
                Answer(body) => {
                    say(&mut stream, &Message::Response { id, body: body.to_string().as_bytes() })
                        .await;
                }
                Tell(body) => {
                    let route = RouteName::Text(body["route"].as_str().unwrap().into());
                    let body = body.to_string();
                    say(&mut stream, &Message::Push { route, body: body.as_bytes() }).await;
                }
            }
        }
        stream
    }
}

async fn receive(stream: &mut TcpStream, decoder: &mut Decoder, wanted: Kind) -> Vec<u8> {
    loop {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "the client left");
        let mut input = &byte[..];
        if let Some(packet) = decoder.next(&mut input).unwrap()
            && packet.kind != Kind::Heartbeat
        {
            assert_eq!(packet.kind, wanted);
            return packet.body.to_vec();
        }
    }
}

async fn write(stream: &mut TcpStream, kind: Kind, body: &[u8]) {
    stream.write_all(&packet::encode(kind, body).unwrap()).await.unwrap();
}

async fn say(stream: &mut TcpStream, message: &Message<'_>) {
    let mut data = Vec::new();
    message.encode(&mut data).unwrap();
    write(stream, Kind::Data, &data).await;
}

fn options() -> Options {
    Options { transport: Transport::Tcp, modern: true, ..Options::default() }
}

fn at(generation: u64, seq: u64) -> Position {
    Position { generation: Term(generation), seq }
}

fn chat(seq: u64, text: &str) -> Value {
    json!({"route": "onChat", "msg": text, "from": "bob", "target": "*", "gen": 7, "seq": seq})
}

fn heard(seq: u64, text: &str) -> Placed {
    let (text, from, target) = (text.to_owned(), "bob".to_owned(), "*".to_owned());
    Placed { push: Push::Chat { text, from, target }, position: Some(at(7, seq)), id: None }
}

fn entered(outcome: &str, seq: u64, events: &[Value]) -> Step {
    Answer(json!({
        "code": 200, "outcome": outcome, "users": ["alice", "bob"], "gen": 7, "seq": seq,
        "token": format!("t{seq}"), "events": events,
    }))
}

fn first() -> Step {
    Ask(ENTER, json!({"username": "alice", "rid": "r"}))
}

fn again(token: &str, seq: u64) -> Step {
    let resume = json!({"token": token, "gen": 7, "seq": seq});
    Ask(ENTER, json!({"username": "alice", "rid": "r", "resume": resume}))
}

fn sends(text: &str) -> Step {
    Ask(SEND, json!({"content": text, "target": "*", "id": ANY}))
}

#[tokio::test]
async fn everything_says_where_it_stands() {
    let (mut server, address) = Server::start().await;
    let script = async {
        let answer = json!({"code": 200, "gen": 7, "seq": 4});
        let mut own = chat(4, "hi");
        own["id"] = "k1".into();
        let steps = [first(), entered("joined", 3, &[chat(2, "before")]), sends("hi")];
        let rest = [Tell(own), Answer(answer), Tell(json!({"route": "onPing", "x": 1}))];
        let steps: Vec<Step> = steps.into_iter().chain(rest).collect();
        let stream = server.play(&steps, "all of it").await;
        (server.ids, stream)
    };
    let client = async {
        let mut client = Client::connect(&address, &options()).await.unwrap();
        assert!(client.is_modern());
        let joined = client.join("alice", "r", None).await.unwrap();
        assert_eq!(joined.outcome, Outcome::Joined);
        assert_eq!(joined.users, ["alice", "bob"]);
        assert_eq!(joined.events, [heard(2, "before")]);
        assert_eq!(joined.resume, Resume { token: "t3".to_owned(), position: at(7, 3) });
        assert!(!format!("{joined:?}").contains("t3"), "a token is not for logs");
        assert_eq!(client.say("k1", "*", "hi").await.unwrap(), at(7, 4));
        let own = Placed { id: Some("k1".to_owned()), ..heard(4, "hi") };
        assert_eq!(client.next_placed().await.unwrap(), own);
        let other = client.next_placed().await.unwrap();
        assert!(matches!(other.push, Push::Other { .. }) && other.position.is_none(), "{other:?}");
    };
    let ((ids, _stream), ()) = tokio::join!(script, client);
    assert_eq!(ids, ["k1"]);
}

#[tokio::test]
async fn a_lost_connection_loses_and_doubles_nothing() {
    let (mut server, address) = Server::start().await;
    let script = async {
        server.gate("first").await;
        let one = [first(), entered("joined", 3, &[]), Tell(chat(4, "four")), sends("hi")];
        // Neither an answer nor a goodbye.
        server.play(&one, "first").await;
        server.gate("again").await;
        let two = [
            again("t3", 4),
            Tell(chat(6, "early, and among what was missed")),
            entered("resumed", 6, &[chat(5, "five"), chat(6, "six")]),
            Tell(chat(7, "seven")),
            sends("hi"),
            Answer(json!({"code": 200, "gen": 7, "seq": 8})),
        ];
        let stream = server.play(&two, "second").await;
        (server.ids, stream)
    };
    let client = async {
        let (mut member, joined) = Member::enter(&address, &options(), "alice", "r").await.unwrap();
        assert_eq!(joined.outcome, Outcome::Joined);
        assert_eq!(member.send("*", "hi").await.unwrap(), at(7, 8));
        let users = vec!["alice".to_owned(), "bob".to_owned()];
        let wanted = [
            Seen::Push(heard(4, "four")),
            Seen::Lost,
            Seen::Back { outcome: Outcome::Resumed, users, position: at(7, 6), missed: 2 },
            Seen::Push(heard(5, "five")),
            Seen::Push(heard(6, "six")),
            Seen::Push(heard(7, "seven")),
        ];
        for seen in wanted {
            assert_eq!(member.next().await.unwrap(), seen);
        }
        assert_eq!(member.resume(), &Resume { token: "t6".to_owned(), position: at(7, 7) });
    };
    let ((ids, _stream), ()) = tokio::join!(script, client);
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1], "the same message has the same id");
}

#[tokio::test]
async fn a_reset_tells_what_was_not_seen_yet() {
    let (mut server, address) = Server::start().await;
    let script = async {
        server.gate("first").await;
        server.play(&[first(), entered("joined", 3, &[]), Tell(chat(4, "four"))], "first").await;
        server.gate("again").await;
        let events = [chat(4, "four"), chat(9, "nine")];
        server.play(&[again("t3", 4), entered("reset", 9, &events)], "second").await;
        server.gate("from the beginning").await;
        let events = [chat(1, "one")];
        server.play(&[again("t9", 9), entered("reset", 2, &events)], "third").await
    };
    let client = async {
        let (mut member, _) = Member::enter(&address, &options(), "alice", "r").await.unwrap();
        let mut texts = Vec::new();
        while texts.len() < 5 {
            match member.next().await.unwrap() {
                Seen::Push(Placed { push: Push::Chat { text, .. }, .. }) => texts.push(text),
                Seen::Back { outcome, .. } => texts.push(format!("{outcome:?}")),
                Seen::Lost => {}
                seen @ Seen::Push(_) => panic!("{seen:?}"),
            }
        }
        assert_eq!(texts, ["four", "Reset", "nine", "Reset", "one"]);
    };
    let (_stream, ()) = tokio::join!(script, client);
}

#[tokio::test]
async fn refusals_say_whether_and_when_to_try_again() {
    let (mut server, address) = Server::start().await;
    let script = async {
        server.gate("first").await;
        let refuse = |code: u64, more: Value| {
            let mut answer = json!({"code": code, "error": true, "text": "words"});
            answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Answer(answer)
        };
        let steps = [
            first(),
            entered("joined", 3, &[]),
            sends("hi"),
            refuse(429, json!({"retryAfter": 100})),
            sends("hi"),
            refuse(504, json!({})),
            sends("hi"),
            Answer(json!({"code": 200, "gen": 7, "seq": 4})),
            Ask(SEND, json!({"content": "psst", "target": "zoe", "id": ANY})),
            refuse(404, json!({})),
        ];
        let stream = server.play(&steps, "all of it").await;
        (server.ids, stream)
    };
    let client = async {
        let (mut member, _) = Member::enter(&address, &options(), "alice", "r").await.unwrap();
        let start = Instant::now();
        assert_eq!(member.send("*", "hi").await.unwrap(), at(7, 4));
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
        let refused = member.send("zoe", "psst").await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Absent), "{refused}");
        assert_eq!(refused.retry_after(), None);
    };
    let ((ids, _stream), ()) = tokio::join!(script, client);
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
}

#[tokio::test]
async fn who_is_told_to_come_later_does() {
    let (mut server, address) = Server::start().await;
    let script = async {
        server.gate_with_slot("first", 200).await;
        let busy = json!({"code": 503, "error": true, "text": "x", "retryAfter": 300});
        let steps = [first(), Answer(busy), first(), entered("joined", 3, &[])];
        server.play(&steps, "on one connection").await
    };
    let client = async {
        let begun = Instant::now();
        Member::enter(&address, &options(), "alice", "r").await.unwrap();
        let took = begun.elapsed().as_millis();
        assert!((500..3000).contains(&took), "{took} ms");
    };
    let (_stream, ()) = tokio::join!(script, client);
}

#[tokio::test]
async fn an_upgrade_may_be_refused_for_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        stream
    };
    let client = async {
        let refused = Client::connect(address, &Options::default()).await.unwrap_err();
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(7)), "{refused}");
    };
    let (_stream, ()) = tokio::join!(script, client);
}

#[tokio::test]
async fn a_name_that_is_taken_is_not_asked_for_again() {
    let (mut server, address) = Server::start().await;
    let script = async {
        server.gate("first").await;
        let refused = json!({"code": 409, "error": true, "text": "taken"});
        server.play(&[first(), Answer(refused)], "first").await
    };
    let client = async {
        let refused = Member::enter(&address, &options(), "alice", "r").await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::NameTaken), "{refused}");
    };
    let (_stream, ()) = tokio::join!(script, client);
}

#[tokio::test]
async fn a_server_without_the_fields_is_spoken_to_as_ever() {
    let (server, address) = Server::start().await;
    let script = async {
        let (mut stream, _) = server.listener.accept().await.unwrap();
        let mut decoder = Decoder::new(1 << 16);
        receive(&mut stream, &mut decoder, Kind::Handshake).await;
        write(&mut stream, Kind::Handshake, br#"{"code":200,"sys":{"heartbeat":3}}"#).await;
        receive(&mut stream, &mut decoder, Kind::HandshakeAck).await;
        receive(&mut stream, &mut decoder, Kind::Data).await;
        let body = br#"{"users":["alice"]}"#;
        say(&mut stream, &Message::Response { id: RequestId(1), body }).await;
        stream
    };
    let client = async {
        let mut client = Client::connect(&address, &options()).await.unwrap();
        assert!(!client.is_modern());
        let refused = client.join("alice", "r", None).await;
        assert!(matches!(refused, Err(Error::NotModern)), "{refused:?}");
        assert_eq!(client.enter("alice", "r").await.unwrap(), ["alice"]);
    };
    let (_stream, ()) = tokio::join!(script, client);
}

#[tokio::test]
async fn why_the_server_closes_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        socket.next().await.unwrap().unwrap();
        let answer = packet::encode(Kind::Handshake, br#"{"code":200,"sys":{}}"#).unwrap();
        socket.send(Frame::Binary(answer)).await.unwrap();
        socket.next().await.unwrap().unwrap();
        let frame = CloseFrame { code: CloseCode::Restart, reason: "".into() };
        socket.send(Frame::Close(Some(frame))).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let client = async {
        let mut client = Client::connect(address, &Options::default()).await.unwrap();
        let end = client.next().await.unwrap_err();
        assert!(matches!(end, Error::Closed(Closed::WithCode(1012))), "{end:?}");
    };
    tokio::join!(script, client);
}
