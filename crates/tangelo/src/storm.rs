//! `tangelo storm`: a crowd loses its connections in one moment and comes back, while others talk.
//!
//! A process may have some 20,000 files, so a great crowd is played by several: this one starts
//! itself again for parts of it, and tells them by their input what to do. It plays the survivors
//! itself, who talk before the storm and in it: what they notice is measured as the time from the
//! moment at which a message was due to its answer.

mod part;
mod person;
mod survivors;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use client::Transport;
use survivors::{Answer, Survivors};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::lookup_host,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

/// Most of a crowd that one process plays: each client has a connection to a gate and one to a
/// connector for a moment, and the process needs some files itself.
const PART_CLIENTS_MAX: u32 = 7_000;
/// How long the whole crowd may take to come, and to come back.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `tangelo storm` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Gate of the cluster
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3014")]
    pub gate: String,

    /// Clients that lose their connections
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub clients: u32,

    /// Clients in a room
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub room_size: u32,

    /// Clients that know Tangelo, and resume; without it they enter anew, as those of the original
    #[arg(long)]
    pub modern: bool,

    /// Speak raw TCP, not WebSocket
    #[arg(long)]
    pub tcp: bool,

    /// Clients that stay and talk
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub survivors: u32,

    /// Messages per second of all who talk
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,

    /// How long those who stay talk before the storm
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,

    /// Write all answers to survivors to this file, as lines of "seconds from the cut to the moment
    /// a message was due, milliseconds from then to its answer"
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,

    /// Play only this part of the crowd, as FIRST:COUNT, and do what the input says
    #[arg(long, hide = true, value_name = "FIRST:COUNT")]
    pub part: Option<String>,
}

impl Args {
    fn transport(&self) -> Transport {
        if self.tcp { Transport::Tcp } else { Transport::WebSocket }
    }
}

/// Plays the storm and prints what it was like.
///
/// # Errors
///
/// If the cluster is not there, somebody does not come back, or a survivor is lost.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let found = lookup_host(&args.gate).await.with_context(|| format!("--gate {}", args.gate))?;
    let gate = found.min_by_key(SocketAddr::is_ipv6).context("--gate has no address")?;
    crate::machine::raise_file_limit()?;
    match &args.part {
        Some(part) => part::play(&args, gate, part).await,
        None => play(&args, gate).await,
    }
}

async fn play(args: &Args, gate: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let began = Instant::now();
    let mut parts = Vec::new();
    for first in (0..args.clients).step_by(PART_CLIENTS_MAX as usize) {
        let count = PART_CLIENTS_MAX.min(args.clients - first);
        parts.push(Part::start(args, first, count)?);
    }
    for part in &mut parts {
        part.hear("in").await?;
    }
    let (clients, processes) = (args.clients, parts.len());
    let took = began.elapsed();
    writeln!(out, "{clients} clients in after {took:.1?}, played by {processes} processes")?;

    let survivors = Survivors::enter(gate, args.transport(), args.survivors, args.rate).await?;
    sleep(Duration::from_secs(args.seconds.into())).await;
    let storm = Instant::now();
    for part in &mut parts {
        part.say("again").await?;
    }
    let (mut back, mut tries) = (Vec::new(), 0);
    for part in &mut parts {
        let report = part.hear("back").await?;
        let mut numbers = report.split(' ').map(|number| number.parse::<u64>());
        tries += numbers.next().context("no count")??;
        for millis in numbers {
            back.push(Duration::from_millis(millis?));
        }
    }
    let over = Instant::now();
    ensure!(back.len() == clients as usize, "{} of {clients} came back", back.len());
    for part in &mut parts {
        part.say("end").await?;
    }
    writeln!(out, "back after {}, in {tries} tries", spread(back))?;
    let answers = survivors.leave().await?;
    let of = |from: Instant, to: Instant| {
        let due = answers.iter().filter(|answer| answer.due >= from && answer.due < to);
        due.map(|answer| answer.after).collect::<Vec<_>>()
    };
    let (before, during) = (of(began, storm), of(storm, over));
    writeln!(out, "answers to survivors before {}", spread(before.clone()))?;
    writeln!(out, "answers to survivors in it  {}", spread(during.clone()))?;
    let ratio = percentile(&during, 99).as_secs_f64() / percentile(&before, 99).as_secs_f64();
    writeln!(out, "p99 in it is {ratio:.2} x that before")?;
    if let Some(file) = &args.answers {
        write_down(&answers, storm, file)?;
    }
    Ok(())
}

/// Writes a line for each answer, in the order in which the messages were due.
fn write_down(answers: &[Answer], cut: Instant, file: &Path) -> anyhow::Result<()> {
    let mut answers = answers.to_vec();
    answers.sort_unstable_by_key(|answer| answer.due);
    let mut lines = String::new();
    for Answer { due, after } in answers {
        let since_cut = due.saturating_duration_since(cut).as_secs_f64()
            - cut.saturating_duration_since(due).as_secs_f64();
        lines.push_str(&format!("{since_cut:.4} {:.3}\n", after.as_secs_f64() * 1e3));
    }
    std::fs::write(file, lines).with_context(|| format!("--answers {}", file.display()))
}

fn percentile(spans: &[Duration], percent: usize) -> Duration {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    let at = (spans.len() * percent / 100).min(spans.len().saturating_sub(1));
    spans.get(at).copied().unwrap_or_default()
}

fn spread(spans: Vec<Duration>) -> String {
    let at = |percent| percentile(&spans, percent);
    let count = spans.len();
    format!("p50 {:.1?}  p99 {:.1?}  max {:.1?}  (of {count})", at(50), at(99), at(100))
}

/// Another process, which plays a part of the crowd.
struct Part {
    /// Ends with this value.
    _child: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Part {
    fn start(args: &Args, first: u32, count: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["storm", "--gate", &args.gate, "--part", &format!("{first}:{count}")]);
        command.args(["--room-size", &args.room_size.to_string()]);
        command.args(args.modern.then_some("--modern")).args(args.tcp.then_some("--tcp"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let orders = child.stdin.take().ok_or_else(|| anyhow!("a part has no input"))?;
        let reports = child.stdout.take().ok_or_else(|| anyhow!("a part has no output"))?;
        Ok(Self { _child: child, orders, reports: BufReader::new(reports).lines() })
    }

    async fn say(&mut self, order: &str) -> anyhow::Result<()> {
        Ok(self.orders.write_all(format!("{order}\n").as_bytes()).await?)
    }

    /// Waits for a report that begins with this word; answers the rest of it.
    async fn hear(&mut self, word: &str) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.reports.next_line()).await;
        let line = line.with_context(|| format!("a part does not say `{word}` in time"))??;
        let line = line.with_context(|| format!("a part ended before it said `{word}`"))?;
        let rest = line.strip_prefix(word).with_context(|| format!("a part said `{line}`"))?;
        Ok(rest.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_of_whatever_there_is() {
        let millis = |it| Duration::from_millis(it);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
        let spans: Vec<_> = (1..=100).rev().map(millis).collect();
        assert_eq!(percentile(&spans, 50), millis(51));
        assert_eq!(percentile(&spans, 100), millis(100));
        assert_eq!(spread(vec![millis(7)]), "p50 7.0ms  p99 7.0ms  max 7.0ms  (of 1)");
    }
}
