//! The client against a server of a few lines, over both transports of the binary protocol.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::net::SocketAddr;

use client::{Client, Closed, Connection, Error, Event, Options, Push, Transport};
use futures_util::{SinkExt as _, StreamExt as _};
use model::{Code, Content, NameRule, UserName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use wire::{
    Call, Reply, RequestId, Route,
    pomelo::{
        self, Encoding, Hello, Packet,
        packet::{Decoder, HEARTBEAT, Kind},
    },
};

/// Either kind of socket, package by package.
enum Socket {
    Tcp(TcpStream, Decoder),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

impl Socket {
    async fn accept(listener: TcpListener, transport: Transport) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        if transport == Transport::Tcp {
            return Self::Tcp(stream, Decoder::new(1 << 16));
        }
        Self::WebSocket(Box::new(tokio_tungstenite::accept_async(stream).await.unwrap()))
    }

    async fn receive(&mut self) -> Option<Vec<(Kind, Vec<u8>)>> {
        let owned = |packet: Packet<'_>| (packet.kind, packet.body.to_vec());
        match self {
            Self::Tcp(stream, decoder) => {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).await.unwrap();
                let mut input = &buffer[..length];
                let mut packets = Vec::new();
                while let Some(packet) = decoder.next(&mut input).unwrap() {
                    packets.push(owned(packet));
                }
                (length > 0).then_some(packets)
            }
            Self::WebSocket(stream) => match stream.next().await?.ok()? {
                Message::Binary(message) => Some(
                    pomelo::packet::split(&message, 1 << 16)
                        .map(|packet| owned(packet.unwrap()))
                        .collect(),
                ),
                Message::Close(_) => None,
                other @ (Message::Text(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_)) => panic!("{other:?}"),
            },
        }
    }

    async fn send(&mut self, package: &[u8]) {
        match self {
            // In two pieces, to be put together again.
            Self::Tcp(stream, _) => {
                let (head, tail) = package.split_at(package.len() / 2);
                stream.write_all(head).await.unwrap();
                stream.flush().await.unwrap();
                stream.write_all(tail).await.unwrap();
            }
            Self::WebSocket(stream) => {
                stream.send(Message::Binary(package.to_vec().into())).await.unwrap();
            }
        }
    }
}

fn user(name: &str) -> UserName {
    UserName::parse(name, &NameRule::default()).unwrap()
}

/// A connector with a room of one; kicks who says "kick me".
async fn serve(listener: TcpListener, transport: Transport) {
    let mut socket = Socket::accept(listener, transport).await;
    let options = pomelo::Options::chat_connector();
    while let Some(packets) = socket.receive().await {
        for (kind, body) in packets {
            match kind {
                Kind::Handshake => {
                    let hello = Hello::parse(&body).unwrap();
                    socket.send(&options.answer(&hello)).await;
                }
                Kind::HandshakeAck | Kind::Heartbeat => socket.send(&HEARTBEAT).await,
                Kind::Data => {
                    let (id, call) = options.decode_call(&body).unwrap().unwrap();
                    answer(&mut socket, &options, id, call).await;
                }
                Kind::Kick => panic!("a client that kicks"),
            }
        }
    }
    if let Socket::WebSocket(stream) = &mut socket {
        // Not `stream.close`: with all features of the workspace that is another trait's.
        let _ = WebSocketStream::close(stream, None).await;
    }
}

async fn answer(socket: &mut Socket, options: &pomelo::Options, id: RequestId, call: Call) {
    let alice = user("alice");
    let reply = match &call {
        Call::Enter { .. } => Reply::Users(vec![alice.clone(), user("bob")]),
        Call::Send { content, .. } if content.as_text() == Some("kick me") => {
            socket.send(&pomelo::encode_kick("as you wish", Encoding::Utf8)).await;
            return;
        }
        Call::Send { content, target, .. } => {
            let push = wire::Push::Chat { content, from: &alice, target };
            let package = options.encode_push(&push, Encoding::Utf8).unwrap();
            socket.send(&package).await;
            let add = wire::Push::Add { user: &user("carol") };
            let package = options.encode_push(&add, Encoding::Utf8).unwrap();
            socket.send(&package).await;
            Reply::Done
        }
        Call::QueryEntry { uid, .. } if uid == &Content::Missing => {
            Reply::Refused { code: Code::Malformed, error: false }
        }
        Call::QueryEntry { .. } => Reply::Entry { host: "::1".to_owned(), port: 3050 },
        Call::Unknown { .. } => Reply::Refused { code: Code::Absent, error: false },
    };
    let package = options.encode_reply(id, call.route(), &reply, Encoding::Utf8).unwrap();
    socket.send(&package).await;
}

/// Runs `client` against [`serve`] over both transports.
async fn against<F: Future<Output = ()>>(client: impl Fn(SocketAddr, Options) -> F) {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options { transport, ..Options::default() };
        let (_, ()) = tokio::join!(serve(listener, transport), client(address, options));
    }
}

#[tokio::test]
async fn a_client_enters_speaks_and_listens() {
    against(async |address, options| {
        let mut client = Client::connect(address, &options).await.unwrap();
        assert_eq!(client.heartbeat(), Some(model::limits::POMELO_HEARTBEAT));
        assert_eq!(client.enter("alice", "r1").await.unwrap(), ["alice", "bob"]);
        client.send("*", "你好 😀").await.unwrap();
        let chat = Push::Chat {
            text: "你好 😀".to_owned(),
            from: "alice".to_owned(),
            target: "*".to_owned(),
        };
        assert_eq!(client.next_push().await.unwrap(), chat);
        assert_eq!(client.next_push().await.unwrap(), Push::Add { user: "carol".to_owned() });
        assert!(client.close().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn requests_can_be_in_flight_together() {
    against(async |address, options| {
        let mut client = Client::connect(address, &options).await.unwrap();
        let ids = ["a", "b", "c"].map(|text| client.begin_send("*", text).unwrap());
        // The last answer first: the others wait their turn.
        client.answer(ids[2]).await.unwrap();
        let mut answers = Vec::new();
        let mut pushes = 0;
        while answers.len() < 2 || pushes < 6 {
            match client.next().await.unwrap() {
                Event::Answer { id, result } => {
                    result.unwrap();
                    answers.push(id);
                }
                Event::Push(_) => pushes += 1,
            }
        }
        assert_eq!(answers, ids[..2]);
        client.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn refusals_and_kicks_are_told_apart() {
    against(async |address, options| {
        let mut client = Client::connect(address, &options).await.unwrap();
        let refused = client.request(Route::QueryEntry, &serde_json::Map::new()).await;
        assert!(matches!(refused, Err(Error::Refused { code: 500, .. })), "{refused:?}");
        let kicked = client.send("*", "kick me").await;
        let Err(Error::Closed(Closed::Kicked(reason))) = kicked else {
            panic!("{kicked:?}");
        };
        assert_eq!(reason, "as you wish");
        assert!(client.next().await.unwrap_err().is_final());
    })
    .await;
}

#[tokio::test]
async fn a_gate_is_asked_and_left() {
    against(async |address, options| {
        let entry = Client::query_entry(address, &options, "alice", Some("r1")).await.unwrap();
        assert_eq!((entry.host.as_str(), entry.port), ("::1", 3050));
    })
    .await;
}

#[tokio::test]
async fn what_was_learned_need_not_be_sent_again() {
    against(async |address, options| {
        let client = Client::connect(address, &options).await.unwrap();
        let kept = client.kept();
        let options = Options { kept, ..options };
        client.close().await.unwrap();

        let transport = options.transport;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let second = async {
            let mut client = Client::connect(address, &options).await.unwrap();
            client.enter("alice", "r1").await.unwrap();
            client.send("*", "with protobuf").await.unwrap();
            let push = client.next_push().await.unwrap();
            assert!(matches!(push, Push::Chat { .. }), "{push:?}");
            client.close().await.unwrap();
        };
        tokio::join!(serve(listener, transport), second);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_sent_and_silence_is_noticed() {
    // A server that shakes hands and says nothing more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let mut socket = Socket::accept(listener, Transport::Tcp).await;
        let options = pomelo::Options::chat_connector();
        let mut beats = 0;
        while let Some(packets) = socket.receive().await {
            for (kind, body) in packets {
                match kind {
                    Kind::Handshake => {
                        let hello = Hello::parse(&body).unwrap();
                        socket.send(&options.answer(&hello)).await;
                    }
                    Kind::Heartbeat => beats += 1,
                    Kind::HandshakeAck | Kind::Data | Kind::Kick => {}
                }
            }
        }
        beats
    };
    let client = async {
        let options = Options { transport: Transport::Tcp, ..Options::default() };
        let mut client = Client::connect(address, &options).await.unwrap();
        let end = client.next().await.unwrap_err();
        assert!(matches!(end, Error::Closed(Closed::Silent)), "{end:?}");
    };
    let (beats, ()) = tokio::join!(server, client);
    assert!(beats >= 1, "{beats} beats");
}

#[tokio::test]
async fn what_is_no_server_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
    };
    let client = async {
        let error = Connection::connect(address, Transport::WebSocket, None).await.err().unwrap();
        assert!(matches!(error, Error::Upgrade(_)), "{error:?}");
    };
    tokio::join!(server, client);
    let refused = Client::connect("127.0.0.1:1", &Options::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
}
