//! Rooms in simulation: many seeds, all faults, and planted bugs that must be found.
//!
//! `TANGELO_SEEDS=100000 cargo test --release -p verify --test sim` plays more seeds of each mix
//! of faults, and with `TANGELO_FIRST=20000` others, that many further on; `TANGELO_SEED=17
//! TANGELO_MIX=all cargo test -p verify --test sim one -- --nocapture` tells the story of one. A
//! seed that fails is named, made small, told as a story, and kept in `tests/seeds.txt`, which is
//! played first from then on.

#![expect(clippy::disallowed_methods, reason = "a test may read which seeds to play")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers may panic and tell"
)]

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use room::Duplicates;
use verify::{
    history::Kind,
    sim::{Bug, Config, Counters, Faults, Outcome, run, shrink, shrink_by},
};

/// Lines of a story that are shown.
const STORY_LINES: usize = 120;

/// What goes wrong in a set of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    All,
    Chats,
    Connectors,
    Network,
}

impl Mix {
    const EVERY: [(Self, &'static str); 4] = [
        (Self::All, "all"),
        (Self::Chats, "chats"),
        (Self::Connectors, "connectors"),
        (Self::Network, "network"),
    ];

    fn name(self) -> &'static str {
        Self::EVERY.iter().find(|(mix, _)| *mix == self).unwrap().1
    }

    fn named(name: &str) -> Self {
        let found = Self::EVERY.iter().find(|(_, known)| *known == name);
        found.unwrap_or_else(|| panic!("no mix of faults is called {name:?}")).0
    }

    /// Each seed plays one policy for names that two want.
    fn config(self, seed: u64) -> Config {
        let faults = match self {
            Self::All => Faults::all(),
            Self::Chats => Faults::chats_only(),
            Self::Connectors => Faults::connectors_only(),
            Self::Network => Faults::network_only(),
        };
        // The crash of one node at a time: gone after 3 s at most, and 5 s of grace. A connection
        // that is lost may be so for 2.5 s before its connector knows.
        let leave_within = match self {
            Self::All | Self::Network => None,
            Self::Chats => Some(Duration::from_secs(13)),
            Self::Connectors => Some(Duration::from_secs(10)),
        };
        Config {
            seed,
            chats: 3,
            connectors: 3,
            clients: 14,
            rooms: 4,
            duplicates: Duplicates::ALL[(seed % 3) as usize],
            duration: Duration::from_secs(20),
            faults,
            luck: 0,
            only: None,
            leave_within,
            // The grace, by a clock that is fast.
            quiet_within: leave_within.map(|_| Duration::from_millis(4700)),
            bug: None,
            story: false,
        }
    }

    /// What this run breaks, in words: nothing if it is well.
    fn broken(self, outcome: &Outcome) -> Option<String> {
        let counters = &outcome.counters;
        if !outcome.report.is_clean() {
            Some(outcome.report.to_string())
        } else if self == Self::Chats && counters.expelled + counters.resets > 0 {
            Some(format!("a chat's death disturbed a session: {counters:?}"))
        } else if self == Self::Chats && counters.unanswered + counters.stranded > 0 {
            Some(format!("sends or returns are unanswered: {counters:?}"))
        } else {
            None
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeds_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/seeds.txt")
}

/// Plays one seed. If it fails, makes it small, tells its story, and keeps it.
fn play(mix: Mix, seed: u64) -> Counters {
    play_under(mix, &mix.config(seed))
}

fn play_under(mix: Mix, config: &Config) -> Counters {
    let seed = config.seed;
    let outcome = run(config);
    let Some(broken) = mix.broken(&outcome) else { return outcome.counters };
    keep(mix, seed);
    let mut small = shrink_by(config, |outcome| mix.broken(outcome).is_some());
    small.story = true;
    let outcome = run(&small);
    let (story, skipped) = story(&outcome);
    let name = mix.name();
    panic!(
        "seed {seed} of {name}: {broken}\n\nmade small: {} clients in {} rooms, {} connectors, \
         {} chats, {:?}, {} faults:\n{}\n\nits end ({skipped} lines before):\n{story}\n\nseed \
         {seed} of {name}: TANGELO_SEED={seed} TANGELO_MIX={name} cargo test -p verify --test sim \
         one -- --nocapture tells it in full",
        small.clients,
        small.rooms,
        small.connectors,
        small.chats,
        small.duration,
        outcome.faults.len(),
        outcome.report,
    );
}

/// The end of what happened to the room of the first violation, and how many lines came before.
fn story(outcome: &Outcome) -> (String, usize) {
    let room = outcome.report.violations.first().map(|violation| format!("{:?}", violation.room));
    let in_room = |line: &&String| {
        let of_some_room = line.contains("room: ") || line.contains("Acts(");
        !of_some_room || room.as_ref().is_none_or(|room| line.contains(room.as_str()))
    };
    let lines: Vec<&str> = outcome.story.iter().filter(in_room).map(String::as_str).collect();
    let skipped = lines.len().saturating_sub(STORY_LINES);
    (lines[skipped..].join("\n"), skipped)
}

/// Writes a seed down that failed, once.
fn keep(mix: Mix, seed: u64) {
    let line = format!("{} {seed}", mix.name());
    let text = fs::read_to_string(seeds_file()).unwrap_or_default();
    if !text.lines().any(|kept| kept.starts_with(&line)) {
        let mut file = OpenOptions::new().append(true).open(seeds_file()).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// Plays many seeds of a mix, each mix from another first one.
fn play_all(mix: Mix, first: u64, count: u64) -> Counters {
    let mut total = Counters::default();
    let first = first + number("TANGELO_FIRST", 0);
    for seed in first..first + number("TANGELO_SEEDS", count) {
        total.add(&play(mix, seed));
    }
    println!("{total:?}");
    total
}

#[test]
fn every_seed_keeps_the_promises() {
    let total = play_all(Mix::All, 0, 1000);
    for (count, what) in total.sometimes() {
        assert!(count > 0, "void: no {what} in all seeds: {total:?}");
    }
}

#[test]
fn the_death_of_a_chat_disturbs_no_session() {
    let total = play_all(Mix::Chats, 1_000_000, 500);
    assert!(total.takeovers > 0 && total.merges > 0 && total.recognised > 0, "void: {total:?}");
}

#[test]
fn the_death_of_a_connector_takes_its_members_along_in_time() {
    let total = play_all(Mix::Connectors, 2_000_000, 500);
    assert!(total.killed > 0 && total.resets == 0, "void: {total:?}");
}

#[test]
fn a_broken_network_is_healed() {
    let total = play_all(Mix::Network, 3_000_000, 500);
    assert!(total.one_way > 0 && total.parted > 0 && total.expelled > 0, "void: {total:?}");
}

/// What once failed is played for ever, under every policy for names; also without returns, as it
/// was when the first of them were found.
#[test]
fn kept_seeds_keep_the_promises() {
    let text = fs::read_to_string(seeds_file()).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace();
        let mix = Mix::named(words.next().unwrap());
        let config = mix.config(words.next().unwrap().parse().unwrap());
        for duplicates in Duplicates::ALL {
            let config = Config { duplicates, ..config.clone() };
            play_under(mix, &config);
            let faults = Faults { connection_lost: None, modern: false, ..config.faults };
            play_under(mix, &Config { faults, ..config });
        }
    }
}

#[test]
fn one_seed_gives_one_run() {
    let told = |seed| run(&Config { story: true, ..Mix::All.config(seed) });
    let (one, again, other) = (told(7), told(7), told(8));
    assert_eq!(one.trace, again.trace);
    assert_eq!(one.story, again.story);
    assert_eq!(one.counters, again.counters);
    assert_ne!(one.trace, other.trace);
}

/// Each bug turns the judge red, and by the right name.
#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        let signs: &[Kind] = match bug {
            Bug::DropDeliveries(_) => &[Kind::Lost, Kind::Gap],
            Bug::ForgetTerms => {
                &[Kind::Fork, Kind::RoomOrder, Kind::Lost, Kind::Gap, Kind::Presence]
            }
            Bug::ForgetNumbers => &[Kind::Twice],
            Bug::LeaveByName => &[Kind::Presence, Kind::Unlisted, Kind::NotMember, Kind::Repeated],
            Bug::LoseLeaves => &[Kind::Ghost],
            Bug::SkipMissed => &[Kind::Lost, Kind::Gap],
            Bug::SkipWhispers => &[Kind::Lost],
            Bug::ForgetIds => &[Kind::Twice],
            Bug::EndGrace => &[Kind::Noticed],
        };
        // A network that fails, too, may end a grace as well.
        let mix = if bug == Bug::EndGrace { Mix::Chats } else { Mix::All };
        let found = (0..300).find(|seed| {
            let report = run(&Config { bug: Some(bug), ..mix.config(*seed) }).report;
            signs.iter().any(|sign| report.count(*sign) > 0)
        });
        println!("{bug:?}: found in seed {found:?}");
        assert!(found.is_some(), "{bug:?} went unnoticed in 300 seeds");
    }
}

/// A bug's run becomes small enough to be read, and still shows the bug.
#[test]
fn what_fails_is_made_small() {
    let config = Config { bug: Some(Bug::ForgetNumbers), ..Mix::All.config(0) };
    let failing = (0..60).map(|seed| Config { seed, ..config.clone() });
    let failing = failing.into_iter().find(|config| !run(config).report.is_clean()).unwrap();
    let small = shrink(&failing);
    let (before, after) = (run(&failing), run(&Config { story: true, ..small.clone() }));
    assert!(!after.report.is_clean(), "{small:?}");
    assert!(after.faults.len() <= 2, "one cut is enough to repeat a send: {:?}", after.faults);
    assert!(after.faults.len() < before.faults.len());
    assert!(small.clients < failing.clients && small.duration < failing.duration, "{small:?}");
    assert_eq!(after.trace, run(&small).trace, "the small run is a run of its own");
}

/// Tells the story of one seed, if it is asked for.
#[test]
fn one() {
    let Ok(seed) = std::env::var("TANGELO_SEED") else { return };
    let mix = Mix::named(&std::env::var("TANGELO_MIX").unwrap_or_else(|_| "all".to_owned()));
    let outcome = run(&Config { story: true, ..mix.config(seed.parse().unwrap()) });
    for line in &outcome.story {
        println!("{line}");
    }
    println!("{:?}", outcome.counters);
    if let Some(broken) = mix.broken(&outcome) {
        panic!("seed {seed}: {broken}");
    }
}
