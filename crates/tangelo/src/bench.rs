//! `tangelo bench`: clients join, speak and count what arrives.
//!
//! Everything is measured from outside, as clients see it: a delivery is a message in the hands
//! of one member, and its latency runs from the moment at which it was *due* to be sent, so that a
//! generator or a server that falls behind is not flattered. Every delivery is also kept and
//! judged: a figure with a lost message beside it is no figure.
//!
//! One thread plays thousands of clients (`--threads` for more): the server is measured, so the
//! generator must cost less than it. Clients that are carried by requests cost it several times
//! more than those that have a socket of their own: play fewer of them. More clients than a process
//! may have open files want several processes (`--processes`), each with whole rooms. One more room
//! may be larger than that (`--big-room`): it stands beside the others, and is measured apart.

mod alarms;
mod big_room;
mod crowd;
mod dialect;
mod fleet;
mod guard;
mod outcome;
mod parts;
mod plan;
mod player;
mod processes;
mod verdict;

use std::{
    io::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, ensure};
use client::{Client, Options, Transport};
use crowd::Crowd;
pub use dialect::Choice;
use guard::Guard;
use model::limits;
use outcome::{Entering, Outcome, Speaking};
use plan::Part;
use processes::{Processes, Up};
use tokio::net::lookup_host;

use crate::machine::{self, Demand, Machine};

/// Most clients of one run: the kernel's memory for both ends of more would not fit.
const CLIENTS_MAX: i64 = 2_000_000;
/// Most members of one room, as the servers have it.
const ROOM_MAX: i64 = limits::ROOM_MEMBERS_MAX as i64;
/// Most processes that play clients.
const PROCESSES_MAX: i64 = 256;
/// How much more than its share a connector may be given.
const CONNECTOR_SHARE_MAX: f64 = 1.25;
/// Clients of one thread that may be on their way in at once.
const DOORS: u16 = 64;
/// Clients of a whole crowd that may be: more would wait longer than a server lets them.
const DOORS_OF_ALL: u16 = 1024;
/// Above so many clients a cluster of one's own is not drained at the end.
const DRAINED_CLIENTS_MAX: u32 = 20_000;
/// Longest run, in seconds.
const SECONDS_MAX: i64 = 3_600;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long joining may make no progress.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for further deliveries when nothing comes any more, though a send has no answer:
/// a process that plays may not get to read for seconds on a machine that is full.
const HUSH: Duration = Duration::from_secs(15);
/// The same once every send is answered.
const HUSH_ANSWERED: Duration = Duration::from_millis(500);
/// And the same beside a big room: its sender is answered with the first of its members, and the last
/// are told, and get to read, when everybody else on a full machine has had a turn.
const HUSH_BIG_ROOM: Duration = Duration::from_secs(3);
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

    /// Processes that play clients; rooms are shared out among them, each whole in one
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=PROCESSES_MAX))]
    pub processes: u16,

    /// Members of one more room beside the others, measured apart: what a crowd costs its neighbours
    #[arg(long, value_name = "MEMBERS", conflicts_with = "saturate",
          value_parser = clap::value_parser!(u32).range(1..=ROOM_MAX))]
    pub big_room: Option<u32>,

    /// Messages sent per second in that room, by all of its members in turn
    #[arg(long, value_name = "N", default_value_t = 20.0, requires = "big_room")]
    pub big_rate: f64,

    /// Clients that come in per second [default: as fast as they can, 64 at once by each thread]
    #[arg(long, value_name = "N")]
    pub enter_rate: Option<f64>,

    /// Heartbeat of the cluster that --up starts [default: the connectors' own]
    #[arg(long, value_name = "SECONDS", requires = "up",
          value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    pub heartbeat: Option<u32>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Play a part of a crowd, for the process that started this one
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub part: Option<u16>,

    /// The room's name for this run, when several processes play its members
    #[arg(long, value_name = "NAME", hide = true)]
    pub run: Option<String>,

    /// Play every so many-th client only, from the NUMBER of this part among those of the room
    #[arg(long, value_name = "NUMBER/PARTS", hide = true, value_parser = plan::slice)]
    pub slice: Option<(u32, u32)>,

    /// By how much this part steps back
    #[arg(long, value_name = "N", hide = true, default_value_t = 0,
          value_parser = clap::value_parser!(i32).range(0..20))]
    pub nice: i32,

    /// Clients of one thread that may be on their way in at once
    #[arg(long, value_name = "N", hide = true, default_value_t = DOORS,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub doors: u16,

    /// How long the first client of this part waits
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 0.0)]
    pub enter_after: f64,

    /// How long the first message of this part waits
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 0.0)]
    pub send_after: f64,
}

impl Args {
    /// Everybody, the members of the big room too.
    const fn everybody(&self) -> u32 {
        self.clients.saturating_add(match self.big_room {
            Some(members) => members,
            None => 0,
        })
    }

    /// What this process is to play of the crowd.
    fn part(&self) -> Part {
        Part {
            number: self.part.unwrap_or_default(),
            slice: self.slice.unwrap_or((0, 1)),
            doors: self.doors,
            enter_rate: self.enter_rate,
            enter_after: Duration::from_secs_f64(self.enter_after),
            send_after: Duration::from_secs_f64(self.send_after),
        }
    }
}

/// Runs the benchmark and prints what it measured.
///
/// # Errors
///
/// If clients cannot join, or the cluster broke a promise: the figures are printed all the same.
pub async fn run(args: Args) -> anyhow::Result<()> {
    machine::raise_file_limit()?;
    let transports = args.dialect.transports();
    if let (Some(_), [transport]) = (args.part, transports.as_slice()) {
        return parts::play(&args, find(&args.gate).await?, *transport);
    }
    check_machine(&args, &transports)?;
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
        if !outcome.is_clean() {
            broken.push(transport.name());
        }
    }
    ensure!(broken.is_empty(), "the cluster broke its promises to {}", broken.join(", "));
    Ok(())
}

/// Looks for limits that are in the way, before anything is started.
fn check_machine(args: &Args, transports: &[Transport]) -> anyhow::Result<()> {
    let sockets = transports.iter().map(|transport| transport.sockets()).max().unwrap_or(1);
    let share = parts::largest_share(args).saturating_mul(sockets);
    let connector = f64::from(args.everybody()) / f64::from(args.connectors) * CONNECTOR_SHARE_MAX;
    let connector = if args.up { connector as u32 } else { 0 };
    let demand = Demand {
        sessions: args.everybody().saturating_mul(sockets),
        per_process: share.max(connector),
        per_address: Some(share.min(plan::CONNECTIONS_PER_SOURCE)),
    };
    let findings = Machine::read().check(demand);
    let low: Vec<_> = findings.iter().filter(|it| !it.is_fine() && it.is_needed).collect();
    let text: Vec<String> = low.iter().map(ToString::to_string).collect();
    ensure!(
        low.is_empty(),
        "this machine does not hold so many sessions (all limits: `tangelo doctor --sessions {}`):\n{}",
        args.everybody(),
        text.join("\n")
    );
    Ok(())
}

async fn run_one(args: &Args, transport: Transport) -> anyhow::Result<Outcome> {
    let up = if args.up { Some(Up::start(args).await?) } else { None };
    let outcome = match &up {
        Some(up) => measure_with(args, transport, up.gate(), up.processes()).await,
        None => {
            let gate = find(&args.gate).await?;
            measure_with(args, transport, gate, Processes::of(&args.pids)).await
        }
    };
    let (outcome, crowd) = match outcome {
        Ok((outcome, crowd)) => (Ok(outcome), Some(crowd)),
        Err(error) => (Err(error), None),
    };
    if let Some(up) = up {
        up.end(args.everybody() > DRAINED_CLIENTS_MAX, outcome.is_err()).await;
    }
    // The cluster has gone first, and need not tell everybody of everybody's leave.
    drop(crowd);
    outcome
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

/// Measures, and hands back the crowd, whose connections are still open.
async fn measure_with(
    args: &Args,
    transport: Transport,
    gate: SocketAddr,
    processes: anyhow::Result<Processes>,
) -> anyhow::Result<(Outcome, Crowd)> {
    let mut processes = processes?;
    let mut guard = Guard::new();
    let idle = processes.costs();
    let begun = Instant::now();
    let mut crowd = Crowd::start(args, gate, transport)?;
    processes.add_generators(&crowd.pids());
    join(&crowd, args.everybody(), &mut guard).await?;
    let took = begun.elapsed();
    let joined = u32::try_from(crowd.sums().joined).unwrap_or(u32::MAX);
    let entered = processes.costs();
    tokio::time::sleep(if transport.sockets() > 1 { SETTLE_REQUESTS } else { SETTLE }).await;
    let settled = processes.costs();

    let start = Instant::now();
    crowd.speak();
    let (warmup, seconds) = (seconds(args.warmup), seconds(args.seconds));
    watch(&crowd, start + warmup, &mut guard).await?;
    let before = (processes.costs(), crowd.sums().delivered);
    let window = Instant::now();
    watch(&crowd, start + warmup + seconds, &mut guard).await?;
    let after = (processes.costs(), crowd.sums().delivered);
    let window = window.elapsed();
    crowd.hush();
    hush(&crowd, args.big_room.map_or(HUSH_ANSWERED, |_| HUSH_BIG_ROOM)).await;

    let (judged, big_room) = crowd.judge().await?;
    let entering = Entering { joined, took, idle, entered, settled };
    let speaking = Speaking {
        window,
        deliveries: after.1 - before.1,
        before: before.0,
        after: after.0,
        judged,
        big_room,
    };
    let memory_left = guard.least;
    let args = args.clone();
    let outcome = Outcome { args, transport, processes, entering, speaking, memory_left };
    Ok((outcome, crowd))
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

/// Waits until everybody is in.
async fn join(crowd: &Crowd, clients: u32, guard: &mut Guard) -> anyhow::Result<()> {
    let mut last = (0, Instant::now());
    loop {
        let joined = crowd.sums().joined;
        if joined == u64::from(clients) {
            return Ok(());
        }
        if let Some(failure) = crowd.failure() {
            bail!("{joined} of {clients} clients joined: {failure}");
        }
        if joined > last.0 {
            last = (joined, Instant::now());
        }
        if last.1.elapsed() > JOIN_PATIENCE {
            bail!("{joined} of {clients} clients joined, and no more come in");
        }
        guard.look()?;
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until then, and looks after the machine meanwhile.
async fn watch(crowd: &Crowd, until: Instant, guard: &mut Guard) -> anyhow::Result<()> {
    while Instant::now() < until {
        if let Some(failure) = crowd.failure() {
            bail!("given up: {failure}");
        }
        guard.look()?;
        tokio::time::sleep_until((Instant::now() + LOOK).min(until).into()).await;
    }
    Ok(())
}

/// Waits until nothing comes any more, and has not for so long once every send is answered.
async fn hush(crowd: &Crowd, answered: Duration) {
    let mut last = (0, Instant::now());
    loop {
        let sums = crowd.sums();
        if sums.delivered > last.0 {
            last = (sums.delivered, Instant::now());
        }
        let quiet = last.1.elapsed();
        // Once all sends are answered, what was on the way arrives at once or never.
        if quiet > HUSH || (sums.unanswered() == 0 && quiet > answered) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
