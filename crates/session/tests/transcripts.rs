//! Conversations as text: what happens to a session, and below it, indented, what it does.
//!
//! A file of `tests/transcripts` begins with role and protocol; then each line is an event.
//! With `UPDATE_TRANSCRIPTS=1` the files are rewritten with what sessions do now; look at the
//! difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use model::{Code, NameRule, Target, Time, UserName};
use session::{Call, CloseReason, Config, Effect, Event, Protocol, RequestKey, Session, Transport};
use wire::{
    Reply, RequestId,
    pomelo::{
        Message, RouteName,
        packet::{self, Kind},
    },
    socketio::{request::Request, v1, v09},
};

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        check(&file);
    }
}

fn check(file: &Path) {
    let expected = fs::read_to_string(file).unwrap();
    let actual = play(&expected);
    if actual == expected {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "a switch for people, not for the machine")]
    let update = std::env::var("UPDATE_TRANSCRIPTS").is_ok();
    assert!(update, "{} differs; what happens now:\n{actual}", file.display());
    fs::write(file, actual).unwrap();
}

/// Plays the events of a transcript and returns it with the effects that they have now.
fn play(transcript: &str) -> String {
    let mut output = String::new();
    let mut stage = None::<Stage>;
    for line in transcript.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(output, "{line}").unwrap();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        match &mut stage {
            None => stage = Some(Stage::new(line)),
            Some(stage) => stage.event(line, &mut output),
        }
    }
    output
}

struct Stage {
    protocol: Protocol,
    session: Session,
    now: Time,
    /// The latest call of each id.
    calls: BTreeMap<String, RequestKey>,
}

impl Stage {
    fn new(line: &str) -> Self {
        let (role, transport) = line.split_once(' ').expect("role and transport");
        let config = match role {
            "gate" => Config::gate(),
            "connector" => Config::connector(),
            _ => panic!("no such role: {role}"),
        };
        let (protocol, transport) = match transport {
            "tcp" => (Protocol::Pomelo, Transport::Tcp),
            "websocket" => (Protocol::Pomelo, Transport::WebSocket),
            "socketio-0.9" => (Protocol::SocketIo09, Transport::WebSocket),
            "socketio-0.9-polling" => (Protocol::SocketIo09, Transport::Polling),
            "socketio-1" => (Protocol::SocketIo1, Transport::WebSocket),
            _ => panic!("no such transport: {transport}"),
        };
        let session = Session::new(Time::ZERO, Arc::new(config), protocol, transport);
        Self { protocol, session, now: Time::ZERO, calls: BTreeMap::new() }
    }

    fn event(&mut self, line: &str, output: &mut String) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            // Time passes; the session is woken whenever it asked to be.
            "at" => {
                let at = Duration::from_millis(rest.parse().expect("milliseconds"));
                self.pass(Time::from_start(at), output);
            }
            "text" => self.handle(Event::Received(rest.as_bytes()), output),
            "hex" => self.handle(Event::Received(&from_hex(rest)), output),
            // So many bytes of one chat text.
            "long" => {
                let text = "x".repeat(rest.parse().expect("bytes"));
                let body = format!(r#"{{"content":"{text}","target":"*"}}"#);
                let package = message(9, "chat.chatHandler.send", body.as_bytes());
                self.handle(Event::Received(&package), output);
            }
            "HANDSHAKE" => self.package(Kind::Handshake, rest, output),
            "ACK" => self.package(Kind::HandshakeAck, rest, output),
            "HEARTBEAT" => self.package(Kind::Heartbeat, rest, output),
            "KICK" => self.package(Kind::Kick, rest, output),
            "request" => {
                let (id, rest) = rest.split_once(' ').expect("id");
                let (route, body) = rest.split_once(' ').unwrap_or((rest, ""));
                let package = message(id.parse().expect("id"), route, body.as_bytes());
                self.handle(Event::Received(&package), output);
            }
            "notify" => {
                let (route, body) = rest.split_once(' ').unwrap_or((rest, ""));
                let package = message(0, route, body.as_bytes());
                self.handle(Event::Received(&package), output);
            }
            "reply" => {
                let (key, rest) = rest.split_once(' ').expect("key");
                let request = *self.calls.get(key).expect("no such call");
                self.handle(Event::Reply { request, reply: reply(rest) }, output);
            }
            // What clients of Socket.IO send: a frame or packet as it stands, or around a request.
            "frame" => {
                let frame = serde_json::from_str::<String>(rest).expect("a JSON string");
                self.handle(Event::Received(frame.as_bytes()), output);
            }
            "ask" => {
                let (id, rest) = rest.split_once(' ').expect("id");
                let (route, json) = rest.split_once(' ').unwrap_or((rest, ""));
                let id = RequestId(id.parse().expect("id"));
                let request = Request { id, route, json };
                let frame = match self.protocol {
                    Protocol::SocketIo09 => v09::encode_request(&request),
                    Protocol::SocketIo1 => v1::encode_request(&request),
                    Protocol::Pomelo => None,
                };
                self.handle(Event::Received(&frame.expect("it fits")), output);
            }
            "connect" => self.handle(Event::Connected, output),
            "poll" => self.handle(Event::Alive, output),
            "kick" => self.handle(Event::Kick { reason: rest.to_owned() }, output),
            "replaced" => self.handle(Event::Close(CloseReason::Replaced), output),
            "superseded" => self.handle(Event::Close(CloseReason::Superseded), output),
            "probe" => self.handle(Event::Probe, output),
            "pong" => self.handle(Event::Answered, output),
            "drain" => self.handle(Event::Drain, output),
            "disconnect" => self.handle(Event::Disconnected, output),
            _ => panic!("no such event: {line}"),
        }
    }

    fn pass(&mut self, until: Time, output: &mut String) {
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            writeln!(output, "  (at {} ms)", self.now.since_start().as_millis()).unwrap();
            self.handle(Event::Timeout, output);
        }
        self.now = until;
    }

    fn package(&mut self, kind: Kind, body: &str, output: &mut String) {
        let package = packet::encode(kind, body.as_bytes()).unwrap();
        self.handle(Event::Received(&package), output);
    }

    fn handle(&mut self, event: Event<'_>, output: &mut String) {
        let mut effects = Vec::new();
        self.session.handle(self.now, event, &mut effects);
        for effect in effects {
            let text = match effect {
                Effect::Transmit(bytes) if self.protocol != Protocol::Pomelo => {
                    format!("send {}", str::from_utf8(&bytes).unwrap())
                }
                Effect::Transmit(bytes) => {
                    let packages = packet::split(&bytes, usize::MAX).map(|packet| packet.unwrap());
                    packages.map(|packet| shown(packet.kind, packet.body)).collect::<String>()
                }
                Effect::Call { key, call } => {
                    let shown = key.to_string();
                    let (_, id) = shown.split_once('#').unwrap();
                    self.calls.insert(id.to_owned(), key);
                    format!("call {shown} {}", called(&call))
                }
                Effect::Probe => "probe".to_owned(),
                Effect::Alive => "alive".to_owned(),
                Effect::Count(oddity) => format!("count {oddity}"),
                Effect::Close(reason) => {
                    let comeback = if reason.may_reconnect() { "come back" } else { "stay away" };
                    format!("close {reason} {} {:?}, {comeback}", reason.code(), reason.text())
                }
            };
            writeln!(output, "  {text}").unwrap();
        }
    }
}

fn message(id: u64, route: &str, body: &[u8]) -> Vec<u8> {
    let route = match route.strip_prefix('#') {
        Some(code) => RouteName::Code(code.parse().expect("code")),
        None => RouteName::Text(route.into()),
    };
    let message = match id {
        0 => Message::Notify { route, body },
        _ => Message::Request { id: RequestId(id), route, body },
    };
    let mut data = Vec::new();
    message.encode(&mut data).unwrap();
    packet::encode(Kind::Data, &data).unwrap().to_vec()
}

fn reply(text: &str) -> Reply {
    let words: Vec<_> = text.split(' ').collect();
    match words.as_slice() {
        ["done"] => Reply::Done,
        ["users", users @ ..] => {
            let rule = NameRule::default();
            Reply::Users(users.iter().map(|name| UserName::parse(name, &rule).unwrap()).collect())
        }
        ["entry", host, port] => {
            Reply::Entry { host: (*host).to_owned(), port: port.parse().expect("port") }
        }
        ["refused", code] => {
            let code = Code::from_number(code.parse().expect("code")).expect("a code");
            Reply::Refused { code, error: false }
        }
        ["busy", millis] => {
            Reply::Busy { retry_after: Duration::from_millis(millis.parse().expect("millis")) }
        }
        _ => panic!("no such reply: {text}"),
    }
}

fn shown(kind: Kind, body: &[u8]) -> String {
    let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    match (kind, Message::decode(body)) {
        (Kind::Data, Ok(Message::Response { id, body })) => format!("response {id} {}", text(body)),
        (Kind::Data, other) => format!("data {other:?}"),
        // Looked at byte by byte in the recordings.
        (Kind::Handshake, _) if body.len() > 100 => format!("HANDSHAKE ({} bytes)", body.len()),
        (Kind::Handshake, _) => format!("HANDSHAKE {}", text(body)),
        (Kind::HandshakeAck, _) => "ACK".to_owned(),
        (Kind::Heartbeat, _) => "HEARTBEAT".to_owned(),
        (Kind::Kick, _) => format!("KICK {}", text(body)),
    }
}

fn called(call: &Call) -> String {
    match call {
        Call::QueryEntry { uid, room } => format!("uid {uid:?} room {room:?}"),
        Call::Enter { user, room, resume } => {
            let resume = resume.map(|it| format!(" from {}", it.position)).unwrap_or_default();
            format!("user {user} room {room}{resume}")
        }
        Call::Say { number, content, target, id } => {
            let id = id.as_ref().map(|id| format!(" as {}", id.as_str())).unwrap_or_default();
            let target = match target {
                Target::Everyone { shown } => format!("everyone, shown as {shown:?}"),
                Target::One(user) => format!("{user:?}"),
            };
            match content.as_text().filter(|text| text.len() > 100) {
                Some(text) => format!("say {number}: {} bytes, to {target}{id}", text.len()),
                None => format!("say {number}: {content:?}, to {target}{id}"),
            }
        }
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
