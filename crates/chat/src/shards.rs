//! Carries out which shards this chat claims and gives up.

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    ClusterMap,
    ownership::{Effect, Event, Shards},
};
use daemon::{Readiness, Tasks};
use model::{Incarnation, NodeId, Shard, Term, Time, limits};
use registry::{Lease, Membership};
use room::OwnerEvent;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::worker::{Input, Workers};

/// Drives [`Shards`] until the process ends.
pub(crate) struct Keeper {
    shards: Shards,
    membership: Membership,
    workers: Workers,
    ready: Readiness,
    tasks: Tasks,
    connectors: BTreeMap<Incarnation, NodeId>,
    owned: usize,
    answers: mpsc::Sender<Event>,
    start: Instant,
}

impl Keeper {
    /// Runs until `tasks` are cancelled or the lease is lost.
    pub(crate) async fn run(
        membership: Membership,
        workers: Workers,
        ready: Readiness,
        tasks: Tasks,
    ) {
        // One claim and one release are under way at a time.
        let (answers, mut answered) = mpsc::channel(4);
        let mut keeper = Self {
            shards: Shards::new(membership.incarnation()),
            membership,
            workers,
            ready,
            tasks,
            connectors: BTreeMap::new(),
            owned: 0,
            answers,
            start: Instant::now(),
        };
        let token = keeper.tasks.token();
        let mut map = keeper.membership.map.clone();
        let mut lease = keeper.membership.lease.clone();
        map.mark_changed();
        lease.mark_changed();
        loop {
            let timeout = keeper.shards.poll_timeout().map(|at| keeper.start + at.since_start());
            tokio::select! {
                changed = map.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = Arc::clone(&map.borrow_and_update());
                    keeper.tell_gone_connectors(&current).await;
                    keeper.handle(Event::MapChanged(current)).await;
                }
                changed = lease.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = *lease.borrow_and_update();
                    keeper.handle(Event::LeaseChanged(current)).await;
                    if current == Lease::Lost {
                        return;
                    }
                }
                Some(event) = answered.recv() => keeper.handle(event).await,
                () = sleep_until(timeout.unwrap_or_else(Instant::now)), if timeout.is_some() => {
                    keeper.handle(Event::Timeout).await;
                }
                () = token.cancelled() => return,
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        let now = Time::from_start(self.start.elapsed());
        self.shards.handle(now, event, &mut effects);
        let (mut owned, mut disowned) = (0, 0);
        for effect in effects {
            match effect {
                Effect::Claim(shards) => self.claim(shards),
                Effect::Release(shards) => self.release(shards),
                Effect::Own { shard, term, connectors } => {
                    owned += 1;
                    let won = OwnerEvent::Won { shard, term, connectors };
                    self.workers.shard(shard, Input::Room(won)).await;
                }
                Effect::Disown(shard) => {
                    disowned += 1;
                    self.workers.shard(shard, Input::Room(OwnerEvent::Lost { shard })).await;
                }
            }
        }
        if owned + disowned > 0 {
            self.owned = (self.owned + owned).saturating_sub(disowned);
            tracing::info!(owned, disowned, now = self.owned, "shards changed hands");
            let some = if self.owned > 0 { Ok(()) } else { Err("owns no shard yet".to_owned()) };
            self.ready.set("shards", some);
        }
    }

    fn claim(&self, shards: Vec<(Shard, Term)>) {
        tracing::debug!(count = shards.len(), "claiming shards");
        let (membership, answers) = (self.membership.clone(), self.answers.clone());
        self.tasks.spawn("claim", async move {
            let event = match membership.claim(shards).await {
                Ok(claims) => Event::ClaimAnswered(claims),
                Err(error) => {
                    tracing::warn!(%error, "claim failed; it will be tried again");
                    Event::ClaimFailed
                }
            };
            // Nobody listens when the process ends.
            let _ = answers.send(event).await;
        });
    }

    fn release(&self, shards: Vec<(Shard, Term)>) {
        tracing::debug!(count = shards.len(), "releasing shards");
        let (membership, answers) = (self.membership.clone(), self.answers.clone());
        self.tasks.spawn("release", async move {
            let event = match membership.release(shards).await {
                Ok(()) => Event::Released,
                Err(error) => {
                    tracing::warn!(%error, "release failed; it will be tried again");
                    Event::ReleaseFailed
                }
            };
            let _ = answers.send(event).await;
        });
    }

    async fn tell_gone_connectors(&mut self, map: &ClusterMap) {
        for (gone, name) in &self.connectors {
            if !map.nodes.contains_key(gone) {
                tracing::info!(connector = %name, incarnation = gone.0, "connector is gone");
                let event = OwnerEvent::ConnectorGone(*gone);
                self.workers.all(|| Input::Room(event.clone())).await;
            }
        }
        let live = map.connectors().map(|node| (node.incarnation, node.id.clone()));
        self.connectors = live.collect();
    }
}

/// Waits until this chat owns nothing any more, or time is up.
pub(crate) async fn given_away(membership: &Membership) {
    let me = membership.incarnation();
    let mut map = membership.map.clone();
    let all_gone = map.wait_for(|map| map.owned_by(me).next().is_none());
    let result = tokio::time::timeout(limits::DRAIN_TIMEOUT / 2, all_gone).await;
    match result {
        Ok(_) => tracing::info!("all shards are given away"),
        Err(_) => tracing::warn!("some shards found no other chat; they wait for one"),
    }
}
