//! One room, in which everybody speaks another dialect over another transport.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use client::{Client, Options, Transport};
use e2e::{Cluster, Crowd, Shape, UserKey};

const ROOM: &str = "大厅";
/// Everybody speaks in waves: 275 messages for each at once, which is less than a server keeps for
/// one that a busy machine leaves without its turn.
const WAVES: usize = 2;
const SENDS: usize = 25;
/// How often each user speaks while a chat dies.
const EVERY: Duration = Duration::from_millis(100);

/// Lets one user per transport enter, spread over the connectors.
async fn everybody(cluster: &Cluster, crowd: &mut Crowd) -> Vec<UserKey> {
    let connectors = cluster.connectors();
    let mut users = Vec::new();
    for (number, transport) in Transport::ALL.into_iter().enumerate() {
        let connector = connectors[number % connectors.len()];
        let user = name(transport);
        users.push(crowd.enter_over(transport, connector, &user, ROOM).await.unwrap());
    }
    users
}

fn name(transport: Transport) -> String {
    format!("张-{transport}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_dialects_share_one_room() {
    let cluster = Cluster::start("mixed-room", Shape::new(3, 2)).await.unwrap();
    let mut crowd = Crowd::new(Transport::WebSocket);
    let users = everybody(&cluster, &mut crowd).await;
    let count = users.len();
    for wave in 1..=WAVES {
        for _ in 0..SENDS {
            for user in &users {
                crowd.say(*user, "*").await.unwrap();
            }
        }
        crowd.judge().await;
        assert_eq!(crowd.deliveries(), (count * count * SENDS * wave) as u64);
    }

    // Everybody whispers to everybody, itself included, and nobody else hears it.
    for user in &users {
        for transport in Transport::ALL {
            crowd.say(*user, &name(transport)).await.unwrap();
        }
    }
    crowd.judge().await;
    assert_eq!(crowd.deliveries(), (count * count * (WAVES * SENDS + 1)) as u64);

    // One after the other leaves; who is left hears its name, which the judge holds against the
    // lists of all, and goes on.
    let (stayers, leavers) = users.split_at(2);
    for leaver in leavers.iter().rev() {
        crowd.leave(*leaver).await.unwrap();
        crowd.say(stayers[0], "*").await.unwrap();
        crowd.say(stayers[1], "*").await.unwrap();
    }
    crowd.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_dies_and_no_dialect_notices() {
    let mut cluster = Cluster::start("mixed-room-kill", Shape::new(3, 2)).await.unwrap();
    let mut crowd = Crowd::new(Transport::WebSocket);
    everybody(&cluster, &mut crowd).await;
    crowd.chatter(Some(EVERY));
    // Whichever has the room, its owner is among the two.
    for name in ["chat-1", "chat-2"] {
        crowd.work(200).await.unwrap();
        cluster.kill(name).unwrap();
        crowd.work(200).await.unwrap();
        cluster.restart(name).await.unwrap();
    }
    crowd.work(200).await.unwrap();
    crowd.judge().await;
}

#[tokio::test]
async fn gates_answer_every_dialect() {
    let cluster = Cluster::start("mixed-room-gate", Shape::new(2, 1)).await.unwrap();
    let ports: Vec<u16> = cluster.connectors().iter().map(|address| address.port()).collect();
    let mut crowd = Crowd::new(Transport::WebSocket);
    let mut users = Vec::new();
    for transport in Transport::ALL {
        let options = Options { transport, ..Options::default() };
        let user = name(transport);
        let entry = Client::query_entry(cluster.gate(), &options, &user, Some(ROOM)).await.unwrap();
        assert!(ports.contains(&entry.port), "{transport}: {entry:?}");
        let connector = ([127, 0, 0, 1], entry.port).into();
        users.push(crowd.enter_over(transport, connector, &user, ROOM).await.unwrap());
    }
    for user in users {
        crowd.say(user, "*").await.unwrap();
    }
    crowd.judge().await;
}
