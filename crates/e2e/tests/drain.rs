//! Processes asked to end do so in order.

use std::time::Duration;

use client::{Client, Closed, Error, Options, Push, Transport};
use e2e::{Cluster, Crowd, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_drains_hands_its_rooms_over() {
    let mut cluster = Cluster::start("drain-chat", Shape::new(2, 2)).await.unwrap();
    let mut crowd = Crowd::new(Transport::WebSocket);
    let connectors = cluster.connectors();
    for number in 0..24 {
        let room = format!("room{}", number / 3);
        let connector = connectors[number % connectors.len()];
        crowd.enter_at(connector, &format!("u{number}"), &room).await.unwrap();
    }
    crowd.chatter(Some(Duration::from_millis(100)));
    for name in ["chat-1", "chat-2"] {
        crowd.work(100).await.unwrap();
        cluster.term(name).unwrap();
        let status = cluster.ended(name).await.unwrap();
        assert!(status.success(), "{name}: {status}\n{}", cluster.node(name).unwrap().log_tail());
        cluster.restart(name).await.unwrap();
    }
    crowd.judge().await;
}

#[tokio::test]
async fn a_connector_that_drains_tells_its_clients() {
    let mut cluster = Cluster::start("drain-connector", Shape::new(2, 1)).await.unwrap();
    let connectors = cluster.connectors();
    let options = Options::default();
    let mut leaver = Client::connect(connectors[0], &options).await.unwrap();
    leaver.enter("leaver", "r").await.unwrap();
    let mut stayer = Client::connect(connectors[1], &options).await.unwrap();
    stayer.enter("stayer", "r").await.unwrap();

    cluster.term("connector-1").unwrap();
    let end = loop {
        match leaver.next().await {
            Ok(_) => {}
            Err(Error::Closed(end)) => break end,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(matches!(end, Closed::Kicked(_) | Closed::ByServer | Closed::WithCode(_)), "{end:?}");
    let push = stayer.next_push().await.unwrap();
    assert_eq!(push, Push::Leave { user: "leaver".to_owned() });
    let status = cluster.ended("connector-1").await.unwrap();
    assert!(status.success(), "{status}");

    // The gate names it no more.
    for number in 0..20 {
        let room = format!("room{number}");
        let entry = Client::query_entry(cluster.gate(), &options, "u", Some(&room)).await.unwrap();
        assert_eq!(entry.port, connectors[1].port());
    }
}

#[tokio::test]
async fn a_gate_drains_and_sessions_go_on() {
    let mut cluster = Cluster::start("drain-gate", Shape::new(2, 1)).await.unwrap();
    let mut crowd = Crowd::new(Transport::Tcp);
    let connectors = cluster.connectors();
    let a = crowd.enter_at(connectors[0], "a", "r").await.unwrap();
    let b = crowd.enter_at(connectors[1], "b", "r").await.unwrap();
    cluster.term("gate-1").unwrap();
    let status = cluster.ended("gate-1").await.unwrap();
    assert!(status.success(), "{status}");
    crowd.say(a, "*").await.unwrap();
    crowd.say(b, "a").await.unwrap();
    // Rooms that did not exist need nobody either.
    let c = crowd.enter_at(connectors[0], "c", "new").await.unwrap();
    crowd.say(c, "*").await.unwrap();
    cluster.restart("gate-1").await.unwrap();
    crowd.enter(cluster.gate(), "d", "new").await.unwrap();
    let report = crowd.verdict().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.deliveries, 4);
    assert!(crowd.lost().is_empty(), "{:?}", crowd.lost());
}
