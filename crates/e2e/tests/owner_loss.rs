//! Chats are killed under load; nobody may notice more than a pause.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use client::Transport;
use e2e::{Cluster, Crowd, Shape};

const USERS: usize = 60;
const ROOMS: usize = 12;
const KILLS: usize = 4;
/// How often each user speaks: some 300 sends and 1,500 deliveries a second in all.
const EVERY: Duration = Duration::from_millis(200);

/// Fills the rooms over all connectors, and lets everybody speak.
async fn busy(cluster: &Cluster) -> Crowd {
    let mut crowd = Crowd::new(Transport::Tcp);
    let connectors = cluster.connectors();
    for number in 0..USERS {
        let room = format!("room{}", number % ROOMS);
        // Neighbours in a room are on different connectors.
        let connector = connectors[(number / ROOMS) % connectors.len()];
        crowd.enter_at(connector, &format!("u{number}"), &room).await.unwrap();
    }
    crowd.chatter(Some(EVERY));
    crowd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_killed_under_load_loses_nothing() {
    let mut cluster = Cluster::start("owner-loss-kill", Shape::new(3, 3)).await.unwrap();
    let crowd = busy(&cluster).await;
    for kill in 0..KILLS {
        crowd.work(200).await.unwrap();
        let name = format!("chat-{}", kill % 3 + 1);
        cluster.kill(&name).unwrap();
        crowd.work(200).await.unwrap();
        cluster.restart(&name).await.unwrap();
    }
    crowd.work(200).await.unwrap();
    crowd.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_chat_killed_is_replaced_by_its_next_life() {
    let mut cluster = Cluster::start("owner-loss-last", Shape::new(2, 1)).await.unwrap();
    let crowd = busy(&cluster).await;
    for _ in 0..2 {
        crowd.work(100).await.unwrap();
        cluster.kill("chat-1").unwrap();
        cluster.restart("chat-1").await.unwrap();
        crowd.work(100).await.unwrap();
    }
    crowd.judge().await;
}
