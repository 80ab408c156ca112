//! Runs Tangelo and what others have built in turn, under one generator, and prints ratios.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context as _;

use crate::compare::{Figures, note, print};
use crowd::{Crowd, Load};
use server::Server;

mod crowd;
mod server;
mod tongue;

pub(crate) use tongue::Peer;

/// What to compare, and under which load.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The `tangelo` to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/tangelo")]
    pub(crate) tangelo: PathBuf,

    /// Whom to measure beside Tangelo; the first is what the ratios are to
    #[arg(long, value_name = "NAME", value_delimiter = ',',
          default_values_t = [Peer::Epoll, Peer::Tangelo, Peer::Textbook, Peer::Nats, Peer::Mosquitto, Peer::Nchan])]
    pub(crate) peers: Vec<Peer>,

    /// Rounds; each runs every server once
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: u32,

    /// Clients, each in one room
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=15_000))]
    pub(crate) clients: u32,

    /// Rooms, topics, subjects or channels
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rooms: u32,

    /// Messages per second of all clients together
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Instead of a rate: messages that each client always has on their way
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) saturate: Option<u32>,

    /// How long to measure, in seconds, after a second to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
}

/// Runs all and prints a table, as [`crate::compare::run`] does.
///
/// # Errors
///
/// If a server is not installed, does not come up, or cannot be reached.
pub fn run(args: &Args) -> anyhow::Result<()> {
    crate::raise_open_files()?;
    let mut runs = BTreeMap::new();
    let mut names = Vec::new();
    for round in 1..=args.rounds {
        for peer in &args.peers {
            let figures = measure(args, *peer).with_context(|| format!("{peer}, round {round}"))?;
            note(&mut runs, &mut names, peer.to_string(), figures)?;
        }
    }
    print(&runs, &names)
}

/// Runs one of them once.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn measure(args: &Args, peer: Peer) -> anyhow::Result<Figures> {
    let server = Server::start(peer, &args.tangelo)?;
    let load = match args.saturate {
        Some(in_flight) => Load::Saturate(in_flight),
        None => Load::Rate(args.rate),
    };
    let rooms = args.rooms.min(args.clients / 2);
    let mut crowd = Crowd::enter(peer, &server.doors(rooms)?, args.clients, rooms)?;
    crowd.play(load, Duration::from_secs(1))?;
    let before = server.processor_time();
    let heard = crowd.play(load, Duration::from_secs(args.seconds))?;
    let spent = server.processor_time().saturating_sub(before);
    let is_clean = crowd.settle()?;
    if crowd.gone() > 0 {
        eprintln!("{peer} closed {} of {} connections", crowd.gone(), args.clients);
    }
    let latency = |quantile| crowd.latency_ms(quantile);
    Ok(Figures {
        micros: spent.as_secs_f64() * 1e6 / heard as f64,
        per_second: heard as f64 / args.seconds as f64,
        p50: latency(0.5),
        p99: latency(0.99),
        is_clean,
    })
}
