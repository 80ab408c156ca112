//! A connector, whatever process it is in.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cluster::ClusterMap;
use daemon::{Readiness, Tasks};
use frontend::{Application, Turns};
use model::{Incarnation, Rate, Shard, Term, limits};
use registry::Membership;
use room::RelayEvent;
use tokio::sync::watch;
use wire::pomelo::Options;

use crate::{
    client::Clients,
    link::{self, Dialling},
    worker::{self, Input, Workers},
};

/// How often the number of sessions is told to the registry.
const LOAD_REPORTED: Duration = Duration::from_millis(250);

/// A connector: holds relays and links for the sessions of its clients. Its tasks are those that
/// it was started with, and it ends with them.
///
/// A process has one. A simulation has several in one thread, on a network of its own.
#[derive(Clone, Debug)]
pub struct Connector {
    workers: Workers,
    clients: Clients,
    tasks: Tasks,
}

/// How a connector works.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Tasks among which rooms are divided.
    pub workers: usize,
    /// Most clients that are let in per second.
    pub admissions: u32,
    /// Whether what a room hears is written through io_uring.
    pub writes_together: bool,
}

impl Connector {
    /// Starts this life of a node.
    #[must_use]
    pub fn start(setup: Setup, me: Incarnation, options: &Arc<Options>, tasks: &Tasks) -> Self {
        let Setup { workers, admissions, writes_together } = setup;
        let workers = worker::start(workers, me, options, writes_together, tasks);
        let entries = Turns::new("entry", Rate::even(admissions), limits::ADMISSION_PATIENCE);
        let clients = Clients::new(workers.clone(), entries);
        Self { workers, clients, tasks: tasks.clone() }
    }

    /// What takes the calls of clients.
    #[must_use]
    pub fn application(&self) -> impl Application + use<> {
        self.clients.clone()
    }

    /// How many clients are connected, entered or not.
    #[must_use]
    pub fn connected(&self) -> u32 {
        self.clients.connected()
    }

    /// Follows the map as this member: links to all chats, and who owns what. `ready` hears
    /// whether any owner is known.
    pub fn follow(&self, membership: &Membership, dialling: Dialling, ready: &Readiness) {
        let tasks = &self.tasks;
        let (map, workers) = (membership.map.clone(), self.workers.clone());
        let links =
            link::follow(dialling, membership.clone(), workers, tasks.clone(), tasks.token());
        tasks.spawn("links", links);
        let (membership, workers) = (membership.clone(), self.workers.clone());
        let owners = follow_owners(map, membership.clone(), workers, ready.clone());
        tasks.spawn("owners", owners);
        tasks.spawn("load", report_load(membership, self.clients.clone(), tasks.clone()));
    }
}

/// Tells the workers who owns which shard, whenever that changes, and before it if a connector has
/// gone.
async fn follow_owners(
    mut map: watch::Receiver<Arc<ClusterMap>>,
    membership: Membership,
    workers: Workers,
    ready: Readiness,
) {
    let mut told: Vec<(Option<Incarnation>, Term)> =
        vec![(None, Term::default()); Shard::all().len()];
    let mut connectors: BTreeSet<Incarnation> = BTreeSet::new();
    loop {
        let current = Arc::clone(&map.borrow_and_update());
        let live: BTreeSet<_> = current.connectors().map(|node| node.incarnation).collect();
        if !connectors.is_subset(&live) {
            workers.all(|| Input::Room(RelayEvent::ConnectorGone)).await;
        }
        connectors = live;
        for (shard, told) in Shard::all().zip(&mut told) {
            let ownership = current.ownership(shard);
            let (owner, term) = (ownership.owner, ownership.term);
            if *told != (owner, term) {
                *told = (owner, term);
                let event = RelayEvent::Owner { shard, owner, term };
                workers.shard(shard, Input::Room(event)).await;
            }
        }
        let known = current.shards.iter().any(|ownership| ownership.owner.is_some());
        let state = if known { Ok(()) } else { Err("no owner of rooms is known yet".to_owned()) };
        membership.set_ready(known);
        ready.set("owners", state);
        if map.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the registry how many sessions there are, by which gates share out new ones.
async fn report_load(membership: Membership, clients: Clients, tasks: Tasks) {
    let token = tasks.token();
    let mut tick = tokio::time::interval(LOAD_REPORTED);
    loop {
        tokio::select! {
            _ = tick.tick() => membership.set_load(clients.connected()),
            () = token.cancelled() => return,
        }
    }
}
