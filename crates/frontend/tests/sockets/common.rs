//! A tiny chat behind a frontend, and clients for it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use daemon::Tasks;
use frontend::{Application, Client, Frontend, Handle, Handler, Outbound, Settings};
use model::{Content, SessionId, Target, UserName};
use session::{Call, CloseReason, Config, RequestKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use wire::{
    Dialect, Push, Reply, RequestId,
    pomelo::{
        Message, RouteName,
        packet::{self, Kind},
    },
};

/// Long enough for any machine; nothing waits for it unless it fails.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the original's servers answer to a first handshake.
pub(crate) const CONNECTOR_HANDSHAKE: &str =
    include_str!("../../../session/tests/recordings/connector-handshake.hex");
pub(crate) const GATE_HANDSHAKE: &str =
    include_str!("../../../session/tests/recordings/gate-handshake.hex");

pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.trim().as_bytes().chunks(2).map(byte).collect()
}

/// One room for everybody.
#[derive(Clone, Default)]
pub(crate) struct Chat {
    pub(crate) clients: Arc<Mutex<BTreeMap<SessionId, Client>>>,
    pub(crate) closed: Arc<Mutex<Vec<(SessionId, CloseReason)>>>,
    /// Who was found to live, each time that somebody had asked.
    pub(crate) alive: Arc<Mutex<Vec<SessionId>>>,
    members: Arc<Mutex<BTreeMap<SessionId, Member>>>,
    /// How many are being closed, and how many were at most.
    pub(crate) closing: Arc<Mutex<(usize, usize)>>,
}

#[derive(Clone)]
struct Member {
    user: UserName,
    dialect: Dialect,
    outbound: Outbound,
}

pub(crate) struct ChatHandler {
    chat: Chat,
    client: Client,
    config: Arc<Config>,
}

impl Chat {
    /// Pushes raw bytes to everybody; returns to how many.
    pub(crate) fn push(&self, package: &Bytes) -> usize {
        let members: Vec<_> = self.members.lock().unwrap().values().cloned().collect();
        members.iter().filter(|member| member.outbound.push(package.clone())).count()
    }

    pub(crate) fn reason(&self, session: SessionId) -> Option<CloseReason> {
        let closed = self.closed.lock().unwrap();
        let mut found = closed.iter().filter(|(id, _)| *id == session);
        let reason = found.next().map(|(_, reason)| *reason);
        assert!(found.next().is_none(), "closed twice");
        reason
    }
}

#[derive(Clone)]
pub(crate) struct App {
    chat: Chat,
    config: Arc<Config>,
}

impl Application for App {
    type Handler = ChatHandler;

    fn accept(&self, client: Client) -> ChatHandler {
        self.chat.clients.lock().unwrap().insert(client.id, client.clone());
        ChatHandler { chat: self.chat.clone(), client, config: self.config.clone() }
    }
}

impl Handler for ChatHandler {
    async fn call(&mut self, key: RequestKey, call: Call, dialect: Dialect) {
        let outbound = &self.client.outbound;
        let id = self.client.id;
        let mut members = self.chat.members.lock().unwrap();
        match call {
            Call::QueryEntry { .. } => {
                let host = self.client.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
                outbound.reply(key, Reply::Entry { host, port: 3050 });
            }
            Call::Enter { user, .. } => {
                members.insert(id, Member { user, dialect, outbound: outbound.clone() });
                let users = members.values().map(|member| member.user.clone()).collect();
                outbound.reply(key, Reply::Users(users));
            }
            Call::Say { content, target, .. } => {
                let from = members[&id].user.clone();
                outbound.reply(key, Reply::Done);
                let shown = match target {
                    Target::Everyone { shown } => shown,
                    Target::One(user) => Content::Text(user.as_str().into()),
                };
                let push = Push::Chat { content: &content, from: &from, target: &shown };
                for member in members.values() {
                    if let Some(package) =
                        member.dialect.encode_push(&push, None, &self.config.pomelo)
                    {
                        member.outbound.push(package);
                    }
                }
            }
        }
    }

    async fn alive(&mut self) {
        self.chat.alive.lock().unwrap().push(self.client.id);
    }

    async fn closed(&mut self, reason: &CloseReason) {
        {
            let mut closing = self.chat.closing.lock().unwrap();
            *closing = (closing.0 + 1, closing.1.max(closing.0 + 1));
        }
        // As a role does whose queue is full.
        tokio::task::yield_now().await;
        self.chat.closing.lock().unwrap().0 -= 1;
        self.chat.members.lock().unwrap().remove(&self.client.id);
        self.chat.clients.lock().unwrap().remove(&self.client.id);
        self.chat.closed.lock().unwrap().push((self.client.id, *reason));
    }
}

/// A frontend that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) chat: Chat,
    pub(crate) handle: Handle,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) fn connector() -> Self {
        Self::start(Settings::new(Config::connector()))
    }

    pub(crate) fn gate() -> Self {
        Self::start(Settings::new(Config::gate()))
    }

    pub(crate) fn start(settings: Settings) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let chat = Chat::default();
        let app = App { chat: chat.clone(), config: settings.session.clone() };
        let frontend = Frontend::bind(any, settings).unwrap();
        let (address, handle) = (frontend.local_addr(), frontend.handle());
        let tasks = Tasks::new();
        let running = tasks.clone();
        let http =
            Router::new()
                .route(
                    "/hello",
                    get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
                        peer.ip().to_string()
                    }),
                )
                .route("/long", get(|| async { vec![b'x'; 64 * 1024 * 1024] }));
        tasks.spawn("frontend", async move { frontend.run(app, http, &running).await });
        Self { address, chat, handle, tasks }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until only the listener is left.
    pub(crate) async fn is_quiet(&self) {
        until(|| {
            self.handle.connections() == 0
                && self.handle.sessions() == 0
                && self.tasks.names() == ["frontend"]
        })
        .await;
        assert!(self.chat.clients.lock().unwrap().is_empty());
    }
}

/// Waits until something is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let polled = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, polled).await.expect("it never came to be");
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it never happened")
}

pub(crate) fn hello() -> Bytes {
    let body = br#"{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{},"protoVersion":0}}"#;
    packet::encode(Kind::Handshake, body).unwrap()
}

pub(crate) fn request(id: u64, route: &str, body: &str) -> Bytes {
    let route = RouteName::Text(route.into());
    let message = Message::Request { id: RequestId(id), route, body: body.as_bytes() };
    let mut data = Vec::new();
    message.encode(&mut data).unwrap();
    packet::encode(Kind::Data, &data).unwrap()
}

pub(crate) fn enter(name: &str) -> Bytes {
    let body = format!(r#"{{"username":"{name}","rid":"r"}}"#);
    request(1, "connector.entryHandler.enter", &body)
}

pub(crate) fn say(id: u64, text: &str) -> Bytes {
    let body = format!(r#"{{"content":"{text}","target":"*"}}"#);
    request(id, "chat.chatHandler.send", &body)
}

pub(crate) fn response(id: u64, body: &str) -> Vec<u8> {
    let message = Message::Response { id: RequestId(id), body: body.as_bytes() };
    let mut data = Vec::new();
    message.encode(&mut data).unwrap();
    packet::encode(Kind::Data, &data).unwrap().to_vec()
}

/// `onChat` to everyone, from the transcripts: protobuf.
pub(crate) fn on_chat(text: &str, from: &str) -> Vec<u8> {
    let field =
        |tag: u8, text: &str| [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let body = [field(0x0a, text), field(0x12, from), field(0x1a, "*")].concat();
    let data = [b"\x06\x06onChat".as_slice(), &body].concat();
    packet::encode(Kind::Data, &data).unwrap().to_vec()
}

pub(crate) async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    soon(stream.write_all(bytes)).await.unwrap();
}

pub(crate) async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(shown(&read), shown(bytes));
    assert_eq!(read, bytes);
}

/// Waits until the server has ended its side, and returns what it said before.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    rest
}

/// Goes through handshake and login, on raw TCP.
pub(crate) async fn enter_by_tcp(server: &Server, name: &str) -> TcpStream {
    let mut stream = server.connect().await;
    send(&mut stream, &hello()).await;
    expect(&mut stream, &from_hex(CONNECTOR_HANDSHAKE)).await;
    send(&mut stream, &packet::HANDSHAKE_ACK).await;
    expect(&mut stream, &packet::HEARTBEAT).await;
    send(&mut stream, &enter(name)).await;
    let mut header = [0; 4];
    soon(stream.read_exact(&mut header)).await.unwrap();
    let length = usize::from(header[2]) * 256 + usize::from(header[3]);
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains(name));
    stream
}

/// Reads until the bytes end so.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(soon(stream.read_u8()).await.unwrap());
    }
    read
}
