//! Rooms in simulation: many seeds, all faults, and planted bugs that must be found.
//!
//! `TANGELO_SEEDS=1000 cargo test -p verify --release --test sim` plays more seeds;
//! `TANGELO_SEED=17 cargo test -p verify --test sim one -- --nocapture` tells the story of one.

#![expect(clippy::disallowed_methods, reason = "a test may read which seeds to play")]

use std::time::Duration;

use verify::sim::{Bug, Config, Counters, Faults, Outcome, run};

fn config(seed: u64, faults: Faults) -> Config {
    Config {
        seed,
        chats: 3,
        connectors: 3,
        clients: 24,
        rooms: 6,
        duration: Duration::from_secs(40),
        faults,
        bug: None,
        story: false,
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check(seed: u64, outcome: &Outcome) {
    assert!(
        outcome.report.is_clean(),
        "seed {seed}: {}\nTell its story: TANGELO_SEED={seed} cargo test -p verify --test sim one \
         -- --nocapture",
        outcome.report
    );
}

fn add(total: &mut Counters, one: Counters) {
    total.acked += one.acked;
    total.deliveries += one.deliveries;
    total.takeovers += one.takeovers;
    total.resets += one.resets;
    total.stale_frames += one.stale_frames;
    total.sent_again += one.sent_again;
    total.expelled += one.expelled;
    total.cuts += one.cuts;
}

#[test]
fn every_seed_keeps_the_promises() {
    let mut total = Counters::default();
    for seed in 0..number("TANGELO_SEEDS", 40) {
        let outcome = run(&config(seed, Faults::all()));
        check(seed, &outcome);
        add(&mut total, outcome.counters);
    }
    println!("{total:?}");
    // A run in which none of this happened would prove nothing.
    for (count, what) in [
        (total.acked, "acknowledged sends"),
        (total.takeovers, "takeovers"),
        (total.resets, "resets"),
        (total.stale_frames, "stale frames"),
        (total.sent_again, "repeated sends"),
        (total.expelled, "expelled sessions"),
        (total.cuts, "cut streams"),
    ] {
        assert!(count > 0, "no {what} in all seeds: {total:?}");
    }
}

#[test]
fn the_death_of_a_chat_disturbs_no_session() {
    let mut takeovers = 0;
    for seed in 1000..1000 + number("TANGELO_SEEDS", 40) / 2 {
        let outcome = run(&config(seed, Faults::chats_only()));
        check(seed, &outcome);
        takeovers += outcome.counters.takeovers;
        assert_eq!(outcome.counters.expelled, 0, "seed {seed}: {:?}", outcome.counters);
        assert_eq!(outcome.counters.resets, 0, "seed {seed}: {:?}", outcome.counters);
        assert_eq!(outcome.counters.unanswered, 0, "seed {seed}: {:?}", outcome.counters);
    }
    assert!(takeovers > 0, "no chat died that had rooms");
}

#[test]
fn one_seed_gives_one_run() {
    let runs = [0, 1].map(|_| run(&config(7, Faults::all())));
    assert_eq!(runs[0].trace, runs[1].trace);
    assert_ne!(runs[0].trace, run(&config(8, Faults::all())).trace);
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::DropEvents(1000), Bug::ForgetTerms, Bug::ForgetNumbers, Bug::LoseLeaves] {
        let found = (0..20).any(|seed| {
            let config = Config { bug: Some(bug), ..config(seed, Faults::all()) };
            !run(&config).report.is_clean()
        });
        assert!(found, "{bug:?} went unnoticed in 20 seeds");
    }
}

/// Tells the story of one seed, if it is asked for.
#[test]
fn one() {
    let Ok(seed) = std::env::var("TANGELO_SEED") else { return };
    let seed = seed.parse().unwrap();
    let chats_only = std::env::var("TANGELO_FAULTS").is_ok_and(|faults| faults == "chats");
    let faults = if chats_only { Faults::chats_only() } else { Faults::all() };
    let outcome = run(&Config { story: true, ..config(seed, faults) });
    for line in &outcome.story {
        println!("{line}");
    }
    println!("{:?}", outcome.counters);
    check(seed, &outcome);
}
