//! Replays what clients and the original server said to each other.
//!
//! `tests/recordings` holds recordings of the original, one JSON object per line. Each
//! connection's client bytes are fed to a session at their recorded times; its calls are answered
//! as the original's handlers answered them. Then the session must have sent the very packages
//! that the original sent (pushes aside, which do not pass through a session), and have closed
//! exactly if the original closed.
//!
//! Only where the original hung may the session say more: see [`Outcome::excess`].

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use model::{Code, NameRule, Time, UserName};
use serde_json::Value;
use session::{Config, Effect, Event, Protocol, Session, Transport};
use wire::{
    Reply,
    pomelo::{
        Message,
        packet::{self, Kind, Packet},
    },
};

#[test]
fn sessions_say_what_the_original_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for (connection, lines) in connections(&fs::read_to_string(&path).unwrap()) {
            let outcome = replay(&lines, &folder);
            outcome.check(&format!("{name}, {connection}"));
            replayed += 1;
        }
    }
    assert!(replayed > 80, "{replayed} connections");
}

/// What a replay came to.
#[derive(Debug, Default)]
struct Outcome {
    /// Packages of the original, and of the session.
    recorded: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    /// The recorder waited for a response in vain.
    hung: bool,
    /// Who closed.
    recorded_close: bool,
    closed: bool,
}

impl Outcome {
    /// What the session said and the original did not: `None` if it left something out.
    fn excess(&self) -> Option<Vec<Vec<u8>>> {
        let mut excess = self.sent.clone();
        for package in &self.recorded {
            let at = excess.iter().position(|sent| sent == package)?;
            excess.remove(at);
        }
        Some(excess)
    }

    fn check(&self, name: &str) {
        let Some(excess) = self.excess() else {
            panic!("{name}: something is missing\n{self:?}");
        };
        for package in &excess {
            let is_answer = package.starts_with(&packet::HEARTBEAT)
                || contains(package, br#"{"code":500"#)
                || contains(package, br#"{"code":200"#);
            // The handshake, an ACK and a request in one segment.
            let is_coalesced = name == "tcp-fragmented, coalesced";
            assert!(is_answer && (self.hung || is_coalesced), "{name}: {package:?} is new");
        }
        assert_eq!(self.closed, self.recorded_close, "{name}");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn connections(recording: &str) -> BTreeMap<String, Vec<Value>> {
    let mut connections = BTreeMap::<String, Vec<Value>>::new();
    for line in recording.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        connections.entry(line["conn"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    connections
}

fn replay(lines: &[Value], folder: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let mut session = None;
    for (at, line) in lines.iter().enumerate() {
        let now = Time::from_start(Duration::from_millis(line["t_ms"].as_u64().unwrap()));
        let bytes = bytes_of(line, folder);
        let from_client = line["dir"] == "c2s";
        match (line["event"].as_str(), bytes) {
            (Some("open"), _) => session = Some(open(now, line["to"].as_str().unwrap())),
            (Some("no-response"), _) => outcome.hung = true,
            (Some("close" | "fin"), _) if line["by"] == "server" => outcome.recorded_close = true,
            (None, Some(bytes)) if from_client => {
                let session = session.as_mut().unwrap();
                outcome.closed |=
                    feed(session, now, &bytes, &lines[at..], folder, &mut outcome.sent);
            }
            (None, Some(bytes)) => {
                let packages = packet::split(&bytes, usize::MAX).map(Result::unwrap);
                outcome.recorded.extend(packages.filter(|it| !is_push(it)).map(whole));
            }
            _ => {}
        }
    }
    outcome
}

fn open(now: Time, to: &str) -> Session {
    let mut config = if to.contains(":3014") { Config::gate() } else { Config::connector() };
    // The original knew no rule.
    config.names = NameRule { anything: true, ..NameRule::default() };
    let transport = if to.starts_with("tcp") { Transport::Tcp } else { Transport::WebSocket };
    Session::new(now, Arc::new(config), Protocol::Pomelo, transport)
}

/// Feeds a session with what its client sent, answers its calls as the rest of the recording
/// does, and returns whether it closed.
fn feed(
    session: &mut Session,
    now: Time,
    bytes: &[u8],
    rest: &[Value],
    folder: &Path,
    sent: &mut Vec<Vec<u8>>,
) -> bool {
    let mut effects = Vec::new();
    if session.poll_timeout().is_some_and(|at| at <= now) {
        session.handle(now, Event::Timeout, &mut effects);
    }
    session.handle(now, Event::Received(bytes), &mut effects);
    let mut closed = false;
    let mut at = 0;
    while at < effects.len() {
        match effects[at].clone() {
            Effect::Transmit(bytes) => {
                sent.extend(packet::split(&bytes, usize::MAX).map(Result::unwrap).map(whole));
            }
            Effect::Call { key, .. } => {
                let shown = key.to_string();
                let id: u64 = shown.split_once('#').unwrap().1.parse().unwrap();
                let reply = recorded_reply(id, rest, folder);
                session.handle(now, Event::Reply { request: key, reply }, &mut effects);
            }
            Effect::Count(_) | Effect::Probe | Effect::Alive => {}
            Effect::Close(_) => closed = true,
        }
        at += 1;
    }
    closed
}

/// What the original's handler answered, as far as the recording tells.
fn recorded_reply(id: u64, rest: &[Value], folder: &Path) -> Reply {
    let refused = Reply::Refused { code: Code::Unknown, error: false };
    for line in rest.iter().filter(|line| line["dir"] == "s2c") {
        let Some(bytes) = bytes_of(line, folder) else { continue };
        for packet in packet::split(&bytes, usize::MAX).map(Result::unwrap) {
            let Ok(Message::Response { id: found, body }) = Message::decode(packet.body) else {
                continue;
            };
            if packet.kind != Kind::Data || found.0 != id {
                continue;
            }
            let body: Value = serde_json::from_slice(body).unwrap();
            if let Some(users) = body["users"].as_array() {
                let name = |user: &Value| UserName::from_peer(user.as_str().unwrap()).unwrap();
                return Reply::Users(users.iter().map(name).collect());
            }
            if let (Some(host), Some(port)) = (body["host"].as_str(), body["port"].as_u64()) {
                return Reply::Entry { host: host.to_owned(), port: port.try_into().unwrap() };
            }
            return if body["code"] == 500 { refused } else { Reply::Done };
        }
    }
    refused
}

fn bytes_of(line: &Value, folder: &Path) -> Option<Vec<u8>> {
    if let Some(text) = line["text"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let hex = line["hex"].as_str()?;
    let hex = match hex.strip_prefix('@') {
        // The full handshakes, which come again and again, are files of their own.
        Some(role) => fs::read_to_string(folder.join(format!("{role}-handshake.hex"))).unwrap(),
        None => hex.to_owned(),
    };
    let digits = hex.trim().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(digits.chunks(2).map(byte).collect())
}

fn is_push(packet: &Packet<'_>) -> bool {
    packet.kind == Kind::Data && matches!(Message::decode(packet.body), Ok(Message::Push { .. }))
}

fn whole(packet: Packet<'_>) -> Vec<u8> {
    packet::encode(packet.kind, packet.body).unwrap().to_vec()
}
