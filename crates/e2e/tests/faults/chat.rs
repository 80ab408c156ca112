//! Chats killed and stopped.

use std::{collections::BTreeSet, time::Duration};

use e2e::{Cluster, until};
use model::Role;
use tokio::time::{Instant, sleep};

use crate::load::{Load, figure, figure_spread, gap_since, judge, judge_undisturbed, resets};

/// Killed again and again: nobody is disconnected, and no room starts a new generation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_are_killed_again_and_again() {
    let load = Load::chosen();
    let cluster = load.cluster("chat-kill").await;
    chats_are_killed(load, cluster, if load.full { 100 } else { 4 }).await;
}

/// The same with etcd, which sees no streams break: connectors do, and say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_killed_with_etcd() {
    let load = Load::chosen();
    let Some((_etcd, cluster)) = load.etcd_cluster("chat-kill-etcd").await else { return };
    chats_are_killed(load, cluster, if load.full { 20 } else { 3 }).await;
}

async fn chats_are_killed(load: Load, mut cluster: Cluster, kills: usize) {
    let crowd = load.crowd(&cluster).await;
    let mut gaps = Vec::new();
    for kill in 0..kills {
        let name = format!("chat-{}", kill % 3 + 1);
        assert!(resets(&cluster).await < 1.0, "before kill {kill}");
        let killed = Instant::now();
        cluster.kill(&name).unwrap();
        crowd.work(300).await.unwrap();
        cluster.restart(&name).await.unwrap();
        crowd.work(300).await.unwrap();
        gaps.push(gap_since(&crowd, killed));
    }
    assert!(resets(&cluster).await < 1.0);
    figure("kills", kills);
    figure_spread("send gap per kill", gaps);
    judge_undisturbed(&crowd).await;
}

/// Asleep for 10 s: it is replaced. Awake again, it is heard by nobody and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_slept_is_replaced_and_heard_by_nobody() {
    let load = Load::chosen();
    let mut cluster = load.cluster("chat-sleep").await;
    let crowd = load.crowd(&cluster).await;
    // What its links have brought and that its lease is over, it hears at the same time. If it hears
    // only the latter, it has nothing to say, and sleeps again.
    let mut unheard = 0;
    for _ in 0..3 {
        // Otherwise it would have nothing to say.
        until("it owns rooms that people are in", async || {
            let rooms = cluster.metric("chat-1", "tangelo_chat_rooms").await?;
            anyhow::ensure!(rooms > 0.0, "{rooms}");
            Ok(())
        })
        .await
        .unwrap();
        let stopped = Instant::now();
        cluster.stop("chat-1").unwrap();
        sleep(Duration::from_secs(10)).await;
        figure("replaced within", format_args!("{:.1?}", gap_since(&crowd, stopped)));
        let stale = stale_frames(&cluster).await;
        cluster.cont("chat-1").unwrap();
        let status = cluster.ended("chat-1").await.unwrap();
        assert!(!status.success(), "it gave up by itself: {status}");
        crowd.work(200).await.unwrap();
        figure("stale frames dropped by connectors", stale_frames(&cluster).await - stale);
        let chat = cluster.node("chat-1").unwrap();
        eprintln!("{}", chat.log_tail());
        unheard = said_to_nobody(chat);
        figure("frames that it said to nobody", unheard);
        cluster.restart("chat-1").await.unwrap();
        crowd.work(200).await.unwrap();
        if unheard > 0 {
            break;
        }
    }
    assert!(unheard > 0, "what came over its links before they were given up is answered");
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}

async fn stale_frames(cluster: &Cluster) -> f64 {
    cluster.metric_of(Role::Connector, "tangelo_connector_stale_frames_total").await.unwrap()
}

/// How many frames a chat that stood still dropped, as its links were over: by its log, as the
/// process has ended.
fn said_to_nobody(chat: &e2e::Node) -> u64 {
    let log = chat.logged().unwrap();
    let told = log.lines().filter(|line| line.contains("this chat stood still"));
    let frames = told.map(|line| {
        let words = line.split_whitespace();
        let frames = words.filter_map(|word| word.strip_prefix("frames=")).next();
        frames.unwrap_or_else(|| panic!("no count in {line:?}")).parse::<u64>().unwrap()
    });
    frames.sum()
}

/// How often a node has doubted another, by the logs.
fn doubts(cluster: &Cluster) -> usize {
    cluster.times_logged("doubting that it")
}

/// Asleep for 1 s: everybody waits for it, and nothing changes hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_dozed_keeps_its_rooms() {
    let load = Load::chosen();
    let cluster = load.cluster("chat-doze").await;
    dozes(load, cluster, Duration::from_secs(1)).await;
}

/// The same with etcd, and for so long that its links are given up. That is no evidence against it,
/// nor, when it wakes up and finds them ended, against others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_dozes_with_etcd() {
    let load = Load::chosen();
    let Some((_etcd, cluster)) = load.etcd_cluster("chat-doze-etcd").await else { return };
    dozes(load, cluster, Duration::from_secs(2)).await;
}

async fn dozes(load: Load, cluster: Cluster, span: Duration) {
    let crowd = load.crowd(&cluster).await;
    let opened = "tangelo_chat_shards_opened_total";
    // What was still moving at the start has come to rest.
    let before = until("the shards are at rest", async || {
        let before = cluster.metric_of(Role::Chat, opened).await?;
        sleep(Duration::from_secs(2)).await;
        let after = cluster.metric_of(Role::Chat, opened).await?;
        anyhow::ensure!(before >= after, "{before} {after}");
        Ok(after)
    })
    .await
    .unwrap();
    let stopped = Instant::now();
    cluster.stop("chat-1").unwrap();
    sleep(span).await;
    cluster.cont("chat-1").unwrap();
    crowd.work(300).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let after = cluster.metric_of(Role::Chat, opened).await.unwrap();
    figure("send gap", format_args!("{:.1?}", gap_since(&crowd, stopped)));
    figure("shards that changed hands", after - before);
    figure("doubts", doubts(&cluster));
    judge_undisturbed(&crowd).await;
}

/// An owner and a connector with members of its rooms die together. What only the two of them held
/// is lost, and whoever may have missed something is told, by the close of its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_and_another_holder_die_together() {
    let load = Load::chosen();
    let mut cluster = load.cluster("two-losses").await;
    let crowd = load.crowd(&cluster).await;
    let killed = Instant::now();
    cluster.kill("chat-1").unwrap();
    cluster.kill("connector-1").unwrap();
    sleep(Duration::from_secs(10)).await;
    let lost = crowd.lost();
    let last = lost.iter().map(|lost| lost.at - killed).max().unwrap_or_default();
    let at_connector = (0..load.users).filter(|user| load.connector_of(*user, 3) == 0).count();
    figure("users of the dead connector", at_connector);
    figure("users told by a close", lost.len());
    figure("last told after", format_args!("{last:.1?}"));
    assert!(lost.len() >= at_connector);
    cluster.restart("chat-1").await.unwrap();
    cluster.restart("connector-1").await.unwrap();
    crowd.work(100).await.unwrap();
    let lost: BTreeSet<_> = crowd.lost().iter().map(|lost| lost.user).collect();
    judge(&crowd, &lost).await;
}
