//! A process that plays a part of the crowd, and does what its input says.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use client::{Client, Kept, Options};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{Args, person::Person};

/// Clients that may be on their way in at once before the storm.
const DOORS: usize = 64;
/// Source addresses, if the cluster is on this machine: one address may have 10,000 connections at
/// one process.
const SOURCES: u32 = 16;

/// Added to the niceness of who plays the crowd.
const CROWD_NICENESS: i32 = 15;

/// What the crowd does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Come,
    ComeBack,
    End,
}

/// Somebody is in.
pub(super) struct Arrival {
    pub(super) after: Duration,
    pub(super) tries: u64,
}

/// What all of the crowd share.
pub(super) struct Crowd {
    pub(super) gate: SocketAddr,
    pub(super) options: Options,
    pub(super) doors: Semaphore,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) phase: watch::Receiver<Phase>,
}

pub(super) async fn play(args: &Args, gate: SocketAddr, part: &str) -> anyhow::Result<()> {
    let (first, count) = part.split_once(':').context("--part is FIRST:COUNT")?;
    let (first, count): (u32, u32) = (first.parse()?, count.parse()?);
    stand_back();
    let options = Options { transport: args.transport(), ..Options::default() };
    let options = Options { modern: args.modern, kept: kept(gate, &options).await?, ..options };
    let phase = watch::Sender::new(Phase::Come);
    let (arrivals, mut arrived) = mpsc::channel(1024);
    let (doors, watched) = (Semaphore::new(DOORS), phase.subscribe());
    let crowd = Arc::new(Crowd { gate, options, doors, arrivals, phase: watched });
    let mut people = JoinSet::new();
    for number in first..first + count {
        let source = IpAddr::from([127, 0, 0, u8::try_from(2 + number % SOURCES)?]);
        let person = Person {
            crowd: Arc::clone(&crowd),
            name: format!("u{number}"),
            room: format!("crowd{}", number / args.room_size),
            source: gate.ip().is_loopback().then_some(source),
        };
        people.spawn(person.live());
    }
    drop(crowd);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    for _ in 0..count {
        arrived.recv().await.context("somebody did not come")?;
    }
    report("in")?;
    orders.next_line().await?;

    let storm = Instant::now();
    phase.send_replace(Phase::ComeBack);
    let (mut back, mut tries) = (String::new(), 0);
    for _ in 0..count {
        let arrival = arrived.recv().await.context("somebody did not come back")?;
        tries += arrival.tries;
        back.push_str(&format!(" {}", storm.elapsed().min(arrival.after).as_millis()));
    }
    report(&format!("back {tries}{back}"))?;
    orders.next_line().await?;
    phase.send_replace(Phase::End);
    while let Some(gone) = people.join_next().await {
        gone??;
    }
    Ok(())
}

/// Leaves the processors to the cluster, for a real crowd brings its own: this one takes what is
/// left over. Where that is not allowed, it competes.
fn stand_back() {
    let _ = rustix::process::nice(CROWD_NICENESS);
    // Linux may share the processors out among sessions first (`sched(7)`, autogroups), and a
    // niceness counts within one only. So this process takes a session of its own, and dies with
    // the one that started it, as no terminal ends it any more.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if rustix::process::setsid().is_ok() {
        let _ = std::fs::write("/proc/self/autogroup", CROWD_NICENESS.to_string());
    }
}

fn report(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// What a connector's clients are told in their handshake, so that thousands hold it once.
async fn kept(gate: SocketAddr, options: &Options) -> anyhow::Result<Kept> {
    let entry = Client::query_entry(gate, options, "storm", None).await?;
    let client = Client::connect((entry.host.as_str(), entry.port), options).await?;
    let kept = client.kept();
    client.close().await?;
    Ok(kept)
}
