//! What a process holds after it has joined.

use std::sync::{Arc, OnceLock};

use cluster::{Claim, ClusterMap, Gone, Lease, NodeState, Outcome};
use daemon::{Cause, Stop};
use metrics::counter;
use model::{Incarnation, Shard, Term};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{embedded, etcd};

/// A claim or a release has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The registry was not reached, or its answer was lost: whether it was done is not known,
    /// and the map will tell.
    #[error("the registry was not reached, or its answer was lost")]
    Unknown,
    /// The registry does not count this node as live at the moment: nothing was done.
    #[error("the registry does not count this node as live")]
    NotLive,
}

/// A node's place in the cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The map, as last heard; of version 0 and empty until the registry has answered once.
    pub map: watch::Receiver<Arc<ClusterMap>>,
    /// How the node stands with the registry; see [`Membership::gone`] once it is lost.
    pub lease: watch::Receiver<Lease>,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: watch::Sender<NodeState>,
    pub(crate) gone: Arc<OnceLock<Gone>>,
    pub(crate) leaving: CancellationToken,
    pub(crate) ended: CancellationToken,
    pub(crate) calls: Calls,
}

/// Who carries out claims and releases.
#[derive(Clone, Debug)]
pub(crate) enum Calls {
    Embedded(embedded::Calls),
    Etcd(etcd::Calls),
}

impl Membership {
    /// The incarnation that has joined.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Says how many sessions the node holds; told with the next beat.
    pub fn set_load(&self, load: u32) {
        self.change(|state| state.load = load);
    }

    /// Says whether the node can be given work; told at once.
    pub fn set_ready(&self, ready: bool) {
        self.change(|state| state.ready = ready);
    }

    /// Says whether the node is on its way out; told at once.
    pub fn set_draining(&self, draining: bool) {
        self.change(|state| state.draining = draining);
    }

    fn change(&self, change: impl FnOnce(&mut NodeState)) {
        self.state.send_if_modified(|state| {
            let before = *state;
            change(state);
            *state != before
        });
    }

    /// Says that a link to this node was ended by its system, as when a process dies: evidence, by
    /// which a node may be gone before its lease ends. The embedded registry has streams of its own
    /// that tell it.
    pub fn link_broken(&self, node: Incarnation) {
        match &self.calls {
            Calls::Embedded(_) => {}
            Calls::Etcd(calls) => calls.broken(node),
        }
    }

    /// Claims shards, each if it is still at the term given and has no owner. A node that has not
    /// heard yet that a shard is free may be told that it has lost.
    ///
    /// The answers come in the order of the claims. Of one that was not answered, alone among
    /// others, nothing is said; the map will tell.
    ///
    /// # Errors
    ///
    /// If the registry was not reached or does not know the node.
    ///
    /// # Cancel safety
    ///
    /// A call that is given up may still be carried out. The map shows the node as owner then;
    /// the shard can be claimed again at that term.
    pub async fn claim(&self, shards: Vec<(Shard, Term)>) -> Result<Vec<Claim>, CallError> {
        match &self.calls {
            Calls::Embedded(calls) => calls.claim(&shards).await,
            Calls::Etcd(calls) => calls.claim(&shards).await,
        }
    }

    /// Gives up shards owned at the terms given. One that is not owned so is left alone.
    ///
    /// # Errors
    ///
    /// If the registry was not reached or does not know the node.
    ///
    /// # Cancel safety
    ///
    /// A call that is given up may still be carried out; it can be repeated.
    pub async fn release(&self, shards: Vec<(Shard, Term)>) -> Result<(), CallError> {
        match &self.calls {
            Calls::Embedded(calls) => calls.release(&shards).await,
            Calls::Etcd(calls) => calls.release(&shards).await,
        }
    }

    /// Leaves the cluster: the node is gone at once and its shards are free. Returns when the
    /// registry has heard it, or cannot be reached.
    ///
    /// Also done, without waiting, when the tasks given to [`crate::Registry::join`] are
    /// cancelled: the process ends then.
    pub async fn leave(&self) {
        self.leaving.cancel();
        self.ended.cancelled().await;
    }

    /// Stops the process once the registry has given this life of the node up; what it still
    /// believes to own or to hold belongs to others, and the supervisor starts a new life. Returns
    /// then, or when the node has left.
    pub async fn stop_when_lost(mut self, stop: Stop) {
        let lost = self.lease.wait_for(|lease| *lease == Lease::Lost).await.is_ok();
        if lost && !stop.is_stopping() {
            let why = self.gone().map_or_else(String::new, |gone| format!(": {gone}"));
            stop.stop(Cause::Fatal(format!("the registry gave this node up{why}")));
        }
    }

    /// Why the lease is [`Lease::Lost`].
    ///
    /// After [`Gone::Replaced`] another process has the node's name: coming back under it would
    /// end that one.
    #[must_use]
    pub fn gone(&self) -> Option<Gone> {
        self.gone.get().copied()
    }
}

/// Counts what came of claims, where that is decided.
pub(crate) fn count_claims(claims: &[Claim]) {
    for claim in claims {
        let outcome = match claim.outcome {
            Outcome::Won { .. } => "won",
            Outcome::Lost(_) => "lost",
            Outcome::Settling { .. } => "settling",
        };
        counter!("tangelo_registry_claims_total", "outcome" => outcome).increment(1);
    }
}
