//! The gate's place in the cluster: joined, and joined again when it was declared gone.

use std::sync::Arc;

use cluster::{ClusterMap, Gone, Lease, Node};
use daemon::{Cause, Process, Readiness, Stop, Tasks};
use model::{Incarnation, NodeId, Role};
use registry::{Membership, Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::entry::Missing;

/// Conditions of a gate's readiness.
const REGISTRY: &str = "registry";
const CONNECTORS: &str = "connectors";
const SHARDS: &str = "shards";

/// Keeps the gate joined, and the map at hand.
pub(crate) struct Presence {
    registry: Registry,
    name: NodeId,
    admin: String,
    incarnation: Incarnation,
    ready: Readiness,
    stop: Stop,
    tasks: Tasks,
    map: watch::Sender<Arc<ClusterMap>>,
    leaving: CancellationToken,
}

/// What the rest of the gate holds of it.
pub(crate) struct PresenceHandle {
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    leaving: CancellationToken,
    left: CancellationToken,
}

impl PresenceHandle {
    /// Leaves the cluster; returns when the registry has heard it or cannot be reached.
    pub(crate) async fn leave(&self) {
        self.leaving.cancel();
        self.left.cancelled().await;
    }
}

impl Presence {
    /// Joins, and stays joined until the handle leaves.
    pub(crate) fn start(process: &Process, registry: Registry) -> PresenceHandle {
        process.ready.unmet(REGISTRY, "not joined yet");
        let (map, receiver) = watch::channel(Arc::default());
        let (leaving, left) = (CancellationToken::new(), CancellationToken::new());
        let presence = Self {
            registry,
            name: process.name.clone(),
            admin: process.admin_url(),
            incarnation: process.incarnation,
            ready: process.ready.clone(),
            stop: process.stop.clone(),
            tasks: process.vital_tasks().clone(),
            map,
            leaving: leaving.clone(),
        };
        let over = left.clone().drop_guard();
        process.tasks.spawn("presence", async move {
            let _over = over;
            presence.run().await;
        });
        PresenceHandle { map: receiver, leaving, left }
    }

    async fn run(mut self) {
        loop {
            let membership = self.registry.join(self.node(), &self.tasks).await;
            let Some(reason) = self.follow(membership).await else { return };
            if reason == Gone::Replaced {
                let name = &self.name;
                let words = format!(
                    "another process has joined as {name}; give this one another name with --name"
                );
                return self.stop.stop(Cause::Fatal(words));
            }
            // Nothing of a gate depends on its incarnation, so it comes back without ending.
            self.ready.unmet(REGISTRY, format!("declared gone ({reason}), joining again"));
            match Process::draw_incarnation() {
                Ok(incarnation) => self.incarnation = incarnation,
                Err(error) => return self.stop.stop(Cause::Fatal(error.to_string())),
            }
        }
    }

    fn node(&self) -> Node {
        Node {
            id: self.name.clone(),
            incarnation: self.incarnation,
            role: Role::Gate,
            link: None,
            client: None,
            admin: Some(self.admin.clone()),
            load: 0,
            draining: self.stop.is_stopping(),
            ready: self.ready.is_ready(),
        }
    }

    /// Follows the map for one membership. None if it was left, else why it was lost.
    async fn follow(&self, mut membership: Membership) -> Option<Gone> {
        let cancelled = self.tasks.token();
        let mut ready = self.ready.watch();
        let mut draining = false;
        loop {
            self.take(&membership.map.borrow_and_update().clone());
            if *membership.lease.borrow_and_update() == Lease::Lost {
                return Some(membership.gone().unwrap_or(Gone::Left));
            }
            membership.set_ready(self.ready.is_ready());
            tokio::select! {
                Ok(()) = membership.map.changed() => {}
                Ok(()) = membership.lease.changed() => {}
                Ok(()) = ready.changed() => {}
                () = self.stop.wait(), if !draining => {
                    draining = true;
                    membership.set_draining(true);
                }
                () = self.leaving.cancelled() => {
                    membership.leave().await;
                    return None;
                }
                () = cancelled.cancelled() => return None,
            }
        }
    }

    /// Takes in a map. One that the registry has not filled yet is worse than the last one known.
    fn take(&self, map: &Arc<ClusterMap>) {
        if map.version == 0 || Arc::ptr_eq(&self.map.borrow(), map) {
            return;
        }
        self.map.send_replace(Arc::clone(map));
        let missing = Missing::of(map);
        self.ready.set(CONNECTORS, missing.connectors);
        self.ready.set(SHARDS, missing.shards);
        self.ready.met(REGISTRY);
    }
}
