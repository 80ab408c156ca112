//! What a node knows of its own place in the cluster, whichever registry keeps it.

use std::sync::{Arc, OnceLock};

use cluster::{ClusterMap, Gone, Lease, Node, NodeState, Timing};
use daemon::Tasks;
use metrics::{counter, gauge};
use model::Incarnation;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    backoff::Backoff,
    membership::{Calls, Membership},
};

/// The writing side of a [`Membership`].
pub(crate) struct Standing {
    /// What the node says of itself.
    pub(crate) state: watch::Receiver<NodeState>,
    map: watch::Sender<Arc<ClusterMap>>,
    lease: watch::Sender<Lease>,
    gone: Arc<OnceLock<Gone>>,
    leaving: CancellationToken,
    cancelled: CancellationToken,
    backoff: Backoff,
    /// One line per silence, however many tries it takes.
    complained: bool,
}

impl Standing {
    /// The two sides of a membership that has not begun.
    pub(crate) fn new(
        node: &Node,
        calls: Calls,
        timing: Timing,
        tasks: &Tasks,
    ) -> (Self, Membership) {
        let (state_sender, state) = watch::channel(node.state());
        let (map_sender, map) = watch::channel(Arc::default());
        let (lease_sender, lease) = watch::channel(Lease::Silent);
        let incarnation: Incarnation = node.incarnation;
        let membership = Membership {
            map,
            lease,
            incarnation,
            state: state_sender,
            gone: Arc::new(OnceLock::new()),
            leaving: CancellationToken::new(),
            ended: CancellationToken::new(),
            calls,
        };
        let standing = Self {
            state,
            map: map_sender,
            lease: lease_sender,
            gone: Arc::clone(&membership.gone),
            leaving: membership.leaving.clone(),
            cancelled: tasks.token(),
            backoff: Backoff::new(timing.retry_max, incarnation.0),
            complained: false,
        };
        (standing, membership)
    }

    /// The registry counts this node as live.
    pub(crate) fn held(&mut self) {
        let heard_again = std::mem::replace(&mut self.complained, false);
        tracing::info!(heard_again, "registry joined");
        gauge!("tangelo_registry_held").set(1.0);
        self.backoff.reset();
        self.lease.send_replace(Lease::Held);
    }

    /// The registry was not reached, or is no longer; the text says how.
    pub(crate) fn silent(&mut self, reason: &str) {
        self.lease.send_replace(Lease::Silent);
        counter!("tangelo_registry_tries_failed_total").increment(1);
        gauge!("tangelo_registry_held").set(0.0);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(reason, "registry silent: going on with the map as it is");
        }
    }

    /// The incarnation is over.
    pub(crate) fn lost(&self, reason: Gone) {
        if reason != Gone::Left {
            tracing::error!(%reason, "this incarnation is over");
        }
        gauge!("tangelo_registry_held").set(0.0);
        // The reason first: whoever sees the lease lost can ask for it.
        let _ = self.gone.set(reason);
        self.lease.send_replace(Lease::Lost);
    }

    /// There is a newer map.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn publish(&self, map: Arc<ClusterMap>) {
        gauge!("tangelo_registry_map_version").set(map.version as f64);
        self.map.send_replace(map);
    }

    /// Waits until the next try is due. False if the node leaves instead.
    pub(crate) async fn pause(&mut self) -> bool {
        tokio::select! {
            () = sleep(self.backoff.pause()) => true,
            () = self.ending() => false,
        }
    }

    /// Waits until the node is to leave.
    pub(crate) fn ending(&self) -> impl Future<Output = ()> + Send + use<> {
        let (leaving, cancelled) = (self.leaving.clone(), self.cancelled.clone());
        async move {
            tokio::select! {
                () = leaving.cancelled() => {}
                () = cancelled.cancelled() => {}
            }
        }
    }
}

/// What a call has failed with, for the log.
pub(crate) fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
