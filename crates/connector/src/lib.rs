//! Placeholder.

pub mod advertise;

use std::net::SocketAddr;

use daemon::{CommonArgs, Process};
use model::Role;

/// What `tangelo-connector` is told.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tangelo-connector", version)]
pub struct Args {
    /// Arguments that every process takes.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Where to listen
    #[arg(long, env = "TANGELO_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:3050")]
    pub listen: SocketAddr,

    /// Where the registry is
    #[arg(
        long,
        env = "TANGELO_REGISTRY",
        value_name = "URL",
        default_value = "http://127.0.0.1:3005"
    )]
    pub registry: String,

    /// Host to tell others [default: they find out]
    #[arg(long, env = "TANGELO_ADVERTISE_HOST", value_name = "HOST")]
    pub advertise_host: Option<String>,

    /// Port to tell others [default: the one listened on]
    #[arg(long, env = "TANGELO_ADVERTISE_PORT", value_name = "PORT")]
    pub advertise_port: Option<u16>,
}

/// Runs a connector until it is asked to end. A stand-in: it listens and answers nobody.
///
/// # Errors
///
/// If an address cannot be had.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let process = Process::start(Role::Connector, &args.common)?;
    let listener = daemon::net::bind(args.listen, "--listen")?;
    process.announce("client", listener.local_addr()?)?;
    process.ready.started();
    process.stopped().await;
    process.finish().await
}
