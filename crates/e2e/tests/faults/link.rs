//! The network between the processes cut, one way and both. Needs network namespaces, and is
//! skipped, by name, where they cannot be had.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    Cluster, Crowd, Shape,
    network::{Apart, Direction, HUB, Hub},
    until,
};
use model::Role;
use tokio::time::{Instant, sleep};

use crate::load::{Load, figure, gap_since, judge, judge_undisturbed, resets};

/// The same in all tests of this repository: nothing may be skipped.
const REQUIRE_ALL: &str = "TANGELO_REQUIRE_ALL";

/// Runs the test of this name inside a network of its own. Answers the place apart in there.
fn inside(test: &str) -> Option<Apart> {
    if let Some(apart) = Apart::inside_hub() {
        return Some(apart);
    }
    match Hub::new() {
        Ok(hub) => hub.run_again(test).unwrap(),
        Err(error) => {
            let required = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
            assert!(!required, "no network namespaces, and {REQUIRE_ALL}=1: {error:#}");
            eprintln!("skipped: {test}: no network namespaces: {error:#}");
        }
    }
    None
}

async fn cluster(name: &str, apart: &str, place: &Apart) -> Cluster {
    let shape =
        Shape { host: HUB, apart: Some((apart.to_owned(), place.clone())), ..Shape::new(3, 3) };
    Cluster::start(&format!("faults-{name}"), shape).await.unwrap()
}

/// Waits until every connector has its link to every chat, and no chat has more.
async fn all_linked(cluster: &Cluster) {
    until("every connector has one link to every chat", async || {
        let here = cluster.metric_of(Role::Connector, "tangelo_connector_links").await?;
        let there = cluster.metric_of(Role::Chat, "tangelo_chat_links").await?;
        anyhow::ensure!((here - 9.0).abs() < 0.5 && (there - 9.0).abs() < 0.5, "{here} {there}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Those who were disconnected come again; answers how long after `since` all are served.
async fn all_served(
    cluster: &Cluster,
    crowd: &mut Crowd,
    back: &mut BTreeSet<e2e::UserKey>,
    since: Instant,
) -> Duration {
    until("nobody is disconnected any more", async || {
        let lost = crowd.lost().len();
        sleep(Duration::from_secs(1)).await;
        anyhow::ensure!(crowd.lost().len() == lost);
        Ok(())
    })
    .await
    .unwrap();
    for lost in crowd.lost() {
        if back.insert(lost.user) {
            let (user, room) = crowd.who(lost.user);
            crowd.enter(cluster.gate(), &user, &room).await.unwrap();
        }
    }
    crowd.work(200).await.unwrap();
    since.elapsed()
}

/// One connector and one chat cannot reach each other for 8 s, both ways and then each way alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_cut() {
    let Some(apart) = inside("link::a_link_is_cut") else { return };
    let load = Load::chosen();
    let cluster = cluster("link-cut", "connector-1", &apart).await;
    let mut crowd = load.crowd(&cluster).await;
    let chat = cluster.node("chat-1").unwrap().listen().port();
    let mut back = BTreeSet::new();
    let ways: [(&str, &[Direction]); 3] = [
        ("both ways", &[Direction::Out, Direction::In]),
        ("towards the chat", &[Direction::Out]),
        ("towards the connector", &[Direction::In]),
    ];
    for (what, directions) in ways {
        let before = crowd.lost().len();
        for direction in directions {
            apart.cut(chat, *direction).unwrap();
        }
        sleep(Duration::from_secs(8)).await;
        apart.heal().unwrap();
        let healed = Instant::now();
        all_linked(&cluster).await;
        let served = all_served(&cluster, &mut crowd, &mut back, healed).await;
        let lost = crowd.lost().len() - before;
        figure(what, format_args!("{lost} users had to come again, all served {served:.1?} after"));
    }
    figure("rooms that lost their history", resets(&cluster).await);
    figure("sends refused as unknown", crowd.refused().len());
    judge(&crowd, &back).await;
}

/// Only the registry cannot reach a chat, which goes on believing that it owns its rooms. Others
/// take them over, and nobody listens to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_cut_off_from_the_registry() {
    let Some(apart) = inside("link::an_owner_is_cut_off_from_the_registry") else { return };
    let load = Load::chosen();
    let mut cluster = cluster("registry-cut", "chat-1", &apart).await;
    let crowd = load.crowd(&cluster).await;
    let stale = "tangelo_connector_stale_frames_total";
    let before = cluster.metric_of(Role::Connector, stale).await.unwrap();
    let cut = Instant::now();
    for direction in [Direction::Out, Direction::In] {
        apart.cut(cluster.registry_port(), direction).unwrap();
    }
    sleep(Duration::from_secs(8)).await;
    let gap = gap_since(&crowd, cut);
    crowd.work(200).await.unwrap();
    let after = cluster.metric_of(Role::Connector, stale).await.unwrap();
    figure("longest answer", format_args!("{gap:.2?}"));
    figure("frames of the former owner dropped by connectors", after - before);
    apart.heal().unwrap();
    let status = cluster.ended("chat-1").await.unwrap();
    assert!(!status.success(), "it gave up by itself: {status}");
    cluster.restart("chat-1").await.unwrap();
    crowd.work(200).await.unwrap();
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}
