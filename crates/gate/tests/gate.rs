//! The binary, started for real with its registry, on free ports of the loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use cluster::{ClientAddress, Node};
use daemon::Tasks;
use model::{Incarnation, NodeId, Role, Shard, Term};
use registry::{Config, Lease, Membership, Registry};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running gate; killed when dropped.
struct Gate {
    child: Child,
    file: PathBuf,
    addresses: serde_json::Value,
}

impl Gate {
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, args: &[&str]) -> Self {
        let file = std::env::temp_dir().join(format!("tangelo-{}-{name}", std::process::id()));
        let child = command()
            .args(["--name", name, "--listen", "127.0.0.1:0"])
            .args(["--registry-listen", "127.0.0.1:0", "--addresses"])
            .arg(&file)
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut gate = Self { child, file, addresses: serde_json::Value::Null };
        until(|| {
            let text = std::fs::read_to_string(&gate.file).ok()?;
            gate.addresses = serde_json::from_str(&text).ok()?;
            gate.addresses.get("client").map(drop)
        });
        gate
    }

    fn address(&self, what: &str) -> SocketAddr {
        self.addresses[what].as_str().unwrap().parse().unwrap()
    }

    fn get(&self, what: &str, path: &str) -> (u16, String) {
        request(self.address(what), "GET", path, "chat.example:3014")
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tangelo-gate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TANGELO_") {
            command.env_remove(name);
        }
    }
    command
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The status code and everything after the status line.
fn request(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, rest) = answer.split_once("\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), rest.to_owned())
}

fn node(role: Role, number: u64) -> Node {
    Node {
        id: NodeId::new(&format!("{role}-{number}")).unwrap(),
        incarnation: Incarnation(number),
        role,
        link: (role == Role::Chat).then(|| "http://127.0.0.1:6050".to_owned()),
        client: (role == Role::Connector).then_some(ClientAddress {
            host: None,
            port: 3050,
            admissions: 20,
        }),
        admin: None,
        load: 0,
        draining: false,
        ready: true,
    }
}

async fn join(gate: &Gate, node: Node, tasks: &Tasks) -> Membership {
    let registry = Registry::new(&Config::new(gate.address("registry").to_string())).unwrap();
    let mut membership = registry.join(node, tasks).await;
    membership.lease.wait_for(|lease| *lease == Lease::Held).await.unwrap();
    membership
}

/// Owns all shards as soon as the registry grants claims.
async fn claim_all(chat: &Membership) {
    loop {
        let claims = Shard::all().map(|shard| (shard, chat.map.borrow().ownership(shard).term));
        let claims: Vec<(Shard, Term)> = claims.collect();
        let _ = chat.claim(claims).await;
        let mut map = chat.map.clone();
        let owned = map.borrow_and_update().owned_by(chat.incarnation()).count();
        if owned == Shard::all().len() {
            return;
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), map.changed()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_says_what_it_waits_for_and_then_sends_clients_on() {
    let gate = Gate::start("gate-7");
    let reasons = until(|| {
        let (status, text) = gate.get("admin", "/readyz");
        let waits = text.contains("start:") || text.contains("registry:");
        (status == 503 && !waits).then_some(text)
    });
    assert!(reasons.contains("connectors: no connector has joined"), "{reasons}");
    assert!(reasons.contains("shards: no chat has joined"), "{reasons}");
    let (status, text) = gate.get("client", "/entry?uid=alice");
    assert_eq!(status, 503);
    assert!(text.ends_with(r#"{"code":500}"#), "{text}");

    let tasks = Tasks::new();
    let connector = join(&gate, node(Role::Connector, 1), &tasks).await;
    let chat = join(&gate, node(Role::Chat, 2), &tasks).await;
    tokio::time::timeout(PATIENCE, claim_all(&chat)).await.unwrap();
    until(|| (gate.get("admin", "/readyz").0 == 200).then_some(()));

    let (status, text) = gate.get("client", "/entry?uid=alice&rid=room1");
    assert_eq!(status, 200);
    assert!(text.ends_with(r#"{"code":200,"host":"chat.example","port":3050}"#), "{text}");
    let head = text.to_lowercase();
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    for falsy in ["/entry", "/entry?uid=", "/entry?rid=room1"] {
        let (status, text) = gate.get("client", falsy);
        assert_eq!(status, 400);
        assert!(text.ends_with(r#"{"code":500}"#), "{text}");
    }

    // An old client that names no host is sent to the address by which it came.
    let answer = query_entry(&gate, r#"{"uid":"alice"}"#);
    assert_eq!(answer, r#"{"code":200,"host":"127.0.0.1","port":3050}"#);
    assert_eq!(query_entry(&gate, r#"{"uid":""}"#), r#"{"code":500}"#);

    // Its connector lets in 20 per second, and two at once.
    let slots: Vec<u64> = (0..12)
        .map(|_| {
            let (status, text) = gate.get("client", "/entry?uid=alice&rid=room1&tangelo=1");
            assert_eq!(status, 200);
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&body["code"], &body["port"]), (&200.into(), &3050.into()));
            body["after"].as_u64().unwrap()
        })
        .collect();
    assert!(slots.is_sorted() && (300..=700).contains(&slots[11]), "{slots:?}");
    // Those who know no slots are answered later.
    let begun = Instant::now();
    let answer = query_entry(&gate, r#"{"uid":"alice"}"#);
    assert_eq!(answer, r#"{"code":200,"host":"127.0.0.1","port":3050}"#);
    let (_, text) = gate.get("client", "/entry?uid=alice&rid=room1");
    assert!(text.ends_with(r#"{"code":200,"host":"chat.example","port":3050}"#), "{text}");
    let held = begun.elapsed();
    assert!((300..2500).contains(&held.as_millis()), "{held:?}");

    connector.set_draining(true);
    let modern = || gate.get("client", "/entry?uid=alice&tangelo=1");
    let (status, text) = until(|| Some(modern()).filter(|(status, _)| *status == 503));
    assert!(status == 503 && text.contains(r#""retryAfter":500"#), "{text}");
    until(|| (gate.get("client", "/entry?uid=alice").0 == 503).then_some(()));
    assert_eq!(query_entry(&gate, r#"{"uid":"alice"}"#), r#"{"code":500}"#);
    tasks.drain(PATIENCE).await;
}

/// A package of the binary protocol.
fn package(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn read_package(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head[0], body)
}

/// What an old client hears to `queryEntry` over raw TCP.
fn query_entry(gate: &Gate, body: &str) -> String {
    const ROUTE: &str = "gate.gateHandler.queryEntry";
    let mut stream = TcpStream::connect(gate.address("client")).unwrap();
    let hello = br#"{"sys":{"type":"test","version":"1.0.0"},"user":{}}"#;
    stream.write_all(&package(1, hello)).unwrap();
    assert_eq!(read_package(&mut stream).0, 1);
    let length = u8::try_from(ROUTE.len()).unwrap();
    let request = [&[0, 1, length], ROUTE.as_bytes(), body.as_bytes()].concat();
    stream.write_all(&[package(2, b""), package(4, &request)].concat()).unwrap();
    let (kind, answer) = read_package(&mut stream);
    assert_eq!((kind, &answer[..2]), (4, &[4, 1][..]));
    String::from_utf8(answer[2..].to_vec()).unwrap()
}

#[test]
fn the_page_and_what_is_not_there() {
    let gate = Gate::start("gate-8");
    let (status, text) = gate.get("client", "/");
    assert_eq!(status, 200);
    assert!(text.contains("<title>Tangelo</title>"), "{text}");
    let (status, text) = gate.get("client", "/no/such/page");
    assert_eq!(status, 404);
    assert!(text.contains("The chat page is at /"), "{text}");
    let (status, text) = request(gate.address("client"), "POST", "/entry", "x");
    assert_eq!(status, 405);
    assert!(text.contains("Only GET"), "{text}");
    let (status, _) = request(gate.address("client"), "OPTIONS", "/entry", "x");
    assert_eq!(status, 204);
}

/// A page of the operator's on its own port, as the original had it.
#[test]
fn a_folder_takes_the_place_of_the_page() {
    let folder = std::env::temp_dir().join(format!("tangelo-{}-web", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "<script>old()</script>").unwrap();
    let root = folder.display().to_string();
    let gate = Gate::start_with("gate-11", &["--web-root", &root, "--web-listen", "127.0.0.1:0"]);
    for port in ["client", "page"] {
        let (status, text) = gate.get(port, "/");
        assert_eq!(status, 200);
        assert!(text.ends_with("<script>old()</script>"), "{text}");
        let head = text.to_lowercase();
        assert!(!head.contains("content-security-policy"), "{head}");
        assert_eq!(gate.get(port, "/app.js").0, 404);
        assert_eq!(gate.get(port, "/../etc/passwd").0, 404);
        assert_eq!(gate.get(port, "/entry?uid=alice").0, 503);
        let (status, text) = request(gate.address(port), "HEAD", "/index.html", "x");
        assert_eq!(status, 200);
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert_eq!(request(gate.address(port), "POST", "/index.html", "x").0, 405);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn run(args: &[&str]) -> (Output, String) {
    let output = command().args(args).stdin(Stdio::null()).output().unwrap();
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    (output, words)
}

#[test]
fn wrong_arguments_exit_64_and_say_what_to_do() {
    for (args, words) in [
        (&["--lisen", "x"][..], "--listen"),
        (&["--listen", "3014"], "invalid socket address"),
        (&["--log", "a=b=c"], "give a level"),
        (&["--name", "two words"], "use up to 64 letters"),
        (&["--cluster-token", "two words"], "visible ASCII"),
        (&["--web-root", "/no/such/folder"], "the folder that holds the page's index.html"),
        (&["--server-protos", "/no/such/file"], "mend the file, or leave --server-protos out"),
        (&["--listen", "127.0.0.1:0", "--registry", "redis://x:1"], "etcd://host:port"),
    ] {
        let (output, stderr) = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let gate = Gate::start("gate-9");
    let taken = gate.address("client").to_string();
    let output = command().args(["--listen", &taken]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(words.contains("is in use; stop the process that holds it"), "{words}");
    assert!(words.contains("choose another with --listen"), "{words}");
    let output = command().args(["--listen", "127.0.0.1:0", "--web-listen", &taken]).output();
    let words = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(words.contains("choose another with --web-listen"), "{words}");
}
