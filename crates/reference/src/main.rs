//! Serves as one of the reference servers, or compares them all.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use clap::Parser as _;
use model::limits::POMELO_HEARTBEAT;
use reference::{compare, epoll, goals, hop, peers, split, sweep, textbook};

/// Servers to compare Tangelo with.
#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The minimal server, with one write per delivery
    Epoll(Minimal),
    /// The minimal server, which writes once per socket and turn
    Coalesce(Minimal),
    /// The minimal server, which writes once per socket and turn, through io_uring
    Ring(Minimal),
    /// The minimal server in several processes: connectors, and one that owns the rooms
    Split(split::Args),
    /// tokio-tungstenite with its defaults, a task and a queue per connection
    Textbook(Listen),
    /// Run Tangelo and all of these in turn, and print ratios
    Compare(compare::Args),
    /// Run Tangelo, the reference servers and servers that others have built in turn, and print ratios
    Peers(peers::Args),
    /// Measure every goal of docs/performance.md, and say which are met
    Goals(goals::Args),
    /// Measure what a round trip between two processes costs, over TCP, over a Unix socket, and by gRPC
    Hop(hop::Args),
    /// Measure as members, rooms, connectors or a room next door grow; write a table and plots
    Sweep(sweep::Args),
}

#[derive(Debug, clap::Args)]
struct Listen {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
struct Minimal {
    #[command(flatten)]
    at: Listen,

    /// How often clients say that they live
    #[arg(long, value_name = "SECONDS", default_value_t = POMELO_HEARTBEAT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    heartbeat: u64,
}

fn main() -> anyhow::Result<()> {
    let announce = |address: SocketAddr| {
        // Whoever started us waits for this line; nobody else reads it.
        let _ = writeln!(std::io::stdout(), "{address}");
    };
    let minimal = |writes, Minimal { at, heartbeat }: Minimal| {
        epoll::serve(at.listen, writes, Duration::from_secs(heartbeat), announce)
    };
    match Cli::parse().command {
        Command::Epoll(args) => minimal(epoll::Writes::Each, args),
        Command::Coalesce(args) => minimal(epoll::Writes::Gathered, args),
        Command::Ring(args) => minimal(epoll::Writes::Ring, args),
        Command::Split(args) => split::serve(&args, |address, pids| {
            // Whoever started us counts the processor time of all of them.
            let pids: String = pids.iter().map(|pid| format!(" {pid}")).collect();
            let _ = writeln!(std::io::stdout(), "{address}{pids}");
        }),
        Command::Textbook(Listen { listen }) => textbook::serve(listen, announce),
        Command::Compare(args) => compare::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Goals(args) => goals::run(&args),
        Command::Hop(args) => hop::run(&args),
        Command::Sweep(args) => sweep::run(&args).map(drop),
    }
}
