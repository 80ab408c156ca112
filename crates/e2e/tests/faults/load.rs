//! The crowd that all faults strike.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use client::Transport;
use e2e::{Cluster, Crowd, Etcd, Shape, UserKey};
use model::Role;
use tokio::time::Instant;
use verify::history::Report;

/// Chooses the long versions.
const FAULTS: &str = "TANGELO_FAULTS";

/// How many users in how many rooms, and how often each speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) users: usize,
    pub(crate) rooms: usize,
    pub(crate) every: Duration,
    /// The long version.
    pub(crate) full: bool,
}

impl Load {
    /// 300 sends/s in all: of 600 users in 60 rooms in the long version.
    pub(crate) fn chosen() -> Self {
        let full = std::env::var(FAULTS).is_ok_and(|text| text == "full");
        if full {
            Self { users: 600, rooms: 60, every: Duration::from_secs(2), full }
        } else {
            Self { users: 60, rooms: 12, every: Duration::from_millis(200), full }
        }
    }

    /// The shape of the standard cluster: 3 connectors, 3 chats.
    pub(crate) async fn cluster(self, name: &str) -> Cluster {
        Cluster::start(&format!("faults-{name}"), Shape::new(3, 3)).await.unwrap()
    }

    /// The same on three members of etcd, which are shut down when they are dropped. None if etcd is
    /// not installed.
    pub(crate) async fn etcd_cluster(self, name: &str) -> Option<(Etcd, Cluster)> {
        let name = format!("faults-{name}");
        let etcd = Etcd::start(&format!("{name}-etcd"), 3).await.unwrap()?;
        let shape = Shape { registry: Some(etcd.url("e2e")), ..Shape::new(3, 3) };
        let cluster = Cluster::start(&name, shape).await.unwrap();
        Some((etcd, cluster))
    }

    /// Fills the rooms over all connectors, and lets everybody speak.
    pub(crate) async fn crowd(self, cluster: &Cluster) -> Crowd {
        self.fill(cluster, Crowd::new(Transport::Tcp)).await
    }

    /// The same, of clients that come back.
    pub(crate) async fn modern_crowd(self, cluster: &Cluster) -> Crowd {
        self.fill(cluster, Crowd::modern(Transport::WebSocket, cluster.gate())).await
    }

    async fn fill(self, cluster: &Cluster, mut crowd: Crowd) -> Crowd {
        let connectors = cluster.connectors();
        for number in 0..self.users {
            let connector = connectors[self.connector_of(number, connectors.len())];
            let room = format!("room{}", number % self.rooms);
            crowd.enter_at(connector, &format!("u{number}"), &room).await.unwrap();
        }
        crowd.chatter(Some(self.every));
        crowd.work(100).await.unwrap();
        crowd
    }

    /// Which connector a user is at: neighbours in a room are at different ones.
    pub(crate) const fn connector_of(self, user: usize, connectors: usize) -> usize {
        (user / self.rooms) % connectors
    }
}

/// Prints what was measured.
pub(crate) fn figure(what: &str, value: impl Display) {
    eprintln!("figure: {what}: {value}");
}

/// Prints how spans are spread.
pub(crate) fn figure_spread(what: &str, mut spans: Vec<Duration>) {
    spans.sort_unstable();
    let Some(longest) = spans.last() else { return };
    let at = |percent: usize| spans[(spans.len() * percent / 100).min(spans.len() - 1)];
    figure(
        what,
        format_args!(
            "p50 {:.1?}  p99 {:.1?}  max {longest:.1?}  (of {})",
            at(50),
            at(99),
            spans.len()
        ),
    );
}

/// The longest time that an answer took, of all sends under way since then.
pub(crate) fn gap_since(crowd: &Crowd, since: Instant) -> Duration {
    crowd.acked_since(since).iter().map(|acked| acked.after).max().unwrap_or_default()
}

/// Asks a process to end, waits until it has, and answers how long that took.
pub(crate) async fn end(cluster: &mut Cluster, name: &str) -> Duration {
    let began = Instant::now();
    cluster.term(name).unwrap();
    let status = cluster.ended(name).await.unwrap();
    assert!(status.success(), "{name}: {status}");
    began.elapsed()
}

/// Rooms that had to start a new generation, as all running chats count them.
pub(crate) async fn resets(cluster: &Cluster) -> f64 {
    cluster.metric_of(Role::Chat, "tangelo_chat_rooms_reset_total").await.unwrap()
}

/// Lets the crowd come to rest and judges it: nobody has noticed anything.
pub(crate) async fn judge_undisturbed(crowd: &Crowd) {
    figure("history", crowd.judge().await);
}

/// Lets the crowd come to rest and judges it; these users may have been lost, and nobody else.
pub(crate) async fn judge(crowd: &Crowd, may_be_lost: &BTreeSet<UserKey>) -> Report {
    let report = crowd.verdict().await;
    let lost = crowd.lost();
    let wrongly: Vec<_> = lost.iter().filter(|lost| !may_be_lost.contains(&lost.user)).collect();
    assert!(wrongly.is_empty(), "{wrongly:?}");
    assert!(report.is_clean(), "{report}");
    figure("history", &report);
    report
}
