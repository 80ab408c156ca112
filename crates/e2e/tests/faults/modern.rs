//! Clients that know Tangelo, and come back.

use std::{collections::BTreeMap, time::Duration};

use client::Outcome;
use e2e::{Cluster, Crowd, Returned, UserKey, until};
use model::limits;
use tokio::time::Instant;

use crate::load::{Load, end, figure, figure_spread, judge_undisturbed, resets};

/// Whoever is back within this is not seen to leave: the grace, less what a busy machine may take to
/// let the client know that it is back.
const QUIET: Duration = limits::RETURN_GRACE.saturating_sub(Duration::from_millis(500));

/// Sessions of this connector.
async fn sessions_at(cluster: &Cluster, name: &str) -> usize {
    // A count, and a small one.
    cluster.metric(name, "tangelo_client_sessions").await.unwrap().round() as usize
}

/// Waits until so many have come back since then, each once, and answers them.
async fn all_back(crowd: &Crowd, since: Instant, many: usize) -> Vec<Returned> {
    let back_since = || -> Vec<Returned> {
        crowd.returned().into_iter().filter(|returned| returned.back >= since).collect()
    };
    until("everybody is back", async || {
        anyhow::ensure!(crowd.lost().is_empty(), "{:?}", crowd.lost());
        let back = back_since().len();
        anyhow::ensure!(back >= many, "{back} of {many}");
        Ok(())
    })
    .await
    .unwrap();
    let back = back_since();
    let mut times: BTreeMap<UserKey, usize> = BTreeMap::new();
    for returned in &back {
        *times.entry(returned.user).or_default() += 1;
    }
    assert_eq!((times.len(), back.len()), (many, many), "each once, and nobody else: {times:?}");
    back
}

/// Killed under load, one after the other: its clients are back soon and have missed nothing, and
/// nobody sees them leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_killed_connector_come_back() {
    let load = Load::chosen();
    let mut cluster = load.cluster("modern-kill").await;
    let mut crowd = load.modern_crowd(&cluster).await;
    crowd.quiet_within(QUIET);
    let kills = if load.full { 6 } else { 2 };
    let mut returned = Vec::new();
    let (mut spans, mut of_returning, mut of_others) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 0..kills {
        let name = format!("connector-{}", kill % 3 + 1);
        let sessions = sessions_at(&cluster, &name).await;
        let killed = Instant::now();
        cluster.kill(&name).unwrap();
        let back = all_back(&crowd, killed, sessions).await;
        spans.extend(back.iter().map(|returned| returned.back - killed));
        cluster.restart(&name).await.unwrap();
        crowd.work(600).await.unwrap();
        let [returning, others] = gaps(&crowd, killed, &back);
        of_returning.push(returning);
        of_others.push(others);
        returned.extend(back);
    }
    let resumed = returned.iter().filter(|it| it.outcome == Outcome::Resumed).count();
    figure("kills", kills);
    figure_spread("from the kill to being back", spans);
    figure_spread("send gap per kill, of those who had to come back", of_returning);
    figure_spread("send gap per kill, of the others", of_others);
    figure("resumed and reset", format_args!("{resumed} and {}", returned.len() - resumed));
    assert_eq!(resumed, returned.len());
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}

/// The longest time that an answer took, from when it was due, of those who had to come back in
/// this time and of the others.
fn gaps(crowd: &Crowd, since: Instant, back: &[Returned]) -> [Duration; 2] {
    let mut gaps = [Duration::ZERO; 2];
    for acked in crowd.acked_since(since) {
        let stayed = !back.iter().any(|returned| returned.user == acked.user);
        let gap = &mut gaps[usize::from(stayed)];
        *gap = acked.after.max(*gap);
    }
    gaps
}

/// Every process restarted, one by one: nobody misses anything, and nobody has to come back but
/// those of the connector that restarts, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_restarts_one_by_one() {
    let load = Load::chosen();
    let mut cluster = load.cluster("modern-rolling").await;
    let mut crowd = load.modern_crowd(&cluster).await;
    crowd.quiet_within(QUIET);
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let (mut away, mut of_returning, mut of_others) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let sessions =
            if name.starts_with("connector") { sessions_at(&cluster, name).await } else { 0 };
        let began = Instant::now();
        let drained = end(&mut cluster, name).await;
        cluster.restart(name).await.unwrap();
        crowd.work(600).await.unwrap();
        let back = all_back(&crowd, began, sessions).await;
        assert!(back.iter().all(|it| it.outcome == Outcome::Resumed), "{back:?}");
        away.extend(back.iter().map(|returned| returned.back - returned.lost));
        let [returning, others] = gaps(&crowd, began, &back);
        figure(
            name,
            format_args!(
                "drained in {drained:.2?}, {} came back, longest answer {returning:.2?} to them, \
                 {others:.2?} to the others",
                back.len()
            ),
        );
        of_others.push(others);
        of_returning.extend((sessions > 0).then_some(returning));
    }
    figure_spread("from the loss to being back", away);
    figure_spread("send gap per restart, of those who had to come back", of_returning);
    figure_spread("send gap per restart, of the others", of_others);
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}
