//! Gates killed, and the registry with one.

use std::{net::SocketAddr, time::Duration};

use e2e::{Cluster, Crowd};
use model::Role;
use tokio::time::{Instant, sleep};

use crate::load::{Load, figure, gap_since, judge_undisturbed, resets};

/// Nobody is disconnected, rooms go on, new ones begin; when it is back, logins are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_is_killed_with_the_registry() {
    let load = Load::chosen();
    let mut cluster = load.cluster("gate-kill").await;
    let mut crowd = load.crowd(&cluster).await;
    let killed = Instant::now();
    cluster.kill("gate-1").unwrap();
    let away = Duration::from_secs(if load.full { 600 } else { 5 });
    let connectors = cluster.connectors();
    for number in 0..6 {
        sleep(away / 6).await;
        let room = format!("new{}", number / 3);
        let connector = connectors[number % connectors.len()];
        crowd.enter_at(connector, &format!("late{number}"), &room).await.unwrap();
    }
    crowd.work(200).await.unwrap();
    figure("away for", format_args!("{:.1?}", killed.elapsed()));
    figure("longest answer meanwhile", format_args!("{:.2?}", gap_since(&crowd, killed)));
    let back = Instant::now();
    cluster.restart("gate-1").await.unwrap();
    log_in(&mut crowd, cluster.gate(), "again").await;
    figure("logins back after", format_args!("{:.2?}", back.elapsed()));
    crowd.work(200).await.unwrap();
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}

/// Lets somebody in through this gate, however many tries it takes.
async fn log_in(crowd: &mut Crowd, gate: SocketAddr, name: &str) {
    let deadline = e2e::deadline();
    for number in 0.. {
        match crowd.enter(gate, &format!("{name}{number}"), "room0").await {
            Ok(_) => return,
            Err(error) if std::time::Instant::now() > deadline => panic!("no login: {error:#}"),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Kills each of two gates: logins through the other one go on, and nobody notices.
async fn one_of_two_gates_is_killed(load: Load, mut cluster: Cluster) {
    cluster.add(Role::Gate).await.unwrap();
    let mut crowd = load.crowd(&cluster).await;
    let gates: Vec<_> = cluster.of(Role::Gate).map(e2e::Node::listen).collect();
    for (dead, other) in [("gate-1", gates[1]), ("gate-2", gates[0])] {
        log_in(&mut crowd, other, &format!("before-{dead}-")).await;
        let killed = Instant::now();
        cluster.kill(dead).unwrap();
        log_in(&mut crowd, other, &format!("after-{dead}-")).await;
        let first = killed.elapsed();
        let mut longest = first;
        for number in 0..20 {
            let began = Instant::now();
            log_in(&mut crowd, other, &format!("later-{dead}-{number}-")).await;
            longest = longest.max(began.elapsed());
            sleep(Duration::from_millis(100)).await;
        }
        crowd.work(300).await.unwrap();
        let gap = gap_since(&crowd, killed);
        figure(
            &format!("{dead} killed"),
            format_args!(
                "logins through the other: the first after {first:.2?}, the longest {longest:.2?}; \
                 longest answer {gap:.2?}"
            ),
        );
        cluster.restart(dead).await.unwrap();
    }
    for gate in gates {
        log_in(&mut crowd, gate, &format!("last-{}-", gate.port())).await;
    }
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_gates_is_killed_that_hosts_the_registry_or_not() {
    let load = Load::chosen();
    let cluster = load.cluster("two-gates").await;
    one_of_two_gates_is_killed(load, cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_gates_is_killed_with_etcd() {
    let load = Load::chosen();
    let Some((_etcd, cluster)) = load.etcd_cluster("two-gates-etcd").await else { return };
    one_of_two_gates_is_killed(load, cluster).await;
}
