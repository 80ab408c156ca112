//! What operators do on purpose: restarts one by one, more processes, fewer.

use std::collections::BTreeSet;

use e2e::until;
use model::Role;
use tokio::time::Instant;

use crate::{
    connector::offered,
    load::{Load, end, figure, figure_spread, gap_since, judge, judge_undisturbed, resets},
};

/// Every chat and the gate restarted, one by one: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_and_gate_restart_one_by_one() {
    let load = Load::chosen();
    let mut cluster = load.cluster("rolling").await;
    let crowd = load.crowd(&cluster).await;
    let stale = "tangelo_connector_stale_frames_total";
    let mut gaps = Vec::new();
    for name in ["chat-1", "chat-2", "chat-3", "gate-1"] {
        let began = Instant::now();
        let drained = end(&mut cluster, name).await;
        cluster.restart(name).await.unwrap();
        crowd.work(300).await.unwrap();
        let gap = gap_since(&crowd, began);
        figure(name, format_args!("drained in {drained:.2?}, longest answer {gap:.2?}"));
        gaps.push(gap);
    }
    figure_spread("send gap per restart", gaps);
    let dropped = cluster.metric_of(Role::Connector, stale).await.unwrap();
    figure("frames of former owners dropped by connectors", dropped);
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}

/// Connectors drained one by one: their users are told, and come back elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connectors_drain_one_by_one() {
    let load = Load::chosen();
    let mut cluster = load.cluster("drain").await;
    let mut crowd = load.crowd(&cluster).await;
    let mut may_be_lost = BTreeSet::new();
    for number in 1..=3 {
        let name = format!("connector-{number}");
        let sessions = until("the connector counts its members", async || {
            let members = cluster.metric(&name, "tangelo_connector_members").await?;
            anyhow::ensure!(members > 0.0);
            Ok(members)
        })
        .await
        .unwrap();
        let drained = end(&mut cluster, &name).await;
        figure(&name, format_args!("{sessions} sessions drained in {drained:.2?}"));
        cluster.restart(&name).await.unwrap();
        for lost in crowd.lost() {
            if may_be_lost.insert(lost.user) {
                let (user, room) = crowd.who(lost.user);
                crowd.enter(cluster.gate(), &user, &room).await.unwrap();
            }
        }
        crowd.work(100).await.unwrap();
    }
    judge(&crowd, &may_be_lost).await;
    assert!(resets(&cluster).await < 1.0);
}

/// More connectors and more chats under load: they are used soon, and nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_under_load() {
    let load = Load::chosen();
    let mut cluster = load.cluster("grow").await;
    let crowd = load.crowd(&cluster).await;
    for _ in 0..2 {
        let began = Instant::now();
        let name = cluster.add(Role::Connector).await.unwrap();
        let ready = began.elapsed();
        let (gate, port) = (cluster.gate(), cluster.node(&name).unwrap().listen().port());
        until("the gate offers the new connector", async || {
            // One of many rooms is for it.
            for number in 0..64 {
                if offered(gate, &format!("new{number}")).await? == port {
                    return Ok(());
                }
            }
            anyhow::bail!("not yet")
        })
        .await
        .unwrap();
        let used = began.elapsed();
        figure(&name, format_args!("ready after {ready:.2?}, offered after {used:.2?}"));
    }
    for _ in 0..2 {
        let began = Instant::now();
        let name = cluster.add(Role::Chat).await.unwrap();
        let ready = began.elapsed();
        until("the new chat has its share", async || {
            let open = cluster.metric(&name, "tangelo_chat_shards_open").await?;
            anyhow::ensure!(open >= 100.0, "{open}");
            Ok(())
        })
        .await
        .unwrap();
        let (share, gap) = (began.elapsed(), gap_since(&crowd, began));
        figure(
            &name,
            format_args!(
                "first shard after {ready:.2?}, 100 shards after {share:.2?}, longest answer \
                 {gap:.2?}"
            ),
        );
    }
    crowd.work(200).await.unwrap();
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}
