//! A local cluster as child processes, and the operator's tools.
//!
//! `tangelo up` starts itself again in the roles gate, connector and chat, so one binary is a
//! cluster of real processes.

pub mod bench;
pub mod cli;
mod doctor;
mod healthcheck;
mod http;
mod machine;
pub mod storm;
mod up;

use cli::{Cli, Command};

/// Runs what the command line asks for.
///
/// # Errors
///
/// If it fails; the text is for a person.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => up::run(cli.up).await,
        Some(Command::Up(args)) => up::run(*args).await,
        Some(Command::Bench(args)) => bench::run(*args).await,
        Some(Command::Storm(args)) => storm::run(*args).await,
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Healthcheck(args)) => healthcheck::run(&args).await,
        Some(Command::Gate(args)) => gate::run(*args).await,
        Some(Command::Connector(args)) => connector::run(*args).await,
        Some(Command::Chat(args)) => chat::run(*args).await,
    }
}
