//! `tangelo bench`: clients join, speak and count what arrives.
//!
//! Everything is measured from outside, as clients see it: a delivery is a message in the hands
//! of one member, and its latency runs from the moment at which it was *due* to be sent, so that a
//! generator or a server that falls behind is not flattered. Every delivery is also kept and
//! judged: a figure with a lost message beside it is no figure.
//!
//! One thread plays thousands of clients (`--threads` for more): the server is measured, so the
//! generator must cost less than it. Clients that are carried by requests cost it several times
//! more than those that have a socket of their own: play fewer of them.

mod dialect;
mod fleet;
mod outcome;
mod player;
mod processes;

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, ensure};
use client::{Client, Options, Transport};
pub use dialect::Choice;
use fleet::Fleet;
use outcome::Outcome;
use player::{Phase, Plan};
use processes::{Processes, Up};
use tokio::net::lookup_host;

/// Most clients of one run. A process holds no more sockets than its file limit, so a larger
/// crowd needs several runs at once.
const CLIENTS_MAX: i64 = 100_000;
/// Longest run, in seconds.
const SECONDS_MAX: i64 = 3_600;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long joining may make no progress.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for further deliveries when nothing comes any more.
const HUSH: Duration = Duration::from_secs(3);
/// How long everybody is in before sessions count as idle.
const SETTLE: Duration = Duration::from_secs(1);
/// The same where requests carry sessions, or have at first: by then pages have moved to their
/// WebSockets, and the server has ended the connections that it kept for further requests.
const SETTLE_REQUESTS: Duration = Duration::from_secs(7);

/// What `tangelo bench` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Gate of the cluster to measure
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3014")]
    pub gate: String,

    /// Start a cluster for the run, on free ports, and end it afterwards
    #[arg(long, conflicts_with = "gate")]
    pub up: bool,

    /// Connectors of the cluster that --up starts
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub connectors: u16,

    /// Chats of the cluster that --up starts
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub chats: u16,

    /// Clients, all in a room
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,

    /// Rooms, all of one size
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub rooms: u32,

    /// Messages sent per second, by all clients in turn, however slow the answers are
    #[arg(long, value_name = "N", default_value_t = 100.0, conflicts_with = "saturate")]
    pub rate: f64,

    /// Every client sends as soon as its last messages were answered, this many at once
    #[arg(long, value_name = "IN-FLIGHT", num_args = 0..=1, default_missing_value = "1")]
    pub saturate: Option<u32>,

    /// Length of a message's text, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(40..=8_192))]
    pub bytes: u32,

    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    pub seconds: u32,

    /// How long to send before measuring
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(0..=SECONDS_MAX))]
    pub warmup: u32,

    /// What the clients speak and over what; `all` measures one after the other, each on a fresh
    /// cluster if --up, and prints a table in Markdown
    #[arg(long, value_name = "DIALECT", alias = "transport", default_value = "pomelo-ws",
          value_parser = dialect::parser())]
    pub dialect: Choice,

    /// Threads that play clients
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,

    /// Processes of the cluster, to measure their processor time and memory; known with --up
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pub pids: Vec<u32>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the benchmark and prints what it measured.
///
/// # Errors
///
/// If clients cannot join, or the cluster broke a promise: the figures are printed all the same.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let transports = args.dialect.transports();
    let sockets = transports.iter().map(|transport| transport.sockets()).max().unwrap_or(1);
    processes::raise_file_limit(args.clients.saturating_mul(sockets))?;
    let mut broken = Vec::new();
    if args.dialect == Choice::All && !args.json {
        writeln!(std::io::stdout(), "{}", outcome::TABLE_HEAD)?;
    }
    for transport in transports {
        let outcome = run_one(&args, transport).await?;
        let text = match args.dialect {
            _ if args.json => outcome.json(),
            Choice::All => outcome.table_row(),
            Choice::One(_) => outcome.to_string(),
        };
        writeln!(std::io::stdout(), "{text}")?;
        if !outcome.verdict.is_clean() {
            broken.push(transport.name());
        }
    }
    ensure!(broken.is_empty(), "the cluster broke its promises to {}", broken.join(", "));
    Ok(())
}

async fn run_one(args: &Args, transport: Transport) -> anyhow::Result<Outcome> {
    let up = if args.up { Some(Up::start(args.connectors, args.chats).await?) } else { None };
    let gate = match &up {
        Some(up) => up.gate(),
        None => find(&args.gate).await?,
    };
    let measured = measure(args, transport, gate, up.as_ref()).await;
    if let Some(up) = up {
        up.end().await;
    }
    measured
}

/// The address of a gate that answers.
async fn find(gate: &str) -> anyhow::Result<SocketAddr> {
    let advice = "start a cluster with `tangelo up`, name another with --gate HOST:PORT, or have \
                  one started with --up";
    let found = lookup_host(gate).await.map_err(|error| anyhow!("--gate {gate}: {error}"))?;
    let address = found.min_by_key(SocketAddr::is_ipv6);
    let address = address.ok_or_else(|| anyhow!("--gate {gate} has no address"))?;
    match Client::query_entry(address, &Options::default(), "bench", None).await {
        Ok(_) => Ok(address),
        Err(client::Error::Refused { .. }) => {
            bail!("the gate {gate} knows no connector that takes clients; look at its log")
        }
        Err(error) => bail!("the gate {gate} does not answer ({error}); {advice}"),
    }
}

async fn measure(
    args: &Args,
    transport: Transport,
    gate: SocketAddr,
    up: Option<&Up>,
) -> anyhow::Result<Outcome> {
    let processes = match up {
        Some(up) => up.processes()?,
        None => Processes::of(&args.pids)?,
    };
    let plan = Arc::new(Plan::new(args, gate, transport));
    let idle_memory = processes.memory();
    let fleet = Fleet::start(Arc::clone(&plan), args.threads)?;

    join(&fleet, args.clients).await?;
    let joined = fleet.joined();
    tokio::time::sleep(if transport.sockets() > 1 { SETTLE_REQUESTS } else { SETTLE }).await;
    let memory = processes.memory();

    let start = Instant::now();
    fleet.enter(Phase::Send { start });
    let (warmup, seconds) = (seconds(args.warmup), seconds(args.seconds));
    tokio::time::sleep_until((start + warmup).into()).await;
    let before = (processes.processor_time(), fleet.counts.delivered.load(Ordering::Relaxed));
    let window = Instant::now();
    tokio::time::sleep_until((start + warmup + seconds).into()).await;
    let after = (processes.processor_time(), fleet.counts.delivered.load(Ordering::Relaxed));
    let window = window.elapsed();
    fleet.enter(Phase::Hush);
    hush(&fleet).await;

    let played = fleet.stop()?;
    Ok(Outcome {
        args: args.clone(),
        transport,
        joined,
        window,
        deliveries: after.1 - before.1,
        processor_time: (!processes.is_empty()).then(|| after.0.saturating_sub(before.0)),
        session_memory: processes::per_session(&idle_memory, &memory, joined),
        refused: played.refused,
        closed: played.closed,
        late: played.late,
        verdict: plan.judge(played.logs),
        latency: played.latency,
    })
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

/// Waits until everybody is in.
async fn join(fleet: &Fleet, clients: u32) -> anyhow::Result<()> {
    let mut last = (0, Instant::now());
    loop {
        let joined = fleet.joined();
        if joined == clients {
            return Ok(());
        }
        if let Some(failure) = fleet.failure() {
            bail!("{joined} of {clients} clients joined: {failure}");
        }
        if joined > last.0 {
            last = (joined, Instant::now());
        }
        if last.1.elapsed() > JOIN_PATIENCE {
            bail!("{joined} of {clients} clients joined, and no more come in");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until nothing comes any more.
async fn hush(fleet: &Fleet) {
    let mut last = (0, Instant::now());
    loop {
        let delivered = fleet.counts.delivered.load(Ordering::Relaxed);
        let waiting = fleet.counts.unanswered();
        if delivered > last.0 {
            last = (delivered, Instant::now());
        }
        let quiet = last.1.elapsed();
        // Once all sends are answered, what was on the way arrives at once or never.
        if quiet > HUSH || (waiting == 0 && quiet > HUSH / 6) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
