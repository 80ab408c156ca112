//! Connectors killed and stopped.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use e2e::{Cluster, Crowd, UserKey, http, until};
use tokio::time::{Instant, sleep};

use crate::load::{Load, figure, judge};

/// Members of a dead connector are listed no longer than this.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The port that a gate names for a room.
pub(crate) async fn offered(gate: SocketAddr, room: &str) -> anyhow::Result<u16> {
    let answer = http::get(gate, &format!("/entry?uid=probe&rid={room}")).await?;
    let entry: serde_json::Value = serde_json::from_str(&answer.body)?;
    let port = entry.get("port").and_then(serde_json::Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| anyhow::anyhow!("{}", answer.body))
}

/// A room that the gate sends to this connector.
async fn room_at(gate: SocketAddr, port: u16) -> String {
    for number in 0..10_000 {
        let room = format!("probe{number}");
        if offered(gate, &room).await.unwrap() == port {
            return room;
        }
    }
    panic!("no room leads to port {port}");
}

/// How many live nodes the gate knows.
async fn nodes_known(cluster: &Cluster) -> anyhow::Result<u32> {
    // A count, and a small one.
    Ok(cluster.metric("gate-1", "tangelo_registry_nodes").await?.round() as u32)
}

/// The users at the first connector.
fn at_first(load: Load, keys: &[UserKey]) -> BTreeSet<UserKey> {
    let first = keys.iter().enumerate().filter(|(user, _)| load.connector_of(*user, 3) == 0);
    first.map(|(_, key)| *key).collect()
}

/// Waits until nobody at the other connectors lists a member of the first.
async fn all_left(crowd: &Crowd) {
    until("the dead connector's members have left", async || {
        let report = crowd.report();
        anyhow::ensure!(report.count(verify::history::Kind::Ghost) == 0, "{report}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Killed: its members are gone in time, and the gate stops offering it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_is_killed() {
    let load = Load::chosen();
    let cluster = load.cluster("connector-kill").await;
    killed(load, cluster).await;
}

/// The same with etcd, which sees no streams break: chats do, and say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_killed_with_etcd() {
    let load = Load::chosen();
    let Some((_etcd, cluster)) = load.etcd_cluster("connector-kill-etcd").await else { return };
    killed(load, cluster).await;
}

async fn killed(load: Load, mut cluster: Cluster) {
    let mut crowd = load.crowd(&cluster).await;
    crowd.leave_within(GONE_WITHIN);
    let dead = cluster.connectors()[0].port();
    let gate = cluster.gate();
    let room = room_at(gate, dead).await;
    let kills = if load.full { 5 } else { 1 };
    for kill in 0..kills {
        let nodes = nodes_known(&cluster).await.unwrap();
        let killed = Instant::now();
        cluster.kill("connector-1").unwrap();
        until("the gate knows that it is gone", async || {
            anyhow::ensure!(nodes_known(&cluster).await? < nodes);
            Ok(())
        })
        .await
        .unwrap();
        figure("the gate knows it after", format_args!("{:.2?}", killed.elapsed()));
        until("the gate offers another", async || {
            anyhow::ensure!(offered(gate, &room).await? != dead);
            Ok(())
        })
        .await
        .unwrap();
        figure("gate offers it no more after", format_args!("{:.2?}", killed.elapsed()));
        all_left(&crowd).await;
        cluster.restart("connector-1").await.unwrap();
        crowd.work(100).await.unwrap();
        if kill + 1 < kills {
            for user in 0..load.users {
                if load.connector_of(user, 3) == 0 {
                    let (name, room) = (format!("u{user}"), format!("room{}", user % load.rooms));
                    crowd.enter_at(cluster.connectors()[0], &name, &room).await.unwrap();
                }
            }
            crowd.work(100).await.unwrap();
        }
    }
    let lost: BTreeSet<_> = crowd.lost().iter().map(|lost| lost.user).collect();
    let at_first = load.users.div_ceil(3 * load.rooms) * load.rooms;
    assert_eq!(lost.len(), at_first * kills, "only its own users");
    let report = judge(&crowd, &lost).await;
    figure("members gone after, at most", format_args!("{:.1?}", report.leave_latest.unwrap()));
}

/// Asleep for 10 s: its members are given up. Awake again, it closes their connections; nobody sees
/// anything twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_slept_closes_its_sessions() {
    let load = Load::chosen();
    let mut cluster = load.cluster("connector-sleep").await;
    let crowd = load.crowd(&cluster).await;
    cluster.stop("connector-1").unwrap();
    sleep(Duration::from_secs(10)).await;
    cluster.cont("connector-1").unwrap();
    let woken = Instant::now();
    let status = cluster.ended("connector-1").await.unwrap();
    figure("ends after waking", format_args!("{:.1?}", woken.elapsed()));
    assert!(!status.success(), "it gave up by itself: {status}");
    all_left(&crowd).await;
    cluster.restart("connector-1").await.unwrap();
    crowd.work(100).await.unwrap();
    let lost: BTreeSet<_> = crowd.lost().iter().map(|lost| lost.user).collect();
    assert_eq!(lost, at_first(load, &crowd.users()), "only its own users");
    judge(&crowd, &lost).await;
}
