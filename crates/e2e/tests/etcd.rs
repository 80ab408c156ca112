//! A cluster on three members of etcd, both of which are hurt.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::time::Duration;

use client::Transport;
use e2e::{Cluster, Crowd, Etcd, Shape};
use model::limits;

const USERS: usize = 24;
const ROOMS: usize = 8;
/// How often each user speaks.
const EVERY: Duration = Duration::from_millis(200);
/// Longer than any lease lasts, so that etcd ends them all if it can.
const AWAY: Duration = Duration::from_secs(limits::LEASE.as_secs() + 2);
/// Longer than it takes until somebody is declared gone, and until a stray shard moves.
const QUIET: Duration = Duration::from_secs(limits::LEASE.as_secs() + 2);

/// How often shards have changed hands.
fn moves(cluster: &Cluster) -> usize {
    cluster.times_logged("changed hands")
}

/// Waits until no shard moves any more.
async fn at_rest(cluster: &Cluster) -> usize {
    let mut last = moves(cluster);
    loop {
        tokio::time::sleep(2 * limits::MOVE_SETTLE).await;
        let now = moves(cluster);
        if now == last {
            return now;
        }
        last = now;
    }
}

/// etcd is back, and nobody has noticed: no shard has moved, no process has ended.
async fn nothing_happened(cluster: &Cluster, moved_before: usize) {
    tokio::time::sleep(QUIET).await;
    assert_eq!(moves(cluster), moved_before);
    for node in cluster.nodes() {
        let answer = e2e::http::get(node.admin(), "/readyz").await;
        assert!(answer.is_ok_and(|answer| answer.status == 200), "{}", node.log_tail());
    }
}

/// Everything goes on without etcd: sends, joins, rooms that did not exist.
async fn all_but_failover_goes_on(cluster: &Cluster, crowd: &mut Crowd, what: &str) {
    crowd.work(100).await.unwrap();
    for (number, connector) in cluster.connectors().into_iter().enumerate() {
        crowd.enter_at(connector, &format!("{what}-{number}"), "room0").await.unwrap();
        crowd.enter_at(connector, &format!("{what}-new-{number}"), what).await.unwrap();
    }
    crowd.enter(cluster.gate(), &format!("{what}-by-gate"), what).await.unwrap();
    crowd.work(100).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_lives_through_the_troubles_of_etcd() {
    let Some(mut etcd) = Etcd::start("etcd-troubles-etcd", 3).await.unwrap() else { return };
    let shape = Shape { registry: Some(etcd.url("e2e")), ..Shape::new(2, 3) };
    let mut cluster = Cluster::start("etcd-troubles", shape).await.unwrap();
    let mut crowd = Crowd::new(Transport::Tcp);
    let connectors = cluster.connectors();
    for number in 0..USERS {
        let room = format!("room{}", number % ROOMS);
        // Neighbours in a room are on different connectors.
        let connector = connectors[(number / ROOMS) % connectors.len()];
        crowd.enter_at(connector, &format!("u{number}"), &room).await.unwrap();
    }
    crowd.chatter(Some(EVERY));
    crowd.work(100).await.unwrap();

    // One member of three is lost, and then a chat.
    etcd.kill(etcd.leader().await.unwrap());
    crowd.work(100).await.unwrap();
    etcd.leader().await.unwrap();
    cluster.kill("chat-1").unwrap();
    crowd.work(300).await.unwrap();
    cluster.restart("chat-1").await.unwrap();
    etcd.start_all().await.unwrap();
    let before = at_rest(&cluster).await;

    // All of it sleeps, and ends every lease when it wakes up.
    etcd.stop_all().unwrap();
    tokio::time::sleep(AWAY).await;
    all_but_failover_goes_on(&cluster, &mut crowd, "asleep").await;
    etcd.cont_all().unwrap();
    nothing_happened(&cluster, before).await;

    // All of it dies and comes back.
    etcd.kill_all();
    tokio::time::sleep(AWAY).await;
    all_but_failover_goes_on(&cluster, &mut crowd, "dead").await;
    etcd.start_all().await.unwrap();
    nothing_happened(&cluster, before).await;

    // And failover works again.
    cluster.kill("chat-2").unwrap();
    crowd.work(300).await.unwrap();
    crowd.judge().await;
}
