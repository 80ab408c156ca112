//! The gate: answers which connector to use, serves the chat page, and can host the registry.

mod args;

use daemon::Process;
use model::Role;

pub use args::{Args, RegistryChoice};

/// Runs a gate until it is asked to end.
///
/// # Errors
///
/// If an address cannot be had.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let process = Process::start(Role::Gate, &args.common)?;
    let listener = daemon::net::bind(args.listen, "--listen")?;
    process.announce("client", listener.local_addr()?)?;
    process.ready.started();
    process.stopped().await;
    process.finish().await
}
