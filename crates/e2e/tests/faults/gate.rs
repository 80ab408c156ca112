//! The gate killed, and the registry with it.

use std::time::Duration;

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
    let deadline = e2e::deadline();
    for number in 0.. {
        let entered = crowd.enter(cluster.gate(), &format!("again{number}"), "room0").await;
        match entered {
            Ok(_) => break,
            Err(error) if std::time::Instant::now() > deadline => panic!("no login: {error:#}"),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    figure("logins back after", format_args!("{:.2?}", back.elapsed()));
    crowd.work(200).await.unwrap();
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}
