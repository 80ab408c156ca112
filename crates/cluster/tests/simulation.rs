//! A registrar and several chats in a network with delays, crashes, pauses and restarts: after any
//! sequence of these, and some quiet, every shard is where the ring wants it.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cluster::{
    Claim, Lease, MapUpdate, Member, Node, NodeState, Outcome, Owners, Registrar, Timing,
    ownership::{self, Shards},
    registrar::{self, Answer, CallId, Effect, StreamId},
};
use common::{Queue, Random, millis};
use model::{Incarnation, NodeId, Role, Shard, Term, Time, limits};

const SEEDS: u64 = 24;
/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
/// How long they then have to come right.
const QUIET: Duration = Duration::from_secs(15);
/// At the end of that, nothing may move any more.
const STILL: Duration = Duration::from_secs(5);

/// Something that is on its way.
enum Delivery {
    /// To the registry, in the life of it that it was sent to.
    Registry(u64, Incarnation, registrar::Event),
    Node(Incarnation, Word),
    Fault,
    Start(String, Role),
    StartRegistry,
}

/// What reaches a node.
enum Word {
    Welcome(StreamId),
    Map(StreamId, MapUpdate),
    Gone,
    Lost(StreamId),
    Answer(Answer),
    ClaimFailed,
    ReleaseFailed,
}

struct Process {
    name: String,
    member: Member,
    shards: Shards,
    state: NodeState,
    lease: Lease,
    stream: Option<StreamId>,
    beats_at: Time,
    joins_at: Option<Time>,
    frozen_until: Time,
    /// The last delivery on its stream each way, which keeps the order.
    last_word: Time,
    last_report: Time,
    open: BTreeMap<Shard, Term>,
    leaves: bool,
}

struct Sim {
    now: Time,
    random: Random,
    queue: Queue<Delivery>,
    registry: Option<Registrar>,
    life: u64,
    registry_frozen_until: Time,
    streams: BTreeMap<StreamId, (Incarnation, bool)>,
    processes: BTreeMap<Incarnation, Process>,
    granted: BTreeMap<Shard, Term>,
    opened: BTreeMap<(Shard, Term), Incarnation>,
    last_change: Time,
    trace: u64,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut sim = Self {
            now: Time::ZERO,
            random: Random(seed),
            queue: Queue::new(),
            registry: None,
            life: 0,
            registry_frozen_until: Time::ZERO,
            streams: BTreeMap::new(),
            processes: BTreeMap::new(),
            granted: BTreeMap::new(),
            opened: BTreeMap::new(),
            last_change: Time::ZERO,
            trace: 0,
        };
        sim.send(sim.now, Delivery::StartRegistry);
        for number in 1..=2 + sim.random.below(3) {
            let at = sim.now + sim.random.span(0, 3000);
            sim.send(at, Delivery::Start(format!("chat-{number}"), Role::Chat));
        }
        sim.send(sim.now, Delivery::Start("connector-1".to_owned(), Role::Connector));
        sim.send(Time::ZERO + millis(3000), Delivery::Fault);
        sim
    }

    fn id(&mut self) -> u64 {
        self.queue.id()
    }

    fn clock(&self) -> u64 {
        1_000_000 + u64::try_from(self.now.since_start().as_micros()).unwrap()
    }

    fn send(&mut self, at: Time, delivery: Delivery) {
        self.queue.send(at, delivery);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(200 + self.random.below(20_000))
    }

    /// On the ordered stream to a node.
    fn tell(&mut self, to: Incarnation, word: Word) {
        let delay = self.delay();
        let Some(process) = self.processes.get_mut(&to) else {
            return;
        };
        process.last_word = process.last_word.max(self.now + delay);
        let at = process.last_word;
        self.send(at, Delivery::Node(to, word));
    }

    /// On the ordered stream to the registry.
    fn report(&mut self, from: Incarnation, event: registrar::Event) {
        let delay = self.delay();
        let process = self.processes.get_mut(&from).unwrap();
        process.last_report = process.last_report.max(self.now + delay);
        let at = process.last_report;
        self.send(at, Delivery::Registry(self.life, from, event));
    }

    // ---- time

    fn run(&mut self) {
        let chaos_end = Time::ZERO + CHAOS;
        let end = chaos_end + QUIET;
        let mut rounds = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            rounds = if next > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 10_000, "time stands still");
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next_time(&self) -> Option<Time> {
        let registry = self.registry.as_ref().and_then(Registrar::poll_timeout);
        let registry = registry.map(|at| at.max(self.registry_frozen_until));
        let timers = self.processes.values().filter_map(|process| {
            let beat = process.stream.map(|_| process.beats_at);
            let timers = [beat, process.joins_at, process.shards.poll_timeout()];
            timers.into_iter().flatten().min().map(|at| at.max(process.frozen_until))
        });
        timers.chain(registry).chain(self.queue.next_time()).min()
    }

    fn step(&mut self) {
        while let Some((id, delivery)) = self.queue.arrived(self.now) {
            self.deliver(id, delivery);
        }
        let due = self.registry.as_ref().and_then(Registrar::poll_timeout);
        if due.is_some_and(|at| at.max(self.registry_frozen_until) <= self.now) {
            self.registry_event(registrar::Event::Timeout);
        }
        for incarnation in self.processes.keys().copied().collect::<Vec<_>>() {
            self.timers(incarnation);
        }
    }

    fn timers(&mut self, incarnation: Incarnation) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&incarnation) else {
            return;
        };
        if process.frozen_until > now {
            return;
        }
        if process.shards.poll_timeout().is_some_and(|at| at <= now) {
            self.shards_event(incarnation, ownership::Event::Timeout);
        }
        let Some(process) = self.processes.get_mut(&incarnation) else {
            return;
        };
        if let Some(stream) = process.stream.filter(|_| process.beats_at <= now) {
            process.beats_at = now + limits::LEASE_BEAT;
            let state = process.state;
            self.report(incarnation, registrar::Event::Beat { stream, state });
        }
        let process = self.processes.get_mut(&incarnation).unwrap();
        if process.joins_at.is_some_and(|at| at <= now) {
            process.joins_at = None;
            process.member.node_mut().set_state(process.state);
            let join = Box::new(process.member.join());
            let stream = StreamId(self.id());
            let process = self.processes.get_mut(&incarnation).unwrap();
            process.stream = Some(stream);
            process.beats_at = now + limits::LEASE_BEAT;
            self.report(incarnation, registrar::Event::Joined { stream, join });
        }
    }

    // ---- deliveries

    /// What reaches a frozen process waits, in its order.
    fn deliver(&mut self, id: u64, delivery: Delivery) {
        match delivery {
            Delivery::Registry(..)
                if self.registry.is_some() && self.registry_frozen_until > self.now =>
            {
                self.queue.put_off(self.registry_frozen_until, id, delivery);
            }
            Delivery::Registry(life, from, event) => self.deliver_to_registry(life, from, event),
            Delivery::Node(to, word) => {
                let Some(process) = self.processes.get(&to) else {
                    return;
                };
                if process.frozen_until > self.now {
                    self.queue.put_off(process.frozen_until, id, Delivery::Node(to, word));
                    return;
                }
                self.hear(to, word);
            }
            Delivery::Fault => {
                self.fault();
                let next = self.now + self.random.span(100, 1500);
                if next < Time::ZERO + CHAOS {
                    self.send(next, Delivery::Fault);
                } else {
                    self.heal();
                }
            }
            Delivery::Start(name, role) => self.start(name, role),
            Delivery::StartRegistry => {
                if self.registry.is_none() {
                    self.life += 1;
                    let floor = self.clock();
                    self.registry = Some(Registrar::new(self.now, Timing::default(), floor));
                }
            }
        }
    }

    fn deliver_to_registry(&mut self, life: u64, from: Incarnation, event: registrar::Event) {
        if self.registry.is_none() || life != self.life {
            return match event {
                registrar::Event::Joined { stream, .. } => self.tell(from, Word::Lost(stream)),
                registrar::Event::Claim { .. } => self.tell(from, Word::ClaimFailed),
                registrar::Event::Release { .. } => self.tell(from, Word::ReleaseFailed),
                registrar::Event::Beat { .. }
                | registrar::Event::Left { .. }
                | registrar::Event::Broke { .. }
                | registrar::Event::Timeout => {}
            };
        }
        if let registrar::Event::Joined { stream, .. } = &event {
            self.streams.insert(*stream, (from, false));
        }
        self.registry_event(event);
    }

    fn registry_event(&mut self, event: registrar::Event) {
        let caller = match &event {
            registrar::Event::Claim { incarnation, .. } => Some((*incarnation, true)),
            registrar::Event::Release { incarnation, .. } => Some((*incarnation, false)),
            registrar::Event::Joined { .. }
            | registrar::Event::Beat { .. }
            | registrar::Event::Left { .. }
            | registrar::Event::Broke { .. }
            | registrar::Event::Timeout => None,
        };
        let mut effects = Vec::new();
        self.registry.as_mut().unwrap().handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Welcome(stream) => self.on_stream(stream, Word::Welcome(stream)),
                Effect::Follow(stream) => {
                    let map = self.registry.as_ref().unwrap().map().clone();
                    if let Some((_, following)) = self.streams.get_mut(&stream) {
                        *following = true;
                    }
                    self.on_stream(stream, Word::Map(stream, MapUpdate::Snapshot(map)));
                }
                Effect::Publish(delta) => {
                    let following = self.streams.iter().filter(|(_, (_, following))| *following);
                    for stream in following.map(|(stream, _)| *stream).collect::<Vec<_>>() {
                        let delta = MapUpdate::Delta((*delta).clone());
                        self.on_stream(stream, Word::Map(stream, delta));
                    }
                }
                Effect::Dismiss(stream, _) => {
                    self.on_stream(stream, Word::Gone);
                    self.streams.remove(&stream);
                }
                Effect::Refuse(_, refusal) => panic!("{refusal}"),
                Effect::Close(stream) => {
                    self.on_stream(stream, Word::Lost(stream));
                    self.streams.remove(&stream);
                }
                Effect::Answer(_, answer) => {
                    let (caller, claims) = caller.unwrap();
                    self.answer(caller, claims, answer);
                }
                Effect::Departed(..) => {}
            }
        }
    }

    /// Answers travel beside the stream and may overtake it.
    fn answer(&mut self, caller: Incarnation, claims: bool, answer: Answer) {
        if let Answer::Claims(claims) = &answer {
            self.note_grants(claims);
        }
        let lost = self.random.below(50) == 0;
        let word = match answer {
            Answer::Claims(_) | Answer::Released if !lost => Word::Answer(answer),
            Answer::Claims(_) | Answer::Released | Answer::NotLive if claims => Word::ClaimFailed,
            Answer::Claims(_) | Answer::Released | Answer::NotLive => Word::ReleaseFailed,
        };
        let at = self.now + self.delay();
        self.send(at, Delivery::Node(caller, word));
    }

    fn note_grants(&mut self, claims: &[Claim]) {
        for claim in claims {
            if let Outcome::Won { term, .. } = claim.outcome {
                let last = self.granted.insert(claim.shard, term);
                assert!(last.is_none_or(|last| last < term), "terms grow");
            }
        }
    }

    fn on_stream(&mut self, stream: StreamId, word: Word) {
        if let Some((incarnation, _)) = self.streams.get(&stream) {
            self.tell(*incarnation, word);
        }
    }

    // ---- a process

    fn start(&mut self, name: String, role: Role) {
        let incarnation = Incarnation(self.id());
        let state = NodeState { load: 0, ready: true, draining: false };
        let node =
            Node { ready: true, ..Node::new(NodeId::new(&name).unwrap(), incarnation, role) };
        let process = Process {
            name,
            member: Member::new(node),
            shards: Shards::new(incarnation),
            state,
            lease: Lease::Silent,
            stream: None,
            beats_at: self.now,
            joins_at: Some(self.now),
            frozen_until: self.now,
            last_word: self.now,
            last_report: self.now,
            open: BTreeMap::new(),
            leaves: false,
        };
        self.processes.insert(incarnation, process);
    }

    fn hear(&mut self, me: Incarnation, word: Word) {
        let now = self.now;
        let retry = self.random.span(25, 500);
        let process = self.processes.get_mut(&me).unwrap();
        let event = match word {
            Word::Welcome(stream) => {
                if process.stream != Some(stream) {
                    return;
                }
                process.lease = Lease::Held;
                ownership::Event::LeaseChanged(Lease::Held)
            }
            Word::Map(stream, update) => {
                if process.stream != Some(stream) {
                    return;
                }
                process.member.update(update).unwrap();
                ownership::Event::MapChanged(Arc::clone(process.member.map()))
            }
            Word::Gone => {
                // Its supervisor starts it again.
                let process = self.processes.remove(&me).unwrap();
                if !process.leaves {
                    let role =
                        if process.name.starts_with("chat") { Role::Chat } else { Role::Connector };
                    self.send(now + millis(100), Delivery::Start(process.name, role));
                }
                return;
            }
            Word::Lost(stream) => {
                if process.stream != Some(stream) {
                    return;
                }
                process.stream = None;
                process.joins_at = Some(now + retry);
                process.lease = Lease::Silent;
                ownership::Event::LeaseChanged(Lease::Silent)
            }
            Word::Answer(Answer::Claims(claims)) => {
                process.member.claimed(&claims);
                ownership::Event::ClaimAnswered(claims)
            }
            Word::Answer(Answer::Released) => ownership::Event::Released,
            Word::Answer(Answer::NotLive) => unreachable!("told as a failure"),
            Word::ClaimFailed => ownership::Event::ClaimFailed,
            Word::ReleaseFailed => ownership::Event::ReleaseFailed,
        };
        self.shards_event(me, event);
    }

    fn shards_event(&mut self, me: Incarnation, event: ownership::Event) {
        let process = self.processes.get_mut(&me).unwrap();
        let mut effects = Vec::new();
        process.shards.handle(self.now, event, &mut effects);
        for effect in effects {
            self.last_change = self.now;
            self.trace =
                self.trace.rotate_left(7) ^ self.now.since_start().as_nanos() as u64 ^ me.0;
            let process = self.processes.get_mut(&me).unwrap();
            match effect {
                ownership::Effect::Claim(shards) => {
                    assert_ne!(process.lease, Lease::Lost);
                    let (call, floor) = (CallId(self.id()), Term(self.clock()));
                    let claim = registrar::Event::Claim { call, incarnation: me, shards, floor };
                    let at = self.now + self.delay();
                    self.send(at, Delivery::Registry(self.life, me, claim));
                }
                ownership::Effect::Release(shards) => {
                    let release = registrar::Event::Release {
                        call: CallId(self.id()),
                        incarnation: me,
                        shards,
                    };
                    let at = self.now + self.delay();
                    self.send(at, Delivery::Registry(self.life, me, release));
                }
                ownership::Effect::Own { shard, term, .. } => {
                    let other = self.opened.insert((shard, term), me);
                    assert_eq!(other, None, "one owner per term, and it opens once");
                    assert_eq!(process.open.insert(shard, term), None, "opened twice");
                }
                ownership::Effect::Disown(shard) => {
                    assert!(process.open.remove(&shard).is_some(), "it was not open");
                }
            }
        }
        self.leave_if_done(me);
    }

    fn leave_if_done(&mut self, me: Incarnation) {
        let process = &self.processes[&me];
        let shown = process.member.map().nodes.get(&me).is_some_and(|node| node.draining);
        if process.leaves && shown && process.shards.held() == 0 {
            if let Some(stream) = process.stream {
                self.report(me, registrar::Event::Left { stream });
            }
            self.processes.remove(&me);
        }
    }

    // ---- what goes wrong

    fn fault(&mut self) {
        let chats: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.name.starts_with("chat") && !process.leaves)
            .map(|(incarnation, _)| *incarnation)
            .collect();
        let all: Vec<_> = self.processes.keys().copied().collect();
        match self.random.below(8) {
            0 | 1 => {
                if let Some(victim) = self.random.any(&all) {
                    self.crash(victim);
                }
            }
            2 => {
                if let Some(victim) = self.random.any(&all) {
                    self.break_stream(victim);
                }
            }
            3 => self.crash_registry(),
            4 => {
                let name = format!("chat-{}", self.id());
                self.send(self.now, Delivery::Start(name, Role::Chat));
            }
            5 if chats.len() > 1 => {
                if let Some(leaver) = self.random.any(&chats) {
                    self.drain(leaver);
                }
            }
            6 => {
                let until = self.now + self.random.span(100, 5000);
                if let Some(process) =
                    self.random.any(&all).and_then(|victim| self.processes.get_mut(&victim))
                {
                    process.frozen_until = process.frozen_until.max(until);
                }
            }
            _ => {
                let until = self.now + self.random.span(100, 5000);
                self.registry_frozen_until = self.registry_frozen_until.max(until);
            }
        }
    }

    fn crash(&mut self, victim: Incarnation) {
        let process = self.processes.remove(&victim).unwrap();
        if let Some(stream) = process.stream {
            let at = process.last_report.max(self.now + millis(1));
            let broke = registrar::Event::Broke { stream };
            self.send(at, Delivery::Registry(self.life, victim, broke));
        }
        if !process.leaves {
            let role = if process.name.starts_with("chat") { Role::Chat } else { Role::Connector };
            let at = self.now + self.random.span(200, 3000);
            self.send(at, Delivery::Start(process.name, role));
        }
    }

    fn break_stream(&mut self, victim: Incarnation) {
        if let Some(stream) = self.processes[&victim].stream {
            self.tell(victim, Word::Lost(stream));
            self.report(victim, registrar::Event::Broke { stream });
        }
    }

    fn crash_registry(&mut self) {
        if self.registry.take().is_none() {
            return;
        }
        for (stream, (incarnation, _)) in std::mem::take(&mut self.streams) {
            self.tell(incarnation, Word::Lost(stream));
        }
        let at = self.now + self.random.span(50, 3000);
        self.send(at, Delivery::StartRegistry);
    }

    fn drain(&mut self, leaver: Incarnation) {
        let now = self.now;
        let process = self.processes.get_mut(&leaver).unwrap();
        process.leaves = true;
        process.state.draining = true;
        process.beats_at = now;
    }

    /// From here on nothing goes wrong, and somebody is there to own the shards.
    fn heal(&mut self) {
        self.send(self.now, Delivery::Start("chat-last".to_owned(), Role::Chat));
    }

    // ---- the judgement

    fn judge(&self) {
        let map = self.registry.as_ref().expect("the registry is back").map();
        let live: BTreeSet<_> = self.processes.keys().copied().collect();
        assert_eq!(map.nodes.keys().copied().collect::<BTreeSet<_>>(), live, "who lives");
        let mut owners = Owners::default();
        owners.update(map);
        for shard in Shard::all() {
            assert!(owners.preferred(shard).is_some());
            assert_eq!(map.ownership(shard).owner, owners.preferred(shard), "shard {shard}");
        }
        for (incarnation, process) in &self.processes {
            assert_eq!(&**process.member.map(), map);
            assert_eq!(process.lease, Lease::Held);
            let owned: BTreeMap<_, _> = map.owned_by(*incarnation).collect();
            assert_eq!(process.open, owned, "what {incarnation} holds open");
        }
        let end = Time::ZERO + CHAOS + QUIET;
        assert!(end - self.last_change >= STILL, "still moving at {}", self.last_change);
    }
}

#[test]
fn after_any_trouble_every_shard_comes_home() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut sim = Sim::new(seed);
        sim.run();
        sim.judge();
    }
}

#[test]
fn one_seed_run_twice_is_the_same() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        sim.run();
        (sim.trace, sim.id())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
