//! Links between processes of one machine go past its network, unless that is not wanted.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use client::Transport;
use e2e::{Cluster, Crowd, Shape};

/// Two of different connectors talk, and a killed chat is replaced as ever. Returns the ways of all
/// links that were opened.
async fn ways(name: &str, shape: Shape) -> Vec<String> {
    let mut cluster = Cluster::start(name, shape).await.unwrap();
    let mut crowd = Crowd::new(Transport::WebSocket);
    let connectors = cluster.connectors();
    let alice = crowd.enter_at(connectors[0], "alice", "hall").await.unwrap();
    let bob = crowd.enter_at(connectors[1], "bob", "hall").await.unwrap();
    crowd.say(alice, "*").await.unwrap();
    cluster.kill("chat-1").unwrap();
    cluster.restart("chat-1").await.unwrap();
    crowd.say(bob, "*").await.unwrap();
    let report = crowd.verdict().await;
    assert!(report.is_clean(), "{report}");
    let connectors = cluster.nodes().iter().filter(|node| node.name().starts_with("connector"));
    let logs = connectors.map(|node| node.logged().unwrap());
    let said: String = logs.collect();
    let lines = said.lines().filter(|line| line.contains("link open"));
    let opened: Vec<String> =
        lines.map(|line| line.split_once("way=").unwrap().1.to_owned()).collect();
    assert!(opened.len() >= 6, "two chats, and one more: {opened:?}");
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_on_one_machine_are_unix_sockets() {
    let ways = ways("local-links", Shape::new(2, 2)).await;
    assert!(ways.iter().all(|way| way.contains("unix socket")), "{ways:?}");
}

/// Either end may say no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_take_the_network_if_told_to() {
    let off = || vec!["--local-links".to_owned(), "off".to_owned()];
    let shape = Shape { connector_args: off(), ..Shape::new(2, 2) };
    let by_connector = ways("network-links", shape).await;
    assert!(by_connector.iter().all(|way| way.contains("network")), "{by_connector:?}");
    let shape = Shape { chat_args: off(), ..Shape::new(2, 2) };
    let by_chat = ways("network-links-chat", shape).await;
    assert!(by_chat.iter().all(|way| way.contains("network")), "{by_chat:?}");
}
