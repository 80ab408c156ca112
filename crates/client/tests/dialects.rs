//! The client in every dialect and over every transport, against the frontend of the servers with
//! a chat of a few lines behind it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Client, Closed, Error, Event, Heard, Options, Push, RequestId, Route, Transport};
use daemon::Tasks;
use frontend::{Application, Frontend, Handle, Handler, Outbound, Settings};
use model::{Code, Content, SessionId, Target, UserName};
use session::{Call, CloseReason, Config, RequestKey};
use tokio::time::{sleep, timeout};
use wire::{Dialect, Reply};

/// Long enough for any machine; nothing waits for it unless it fails.
const LONG: Duration = Duration::from_secs(20);
const WORDS: &str = "你好 😀 </script> \"'\\ \u{2028}";

/// One room for everybody, in which one can ask to be kicked.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<SessionId, Member>>>);

type Member = (UserName, Dialect, Outbound);

#[derive(Clone)]
struct App(Room, Arc<Config>);

struct Visitor(App, frontend::Client);

impl Application for App {
    type Handler = Visitor;

    fn accept(&self, client: frontend::Client) -> Visitor {
        Visitor(self.clone(), client)
    }
}

impl Visitor {
    fn tell(&self, push: &wire::Push<'_>) {
        for (_, dialect, outbound) in self.0.0.0.lock().unwrap().values() {
            if let Some(unit) = dialect.encode_push(push, None, &self.0.1.pomelo) {
                outbound.push(unit);
            }
        }
    }
}

impl Handler for Visitor {
    async fn call(&mut self, key: RequestKey, call: Call, dialect: Dialect) {
        let Self(App(Room(members), _), frontend::Client { id, outbound, .. }) = &*self;
        match call {
            Call::QueryEntry { .. } => {
                outbound.reply(key, Reply::Entry { host: "::1".to_owned(), port: 3050 });
            }
            Call::Enter { user, .. } => {
                self.tell(&wire::Push::Add { user: &user });
                let mut members = members.lock().unwrap();
                members.insert(*id, (user, dialect, outbound.clone()));
                let users = members.values().map(|(user, ..)| user.clone()).collect();
                outbound.reply(key, Reply::Users(users));
            }
            Call::Say { content, target, .. } => {
                if content.as_text() == Some("kick me") {
                    outbound.kick("as you wish".to_owned());
                    return;
                }
                let from = members.lock().unwrap()[id].0.clone();
                let shown = match target {
                    Target::Everyone { shown } => shown,
                    Target::One(_) => {
                        let code = Code::Absent;
                        outbound.reply(key, Reply::Refused { code, error: false });
                        return;
                    }
                };
                self.tell(&wire::Push::Chat { content: &content, from: &from, target: &shown });
                outbound.reply(key, Reply::Done);
            }
        }
    }

    async fn closed(&mut self, _: &CloseReason) {
        let left = self.0.0.0.lock().unwrap().remove(&self.1.id);
        if let Some((user, ..)) = left {
            self.tell(&wire::Push::Leave { user: &user });
        }
    }
}

struct Server {
    address: SocketAddr,
    handle: Handle,
    tasks: Tasks,
}

impl Server {
    fn start(config: Config) -> Self {
        let settings = Settings::new(config);
        let app = App(Room::default(), settings.session.clone());
        let frontend = Frontend::bind(([127, 0, 0, 1], 0).into(), settings).unwrap();
        let (address, handle) = (frontend.local_addr(), frontend.handle());
        let tasks = Tasks::new();
        let running = tasks.clone();
        let http = axum::Router::new();
        tasks.spawn("frontend", async move { frontend.run(app, http, &running).await });
        Self { address, handle, tasks }
    }

    async fn connect(&self, transport: Transport) -> Client {
        soon(Client::connect(self.address, &speaking(transport))).await.unwrap()
    }

    async fn has_sessions(&self, count: usize) {
        let waits = async {
            while self.handle.sessions() != count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let found = timeout(LONG, waits).await;
        assert!(found.is_ok(), "{} sessions, not {count}", self.handle.sessions());
    }
}

fn speaking(transport: Transport) -> Options {
    Options { transport, ..Options::default() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it never happened")
}

fn chat(text: &str, from: &str) -> Push {
    Push::Chat { text: text.to_owned(), from: from.to_owned(), target: "*".to_owned() }
}

#[tokio::test]
async fn everybody_enters_speaks_hears_and_leaves() {
    for transport in Transport::ALL {
        let server = Server::start(Config::connector());
        let mut witness = server.connect(Transport::WebSocket).await;
        witness.enter("witness", "r").await.unwrap();
        let mut client = server.connect(transport).await;
        assert_eq!(soon(client.enter("张三", "r")).await.unwrap(), ["witness", "张三"]);
        assert_eq!(witness.next_push().await.unwrap(), Push::Add { user: "张三".to_owned() });
        soon(client.send("*", WORDS)).await.unwrap();
        for hearer in [&mut client, &mut witness] {
            assert_eq!(soon(hearer.next_push()).await.unwrap(), chat(WORDS, "张三"), "{transport}");
        }
        soon(witness.send("*", WORDS)).await.unwrap();
        let heard = soon(client.next_push()).await.unwrap();
        assert_eq!(heard, chat(WORDS, "witness"), "{transport}");
        let refused = soon(client.send("nobody", "?")).await;
        assert!(
            matches!(refused, Err(Error::Refused { code: 500, .. })),
            "{transport}: {refused:?}"
        );
        let left = soon(client.close()).await;
        assert!(left.is_ok(), "{transport}: {left:?}");
        let pushed = soon(async {
            loop {
                if let leave @ Push::Leave { .. } = witness.next_push().await.unwrap() {
                    return leave;
                }
            }
        });
        assert_eq!(pushed.await, Push::Leave { user: "张三".to_owned() }, "{transport}");
        server.has_sessions(1).await;
    }
}

#[tokio::test]
async fn requests_keep_their_order_and_all_are_answered() {
    const SENDS: usize = 60;
    for transport in Transport::ALL {
        let server = Server::start(Config::connector());
        let mut client = server.connect(transport).await;
        soon(client.enter("alice", "r")).await.unwrap();
        let text = |number: usize| format!("{number} {WORDS}");
        let sent = (0..SENDS).map(|number| client.begin_send("*", &text(number)).unwrap());
        let sent: Vec<_> = sent.collect();
        let (mut answered, mut heard) = (Vec::new(), Vec::new());
        while answered.len() < SENDS || heard.len() < SENDS {
            match soon(client.next()).await.unwrap() {
                Event::Answer { id, result } => {
                    result.unwrap();
                    answered.push(id);
                }
                Event::Push(push) => heard.push(push),
            }
        }
        assert_eq!(answered, sent, "{transport}");
        let expected: Vec<_> = (0..SENDS).map(|number| chat(&text(number), "alice")).collect();
        assert_eq!(heard, expected, "{transport}");
    }
}

#[tokio::test]
async fn a_gate_is_asked_and_left() {
    let server = Server::start(Config::gate());
    for transport in Transport::ALL {
        let options = speaking(transport);
        let entry = soon(Client::query_entry(server.address, &options, "张三", Some("r"))).await;
        let entry = entry.unwrap();
        assert_eq!((entry.host.as_str(), entry.port), ("::1", 3050), "{transport}");
    }
    // Nobody is left behind, to be given up after a minute.
    server.has_sessions(0).await;
}

#[tokio::test]
async fn kicks_tell_a_reason_where_the_dialect_has_one() {
    for transport in Transport::ALL {
        let server = Server::start(Config::connector());
        let mut client = server.connect(transport).await;
        soon(client.enter("alice", "r")).await.unwrap();
        let kicked = soon(client.send("*", "kick me")).await;
        let Err(Error::Closed(Closed::Kicked(reason))) = kicked else {
            panic!("{transport}: {kicked:?}");
        };
        let has_reason = transport.dialect() != Dialect::SocketIo09;
        assert_eq!(reason, if has_reason { "as you wish" } else { "" }, "{transport}");
    }
}

#[tokio::test]
async fn a_page_moves_to_a_websocket_with_requests_under_way() {
    let server = Server::start(Config::connector());
    let mut client = server.connect(Transport::SocketIo1Upgrade).await;
    assert!(client.is_polling());
    soon(client.enter("alice", "r")).await.unwrap();
    let mut next = 0;
    // Something is said all the time, so that the move meets requests, answers and pushes.
    soon(async {
        while client.is_polling() || next < 50 {
            client.begin_send("*", &next.to_string()).unwrap();
            next += 1;
            client.next().await.unwrap();
        }
    })
    .await;
    client.begin_send("*", "the last").unwrap();
    let mut heard = Vec::new();
    while heard.last() != Some(&chat("the last", "alice")) {
        heard.push(soon(client.next_push()).await.unwrap());
    }
    assert!(!client.is_polling());
    soon(client.close()).await.unwrap();
    server.has_sessions(0).await;
}

#[tokio::test]
async fn heartbeats_keep_every_dialect_of_socket_io_alive() {
    let mut config = Config::connector();
    config.socketio.interval = Duration::from_millis(200);
    config.socketio.poll = Duration::from_millis(300);
    config.socketio.patience = Duration::from_secs(1);
    let server = Server::start(config);
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        if !matches!(transport.dialect(), Dialect::SocketIo09 | Dialect::SocketIo1) {
            continue;
        }
        let mut client = server.connect(transport).await;
        soon(client.enter(transport.name(), "r")).await.unwrap();
        clients.push((transport, client));
    }
    let count = clients.len();
    let mut waiting = tokio::task::JoinSet::new();
    for (transport, mut client) in clients {
        waiting.spawn(async move {
            // Twice as long as a client that says nothing is left.
            let listening = async {
                loop {
                    if let Err(error) = client.next_push().await {
                        return error;
                    }
                }
            };
            let ended = timeout(Duration::from_millis(2_500), listening).await;
            assert!(ended.is_err(), "{transport}: {}", ended.unwrap());
            client
        });
    }
    let clients = waiting.join_all().await;
    assert_eq!(server.handle.sessions(), count);
    drop(clients);
}

#[tokio::test]
async fn a_server_that_goes_away_ends_every_client() {
    for transport in Transport::ALL {
        let server = Server::start(Config::connector());
        let mut client = server.connect(transport).await;
        soon(client.enter("alice", "r")).await.unwrap();
        // One that is driven without looking at what is said must notice, too.
        let (mut bare, ..) = server.connect(transport).await.into_parts();
        server.tasks.cancel();
        let ended = soon(client.next_push()).await.unwrap_err();
        assert!(matches!(ended, Error::Closed(_)), "{transport}: {ended:?}");
        let over = async { while bare.receive(|_| {}).await.is_ok() {} };
        assert!(timeout(LONG, over).await.is_ok(), "{transport}");
    }
}

#[tokio::test]
async fn what_is_no_socket_io_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let not_found = async || {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        stream
    };
    for transport in [Transport::SocketIo09WebSocket, Transport::SocketIo1Polling] {
        let options = speaking(transport);
        let (_stream, failed) = tokio::join!(not_found(), Client::connect(address, &options));
        assert!(matches!(failed, Err(Error::Http(_))), "{transport}: {failed:?}");
    }
}

#[tokio::test]
async fn text_that_only_json_can_hold_arrives() {
    let control = Content::Text("\0\u{1}\u{1f}\t\n\u{7f}\u{fffd}".into());
    let text = control.as_text().unwrap();
    for transport in Transport::ALL {
        let server = Server::start(Config::connector());
        let mut client = server.connect(transport).await;
        soon(client.enter("alice", "r")).await.unwrap();
        soon(client.send("*", text)).await.unwrap();
        let heard = soon(client.next_push()).await.unwrap();
        assert_eq!(heard, chat(text, "alice"), "{transport}");
    }
}

#[tokio::test]
async fn a_browser_says_and_hears_surrogates() {
    const SURROGATES: &[u8] = b"\xed\xa0\xbd\xed\xb8\x80";
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|it| it == part);
    let server = Server::start(Config::connector());
    for (transport, smile) in
        [(Transport::Browser, SURROGATES), (Transport::WebSocket, "😀".as_bytes())]
    {
        let mut client = server.connect(transport).await;
        soon(client.enter(transport.name(), "r")).await.unwrap();
        let (mut connection, codec, _) = client.into_parts();
        let body = serde_json::json!({"content": "😀", "target": "*"});
        let id = RequestId(9);
        let request = codec.encode_request(id, Route::Send.name(), body.as_object().unwrap());
        let request = request.unwrap();
        assert!(has(&request, smile), "{transport}");
        connection.send(&request).unwrap();
        let mut heard = None;
        while heard.is_none() {
            let received = connection.receive(|unit| {
                Heard::each(unit, |it| {
                    if let Heard::Chat { text, .. } = it {
                        heard = Some(text.to_vec());
                    }
                });
            });
            soon(received).await.unwrap();
        }
        assert_eq!(heard.as_deref(), Some(smile), "{transport}");
    }
}
