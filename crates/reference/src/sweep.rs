//! Measures how cost and latency change as one thing grows, and draws it.
//!
//! It stands here and not in `tangelo bench` since what it prints are ratios to the floor, which
//! `bench` knows nothing of. Rounds are interleaved: each goes through all series, and at each point
//! runs what Tangelo is held against just before it, so that a ratio compares two runs that are
//! seconds apart. Every run is judged as `bench` judges.
//!
//! Three kinds of files come out of it: all figures of all runs (`sweep.json`, from which
//! `--from` writes the others again), their medians (`sweep.md`), and a plot of each series.

mod plot;
mod results;
mod series;
mod table;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use results::{Results, Run};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use series::{Series, Server, Spec};

use crate::compare;

/// Seconds that a run takes beside those it measures: a cluster comes up, warms up and ends.
const SECONDS_OF_A_RUN: u32 = 6;
/// Clients that come in per second, for an estimate.
const ENTRIES_PER_SECOND: u32 = 1_000;

/// What to measure, and where to put what comes of it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder for sweep.json, sweep.md and the plots
    #[arg(long, value_name = "FOLDER", default_value = "docs/plots")]
    out: PathBuf,

    /// Measure nothing: write table and plots again from a sweep.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "seconds"])]
    from: Option<PathBuf>,

    /// Some minutes instead of half an hour: fewer and smaller points, one round of 3 seconds each
    #[arg(long)]
    quick: bool,

    /// What grows; everything, one after the other, if not told
    #[arg(long, value_name = "SERIES", value_delimiter = ',')]
    series: Vec<Series>,

    /// Rounds; each goes through all points [default: 3, or 1 if --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// How long to measure in each run [default: 5, or 3 if --quick]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,

    /// The `tangelo` to measure, and whose `bench` drives all servers
    #[arg(long, value_name = "PATH", default_value = "target/release/tangelo")]
    tangelo: PathBuf,
}

impl Args {
    /// All series, in so many rounds.
    pub(crate) fn usual(out: PathBuf, tangelo: PathBuf, rounds: u32) -> Self {
        let (from, quick, series, seconds) = (None, false, Vec::new(), None);
        Self { out, from, quick, series, rounds: Some(rounds), seconds, tangelo }
    }
}

/// Measures, or reads what was measured, and writes a table and plots. The table is printed too.
///
/// Returns for each series that is held against the floor how many times the least processor time of a delivery, at one of its points,
/// is in the most, medians of the rounds.
///
/// # Errors
///
/// If a file cannot be read or written, nothing could be measured, or a run was not clean or gave no
/// figures: what the others gave is written all the same.
pub fn run(args: &Args) -> anyhow::Result<Vec<(String, f64)>> {
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let (results, failed) = match &args.from {
        Some(path) => (Results::load(path)?, 0),
        None => measure(args)?,
    };
    ensure!(!results.runs.is_empty(), "nothing was measured");
    let table = table::markdown(&results);
    write(&args.out.join("sweep.md"), &table)?;
    for series in Series::ALL {
        if let Some(svg) = plot::svg(&results, series)? {
            write(&args.out.join(format!("{}.svg", series.name())), &svg)?;
        }
    }
    write!(std::io::stdout(), "{table}")?;
    let broken = results.runs.iter().filter(|run| !run.is_clean).count();
    ensure!(broken + failed == 0, "{broken} runs were not clean, {failed} gave no figures");
    // Next to a large room it is another room's work that grows.
    let own = Series::ALL.iter().filter(|series| series.base() == Server::Floor);
    let flat = |series: &Series| Some((series.name().to_owned(), results.unevenness(*series)?));
    Ok(own.filter_map(flat).collect())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs everything, and keeps what there is after every run: half an hour should not be lost for the
/// last run of it. Returns also how many runs gave no figures.
fn measure(args: &Args) -> anyhow::Result<(Results, usize)> {
    crate::raise_open_files()?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    let seconds = args.seconds.unwrap_or(if args.quick { 3 } else { 5 });
    let all = if args.series.is_empty() { &Series::ALL } else { args.series.as_slice() };
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let specs = |series: &Series| {
        let series = *series;
        series.round(args.quick, files).into_iter().map(move |spec| (series, spec))
    };
    let round: Vec<(Series, Spec)> = all.iter().flat_map(specs).collect();
    let estimate = round.iter().map(|(_, spec)| duration(spec, seconds)).sum::<u32>() * rounds / 60;
    let mut log = std::io::stderr();
    let count = round.len();
    writeln!(log, "{count} runs in each of {rounds} rounds, some {} minutes", estimate + 1)?;
    let mut results = Results { seconds, runs: Vec::new() };
    let mut failed = 0;
    for number in 1..=rounds {
        for (series, spec) in &round {
            let begun = Instant::now();
            match measure_one(args, seconds, spec) {
                Ok(figures) => {
                    let run = Run::read(*series, spec, number, &figures);
                    writeln!(log, "{run}  {:.0} s", begun.elapsed().as_secs_f64())?;
                    if !run.is_clean {
                        writeln!(log, "  {}", found(&figures))?;
                    }
                    results.runs.push(run);
                    results.save(&args.out.join("sweep.json"))?;
                }
                Err(error) => {
                    failed += 1;
                    let (name, Spec { server, x, .. }) = (series.name(), spec);
                    writeln!(log, "{name} {x}, {server}, round {number}: {error:#}")?;
                }
            }
        }
    }
    Ok((results, failed))
}

/// What was not clean, in all rooms and in the big one.
fn found(figures: &Value) -> String {
    let words = |of: &Value| of["violations"].as_str().unwrap_or("nothing").to_owned();
    let tried = &figures["entries_tried_again"];
    let big_room = &figures["big_room"];
    let big_room = big_room.is_object().then(|| format!("\nin the big room: {}", words(big_room)));
    format!("{tried} tried again to come in; found: {}", words(figures))
        + &big_room.unwrap_or_default()
}

fn duration(spec: &Spec, seconds: u32) -> u32 {
    seconds + SECONDS_OF_A_RUN + spec.clients / ENTRIES_PER_SECOND
}

fn measure_one(args: &Args, seconds: u32, spec: &Spec) -> anyhow::Result<Value> {
    let mut options = spec.options.clone();
    options.push(format!("--seconds={seconds}"));
    match spec.server {
        Server::Floor => compare::reference(&args.tangelo, &spec.floor, &options),
        Server::Tangelo | Server::Alone => {
            compare::bench(&args.tangelo, &["--up".to_owned()], &options)
        }
    }
}
