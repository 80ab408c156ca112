//! A Pomelo application's dictionary and schemas, on real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use client::{Client, Options, Push, Transport, Unit};
use e2e::{Cluster, Shape};
use wire::pomelo::packet::Kind;

const DICTIONARY: &str = r#"["onChat", "onLeave"]"#;
const CLIENT_PROTOS: &str = r#"{
    "connector.entryHandler.enter": {"required string username": 1, "required string rid": 2},
    "chat.chatHandler.send": {"required string content": 2, "required string target": 1}
}"#;
const SERVER_PROTOS: &str = r#"{
    "onChat": {"required string msg": 3, "required string from": 2, "required string target": 1},
    "connector.entryHandler.enter": {"repeated string users": 1}
}"#;

/// Each with its flag; the folder goes with the cluster's.
fn files(folder: &std::path::Path) -> Vec<String> {
    [
        ("--dictionary", DICTIONARY),
        ("--client-protos", CLIENT_PROTOS),
        ("--server-protos", SERVER_PROTOS),
    ]
    .into_iter()
    .flat_map(|(flag, text)| {
        let path = folder.join(format!("application{flag}.json"));
        std::fs::write(&path, text).unwrap();
        [flag.to_owned(), path.display().to_string()]
    })
    .collect()
}

/// One client that knows nothing yet, and one that has kept all: both speak in numbers and
/// protobuf, and hear one another.
#[tokio::test]
async fn clients_speak_as_their_application_has_it() {
    let folder = std::env::temp_dir().join(format!("tangelo-application-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let args = files(&folder);
    // A gate has no dictionary of its own accord.
    let shape = Shape { gate_args: args[2..].to_vec(), connector_args: args, ..Shape::new(1, 1) };
    let cluster = Cluster::start("application", shape).await.unwrap();
    let connector = cluster.connectors()[0];

    let over = |transport| Options { transport, ..Options::default() };
    let mut alice = Client::connect(connector, &over(Transport::Tcp)).await.unwrap();
    assert_eq!(alice.enter("alice", "lobby").await.unwrap(), ["alice"]);

    let options = Options { kept: alice.kept(), ..over(Transport::WebSocket) };
    let mut bob = Client::connect(connector, &options).await.unwrap();
    assert_eq!(bob.enter("bob", "lobby").await.unwrap(), ["alice", "bob"]);
    assert_eq!(alice.next_push().await.unwrap(), Push::Add { user: "bob".to_owned() });

    bob.send("*", "你好").await.unwrap();
    let (text, from, target) = ("你好".to_owned(), "bob".to_owned(), "*".to_owned());
    let said = Push::Chat { text, from, target };
    assert_eq!(alice.next_push().await.unwrap(), said);
    assert_eq!(bob.next_push().await.unwrap(), said);

    // The same once more, as it travels: the route's number, then fields by their tags.
    bob.send("alice", "hi").await.unwrap();
    let (mut connection, _, _) = alice.into_parts();
    let mut heard = Vec::new();
    while heard.is_empty() {
        let received = connection.receive(|unit| {
            if let Unit::Package(packet) = unit
                && packet.kind == Kind::Data
            {
                heard.push(packet.body.to_vec());
            }
        });
        received.await.unwrap();
    }
    assert_eq!(heard, [b"\x07\0\x04\x1a\x02hi\x12\x03bob\x0a\x05alice"]);

    let options = over(Transport::Tcp);
    let entry = Client::query_entry(cluster.gate(), &options, "alice", None).await.unwrap();
    assert_eq!(entry.port, connector.port());
    std::fs::remove_dir_all(&folder).unwrap();
}
