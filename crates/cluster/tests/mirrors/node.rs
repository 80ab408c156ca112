//! A node: what `registry/src/etcd` does around a mirror, and what a chat does with its shards.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use cluster::{
    Claim, ClusterMap, Gone, Lease, Mirror, Node, NodeState, Outcome,
    mirror::{Change, Effect, Event, What},
    ownership::{self, Shards},
};
use model::{Incarnation, NodeId, Role, Shard, Term, Time, limits};

use crate::{
    Delivery, Plant, Sim,
    common::millis,
    store::{self, Answer, Request},
};

/// The first pause between two tries to reach etcd.
const PAUSE_MIN: Duration = millis(25);

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) mirror: Mirror,
    pub(crate) map: Arc<ClusterMap>,
    pub(crate) standing: Lease,
    pub(crate) shards: Option<Shards>,
    pub(crate) open: BTreeMap<Shard, Term>,
    /// As it is, and as it was stored last.
    pub(crate) state: NodeState,
    node: Node,
    stage: Stage,
    /// Which try to be present this is.
    pub(crate) session: u64,
    pub(crate) follows_since: Option<Time>,
    pub(crate) heard_at: Time,
    /// For so long that what it saw says nothing.
    pub(crate) has_missed_answers: bool,
    lease: Option<store::Lease>,
    shown_under: Option<store::Lease>,
    stale: bool,
    beats_at: Time,
    pause: Duration,
    updating: bool,
    refused: bool,
    calls: BTreeMap<u64, (Call, Time)>,
    claiming: Option<Claiming>,
    releasing: Option<Releasing>,
    /// The watch that is open.
    pub(crate) watch: Option<u64>,
    /// Up to which revision news are on their way, and when the last come.
    pub(crate) told: u64,
    pub(crate) last_news: Time,
    pub(crate) leaves: bool,
    // ---- what is wrong with it
    pub(crate) stopped_until: Time,
    pub(crate) slow_until: Time,
    pub(crate) cut_until: Time,
    /// Its own connection to etcd has ended, and it is not back.
    pub(crate) is_lost: bool,
    pub(crate) hurt_until: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pausing(Time),
    Opening,
    Following,
}

/// What is awaited of etcd.
#[derive(Clone, Debug)]
enum Call {
    Step(Step),
    Beat,
    Update(Box<Node>),
    Told,
    DoubtAnswer,
    Claim(Vec<Shard>),
    Release(Vec<(Shard, Term)>),
}

/// On the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greet,
    Prolong,
    Grant,
    ProlongNew,
    ReadFirst,
    Enlist,
    EnlistAgain,
    ReadAfterLoss,
    ReadStale,
    ShowAgain,
    Watch,
}

struct Claiming {
    order: Vec<Shard>,
    outcomes: BTreeMap<Shard, Outcome>,
    waiting: usize,
    failed: bool,
}

struct Releasing {
    waiting: usize,
    failed: bool,
}

impl Process {
    pub(crate) fn next_time(&self) -> Option<Time> {
        let stage = match self.stage {
            Stage::Pausing(until) => Some(until),
            Stage::Opening => None,
            Stage::Following => self.mirror.poll_timeout().into_iter().chain([self.beats_at]).min(),
        };
        let late = self.calls.values().map(|(_, late_at)| *late_at).min();
        let shards = self.shards.as_ref().and_then(Shards::poll_timeout);
        let next = [stage, late, shards].into_iter().flatten().min()?;
        Some(next.max(self.stopped_until))
    }

    pub(crate) fn follows(&self) -> bool {
        self.stage == Stage::Following
    }
}

impl Sim {
    pub(crate) fn start(&mut self, name: String) {
        if self.processes.values().any(|process| process.name == name) {
            return;
        }
        let me = Incarnation(self.random.below(1 << 40));
        let role = match name.split('-').next() {
            Some("gate") => Role::Gate,
            Some("connector") => Role::Connector,
            _ => Role::Chat,
        };
        if self.random.below(10) == 0 {
            self.store.mute(me);
        }
        let id = NodeId::new(&name).unwrap();
        let node = Node { ready: role != Role::Connector, ..Node::new(id.clone(), me, role) };
        self.note(|| format!("{name} starts as {me}"));
        let process = Process {
            name,
            role,
            mirror: Mirror::new(me, id, self.timing),
            map: Arc::default(),
            standing: Lease::Silent,
            shards: (role == Role::Chat).then(|| Shards::new(me)),
            open: BTreeMap::new(),
            state: node.state(),
            node,
            stage: Stage::Pausing(self.now),
            session: 0,
            follows_since: None,
            heard_at: self.now,
            has_missed_answers: false,
            lease: None,
            shown_under: None,
            stale: false,
            beats_at: self.now,
            pause: PAUSE_MIN,
            updating: false,
            refused: false,
            calls: BTreeMap::new(),
            claiming: None,
            releasing: None,
            watch: None,
            told: 0,
            last_news: self.now,
            leaves: false,
            stopped_until: self.now,
            slow_until: self.now,
            cut_until: self.now,
            is_lost: false,
            hurt_until: Time::ZERO,
        };
        self.processes.insert(me, process);
    }

    fn process(&mut self, me: Incarnation) -> &mut Process {
        self.processes.get_mut(&me).unwrap()
    }

    pub(crate) fn timers(&mut self, me: Incarnation) {
        let now = self.now;
        loop {
            let Some(process) = self.processes.get_mut(&me) else { return };
            if process.next_time().is_none_or(|next| next > now) {
                return;
            }
            let late = process.calls.iter().find(|(_, (_, late_at))| *late_at <= now);
            if let Some((call, _)) = late {
                let call = *call;
                self.answered(me, call, Answer::Failed);
            } else if process
                .shards
                .as_ref()
                .and_then(Shards::poll_timeout)
                .is_some_and(|at| at <= now)
            {
                self.shards_event(me, ownership::Event::Timeout);
            } else if matches!(process.stage, Stage::Pausing(until) if until <= now) {
                process.session += 1;
                process.stage = Stage::Opening;
                self.step(me, Step::Greet, Request::Greet);
            } else if process.stage == Stage::Following && process.beats_at <= now {
                self.beat(me);
            } else {
                self.take(me, Event::Timeout);
            }
        }
    }

    fn beat(&mut self, me: Incarnation) {
        let (now, beat) = (self.now, self.timing.beat);
        let is_chaos = now < Time::ZERO + crate::CHAOS;
        let load = (is_chaos && self.random.below(4) == 0).then(|| self.random.below(100) as u32);
        let process = self.process(me);
        process.beats_at = now + beat;
        if let Some(load) = load.filter(|_| process.role == Role::Connector) {
            process.state.load = load;
        }
        self.ask_for_time(me);
        self.update(me, true);
    }

    fn ask_for_time(&mut self, me: Incarnation) {
        let process = self.process(me);
        let lease = process.lease.unwrap();
        if !process.calls.values().any(|(call, _)| matches!(call, Call::Beat)) {
            self.ask(me, Call::Beat, Request::KeepAlive(lease));
        }
    }

    fn ask(&mut self, me: Incarnation, call: Call, request: Request) {
        let (id, late_at) = (self.queue.id(), self.now + self.timing.call_timeout);
        self.process(me).calls.insert(id, (call, late_at));
        let at = self.arrives(me);
        self.send(at, Delivery::Request { from: me, call: id, request });
    }

    fn step(&mut self, me: Incarnation, step: Step, request: Request) {
        self.ask(me, Call::Step(step), request);
    }

    // ---- answers

    pub(crate) fn answered(&mut self, me: Incarnation, call: u64, answer: Answer) {
        let process = self.process(me);
        let Some((what, _)) = process.calls.remove(&call) else { return };
        match what {
            Call::Step(step) => self.opened(me, step, answer),
            Call::Beat => match answer {
                Answer::Runs(true) => {
                    self.take(me, Event::Heard);
                    self.update(me, false);
                }
                Answer::Runs(false) => self.anew(me),
                _ => self.away(me),
            },
            Call::Update(node) => {
                process.updating = false;
                process.refused = matches!(answer, Answer::Failed);
                if !process.refused {
                    process.node = *node;
                }
                self.update(me, false);
            }
            Call::Told => {}
            Call::DoubtAnswer => match answer {
                Answer::Failed => self.away(me),
                _ => self.counts.doubts_answered += 1,
            },
            Call::Claim(shards) => self.claim_answered(me, &shards, answer),
            Call::Release(shards) => self.release_answered(me, &shards, answer),
        }
    }

    /// As `Presence::open`.
    fn opened(&mut self, me: Incarnation, step: Step, answer: Answer) {
        let now = self.now;
        let process = self.process(me);
        match (step, answer) {
            (Step::Greet, Answer::Revision(revision)) => {
                process.mirror.recognise(1, revision).unwrap();
                match process.lease {
                    Some(lease) => self.step(me, Step::Prolong, Request::KeepAlive(lease)),
                    None => self.step(me, Step::Grant, Request::Grant),
                }
            }
            (Step::Prolong | Step::ProlongNew, Answer::Runs(true)) => self.leased(me),
            (Step::Prolong, Answer::Runs(false)) => self.step(me, Step::Grant, Request::Grant),
            (Step::ProlongNew, Answer::Runs(false)) => self.anew(me),
            (Step::Grant, Answer::Granted(lease)) => {
                process.lease = Some(lease);
                self.step(me, Step::ProlongNew, Request::KeepAlive(lease));
            }
            (Step::ReadFirst, Answer::Snapshot(revision, changes)) => {
                if self.take(me, Event::Snapshot { revision, changes }) {
                    self.enlist(me);
                }
            }
            (Step::Enlist, Answer::Revision(revision)) => {
                process.shown_under = process.lease;
                if self.take(me, Event::Enlisted { revision }) {
                    self.show_or_watch(me);
                }
            }
            (Step::EnlistAgain | Step::ShowAgain, Answer::Listed(Some(revision))) => {
                process.shown_under = process.lease;
                self.counts.enlisted_again += u64::from(step == Step::EnlistAgain);
                if self.take(me, Event::Enlisted { revision }) {
                    if step == Step::EnlistAgain { self.show_or_watch(me) } else { self.watch(me) }
                }
            }
            (Step::EnlistAgain | Step::ShowAgain, Answer::Listed(None)) => {
                self.step(me, Step::ReadAfterLoss, Request::Snapshot);
            }
            (Step::ReadAfterLoss, Answer::Snapshot(revision, changes)) => {
                if self.take(me, Event::Snapshot { revision, changes }) {
                    self.anew(me);
                }
            }
            (Step::ReadStale, Answer::Snapshot(revision, changes)) => {
                process.stale = false;
                self.counts.read_anew += 1;
                if self.take(me, Event::Snapshot { revision, changes }) {
                    self.show_or_watch(me);
                }
            }
            (Step::Watch, answer @ (Answer::Watching | Answer::Compacted)) => {
                process.stage = Stage::Following;
                process.beats_at = now + limits::LEASE_BEAT;
                process.pause = PAUSE_MIN;
                process.follows_since = Some(now);
                if process.is_lost {
                    process.is_lost = false;
                    process.hurt_until = process.hurt_until.max(now);
                }
                if !self.take(me, Event::Heard) {
                    return;
                }
                self.stand(me, Lease::Held);
                if matches!(answer, Answer::Compacted) {
                    self.process(me).stale = true;
                    self.anew(me);
                } else {
                    self.update(me, false);
                }
            }
            (_, Answer::Failed) => self.away(me),
            (step, answer) => panic!("{answer:?} to {step:?}"),
        }
    }

    fn leased(&mut self, me: Incarnation) {
        let process = self.process(me);
        if !process.mirror.is_enlisted() {
            self.step(me, Step::ReadFirst, Request::Snapshot);
        } else if process.shown_under != process.lease {
            process.node.set_state(process.state);
            let (node, lease) = (Box::new(process.node.clone()), process.lease.unwrap());
            self.step(me, Step::EnlistAgain, Request::EnlistAgain { node, lease });
        } else if process.stale {
            self.step(me, Step::ReadStale, Request::Snapshot);
        } else {
            self.show_or_watch(me);
        }
    }

    fn enlist(&mut self, me: Incarnation) {
        let process = self.process(me);
        let former = process.mirror.former_lives().into_iter().map(|(_, life)| life).collect();
        process.node.set_state(process.state);
        let (node, lease) = (Box::new(process.node.clone()), process.lease.unwrap());
        self.step(me, Step::Enlist, Request::Enlist { node, lease, former });
    }

    fn show_or_watch(&mut self, me: Incarnation) {
        let process = self.process(me);
        if process.mirror.is_doubted() {
            process.node.set_state(process.state);
            let (node, lease) = (Box::new(process.node.clone()), process.lease.unwrap());
            self.step(me, Step::ShowAgain, Request::EnlistAgain { node, lease });
        } else {
            self.watch(me);
        }
    }

    fn watch(&mut self, me: Incarnation) {
        let process = self.process(me);
        let from = process.mirror.revision() + 1;
        process.watch = None;
        self.step(me, Step::Watch, Request::Watch { from });
    }

    pub(crate) fn watched(&mut self, me: Incarnation, watch: u64, up_to: u64) {
        let process = self.process(me);
        if process.stage != Stage::Following || process.watch != Some(watch) {
            return;
        }
        let from = process.mirror.revision() + 1;
        let deaf = self.plant == Some(Plant::AnswersAreNotHeard);
        let known = &self.processes[&me].map.nodes;
        let is_answer = |change: &Change| match change.what {
            What::Alive(node) => deaf && known.contains_key(&node) && node != me,
            _ => false,
        };
        let changes = self.store.changes(from, up_to).iter();
        let changes: Vec<_> = changes.filter(|change| !is_answer(change)).cloned().collect();
        if !changes.is_empty() && self.take(me, Event::Changed(changes)) {
            self.update(me, false);
        }
    }

    pub(crate) fn connection_lost(&mut self, me: Incarnation, session: u64) {
        let process = self.process(me);
        if process.session == session && !matches!(process.stage, Stage::Pausing(_)) {
            let failing: Vec<_> = process.calls.keys().copied().collect();
            for call in failing {
                if self.processes.contains_key(&me) {
                    self.answered(me, call, Answer::Failed);
                }
            }
            self.away(me);
        }
    }

    // ---- ends of an attendance

    fn anew(&mut self, me: Incarnation) {
        let share = self.random.below(50);
        let now = self.now;
        let process = self.process(me);
        let pause = process.pause / 2 + process.pause.mul_f64(share as f64 / 100.0);
        process.pause = (process.pause * 2).min(limits::REGISTRY_RETRY_MAX);
        process.stage = Stage::Pausing(now + pause);
        process.watch = None;
        process.updating = false;
        process.calls.retain(|_, (call, _)| matches!(call, Call::Claim(_) | Call::Release(_)));
    }

    fn away(&mut self, me: Incarnation) {
        let Some(process) = self.processes.get_mut(&me) else { return };
        if matches!(process.stage, Stage::Pausing(_)) {
            return;
        }
        process.follows_since = None;
        let name = process.name.clone();
        self.note(|| format!("{name} does not hear etcd"));
        if self.plant != Some(Plant::SilenceIsNotHeard) {
            self.take(me, Event::Silent);
        }
        self.anew(me);
        self.stand(me, Lease::Silent);
    }

    fn stand(&mut self, me: Incarnation, standing: Lease) {
        let process = self.process(me);
        if process.standing != standing {
            process.standing = standing;
            if process.shards.is_some() {
                self.shards_event(me, ownership::Event::LeaseChanged(standing));
            }
        }
    }

    // ---- the mirror

    /// Whether the node goes on as before.
    pub(crate) fn take(&mut self, me: Incarnation, event: Event) -> bool {
        let now = self.now;
        let process = self.process(me);
        if matches!(event, Event::Heard) {
            if now - process.heard_at > limits::LEASE / 2 {
                process.follows_since = process.follows_since.map(|_| now);
                process.has_missed_answers = true;
            }
            process.heard_at = now;
        }
        let follows = process.follows();
        let mut effects = Vec::new();
        process.mirror.handle(now, event, &mut effects);
        let mut goes_on = true;
        for effect in effects {
            if !self.processes.contains_key(&me) {
                return false;
            }
            self.trace(me.0 ^ effect_number(&effect));
            match effect {
                Effect::Publish(map) => self.publish(me, map),
                Effect::Enlist => {
                    self.process(me).shown_under = None;
                    self.anew(me);
                    goes_on = false;
                }
                Effect::Over(reason) => {
                    self.over(me, reason);
                    return false;
                }
                // On the way in nobody runs errands.
                errand if follows && goes_on => self.run_errand(me, errand),
                Effect::Doubt { .. } | Effect::AnswerDoubt | Effect::Ask | Effect::Remove(_) => {}
            }
        }
        goes_on && self.processes.contains_key(&me)
    }

    fn run_errand(&mut self, me: Incarnation, errand: Effect) {
        let name = self.process(me).name.clone();
        self.note(|| format!("{name}: {errand:?}"));
        let is_mute = self.store.is_mute(me);
        let process = self.process(me);
        match errand {
            Effect::Doubt { .. } | Effect::AnswerDoubt if is_mute => {}
            Effect::Doubt { node, revision } => {
                self.ask(me, Call::Told, Request::Doubt { node, revision, by: me });
            }
            Effect::AnswerDoubt => {
                let lease = process.lease.unwrap();
                if self.plant != Some(Plant::DoubtsAreNotAnswered) {
                    let answer = Request::AnswerDoubt { node: me, lease };
                    self.ask(me, Call::DoubtAnswer, answer);
                }
            }
            Effect::Ask => self.ask_for_time(me),
            Effect::Remove(mut nodes) => {
                nodes.retain(|doomed| !is_mute || doomed.doubt.is_none());
                let asked_at = self.now;
                self.ask(me, Call::Told, Request::Remove { nodes, by: me, asked_at });
            }
            Effect::Publish(_) | Effect::Enlist | Effect::Over(_) => {}
        }
    }

    fn publish(&mut self, me: Incarnation, map: Arc<ClusterMap>) {
        self.judge_map(me, &map);
        let process = self.process(me);
        process.map = Arc::clone(&map);
        match process.role {
            Role::Gate => {}
            Role::Connector => {
                process.state.ready = map.shards.iter().any(|shard| shard.owner.is_some());
                let at = self.now + millis(30);
                for chat in map.of_role(Role::Chat).map(|node| node.incarnation).collect::<Vec<_>>()
                {
                    if !self.links.contains(&(me, chat)) {
                        self.send(at, Delivery::Dial { connector: me, chat });
                    }
                }
            }
            Role::Chat => self.shards_event(me, ownership::Event::MapChanged(map)),
        }
    }

    fn over(&mut self, me: Incarnation, reason: Gone) {
        self.counts.over += 1;
        let name = self.process(me).name.clone();
        self.note(|| format!("{name} is over: {reason}"));
        let leaves = self.process(me).leaves;
        self.end(me);
        if reason != Gone::Replaced && !leaves {
            // Its supervisor starts it again.
            self.send(self.now + millis(100), Delivery::Start(name));
        }
    }

    /// Stores its state, if that has changed.
    fn update(&mut self, me: Incarnation, with_load: bool) {
        let Some(process) = self.processes.get_mut(&me) else { return };
        if process.stage != Stage::Following || process.updating {
            return;
        }
        if process.refused && !with_load {
            return;
        }
        let (state, stored) = (process.state, process.node.state());
        let urgent = (state.ready, state.draining) != (stored.ready, stored.draining);
        if urgent || (with_load && state != stored) {
            process.updating = true;
            let mut node = Box::new(process.node.clone());
            node.set_state(state);
            self.ask(me, Call::Update(node.clone()), Request::Update(node));
        }
    }

    // ---- shards

    pub(crate) fn shards_event(&mut self, me: Incarnation, event: ownership::Event) {
        // An answer may call for the next question.
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now;
            let process = self.process(me);
            let mut effects = Vec::new();
            process.shards.as_mut().unwrap().handle(now, event, &mut effects);
            for effect in effects {
                self.last_change = now;
                self.trace(me.0);
                let answer = match effect {
                    ownership::Effect::Claim(shards) => self.claim(me, shards),
                    ownership::Effect::Release(shards) => self.release(me, &shards),
                    ownership::Effect::Own { shard, term, .. } => {
                        self.process(me).open.insert(shard, term);
                        self.judge_own(me, shard, term);
                        None
                    }
                    ownership::Effect::Disown(shard) => {
                        let was = self.process(me).open.remove(&shard);
                        assert!(was.is_some(), "it was not open");
                        None
                    }
                };
                events.extend(answer);
            }
        }
        self.leave_if_done(me);
    }

    /// Whether etcd can be asked: `Calls::member`.
    fn may_call(&mut self, me: Incarnation) -> bool {
        let process = self.process(me);
        process.mirror.is_live() && process.standing == Lease::Held
    }

    /// As `Calls::claim`.
    fn claim(&mut self, me: Incarnation, shards: Vec<(Shard, Term)>) -> Option<ownership::Event> {
        if !self.may_call(me) {
            return Some(ownership::Event::ClaimFailed);
        }
        let (now, process) = (self.now, self.process(me));
        let (mut outcomes, mut open) = (BTreeMap::new(), Vec::new());
        for (shard, seen) in &shards {
            match process.mirror.claim(now, *shard, *seen) {
                Ok(revision) => open.push((*shard, revision)),
                Err(outcome) => drop(outcomes.insert(*shard, outcome)),
            }
        }
        let order = shards.into_iter().map(|(shard, _)| shard).collect();
        let batches: Vec<_> = open.chunks(limits::ETCD_TXN_OPS).map(<[_]>::to_vec).collect();
        let waiting = batches.len();
        process.claiming = Some(Claiming { order, outcomes, waiting, failed: false });
        for batch in batches {
            let shards = batch.iter().map(|(shard, _)| *shard).collect();
            self.ask(me, Call::Claim(shards), Request::Claim(me, batch));
        }
        self.claims_done(me)
    }

    fn claim_answered(&mut self, me: Incarnation, shards: &[Shard], answer: Answer) {
        let process = self.process(me);
        let Some(claiming) = &mut process.claiming else { return };
        claiming.waiting -= 1;
        if let Answer::Swapped(Some(swapped)) = answer {
            for claim in process.mirror.claimed(shards, swapped) {
                claiming.outcomes.insert(claim.shard, claim.outcome);
            }
        } else {
            claiming.failed = true;
        }
        if let Some(event) = self.claims_done(me) {
            self.shards_event(me, event);
        }
    }

    fn claims_done(&mut self, me: Incarnation) -> Option<ownership::Event> {
        let process = self.process(me);
        let mut claiming = process.claiming.take_if(|claiming| claiming.waiting == 0)?;
        let outcome = |shard: &Shard| {
            claiming.outcomes.remove(shard).map(|outcome| Claim { shard: *shard, outcome })
        };
        let claims: Vec<_> = claiming.order.iter().filter_map(outcome).collect();
        for claim in &claims {
            match claim.outcome {
                Outcome::Won { .. } => self.counts.claims_won += 1,
                Outcome::Lost(_) => self.counts.claims_lost += 1,
                Outcome::Settling { .. } => self.counts.claims_settling += 1,
            }
        }
        let nothing = claiming.failed && claims.is_empty();
        Some(if nothing {
            ownership::Event::ClaimFailed
        } else {
            ownership::Event::ClaimAnswered(claims)
        })
    }

    /// As `Calls::release`.
    fn release(&mut self, me: Incarnation, shards: &[(Shard, Term)]) -> Option<ownership::Event> {
        if !self.may_call(me) {
            return Some(ownership::Event::ReleaseFailed);
        }
        let process = self.process(me);
        let owned = |(shard, term): &(Shard, Term)| {
            process.mirror.release(*shard, *term).map(|revision| (*shard, revision, *term))
        };
        let open: Vec<_> = shards.iter().filter_map(owned).collect();
        let batches: Vec<_> = open.chunks(limits::ETCD_TXN_OPS).map(<[_]>::to_vec).collect();
        if batches.is_empty() {
            return Some(ownership::Event::Released);
        }
        process.releasing = Some(Releasing { waiting: batches.len(), failed: false });
        for batch in batches {
            let shards = batch.iter().map(|(shard, _, term)| (*shard, *term)).collect();
            self.ask(me, Call::Release(shards), Request::Release(me, batch));
        }
        None
    }

    fn release_answered(&mut self, me: Incarnation, shards: &[(Shard, Term)], answer: Answer) {
        let process = self.process(me);
        let Some(releasing) = &mut process.releasing else { return };
        releasing.waiting -= 1;
        if let Answer::Swapped(Some(swapped)) = answer {
            process.mirror.released(shards, &swapped);
        } else {
            releasing.failed = true;
        }
        if let Some(done) = process.releasing.take_if(|releasing| releasing.waiting == 0) {
            let event = if done.failed {
                ownership::Event::ReleaseFailed
            } else {
                ownership::Event::Released
            };
            self.shards_event(me, event);
        }
    }

    fn leave_if_done(&mut self, me: Incarnation) {
        let Some(process) = self.processes.get(&me) else { return };
        let shown = process.map.nodes.get(&me).is_some_and(|node| node.draining);
        let held = process.shards.as_ref().map_or(0, Shards::held);
        if !(process.leaves && shown && held == 0 && process.follows()) {
            return;
        }
        if let Some(lease) = process.lease {
            let name = process.name.clone();
            self.note(|| format!("{name} leaves"));
            let at = self.arrives(me);
            let request = Request::Withdraw(me, lease);
            self.send(at, Delivery::Request { from: me, call: 0, request });
        }
        self.end(me);
    }
}

const fn effect_number(effect: &Effect) -> u64 {
    match effect {
        Effect::Publish(_) => 1,
        Effect::Enlist => 2,
        Effect::Doubt { .. } => 3,
        Effect::AnswerDoubt => 4,
        Effect::Remove(_) => 5,
        Effect::Over(_) => 6,
        Effect::Ask => 7,
    }
}
