//! A node's presence in etcd.

use std::{pin::pin, sync::Arc};

use cluster::{
    Gone, Mirror, Node, Timing,
    mirror::{Doomed, Effect, Event},
};
use daemon::Tasks;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use metrics::{counter, gauge};
use model::{Incarnation, limits};
use rpc::{
    dial::Dialer,
    etcd::{Etcd, KeepAlive, LeaseId, Watch, Watched},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tonic::Status;

use super::{
    address::Address,
    calls::{Calls, Shared},
    endpoints::Endpoints,
};
use crate::{
    Config, ConfigError,
    membership::{self, Membership},
    standing::{Standing, describe},
};

/// Knows where etcd is.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: Address,
    timing: Timing,
    dialer: Dialer,
}

impl Client {
    /// `rest` is what stands behind `etcd://`.
    pub(crate) fn new(config: &Config, rest: &str) -> Result<Self, ConfigError> {
        let address = Address::new(&config.address, rest, config.timing)?;
        Ok(Self { address, timing: config.timing, dialer: config.dialer.clone() })
    }

    pub(crate) fn join(&self, node: Node, tasks: &Tasks) -> Membership {
        let mirror = Mirror::new(node.incarnation, node.id.clone(), self.timing);
        let (broken, evidence) = mpsc::channel(limits::BROKEN_LINKS_MAX);
        let calls = Calls {
            incarnation: node.incarnation,
            role: node.role,
            timing: self.timing,
            shared: Arc::new(Shared::new(mirror)),
            broken,
        };
        let kind = membership::Calls::Etcd(calls.clone());
        let (standing, membership) = Standing::new(&node, kind, self.timing, tasks);
        let endpoints = Endpoints::new(
            &self.address,
            node.incarnation.0,
            self.timing.call_timeout,
            self.dialer.clone(),
        );
        let presence = Presence {
            endpoints,
            timing: self.timing,
            shared: Arc::clone(&calls.shared),
            node,
            lease: None,
            shown_under: None,
            stale: false,
            complained_of_refusal: false,
            evidence,
            standing,
        };
        let ended = membership.ended.clone().drop_guard();
        tasks.spawn("registry", async move {
            let _ended = ended;
            presence.run().await;
        });
        membership
    }
}

/// Keeps a node present.
struct Presence {
    endpoints: Endpoints,
    timing: Timing,
    shared: Arc<Shared>,
    /// As it was stored last.
    node: Node,
    lease: Option<LeaseId>,
    /// The lease under which the sign of life is known to be.
    shown_under: Option<LeaseId>,
    /// Changes were missed: only a snapshot helps.
    stale: bool,
    complained_of_refusal: bool,
    /// Nodes whose links were ended by their systems.
    evidence: mpsc::Receiver<Incarnation>,
    standing: Standing,
}

/// Why an attendance has ended.
enum End {
    /// The node has left.
    Left,
    /// The incarnation is over.
    Gone(Gone),
    /// etcd was not reached, or is no longer; the text says how.
    Away(String),
    /// Nothing is wrong with etcd, but something has to be said or read anew.
    Anew(&'static str),
}

/// An endpoint that answers, and what is open there.
struct Session {
    etcd: Etcd,
    lease: LeaseId,
    keep_alive: KeepAlive,
    watch: Watch,
}

/// What has been asked besides, and is not awaited.
enum Done {
    Updated(Result<Node, String>),
    Told,
    DoubtAnswered(Result<(), String>),
}

type Job = BoxFuture<'static, Done>;

impl Presence {
    async fn run(mut self) {
        loop {
            match self.attend().await {
                End::Left => break,
                End::Gone(reason) => return self.standing.lost(reason),
                End::Anew(why) => tracing::debug!(why, "asking etcd anew"),
                End::Away(reason) => {
                    self.shared.forget_member();
                    self.shared.handle(Event::Silent);
                    self.standing.silent(&reason);
                    self.endpoints.turn();
                }
            }
            if !self.standing.pause().await {
                break;
            }
        }
        self.standing.lost(Gone::Left);
    }

    async fn attend(&mut self) -> End {
        let ending = self.standing.ending();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = ending => return End::Left,
        };
        match opened {
            Ok(session) => self.stay(session).await,
            Err(end) => end,
        }
    }

    // ---- coming in

    /// Finds an endpoint, makes the node present there, and begins to follow.
    async fn open(&mut self) -> Result<Session, End> {
        let (etcd, greeting) = self.endpoints.connect().await.map_err(End::Away)?;
        let known = self.shared.mirror().recognise(greeting.store, greeting.revision);
        known.map_err(|estranged| End::Away(estranged.to_string()))?;
        self.shared.use_member(etcd.clone());
        let (lease, keep_alive) = self.lease(&etcd).await?;
        if !self.shared.mirror().is_enlisted() {
            self.enlist(&etcd, lease).await?;
        } else if self.shown_under != Some(lease) {
            self.enlist_again(&etcd, lease).await?;
        } else if self.stale {
            self.read_all(&etcd).await?;
        }
        if self.shared.mirror().is_doubted() {
            self.enlist_again(&etcd, lease).await?;
        }
        let follow_from = self.shared.mirror().revision() + 1;
        let watch = self.ask(etcd.watch(follow_from)).await?;
        let _ = self.take(Event::Heard)?;
        self.standing.held();
        Ok(Session { etcd, lease, keep_alive, watch })
    }

    /// The lease that the node has, if it still runs, else a new one.
    async fn lease(&mut self, etcd: &Etcd) -> Result<(LeaseId, KeepAlive), End> {
        if let Some(lease) = self.lease {
            let mut keep_alive = self.ask(etcd.keep_alive(lease)).await?;
            if self.ask(keep_alive.answer()).await? {
                return Ok((lease, keep_alive));
            }
        }
        let lease = self.ask(etcd.grant(self.timing.lease)).await?;
        self.lease = Some(lease);
        let mut keep_alive = self.ask(etcd.keep_alive(lease)).await?;
        if self.ask(keep_alive.answer()).await? {
            Ok((lease, keep_alive))
        } else {
            Err(End::Anew("the lease just granted has ended"))
        }
    }

    async fn enlist(&mut self, etcd: &Etcd, lease: LeaseId) -> Result<(), End> {
        self.read_all(etcd).await?;
        let (former, is_full) = {
            let mirror = self.shared.mirror();
            (mirror.former_lives(), mirror.is_full())
        };
        if is_full {
            return Err(End::Away("the cluster is full".to_owned()));
        }
        self.node.set_state(*self.standing.state.borrow_and_update());
        let revision = self.ask(etcd.enlist(&self.node, lease, &former)).await?;
        self.shown_under = Some(lease);
        self.take(Event::Enlisted { revision }).map(drop)
    }

    /// The sign of life is gone: etcd itself says whether the record is still there.
    async fn enlist_again(&mut self, etcd: &Etcd, lease: LeaseId) -> Result<(), End> {
        self.node.set_state(*self.standing.state.borrow_and_update());
        match self.ask(etcd.enlist_again(&self.node, lease)).await? {
            Some(revision) => {
                tracing::info!("back before anybody declared this node gone");
                self.shown_under = Some(lease);
                self.take(Event::Enlisted { revision }).map(drop)
            }
            None => {
                self.read_all(etcd).await?;
                Err(End::Anew("the record was not there and is"))
            }
        }
    }

    async fn read_all(&mut self, etcd: &Etcd) -> Result<(), End> {
        counter!("tangelo_registry_snapshots_total").increment(1);
        let snapshot = self.ask(etcd.snapshot()).await?;
        let (revision, changes) = (snapshot.revision, snapshot.changes);
        self.stale = false;
        self.take(Event::Snapshot { revision, changes }).map(drop)
    }

    // ---- staying

    async fn stay(&mut self, mut session: Session) -> End {
        let end = self.follow(&mut session).await;
        if let (End::Left | End::Gone(_), Some(lease)) = (&end, self.lease) {
            let withdrawal = session.etcd.withdraw(&self.node, lease);
            // Without an answer the lease ends by itself.
            let _ = timeout(self.timing.call_timeout, withdrawal).await;
        }
        end
    }

    async fn follow(&mut self, session: &mut Session) -> End {
        let mut over = pin!(self.standing.ending());
        let beat = self.timing.beat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked_at: Option<Instant> = None;
        let mut jobs: FuturesUnordered<Job> = FuturesUnordered::new();
        let (mut updating, mut refused) = (false, false);
        loop {
            let wakes_at = self.shared.mirror().poll_timeout().map(|at| self.shared.instant(at));
            let late_at = asked_at.map(|asked_at| asked_at + self.timing.call_timeout);
            let mut with_beat = false;
            let event = tokio::select! {
                () = &mut over => return End::Left,
                _ = beats.tick() => {
                    ask_for_time(session, &mut asked_at);
                    with_beat = true;
                    None
                }
                answer = session.keep_alive.answer() => match answer {
                    Ok(true) => {
                        asked_at = None;
                        Some(Event::Heard)
                    }
                    Ok(false) => return End::Anew("the lease has ended"),
                    Err(status) => return End::Away(describe(&status)),
                },
                () = at(late_at) => return End::Away("a beat was not answered in time".to_owned()),
                watched = session.watch.next() => match watched {
                    Ok(Watched::Changes(changes)) => Some(Event::Changed(changes)),
                    Ok(Watched::Compacted) => {
                        self.stale = true;
                        return End::Anew("changes were missed");
                    }
                    Err(status) => return End::Away(describe(&status)),
                },
                Ok(()) = self.standing.state.changed() => None,
                Some(node) = self.evidence.recv() => Some(Event::Broken(node)),
                Some(done) = jobs.next() => {
                    match done {
                        Done::Updated(updated) => {
                            updating = false;
                            refused = updated.is_err();
                            self.updated(updated);
                        }
                        Done::Told | Done::DoubtAnswered(Ok(())) => {}
                        Done::DoubtAnswered(Err(reason)) => return End::Away(reason),
                    }
                    None
                }
                () = at(wakes_at) => Some(Event::Timeout),
            };
            if let Some(event) = event {
                match self.take(event) {
                    Ok(errands) => jobs.extend(self.run_errands(session, errands, &mut asked_at)),
                    Err(end) => return end,
                }
            }
            // What etcd has refused is tried again, but not in a circle.
            let may_update = !updating && (with_beat || !refused);
            if may_update && let Some(update) = self.update(&session.etcd, with_beat) {
                jobs.push(update);
                updating = true;
            }
        }
    }

    /// Stores the node's state, if it has changed. Load waits for a beat: sessions come and go all
    /// the time.
    fn update(&mut self, etcd: &Etcd, with_load: bool) -> Option<Job> {
        let (state, stored) = (*self.standing.state.borrow_and_update(), self.node.state());
        let urgent = (state.ready, state.draining) != (stored.ready, stored.draining);
        let due = urgent || (with_load && state != stored);
        if !due {
            return None;
        }
        let (etcd, mut node) = (etcd.clone(), self.node.clone());
        node.set_state(state);
        let asked = ask(self.timing, async move { etcd.update(&node).await.map(|()| node) });
        Some(Box::pin(async move { Done::Updated(asked.await) }))
    }

    /// A refusal is no silence: the lease is prolonged all the same.
    fn updated(&mut self, updated: Result<Node, String>) {
        match updated {
            Ok(node) => {
                self.node = node;
                self.complained_of_refusal = false;
            }
            Err(reason) => {
                counter!("tangelo_registry_updates_failed_total").increment(1);
                if !std::mem::replace(&mut self.complained_of_refusal, true) {
                    tracing::warn!(reason, "etcd did not take this node's state; trying on");
                }
            }
        }
    }

    fn run_errands(
        &self,
        session: &Session,
        errands: Vec<Effect>,
        asked_at: &mut Option<Instant>,
    ) -> Vec<Job> {
        if errands.contains(&Effect::Ask) {
            ask_for_time(session, asked_at);
        }
        errands.into_iter().filter_map(|errand| self.run_errand(session, errand)).collect()
    }

    /// What the mirror wants of etcd besides.
    fn run_errand(&self, session: &Session, errand: Effect) -> Option<Job> {
        let etcd = session.etcd.clone();
        match errand {
            Effect::Remove(nodes) => Some(self.remove(etcd, nodes)),
            Effect::Doubt { node, revision } => {
                tracing::info!(incarnation = node.0, "its link broke: doubting that it lives");
                let me = self.node.incarnation;
                let asked = ask(self.timing, async move { etcd.doubt(node, revision, me).await });
                Some(Box::pin(async move {
                    if let Err(reason) = asked.await {
                        // The end of its lease will tell.
                        tracing::debug!(reason, "no node doubted");
                    }
                    Done::Told
                }))
            }
            Effect::AnswerDoubt => {
                tracing::info!("doubted by another node: showing that this one lives");
                let (node, lease) = (self.node.clone(), session.lease);
                let asked = ask(self.timing, async move { etcd.answer_doubt(&node, lease).await });
                Some(Box::pin(async move { Done::DoubtAnswered(asked.await) }))
            }
            Effect::Publish(_) | Effect::Enlist | Effect::Ask | Effect::Over(_) => None,
        }
    }

    fn remove(&self, etcd: Etcd, nodes: Vec<Doomed>) -> Job {
        for Doomed { role, node, doubt } in &nodes {
            let doubted = doubt.is_some();
            tracing::info!(%role, incarnation = node.0, doubted, "no sign of life: declaring it gone");
        }
        let asked = ask(self.timing, async move { etcd.remove(&nodes).await });
        Box::pin(async move {
            count_removed(asked.await);
            Done::Told
        })
    }

    /// Takes an event to the mirror and applies what follows; what etcd is to be asked for is handed
    /// back.
    fn take(&mut self, event: Event) -> Result<Vec<Effect>, End> {
        let mut errands = Vec::new();
        for effect in self.shared.handle(event) {
            match effect {
                Effect::Publish(map) => {
                    gauge!("tangelo_registry_nodes").set(map.nodes.len() as f64);
                    self.standing.publish(map);
                }
                Effect::Enlist => {
                    self.shown_under = None;
                    return Err(End::Anew("the sign of life is gone"));
                }
                Effect::Over(reason) => return Err(End::Gone(reason)),
                errand @ (Effect::Remove(_)
                | Effect::Doubt { .. }
                | Effect::AnswerDoubt
                | Effect::Ask) => {
                    errands.push(errand);
                }
            }
        }
        Ok(errands)
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, End> {
        ask(self.timing, answer).await.map_err(End::Away)
    }
}

impl Shared {
    fn handle(&self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.mirror().handle(self.now(), event, &mut effects);
        effects
    }
}

async fn ask<T>(
    timing: Timing,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, String> {
    match timeout(timing.call_timeout, answer).await {
        Ok(answer) => answer.map_err(|status| describe(&status)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Prolongs the lease, unless that is under way.
fn ask_for_time(session: &Session, asked_at: &mut Option<Instant>) {
    if asked_at.is_none() && session.keep_alive.ask() {
        *asked_at = Some(Instant::now());
    }
}

fn count_removed(removed: Result<usize, String>) {
    match removed {
        Ok(count) => counter!("tangelo_registry_removed_total").increment(count as u64),
        // The mirror asks again.
        Err(reason) => tracing::debug!(reason, "no node removed"),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
