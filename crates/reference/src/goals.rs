//! Measures every goal of the project, and says which are met.
//!
//! What a goal is held against runs just before Tangelo in every round, so that a ratio compares two
//! runs that are seconds apart; what is told is the median of the rounds. The machine should have
//! nothing else to do: with other work beside it, every figure is worse, and ratios by less.

mod row;

use std::{fs, io::Write as _, path::PathBuf, process::Command};

use anyhow::Context as _;
use clap::ValueEnum as _;
use row::Row;
use serde_json::Value;

use crate::{
    compare::{self, Figures, median},
    peers::{self, Peer},
    sweep,
};

/// What to measure, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder for goals.md
    #[arg(long, value_name = "FOLDER", default_value = "docs/plots")]
    out: PathBuf,

    /// The `tangelo` to measure, and whose `bench` drives all servers
    #[arg(long, value_name = "PATH", default_value = "target/release/tangelo")]
    tangelo: PathBuf,

    /// Rounds of each comparison
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long to measure in each run
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// What to measure; what takes some minutes if not told
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Measure>,

    /// Measure everything, draw the plots too, and take an hour and a half for it
    #[arg(long, conflicts_with = "only")]
    all: bool,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// 10 rooms × 100 at 20,000 deliveries/s, beside the floor
    Fixed,
    /// 10 rooms × 100 with 8 messages of each client in flight, beside the coalescing floor
    Saturated,
    /// Both beside nats-server, mosquitto, nchan and the textbook server
    Peers,
    /// 100 rooms × 10 at 10,000 deliveries/s, beside the floor
    SmallRooms,
    /// What an idle session takes at its connector, and a member at its chat
    Memory,
    /// 10 rooms × 100 next door to one of 20,000
    LargeRoom,
    /// How many come in per second, by deploy/million.sh, as root
    Entries,
    /// What `sweep` measures, with its plots, for half an hour and more
    Growth,
    /// A million sessions, by deploy/million.sh, as root, for some 15 minutes
    Million,
}

/// What is measured if nothing is chosen.
const USUAL: [Measure; 7] = [
    Measure::Fixed,
    Measure::Saturated,
    Measure::Peers,
    Measure::SmallRooms,
    Measure::Memory,
    Measure::LargeRoom,
    Measure::Entries,
];
/// What others have built, to be ahead of.
const PEERS: [Peer; 4] = [Peer::Textbook, Peer::Nats, Peer::Mosquitto, Peer::Nchan];

/// Measures, prints a table of the goals, and keeps it in `goals.md`.
///
/// What cannot be measured here, as a peer that is not installed, is told in its row.
///
/// # Errors
///
/// If the table cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    crate::raise_open_files()?;
    let everything = if args.all { Measure::value_variants() } else { &USUAL };
    let chosen = if args.only.is_empty() { everything } else { &args.only };
    let mut rows = Vec::new();
    for measure in chosen {
        let measured = args.measure(*measure);
        rows.extend(measured.unwrap_or_else(|error| vec![Row::failed(*measure, &error)]));
    }
    let table = row::table(&rows);
    fs::create_dir_all(&args.out)
        .and_then(|()| fs::write(args.out.join("goals.md"), &table))
        .with_context(|| format!("cannot write goals.md into {}", args.out.display()))?;
    Ok(write!(std::io::stdout(), "{table}")?)
}

impl Args {
    fn measure(&self, measure: Measure) -> anyhow::Result<Vec<Row>> {
        match measure {
            Measure::Fixed => self.fixed(),
            Measure::Saturated => self.saturated(),
            Measure::Peers => self.peers(),
            Measure::SmallRooms => self.small_rooms(),
            Measure::Memory => self.memory(),
            Measure::LargeRoom => self.large_room(),
            Measure::Entries => self.entries(),
            Measure::Growth => self.growth(),
            Measure::Million => self.million(),
        }
    }

    fn fixed(&self) -> anyhow::Result<Vec<Row>> {
        let pairs = self.beside("epoll", &["--clients=1000", "--rooms=10", "--rate=200"])?;
        let ours =
            |pick: fn(&Figures) -> f64| median(pairs.iter().map(|(_, it)| pick(it)).collect());
        let is_clean = are_clean(&pairs);
        Ok(vec![
            Row::at_most(
                "10 rooms × 100, 20,000 deliveries/s: CPU, of the floor's",
                1.25,
                ratio(&pairs),
            )
            .clean(is_clean),
            Row::at_most("the same: p50, ms", 1.0, ours(|it| it.p50)).clean(is_clean),
            Row::at_most("the same: p99, ms", 5.0, ours(|it| it.p99)).clean(is_clean),
        ])
    }

    fn saturated(&self) -> anyhow::Result<Vec<Row>> {
        let load = ["--clients=1000", "--rooms=10", "--saturate=8"];
        let pairs = self.beside("coalesce", &load)?;
        let per_second = median(pairs.iter().map(|(_, it)| it.per_second).collect());
        let is_clean = are_clean(&pairs);
        Ok(vec![
            Row::at_most("saturated: CPU, of the coalescing floor's", 1.5, ratio(&pairs))
                .clean(is_clean),
            Row::at_least("saturated: deliveries/s, the load beside it", 1e6, per_second)
                .clean(is_clean),
        ])
    }

    fn small_rooms(&self) -> anyhow::Result<Vec<Row>> {
        let pairs = self.beside("epoll", &["--clients=1000", "--rooms=100", "--rate=1000"])?;
        let goal = "100 rooms × 10, 10,000 deliveries/s: CPU, of the floor's";
        Ok(vec![Row::at_most(goal, 1.6, ratio(&pairs)).clean(are_clean(&pairs))])
    }

    fn peers(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (saturate, load) in [(None, "20,000 deliveries/s"), (Some(8), "saturated")] {
            let args = self.of_peers(saturate);
            for peer in PEERS {
                let goal = format!("{load}: CPU of {peer}, of ours");
                let wanted = if (peer, saturate) == (Peer::Textbook, Some(8)) { 2.0 } else { 1.0 };
                let ratio = self.ahead_of(&args, peer);
                rows.push(match ratio {
                    Ok((ratio, is_clean)) => Row::at_least(goal, wanted, ratio).clean(is_clean),
                    Err(error) => Row::not_measured(goal, &error),
                });
            }
        }
        Ok(rows)
    }

    fn ahead_of(&self, args: &peers::Args, peer: Peer) -> anyhow::Result<(f64, bool)> {
        let mut pairs = Vec::new();
        for round in 1..=self.rounds {
            let play = |peer: Peer| {
                let figures = peers::measure(args, peer).with_context(|| peer.to_string())?;
                tell(round, &peer.to_string(), &figures)?;
                anyhow::Ok(figures)
            };
            let theirs = play(peer)?;
            pairs.push((play(Peer::Tangelo)?, theirs));
        }
        // Peers that lose what they are sent when they cannot follow have delivered less, which their
        // cost per delivery tells.
        Ok((ratio(&pairs), pairs.iter().all(|(ours, _)| ours.is_clean)))
    }

    fn of_peers(&self, saturate: Option<u32>) -> peers::Args {
        peers::Args {
            tangelo: self.tangelo.clone(),
            peers: Vec::new(),
            rounds: self.rounds,
            clients: 1000,
            rooms: 10,
            rate: 200,
            saturate,
            seconds: self.seconds.into(),
        }
    }

    fn memory(&self) -> anyhow::Result<Vec<Row>> {
        let figures = self.bench(&["--clients=10000", "--rooms=100", "--rate=1"])?;
        let bytes = |name: &str| figures[name].as_f64().context("no figures of its memory");
        let is_clean = figures["clean"] == Value::Bool(true);
        Ok(vec![
            Row::at_most(
                "10,000 idle sessions in rooms of 100: bytes of a connector, each",
                2560.0,
                bytes("connector_bytes_per_session")?,
            )
            .clean(is_clean),
            Row::at_most("the same: bytes of a chat, each", 512.0, bytes("chat_bytes_per_member")?)
                .clean(is_clean),
        ])
    }

    fn large_room(&self) -> anyhow::Result<Vec<Row>> {
        let rooms = ["--clients=1000", "--rooms=10", "--rate=37"];
        let beside = ["--big-room=20000", "--big-rate=20"];
        let (mut ratios, mut rates, mut is_clean) = (Vec::new(), Vec::new(), true);
        for round in 1..=self.rounds {
            let alone = self.bench(&rooms)?;
            let next_door = self.bench(&[&rooms[..], &beside[..]].concat())?;
            let (alone, beside) = (Figures::read(&alone), Figures::read(&next_door));
            tell(round, "alone", &alone)?;
            tell(round, "next door", &beside)?;
            ratios.push(beside.p99 / alone.p99);
            let per_second = &next_door["big_room"]["deliveries_per_second"];
            rates.push(per_second.as_f64().context("the large room heard nothing")?);
            is_clean &= alone.is_clean && beside.is_clean;
        }
        Ok(vec![
            Row::at_most(
                "next door to a room of 20,000 with 20 messages/s: p99, of that alone",
                1.2,
                median(ratios),
            )
            .clean(is_clean),
            // What it is sent, but for one in a hundred: the last are heard after the window.
            Row::at_least(
                "a room of 20,000, 20 messages/s: deliveries/s",
                396_000.0,
                median(rates),
            )
            .clean(is_clean),
        ])
    }

    fn entries(&self) -> anyhow::Result<Vec<Row>> {
        let flags = "20000 --processes 2 --connectors 2 --enter-rate 20000 --seconds 5 --warmup 1";
        let figures = self.in_namespace(&flags.split(' ').collect::<Vec<_>>())?;
        let per_second = figures["entries_per_second"].as_f64().unwrap_or(0.0);
        let is_clean = figures["clean"] == Value::Bool(true);
        Ok(vec![Row::at_least("entries/s, gate to `users`", 5000.0, per_second).clean(is_clean)])
    }

    fn growth(&self) -> anyhow::Result<Vec<Row>> {
        let sweep = sweep::Args::usual(self.out.clone(), self.tangelo.clone(), self.rounds);
        let flat = sweep::run(&sweep)?.into_iter();
        let row = |(series, most): (String, f64)| {
            Row::told(format!("as {series} grow: the most CPU of a delivery, of the least"), most)
        };
        Ok(flat.map(row).collect())
    }

    fn million(&self) -> anyhow::Result<Vec<Row>> {
        let figures = self.in_namespace(&["1000000", "--enter-rate", "2500"])?;
        let sessions = figures["clients"].as_f64().unwrap_or(0.0);
        let is_clean = figures["clean"] == Value::Bool(true);
        Ok(vec![Row::at_least("sessions held at once, 200 sends/s", 1e6, sessions).clean(is_clean)])
    }

    /// Has one of the reference servers and Tangelo play the same, once a round.
    fn beside(&self, server: &str, load: &[&str]) -> anyhow::Result<Vec<(Figures, Figures)>> {
        let mut pairs = Vec::new();
        for round in 1..=self.rounds {
            let options = self.options(load);
            let floor = Figures::read(&compare::reference(&self.tangelo, server, &options)?);
            tell(round, server, &floor)?;
            let ours = Figures::read(&self.bench(load)?);
            tell(round, "tangelo", &ours)?;
            pairs.push((floor, ours));
        }
        Ok(pairs)
    }

    fn bench(&self, load: &[&str]) -> anyhow::Result<Value> {
        compare::bench(&self.tangelo, &["--up".to_owned()], &self.options(load))
    }

    fn options(&self, load: &[&str]) -> Vec<String> {
        let seconds = format!("--seconds={}", self.seconds);
        load.iter().map(|&option| option.to_owned()).chain([seconds]).collect()
    }

    /// Runs `deploy/million.sh`, with nobody held back at the door.
    fn in_namespace(&self, flags: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new("deploy/million.sh")
            .args(flags)
            .arg("--json")
            .env(
                "TANGELO",
                fs::canonicalize(&self.tangelo).unwrap_or_else(|_| self.tangelo.clone()),
            )
            .env("TANGELO_ENTRIES_PER_SECOND", "100000")
            .env("TANGELO_ADMISSIONS_PER_SECOND", "100000")
            .stderr(std::process::Stdio::inherit())
            .output()
            .context(
                "cannot run deploy/million.sh: it wants to be run from the repository's root",
            )?;
        serde_json::from_slice(&output.stdout)
            .context("deploy/million.sh printed no figures: it wants root, for a network namespace")
    }
}

/// Says what one run was like, for whoever waits.
fn tell(round: u32, name: &str, figures: &Figures) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr(), "{round} {name:<10} {figures}")?)
}

/// What the second costs for a delivery, of what the first does, in the same round.
fn ratio(pairs: &[(Figures, Figures)]) -> f64 {
    median(pairs.iter().map(|(base, it)| it.micros / base.micros).collect())
}

fn are_clean(pairs: &[(Figures, Figures)]) -> bool {
    pairs.iter().all(|(base, it)| base.is_clean && it.is_clean)
}
