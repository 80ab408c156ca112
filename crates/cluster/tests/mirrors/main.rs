//! Several mirrors on one etcd, all in one thread and virtual time: whatever is killed, stopped, cut
//! off, or away for a while, who lives is not removed, who is dead is, and in the end every shard is
//! where the ring wants it.
//!
//! What a node asks of etcd, and in which order, is as in `registry/src/etcd`; what etcd answers is as
//! in `rpc/src/etcd`. A node is *hurt* while it is stopped, slow, or cut off from etcd, itself and not
//! with all others. [`DELAY_MAX`] is the longest that anything takes on its way to or from a node
//! that is not hurt; for those, a doubt takes half of `Timing::after_break` at most to be answered:
//! five ways and a pause. That is the bound under which a doubt never removes who lives.
//!
//! `TANGELO_SEEDS=2000 cargo test -p cluster --test mirrors` plays more.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]
#![expect(
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "each is one match over all that is asked or answered"
)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod judge;
mod node;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cluster::{ClusterMap, Timing};
use common::{Queue, Random, millis};
use judge::{Counts, Death};
use model::{Incarnation, Shard, Term, Time};
use node::Process;
use store::{Answer, Request, Store};

const SEEDS: u64 = 40;
/// How long things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
/// How long they then have to come right.
const QUIET: Duration = Duration::from_secs(20);
/// At the end of that, nothing may move any more.
const STILL: Duration = Duration::from_secs(5);
/// The longest way of anything, but for what is stopped, slow or cut off.
const DELAY_MAX: Duration = millis(40);
/// How often etcd looks for leases that have ended.
const SWEEP: Duration = millis(500);

/// Something that is on its way.
enum Delivery {
    Request {
        from: Incarnation,
        call: u64,
        request: Request,
    },
    Answer {
        to: Incarnation,
        call: u64,
        answer: Answer,
    },
    /// All changes up to this revision, on the watch of that number.
    Changes {
        to: Incarnation,
        watch: u64,
        up_to: u64,
    },
    /// etcd has died, or the connection to it.
    Lost {
        to: Incarnation,
        session: u64,
    },
    /// The system of `of` has ended a link.
    Broken {
        to: Incarnation,
        of: Incarnation,
    },
    Dial {
        connector: Incarnation,
        chat: Incarnation,
    },
    /// Its peers have heard nothing from a node for too long.
    GiveUp(Incarnation),
    Kill(Incarnation),
    KillAny,
    Start(String),
    Fault,
    Hiccup,
    StoreBack {
        renews_leases: bool,
    },
    Sweep,
    /// By then it must be gone, if that witness was there all the time.
    Due(Death),
}

/// A mistake made on purpose, in what is not the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// Answers are not heard, and etcd is not asked whether the doubt still stands.
    AnswersAreNotHeard,
    /// Nobody answers a doubt.
    DoubtsAreNotAnswered,
    /// Nodes take it that etcd is there.
    SilenceIsNotHeard,
    /// A link that was given up counts as ended by the other end.
    SilenceIsEvidence,
}

struct Sim {
    now: Time,
    timing: Timing,
    plant: Option<Plant>,
    random: Random,
    queue: Queue<Delivery>,
    store: Store,
    /// Requests wait until then.
    store_hangs_until: Time,
    store_is_dead: bool,
    /// The last moment at which the store was not there for all.
    store_away_at: Option<Time>,
    processes: BTreeMap<Incarnation, Process>,
    links: BTreeSet<(Incarnation, Incarnation)>,
    /// Who has been killed, or has ended itself, and is still stored.
    dead: BTreeMap<Incarnation, Time>,
    /// When a system last ended a link of this node.
    evidence: BTreeMap<Incarnation, Time>,
    opened: BTreeMap<(Shard, Term), Incarnation>,
    granted: BTreeMap<Shard, u64>,
    maps: BTreeMap<u64, Arc<ClusterMap>>,
    /// Up to which revision all changes were looked at.
    judged: u64,
    last_change: Time,
    counts: Counts,
    trace: u64,
    story: Option<Vec<String>>,
    wrong: Option<String>,
}

impl Sim {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let timing = Timing::default();
        let mut store = Store::new(timing.lease);
        store.forgets_answers = plant == Some(Plant::AnswersAreNotHeard);
        let mut sim = Self {
            now: Time::ZERO,
            timing,
            plant,
            random: Random(seed),
            queue: Queue::new(),
            store,
            store_hangs_until: Time::ZERO,
            store_is_dead: false,
            store_away_at: None,
            processes: BTreeMap::new(),
            links: BTreeSet::new(),
            dead: BTreeMap::new(),
            evidence: BTreeMap::new(),
            opened: BTreeMap::new(),
            granted: BTreeMap::new(),
            maps: BTreeMap::new(),
            judged: 0,
            last_change: Time::ZERO,
            counts: Counts::default(),
            trace: 0,
            story: None,
            wrong: None,
        };
        let spread = sim.random.any(&[50, 500, 3000]).unwrap();
        let names = [("gate", 2), ("connector", 3), ("chat", 3)];
        for (role, most) in names {
            for number in 1..=1 + sim.random.below(most) {
                let at = sim.now + sim.random.span(0, spread);
                sim.send(at, Delivery::Start(format!("{role}-{number}")));
            }
        }
        sim.send(Time::ZERO + SWEEP, Delivery::Sweep);
        let first = Time::ZERO + sim.random.span(200, 5000);
        let fault = if sim.random.below(3) == 0 { Delivery::KillAny } else { Delivery::Fault };
        sim.send(first, fault);
        sim
    }

    fn send(&mut self, at: Time, delivery: Delivery) {
        self.queue.send(at, delivery);
    }

    /// How long something takes from one system to another.
    fn delay(&mut self) -> Duration {
        let most = if self.random.below(10) == 0 { DELAY_MAX.as_micros() as u64 } else { 4000 };
        Duration::from_micros(200 + self.random.below(most - 200))
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} {}", self.now.since_start().as_secs_f64(), what()));
        }
    }

    fn trace(&mut self, what: u64) {
        let nanos = self.now.since_start().as_nanos() as u64;
        self.trace = self.trace.rotate_left(7) ^ nanos.wrapping_mul(31) ^ what;
    }

    // ---- time

    /// Plays to the end, or to the first thing that is wrong.
    fn run(&mut self) {
        let end = Time::ZERO + CHAOS + QUIET;
        let mut rounds = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            rounds = if next > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 10_000, "time stands still");
            self.now = self.now.max(next);
            while let Some((id, delivery)) = self.queue.arrived(self.now) {
                self.deliver(id, delivery);
            }
            for me in self.processes.keys().copied().collect::<Vec<_>>() {
                self.timers(me);
            }
            if self.wrong.is_some() {
                return;
            }
        }
        self.now = end;
        self.judge_the_end();
    }

    fn next_time(&self) -> Option<Time> {
        let timers = self.processes.values().filter_map(Process::next_time);
        timers.chain(self.queue.next_time()).min()
    }

    /// What reaches a process that is stopped waits, in its order.
    fn deliver(&mut self, id: u64, delivery: Delivery) {
        let to = match &delivery {
            Delivery::Answer { to, .. }
            | Delivery::Changes { to, .. }
            | Delivery::Lost { to, .. }
            | Delivery::Broken { to, .. } => Some(*to),
            Delivery::Request { .. }
            | Delivery::Dial { .. }
            | Delivery::GiveUp(_)
            | Delivery::Kill(_)
            | Delivery::KillAny
            | Delivery::Start(_)
            | Delivery::Fault
            | Delivery::Hiccup
            | Delivery::StoreBack { .. }
            | Delivery::Sweep
            | Delivery::Due(_) => None,
        };
        if let Some(to) = to {
            let Some(process) = self.processes.get(&to) else { return };
            if process.stopped_until > self.now {
                return self.queue.put_off(process.stopped_until, id, delivery);
            }
        }
        match delivery {
            Delivery::Request { from, call, request } => {
                if self.store_hangs_until > self.now {
                    let delivery = Delivery::Request { from, call, request };
                    return self.queue.put_off(self.store_hangs_until, id, delivery);
                }
                // What was held back for a process ends with its connection.
                let died = self.dead.get(&from).copied();
                if died.is_none_or(|at| self.now - at < 2 * DELAY_MAX) {
                    self.ask_store(from, call, request);
                }
            }
            Delivery::Answer { to, call, answer } => self.answered(to, call, answer),
            Delivery::Changes { to, watch, up_to } => self.watched(to, watch, up_to),
            Delivery::Lost { to, session } => self.connection_lost(to, session),
            Delivery::Broken { to, of } => self.link_broken(to, of),
            Delivery::Dial { connector, chat } => self.dial(connector, chat),
            Delivery::GiveUp(node) => self.give_up(node),
            Delivery::Kill(node) => self.kill(node),
            Delivery::KillAny => {
                let all: Vec<_> = self.processes.keys().copied().collect();
                if let Some(victim) = self.random.any(&all) {
                    self.kill(victim);
                }
                let next = self.now + self.random.span(1000, 3000);
                self.send(next, Delivery::Fault);
            }
            Delivery::Start(name) => self.start(name),
            Delivery::Fault => self.next_fault(),
            Delivery::Hiccup => self.hang_store(1500),
            Delivery::StoreBack { renews_leases } => {
                self.note(|| "etcd is back".to_owned());
                self.store_is_dead = false;
                self.store_away_at = Some(self.now);
                if renews_leases {
                    self.store.renew_leases(self.now);
                }
            }
            Delivery::Sweep => {
                if !self.store_is_dead && self.store_hangs_until <= self.now {
                    self.store.sweep(self.now);
                    self.store_changed();
                }
                if self.plant == Some(Plant::SilenceIsNotHeard) {
                    for me in self.processes.keys().copied().collect::<Vec<_>>() {
                        self.take(me, cluster::mirror::Event::Heard);
                    }
                }
                self.send(self.now + SWEEP, Delivery::Sweep);
            }
            Delivery::Due(death) => self.judge_death(&death),
        }
    }

    // ---- etcd

    fn ask_store(&mut self, from: Incarnation, call: u64, request: Request) {
        let watch = if let Request::Watch { from } = &request { Some(*from) } else { None };
        let dead = self.store_is_dead;
        let answer = if dead { Answer::Failed } else { self.store.handle(self.now, request) };
        let at = self.arrives(from);
        if let (Some(first), Answer::Watching, Some(process)) =
            (watch, &answer, self.processes.get_mut(&from))
        {
            process.watch = Some(call);
            process.told = first - 1;
            process.last_news = process.last_news.max(at);
        }
        self.send(at, Delivery::Answer { to: from, call, answer });
        self.store_changed();
    }

    /// When something that is sent now reaches a node from etcd, or etcd from there.
    fn arrives(&mut self, node: Incarnation) -> Time {
        let (now, mut delay) = (self.now, self.delay());
        let Some(process) = self.processes.get(&node) else { return now + delay };
        let (cut, slow) = (process.cut_until, process.slow_until > now);
        if slow {
            delay += self.random.span(50, 600);
        }
        now.max(cut) + delay
    }

    /// Tells it to all who follow, and judges it.
    fn store_changed(&mut self) {
        self.judge_changes();
        let up_to = self.store.revision;
        let open = |(me, it): (&Incarnation, &Process)| it.watch.map(|watch| (*me, watch, it.told));
        for (to, watch, told) in self.processes.iter().filter_map(open).collect::<Vec<_>>() {
            if told >= up_to {
                continue;
            }
            let arrives = self.arrives(to);
            let process = self.processes.get_mut(&to).unwrap();
            process.told = up_to;
            process.last_news = process.last_news.max(arrives);
            let at = process.last_news;
            self.send(at, Delivery::Changes { to, watch, up_to });
        }
    }
}

/// Plays one seed; if something is wrong, again with its story.
fn play(seed: u64, plant: Option<Plant>) -> Result<Sim, String> {
    let mut sim = Sim::new(seed, plant);
    sim.run();
    let Some(wrong) = sim.wrong.take() else { return Ok(sim) };
    if plant.is_some() {
        return Err(wrong);
    }
    let mut again = Sim::new(seed, plant);
    again.story = Some(Vec::new());
    again.run();
    let story = again.story.unwrap();
    let last = story[story.len().saturating_sub(120)..].join("\n");
    Err(format!("seed {seed}: {wrong}\n{last}"))
}

#[expect(clippy::disallowed_methods, reason = "how much is played is no part of a run")]
fn seeds() -> u64 {
    std::env::var("TANGELO_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn whatever_happens_who_lives_stays_and_who_is_dead_goes() {
    let mut counts = Counts::default();
    let mut wrong = Vec::new();
    for seed in 0..seeds() {
        match play(seed, None) {
            Ok(sim) => counts.add(&sim.counts),
            Err(story) => {
                println!("{story}\n");
                wrong.push(seed);
            }
        }
    }
    println!("{counts:?}");
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
    assert_eq!(counts.never(), Vec::<&str>::new(), "this never happened");
}

#[test]
fn planted_mistakes_are_found() {
    for plant in [
        Plant::AnswersAreNotHeard,
        Plant::DoubtsAreNotAnswered,
        Plant::SilenceIsNotHeard,
        Plant::SilenceIsEvidence,
    ] {
        let found = (0..SEEDS).find_map(|seed| play(seed, Some(plant)).err());
        println!("{plant:?}: {found:?}");
        assert!(found.is_some(), "{plant:?} was not found");
    }
}

#[test]
fn one_seed_run_twice_is_the_same() {
    let run = |seed| {
        let mut sim = play(seed, None).unwrap_or_else(|wrong| panic!("{wrong}"));
        (sim.trace, sim.queue.id())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
