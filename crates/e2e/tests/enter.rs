//! Entering, speaking, whispering and leaving, on real processes.

use std::collections::BTreeMap;

use client::{Client, Error, Options, Push, Transport};
use e2e::{Cluster, Crowd, Shape, http, until};
use model::Role;

const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Tcp];

#[tokio::test]
async fn users_on_all_connectors_share_a_room() {
    let cluster = Cluster::start("enter-share", Shape::new(2, 2)).await.unwrap();
    for (round, transport) in TRANSPORTS.into_iter().enumerate() {
        let mut crowd = Crowd::new(transport);
        let mut users = Vec::new();
        for (number, connector) in cluster.connectors().into_iter().cycle().take(6).enumerate() {
            let room = format!("share{round}_{}", number / 3);
            users.push(crowd.enter_at(connector, &format!("u{number}"), &room).await.unwrap());
        }
        for user in &users {
            crowd.say(*user, "*").await.unwrap();
        }
        crowd.say(users[0], "u1").await.unwrap();
        crowd.say(users[4], "u4").await.unwrap();
        let report = crowd.verdict().await;
        assert!(report.is_clean(), "{report}");
        crowd.leave(users[2]).await.unwrap();
        crowd.say(users[0], "*").await.unwrap();
        let report = crowd.verdict().await;
        assert!(report.is_clean(), "{report}");
        assert!(crowd.lost().is_empty(), "{:?}", crowd.lost());
        assert!(crowd.refused().is_empty(), "{:?}", crowd.refused());
        assert_eq!(report.deliveries, 6 * 3 + 2 + 2);
    }
}

#[tokio::test]
async fn the_gate_spreads_clients_over_the_connectors() {
    const USERS: usize = 60;
    let cluster = Cluster::start("enter-gate", Shape::new(3, 1)).await.unwrap();
    let options = Options::default();
    let mut clients = Vec::new();
    let mut loads = BTreeMap::new();
    for number in 0..USERS {
        let (user, room) = (format!("u{number}"), format!("room{}", number / 3));
        let entry = Client::query_entry(cluster.gate(), &options, &user, Some(&room));
        let entry = entry.await.unwrap();
        *loads.entry(entry.port).or_insert(0) += 1;
        let mut client = Client::connect((entry.host, entry.port), &options).await.unwrap();
        client.enter(&user, &room).await.unwrap();
        clients.push(client);
    }
    // A quarter more than the mean, and some that were counted twice between two reports.
    let most = USERS / 3 * 5 / 4 + 5;
    assert!(loads.len() == 3 && loads.values().all(|load| *load <= most), "{loads:?}");

    let plain = http::get(cluster.gate(), "/entry?uid=a&rid=lobby").await.unwrap();
    let ports = cluster.connectors().into_iter().map(|address| address.port());
    let mut answers =
        ports.map(|port| format!(r#"{{"code":200,"host":"127.0.0.1","port":{port}}}"#));
    assert!(answers.any(|answer| answer == plain.body), "{}", plain.body);
}

#[tokio::test]
async fn a_name_is_taken_once_in_the_whole_cluster() {
    let cluster = Cluster::start("enter-name", Shape::new(2, 2)).await.unwrap();
    let connectors = cluster.connectors();
    let options = Options::default();
    let mut first = Client::connect(connectors[0], &options).await.unwrap();
    assert_eq!(first.enter("alice", "r").await.unwrap(), ["alice"]);

    let mut second = Client::connect(connectors[1], &options).await.unwrap();
    let refused = tokio::select! {
        refused = second.enter("alice", "r") => refused,
        // It is asked whether it lives, and answers.
        heard = first.next_push() => panic!("{heard:?}"),
    };
    assert!(matches!(refused, Err(Error::Refused { code: 500, .. })), "{refused:?}");
    // The connection is good for another name, and another room.
    assert_eq!(second.enter("bob", "r").await.unwrap(), ["alice", "bob"]);
    assert_eq!(first.next_push().await.unwrap(), Push::Add { user: "bob".to_owned() });
    let refused = second.send("carol", "are you there?").await;
    assert!(matches!(refused, Err(Error::Refused { code: 500, .. })), "{refused:?}");

    first.close().await.unwrap();
    assert_eq!(second.next_push().await.unwrap(), Push::Leave { user: "alice".to_owned() });
    let mut again = Client::connect(connectors[0], &options).await.unwrap();
    assert_eq!(again.enter("alice", "r").await.unwrap(), ["bob", "alice"]);
}

#[tokio::test]
async fn every_process_tells_how_it_is() {
    let cluster = Cluster::start("enter-health", Shape::new(1, 1)).await.unwrap();
    for node in cluster.nodes() {
        for path in ["/healthz", "/readyz"] {
            let answer = http::get(node.admin(), path).await.unwrap();
            assert_eq!(answer.status, 200, "{} {path}: {}", node.name(), answer.body);
        }
        let metrics = cluster.metrics(node.name()).await.unwrap();
        assert!(metrics.contains("# TYPE"), "{}: {metrics}", node.name());
    }
}

#[tokio::test]
async fn a_connector_that_comes_later_is_used() {
    let mut cluster = Cluster::start("enter-later", Shape::new(1, 1)).await.unwrap();
    let mut crowd = Crowd::new(Transport::Tcp);
    let old = crowd.enter_at(cluster.connectors()[0], "old", "r").await.unwrap();
    let name = cluster.add(Role::Connector).await.unwrap();
    let address = cluster.node(&name).unwrap().listen();
    let options = Options::default();
    until("the gate names the new connector", async || {
        for number in 0..50 {
            let room = format!("room{number}");
            let entry = Client::query_entry(cluster.gate(), &options, "u", Some(&room)).await?;
            if entry.port == address.port() {
                return Ok(());
            }
        }
        anyhow::bail!("it does not")
    })
    .await
    .unwrap();
    let new = crowd.enter_at(address, "new", "r").await.unwrap();
    crowd.say(old, "*").await.unwrap();
    crowd.say(new, "old").await.unwrap();
    let report = crowd.verdict().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.deliveries, 3);
}
