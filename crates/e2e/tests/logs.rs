//! What an operator reads: a session's and a message's way, and never what was said.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use client::{Client, Options, Push};
use e2e::{Cluster, Node, Shape, until};
use model::Role;

/// Must not be in any log.
const TEXT: &str = "wholly-confidential";

/// The lines of a process that have all these words.
fn lines(node: &Node, words: &[&str]) -> Vec<String> {
    let log = node.logged().unwrap();
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(has_all).map(str::to_owned).collect()
}

/// Waits for such a line: a process writes its log a moment after it has acted.
async fn told(node: &Node, words: &[&str]) {
    until(&format!("{} tells {words:?}", node.name()), async || {
        anyhow::ensure!(lines(node, words).len() == 1, "{:?}", lines(node, words));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_way_through_the_cluster_can_be_followed_by_ids() {
    let debug = vec!["--log".to_owned(), "debug".to_owned()];
    let (gate_args, connector_args) = (debug.clone(), debug.clone());
    let shape = Shape { gate_args, connector_args, chat_args: debug, ..Shape::new(2, 1) };
    let cluster = Cluster::start("logs", shape).await.unwrap();
    let options = Options::default();
    let entry = Client::query_entry(cluster.gate(), &options, "alice", Some("lobby"));
    assert_eq!(entry.await.unwrap().host, "127.0.0.1");

    let ports = cluster.connectors();
    let mut alice = Client::connect(ports[0], &options).await.unwrap();
    alice.enter("alice", "lobby").await.unwrap();
    let mut bob = Client::connect(ports[1], &options).await.unwrap();
    bob.enter("bob", "lobby").await.unwrap();
    alice.send("*", TEXT).await.unwrap();
    alice.send("bob", TEXT).await.unwrap();
    alice.send("nobody", TEXT).await.unwrap_err();
    for _ in 0..2 {
        assert!(matches!(bob.next_push().await.unwrap(), Push::Chat { .. }));
    }
    alice.close().await.unwrap();

    let node = |name: &str| cluster.node(name).unwrap();
    let (gate, chat) = (node("gate-1"), node("chat-1"));
    let (first, second) = (node("connector-1"), node("connector-2"));
    told(gate, &["entry given", "session=1", "user=alice", "room=lobby", "port="]).await;
    told(first, &["enter ", "session=1", "room=lobby", "user=alice"]).await;
    told(chat, &["join ", "session=1", "room=lobby", "user=alice", "connector=connector-1"]).await;
    told(first, &["say ", "session=1", "room=lobby", "number=1"]).await;
    told(chat, &["say ", "session=1", "number=1", "connector=connector-1"]).await;
    for connector in ["connector-1", "connector-2"] {
        let to = format!(" connector={connector}");
        told(chat, &["event out", "session=1", "number=1", "from=connector-1", &to]).await;
    }
    told(second, &["event in", "session=1", "number=1", "from=", "room=lobby"]).await;
    told(first, &["told ", "members=1", "session=1", "number=1"]).await;
    told(chat, &["say refused", "session=1", "number=3", "code=404"]).await;
    told(first, &["say refused", "session=1", "number=3", "code=404"]).await;
    told(first, &["closed ", "session=1", "reason=client-left"]).await;
    told(chat, &["leave ", "session=1", "room=lobby", "connector=connector-1"]).await;
    for role in [Role::Gate, Role::Connector, Role::Chat] {
        for node in cluster.of(role) {
            assert_eq!(lines(node, &[TEXT]), Vec::<String>::new(), "{}", node.name());
        }
    }
}
