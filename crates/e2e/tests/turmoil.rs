//! The real shells of registry, chat and connector on a simulated network, in virtual time.
//!
//! `verify::sim` plays the pure machines under faults. Here everything between them is real: the
//! registry's server and its nodes' side, watches and claims, the keeper of shards, links over
//! tonic and HTTP/2, workers, the hub, sessions. Simulated are time, the network and the death of
//! hosts (by turmoil), and the clients' sockets are left out: clients drive their sessions on the
//! connector's host.
//!
//! The registry is the embedded one, or etcd: then the nodes' side is as real, doubts about nodes
//! whose links were ended by their systems included, and etcd itself is played in memory
//! (`turmoil/etcd.rs`). It is one process that keeps what it has stored when it is killed.
//!
//! Two of three clients can come back (`turmoil/client.rs`), at their connector or another one; the
//! others begin anew, as clients of old do.
//!
//! A seed gives a cluster, what is done to it and when, and what clients do. When all is healed,
//! every client must get in and be heard, and the judge of `verify::history` reads what all saw,
//! over all connections of a client that comes back.
//!
//! `TANGELO_SEEDS=1000 cargo test --release -p e2e --test turmoil` plays more seeds;
//! `TANGELO_SEED=17 TANGELO_MIX=all TANGELO_STORY=debug cargo test -p e2e --test turmoil one --
//! --nocapture` tells the story of one.
//!
//! A seed gives one plan, but not quite one run: tokio draws from the system in which order the
//! branches of a `select!` are looked at. Built with `RUSTFLAGS="--cfg tokio_unstable"` it draws from
//! the seed, and a process that plays the same seeds in the same order sees the same, but for the
//! numbers of terms and keys; the second run of a seed in one process still differs from the first,
//! and it is not known why. So a run that fails is told as it was.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers may panic and tell"
)]

#[path = "turmoil/client.rs"]
mod client;
#[path = "turmoil/etcd.rs"]
mod etcd;
#[path = "turmoil/network.rs"]
mod network;
#[path = "turmoil/nodes.rs"]
mod nodes;
#[path = "turmoil/plan.rs"]
mod plan;
#[path = "turmoil/player.rs"]
mod player;
#[path = "turmoil/story.rs"]
mod story;
#[path = "turmoil/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use turmoil::{Builder, Sim};
use verify::history::Report;

use crate::{
    nodes::{REGISTRY, chat_name, connector_name},
    plan::{Faults, Mix, Plan, Step},
    story::Story,
    world::{END, Run, World},
};

/// How many seeds are played unless it is said; of mixes with fewer faults, fewer.
const SEEDS: u64 = 10;
/// Hosts take turns of this length; what is sent arrives between two turns.
const TICK: Duration = Duration::from_millis(5);
/// A run takes some seconds; one that takes so long stands still.
const PATIENCE: Duration = Duration::from_secs(600);
/// What must have been said in some run, or the runs show nothing.
const SOMETIMES: [&str; 16] = [
    "claim failed",
    "link closed",
    "link lost",
    "registry silent",
    "heard_again=true",
    "a life is given up",
    "all shards are given away",
    "some rooms lost their history",
    "session lost its place",
    "another session has its name",
    "back=true",
    "is back elsewhere=false",
    "is back elsewhere=true",
    "missed_some=true",
    "is back by a reset",
    "says it again",
];
/// What must have been said with etcd.
const SOMETIMES_WITH_ETCD: [&str; 7] = [
    "link lost",
    "registry silent",
    "etcd ends a lease",
    "doubting that it lives",
    "showing that this one lives",
    "doubted=false",
    "doubted=true",
];

/// What came of a run.
struct Outcome {
    report: Report,
    /// Seats whose clients never got in again, or were never answered.
    unsettled: Vec<usize>,
    stuck: Vec<String>,
    have_failed: bool,
    ends: BTreeMap<String, u32>,
    lives: usize,
    /// Of all that was seen.
    trace: u64,
    story: String,
}

impl Outcome {
    /// What this run broke, in words: nothing if it is well.
    fn broken(&self, mix: Mix) -> Option<String> {
        let mut broken = String::new();
        let disturbed = |end: &&String| !["client-left", "connection-lost"].contains(&end.as_str());
        let disturbed: Vec<_> = self.ends.keys().filter(disturbed).collect();
        if mix.faults != Faults::All && !disturbed.is_empty() {
            let _ = writeln!(broken, "sessions were disturbed: {disturbed:?}");
        }
        if mix.faults == Faults::Registry && self.story.contains("a life is given up") {
            let _ = writeln!(broken, "a node was taken for dead");
        }
        if !self.report.is_clean() {
            let _ = writeln!(broken, "{}", self.report);
        }
        if !self.unsettled.is_empty() {
            let _ = writeln!(broken, "never served again: seats {:?}", self.unsettled);
        }
        if !self.stuck.is_empty() {
            let _ = writeln!(broken, "tasks outlived their node: {:?}", self.stuck);
        }
        if self.have_failed {
            let _ = writeln!(broken, "a task panicked");
        }
        (!broken.is_empty()).then_some(broken)
    }
}

fn play(mix: Mix, seed: u64, filter: Option<&str>) -> Outcome {
    let (story, plan) = (Story::default(), Plan::of(mix, seed));
    let run = Run::new(mix, seed, &plan);
    let _told = tracing::subscriber::set_default(story.subscriber(filter));
    let _watched = watch(seed, story.clone());
    let mut sim = Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(2 * END)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(plan.latency)
        .tcp_capacity(1024)
        .build();
    let leaves = build(&mut sim, &plan, &run);
    let mut steps = plan.steps.iter().peekable();
    while sim.elapsed() < END && !run.state().is_at_rest(sim.elapsed()) {
        while let Some((_, step)) = steps.next_if(|(at, _)| *at <= sim.elapsed()) {
            tracing::info!(at = ?sim.elapsed(), "{step:?}");
            take(&mut sim, step, &leaves, &run);
        }
        sim.step().unwrap();
    }
    judge(&plan, &run, story)
}

/// Tells the story of a run that stands still, and ends the process, since nobody else can: tasks
/// that wake each other without end never let time pass. Watches until what it returns is dropped.
fn watch(seed: u64, story: Story) -> mpsc::Sender<()> {
    let (watched, over) = mpsc::channel();
    thread::spawn(move || {
        if over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("{}\nseed {seed} stands still", story.text());
            std::process::exit(101);
        }
    });
    watched
}

fn build(sim: &mut Sim<'_>, plan: &Plan, run: &World) -> Vec<Arc<Notify>> {
    let world = Arc::clone(run);
    sim.host(REGISTRY, move || nodes::registry(Arc::clone(&world)));
    let leaves: Vec<_> = (0..plan.chats).map(|_| Arc::new(Notify::new())).collect();
    for (number, leave) in leaves.iter().cloned().enumerate() {
        let run = Arc::clone(run);
        sim.host(chat_name(number), move || {
            nodes::chat(number, Arc::clone(&leave), Arc::clone(&run))
        });
    }
    for number in 0..plan.connectors {
        let run = Arc::clone(run);
        sim.host(connector_name(number), move || nodes::connector(number, Arc::clone(&run)));
    }
    leaves
}

fn take(sim: &mut Sim<'_>, step: &Step, leaves: &[Arc<Notify>], run: &Run) {
    match step {
        Step::Crash(host) => sim.crash(host.as_str()),
        Step::Start(host) => sim.bounce(host.as_str()),
        Step::Leave(chat) => leaves[*chat].notify_waiters(),
        Step::Part(one, other) => sim.partition(one.as_str(), other.as_str()),
        Step::PartOneWay(from, to) => sim.partition_oneway(from.as_str(), to.as_str()),
        Step::Join(one, other) => sim.repair(one.as_str(), other.as_str()),
        Step::Hold(one, other) => sim.hold(one.as_str(), other.as_str()),
        Step::Release(one, other) => sim.release(one.as_str(), other.as_str()),
        Step::Cut(from, to) => run.cuts.cut(from, to),
        Step::Slow(one, other, latency) => {
            sim.set_link_latency(one.as_str(), other.as_str(), *latency);
        }
    }
}

fn judge(plan: &Plan, run: &World, story: Story) -> Outcome {
    let history = run.history();
    let state = run.state();
    let unsettled = (0..plan.seats).filter(|seat| !state.settled.contains_key(seat)).collect();
    Outcome {
        report: history.check(),
        unsettled,
        stuck: state.stuck.clone(),
        have_failed: state.have_failed(),
        ends: state.ends.clone(),
        lives: state.lives(),
        trace: hash(&format!("{history:?}")),
        story: story.text(),
    }
}

/// A hash (FNV-1a) of all but the terms, the lowest of which is the system's time.
fn hash(text: &str) -> u64 {
    let parts =
        text.split("Term(").map(|part| part.trim_start_matches(|it: char| it.is_ascii_digit()));
    parts.flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Plays one seed, and tells it if it fails.
fn play_well(mix: Mix, seed: u64) -> Outcome {
    let outcome = play(mix, seed, None);
    if let Some(broken) = outcome.broken(mix) {
        let name = mix.name();
        panic!(
            "{}\nseed {seed} of {name}: {broken}\nAnother run of the same plan, in more words: \
             TANGELO_SEED={seed} TANGELO_MIX={name} TANGELO_STORY=debug cargo test -p e2e --test \
             turmoil one -- --nocapture",
            outcome.story
        );
    }
    outcome
}

/// Plays many seeds of a mix. If those are not fewer than usual, these things must have been said.
fn play_all(mix: &str, first: u64, usual: u64, sometimes: &[&'static str]) {
    let (mix, begun) = (Mix::named(mix), Instant::now());
    let mut said: BTreeMap<_, _> = sometimes.iter().map(|what| (*what, 0)).collect();
    let (mut ends, mut lives) = (BTreeMap::<String, u32>::new(), 0);
    let count = number("TANGELO_SEEDS", usual);
    for seed in first..first + count {
        let outcome = play_well(mix, seed);
        let Outcome { report, story, trace, .. } = &outcome;
        println!("seed {seed}: {report} ({:?}, trace {trace:x})", begun.elapsed());
        said.iter_mut().for_each(|(what, count)| *count += story.matches(what).count());
        lives += outcome.lives;
        outcome.ends.into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
    }
    println!("{}: {lives} lives, sessions ended: {ends:?}\nsaid: {said:?}", mix.name());
    assert!(count < usual || said.values().all(|count| *count > 0), "void: {said:?}");
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_seed_keeps_the_promises() {
    play_all("all", number("TANGELO_FIRST", 0), SEEDS, &SOMETIMES);
}

#[test]
fn the_death_of_a_chat_disturbs_no_session() {
    play_all("chats", 1_000_000, SEEDS / 4, &[]);
}

#[test]
fn the_death_of_the_registry_disturbs_no_session() {
    play_all("registry", 2_000_000, SEEDS / 8, &[]);
}

#[test]
fn every_seed_keeps_the_promises_with_etcd() {
    play_all("etcd-all", number("TANGELO_FIRST", 3_000_000), SEEDS / 2 + 1, &SOMETIMES_WITH_ETCD);
}

#[test]
fn the_death_of_a_chat_disturbs_no_session_with_etcd() {
    play_all("etcd-chats", 4_000_000, SEEDS / 8, &[]);
}

#[test]
fn the_death_of_etcd_disturbs_no_session() {
    play_all("etcd-registry", 5_000_000, SEEDS / 8, &[]);
}

/// Tells the story of one seed, if it is asked for.
#[test]
fn one() {
    let Ok(seed) = std::env::var("TANGELO_SEED") else { return };
    let mix = Mix::named(&std::env::var("TANGELO_MIX").unwrap_or_else(|_| "all".to_owned()));
    let filter = std::env::var("TANGELO_STORY").ok();
    let outcome = play(mix, seed.parse().unwrap(), filter.as_deref());
    println!("{}\n{}\ntrace {:x}", outcome.story, outcome.report, outcome.trace);
    if let Some(broken) = outcome.broken(mix) {
        panic!("seed {seed}: {broken}");
    }
}
