//! Runs Tangelo and the reference servers in turn, and prints ratios.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// What to compare, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The `tangelo` to measure, and whose `bench` drives all servers; may be given several times
    #[arg(long, value_name = "PATH", default_value = "target/release/tangelo")]
    tangelo: Vec<PathBuf>,

    /// Rounds; each runs every server once
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,

    /// Leave these out: epoll, coalesce, ring (also of --split), textbook
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    without: Vec<String>,

    /// Also the minimal server in several processes, with so many connectors beside the owner of the
    /// rooms; once as it is, and once with writes through io_uring
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    split: Vec<u32>,

    /// Options for `tangelo bench`, after `--`
    #[arg(last = true)]
    bench: Vec<String>,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) micros: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) is_clean: bool,
}

/// Runs all and prints a table: the medians, and the medians of each round's ratios to the first
/// reference server.
///
/// # Errors
///
/// If something cannot be run.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let references = ["epoll", "coalesce", "ring", "textbook"];
    let is_wanted = |name: &str| !args.without.iter().any(|it| it == name);
    let references = references.iter().filter(|name| is_wanted(name));
    let ways: &[&str] = if is_wanted("ring") { &["", " --ring"] } else { &[""] };
    let split = args.split.iter().flat_map(|connectors| {
        ways.iter().map(move |way| format!("split --connectors={connectors}{way}"))
    });
    let references: Vec<String> = references.map(|it| (*it).to_owned()).chain(split).collect();
    let mut runs: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
    let mut names = Vec::new();
    for round in 1..=args.rounds {
        for name in &references {
            let generator = args.tangelo.first().context("--tangelo is missing")?;
            let figures = reference(generator, name, &args.bench);
            let figures = figures.with_context(|| format!("{name}, round {round}"))?;
            note(&mut runs, &mut names, name.clone(), Figures::read(&figures))?;
        }
        for path in &args.tangelo {
            let name = short(path, &args.tangelo);
            let figures = bench(path, &["--up".to_owned()], &args.bench);
            let figures = figures.with_context(|| format!("{name}, round {round}"))?;
            note(&mut runs, &mut names, name, Figures::read(&figures))?;
        }
    }
    print(&runs, &names)
}

/// A build's file name; all of its path if another of them has the same.
fn short(path: &Path, all: &[PathBuf]) -> String {
    let twins = all.iter().filter(|it| it.file_name() == path.file_name()).count();
    let name = if twins > 1 { path.as_os_str() } else { path.file_name().unwrap_or_default() };
    name.to_string_lossy().into_owned()
}

pub(crate) fn note(
    runs: &mut BTreeMap<String, Vec<Figures>>,
    names: &mut Vec<String>,
    name: String,
    figures: Figures,
) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "{name:<16} {figures}")?;
    if !names.contains(&name) {
        names.push(name.clone());
    }
    runs.entry(name).or_default().push(figures);
    Ok(())
}

pub(crate) fn print(runs: &BTreeMap<String, Vec<Figures>>, names: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let Some(first) = names.first().and_then(|name| runs.get(name)) else { return Ok(()) };
    writeln!(
        out,
        "| server | CPU µs per delivery | ratio | deliveries/s | p50 · p99 ms | clean |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for name in names {
        let all = &runs[name];
        let of = |pick: fn(&Figures) -> f64| median(all.iter().map(pick).collect());
        // Paired: the machine's speed drifts more between rounds than within one.
        let ratios = all.iter().zip(first).map(|(its, base)| its.micros / base.micros);
        writeln!(
            out,
            "| {name} | {:.2} | {:.2} | {:.0} | {:.2} · {:.2} | {} of {} |",
            of(|it| it.micros),
            median(ratios.collect()),
            of(|it| it.per_second),
            of(|it| it.p50),
            of(|it| it.p99),
            all.iter().filter(|it| it.is_clean).count(),
            all.len()
        )?;
    }
    Ok(())
}

/// The middle one, or between both of them; zero of nothing.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        figures
            .get(middle.wrapping_sub(1))
            .map_or(0.0, |below| f64::midpoint(*below, figures[middle]))
    }
}

/// A process that ends with us, however we end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one of the reference servers, by its name and arguments, and has a `tangelo bench` drive
/// it, with these options.
pub(crate) fn reference(generator: &Path, name: &str, options: &[String]) -> anyhow::Result<Value> {
    let child = Command::new(std::env::current_exe()?)
        .args(name.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut server = Server(child);
    let output = server.0.stdout.take().context("it has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    // Where it listens, and the processes that it has started.
    let (mut line, mut pids) = (line.split_whitespace(), server.0.id().to_string());
    let address = line.next().context("it told no address")?;
    pids.extend(line.flat_map(|pid| [",", pid]));
    let how = ["--gate", address, "--pids", &pids].map(str::to_owned);
    bench(generator, &how, options)
}

/// Runs `tangelo bench`. Returns what it prints as JSON.
pub(crate) fn bench(tangelo: &Path, how: &[String], options: &[String]) -> anyhow::Result<Value> {
    let output = Command::new(tangelo)
        .args(["bench", "--json"])
        .args(how)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", tangelo.display()))?;
    // A run that is not clean ends with an error, but has figures.
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(&text).context("it printed no figures")?;
    let per_second = figures["deliveries_per_second"].as_f64().unwrap_or(0.0);
    ensure!(per_second > 0.0, "nothing was delivered");
    Ok(figures)
}

/// For whoever waits.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { micros, per_second, p50, p99, is_clean } = self;
        let verdict = if *is_clean { "clean" } else { "NOT CLEAN" };
        write!(f, "{micros:>7.2} µs  {per_second:>9.0}/s  p50 {p50:.2}  p99 {p99:.2} ms  {verdict}")
    }
}

impl Figures {
    /// Picks them out of what `tangelo bench` has printed.
    pub(crate) fn read(figures: &Value) -> Self {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        Self {
            micros: number(&figures["server_cpu_us_per_delivery"]),
            per_second: number(&figures["deliveries_per_second"]),
            p50: number(&figures["latency_ms"]["p50"]),
            p99: number(&figures["latency_ms"]["p99"]),
            is_clean: figures["clean"] == Value::Bool(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_one_name_are_told_apart() {
        let all = ["target/dist/tangelo", "target/release/tangelo", "x/before"].map(PathBuf::from);
        assert_eq!(
            all.each_ref().map(|path| short(path, &all)),
            ["target/dist/tangelo", "target/release/tangelo", "before"]
        );
    }
}
