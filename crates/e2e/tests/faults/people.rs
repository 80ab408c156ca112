//! Clients that are slow, and clients that want the same.

use std::{net::SocketAddr, time::Duration};

use client::{Client, Error, Options, Transport};
use e2e::{Cluster, Crowd, Shape};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::load::{Load, figure, figure_spread, judge_undisturbed, work};

/// Races under way at once.
const RACES_AT_ONCE: usize = 32;

/// Two connections at two connectors want one name at the same time: exactly one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_wanted_twice_is_had_once() {
    let load = Load::chosen();
    let cluster = Cluster::start("faults-race", Shape::new(2, 2)).await.unwrap();
    let connectors = cluster.connectors();
    let races = if load.full { 10_000 } else { 300 };
    let mut running = JoinSet::new();
    let mut winners = [0, 0];
    for number in 0..races {
        if running.len() == RACES_AT_ONCE {
            winners[running.join_next().await.unwrap().unwrap()] += 1;
        }
        running.spawn(race(connectors[0], connectors[1], number));
    }
    while let Some(winner) = running.join_next().await {
        winners[winner.unwrap()] += 1;
    }
    figure("races", races);
    figure("won by the one and the other", format_args!("{} and {}", winners[0], winners[1]));
}

/// Answers which of the two got in.
async fn race(one: SocketAddr, other: SocketAddr, number: usize) -> usize {
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let mut one = Client::connect(one, &options).await.unwrap();
    let mut other = Client::connect(other, &options).await.unwrap();
    let (name, room) = (format!("u{number}"), format!("race{}", number % 64));
    let (first, second) = tokio::join!(one.enter(&name, &room), other.enter(&name, &room));
    for users in [&first, &second].into_iter().flatten() {
        assert_eq!(users.iter().filter(|user| **user == name).count(), 1, "{users:?}");
    }
    let winner = match (first, second) {
        (Ok(_), Err(Error::Refused { .. })) => 0,
        (Err(Error::Refused { .. }), Ok(_)) => 1,
        both => panic!("race {number}: {both:?}"),
    };
    one.close().await.unwrap();
    other.close().await.unwrap();
    winner
}

/// One in twenty does not read. It is closed when its queue is full, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_harm_nobody_else() {
    let load = Load::chosen();
    let cluster = Cluster::start("faults-slow", Shape::new(1, 1)).await.unwrap();
    let mut crowd = Crowd::new(Transport::Tcp);
    // Long texts, so that what is not read fills the kernel's buffers soon.
    crowd.pad(if load.full { 2048 } else { 4096 });
    let (users, every, span) = if load.full {
        (100, Duration::from_millis(200), Duration::from_secs(20))
    } else {
        (20, Duration::from_millis(200), Duration::from_secs(5))
    };
    let connector = cluster.connectors()[0];
    for number in 0..users {
        crowd.enter_at(connector, &format!("u{number}"), "room").await.unwrap();
    }
    crowd.chatter(Some(every));
    work(&crowd, 100).await;
    let began = Instant::now();
    sleep(span).await;
    figure_spread("answers without slow readers", answers(&crowd, began));
    let before = resident(&cluster);

    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let mut slow = Vec::new();
    for number in 0..(users / 20).max(1) {
        let mut client = Client::connect(connector, &options).await.unwrap();
        client.enter(&format!("slow{number}"), "room").await.unwrap();
        slow.push(client);
    }
    let began = Instant::now();
    let mut peak = before;
    while began.elapsed() < span {
        sleep(span / 50).await;
        peak = peak.max(resident(&cluster));
    }
    figure_spread("answers with slow readers", answers(&crowd, began));
    figure("memory of the connector", format_args!("{before} MiB before, {peak} MiB at most"));
    drop(slow);
    judge_undisturbed(&crowd).await;
}

fn answers(crowd: &Crowd, since: Instant) -> Vec<Duration> {
    crowd.acked_since(since).iter().map(|acked| acked.after).collect()
}

/// Resident memory of the first connector, in MiB.
fn resident(cluster: &Cluster) -> u64 {
    let pid = cluster.node("connector-1").unwrap().pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}
