//! The role `chat`: owns rooms, orders what happens in them, fans out to connectors.
//!
//! ```text
//! link (one task per connector) ─► worker (drives room::Owner for its shards) ─► link
//! shards (drives cluster::ownership::Shards) ─► worker
//! ```
//!
//! A chat dials nobody but the registry: connectors open the links, and pushes go back on them.

mod chat;
mod link;
mod shards;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cluster::Node;
use daemon::{Cause, CommonArgs, Process, UsageError, When, threads};
use model::{Incarnation, Role};
use registry::Registry;
pub use room::Duplicates;
use rpc::{link::Hello, local};
use tonic::transport::server::TcpIncoming;

pub use crate::chat::Chat;

/// More workers than this keep each other waiting for links.
const WORKERS_MAX: usize = 4;

const EXAMPLES: &str = "\
Examples:
  tangelo-chat                                      beside a gate on this machine
  tangelo-chat --listen 10.0.0.7:6050 --registry http://10.0.0.5:3005
                                                    on another machine
  tangelo-chat --registry etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
                                                    with etcd as the registry

Chats share the rooms among themselves; start as many as you like. A chat that is killed is
replaced by the others within seconds, and no client notices.";

/// Owns rooms: orders what happens in them and tells it to the connectors
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tangelo-chat", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where connectors open their links
    #[arg(long, env = "TANGELO_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:6050")]
    pub listen: SocketAddr,

    /// The registry: the gate that hosts it, http://HOST:PORT, or etcd,
    /// etcd://HOST:PORT,HOST:PORT,…
    #[arg(
        long,
        env = "TANGELO_REGISTRY",
        value_name = "URL",
        default_value = "http://127.0.0.1:3005"
    )]
    pub registry: String,

    /// Host name or address by which connectors reach this chat [default: the address listened
    /// on, or this host's own if that is 0.0.0.0]
    #[arg(long, env = "TANGELO_LINK_HOST", value_name = "HOST")]
    pub link_host: Option<String>,

    /// Secret that all processes of the cluster show each other; best set by its variable, which
    /// other users of the machine cannot see
    #[arg(long, env = "TANGELO_CLUSTER_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub cluster_token: Option<String>,

    /// What becomes of a newcomer whose name somebody in the room has; all chats should be told
    /// the same.
    /// `reject`: it is refused, unless the other does not answer within 2 s.
    /// `replace`: it gets the name, and the other is kicked.
    /// `multi`: both are there as one member
    #[arg(
        long,
        env = "TANGELO_DUPLICATES",
        value_name = "POLICY",
        default_value_t = Duplicates::default(),
        value_parser = duplicates(),
        verbatim_doc_comment
    )]
    pub duplicates: Duplicates,

    /// Also lets connectors of the same machine and user open their links as Unix sockets, past the
    /// network [auto: where the system allows it]
    #[arg(long, env = "TANGELO_LOCAL_LINKS", value_name = "WHEN", value_enum,
          default_value_t = When::Auto)]
    pub local_links: When,

    /// Arguments that every process takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Reads a policy for names that are taken.
pub fn duplicates() -> impl TypedValueParser<Value = Duplicates> {
    PossibleValuesParser::new(Duplicates::ALL.map(Duplicates::name))
        .try_map(|name| name.parse::<Duplicates>())
}

/// Runs a chat until it is asked to end.
///
/// # Errors
///
/// If an argument is wrong, an address cannot be had, or the registry gives the node up.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let process = Process::start(Role::Chat, &args.common)?;
    process.ready.unmet("shards", "owns no shard yet");
    let token = registry::cluster_token(args.cluster_token.as_deref())?;
    let config =
        registry::Config { token: token.clone(), ..registry::Config::new(args.registry.as_str()) };
    let registry =
        Registry::new(&config).map_err(|error| UsageError(format!("--registry: {error}")))?;
    let listener = daemon::net::bind(args.listen, "--listen")?;
    let address = listener.local_addr()?;
    let host = reachable_host(address.ip(), args.link_host.as_deref()).await?;
    process.announce("link", address)?;

    let chat = Chat::start(WORKERS_MAX.min(threads()), args.duplicates, &process.tasks);
    tracing::info!(duplicates = args.duplicates.name(), "policy for names that are taken");
    let me = Hello { node: process.name.clone(), incarnation: process.incarnation };
    let node = Node {
        link: Some(format!("http://{host}:{}", address.port())),
        admin: Some(process.admin_url()),
        ready: true,
        ..Node::new(process.name.clone(), process.incarnation, Role::Chat)
    };
    let membership = registry.join(node, process.vital_tasks()).await;
    // The builder's own setting does not reach sockets that it did not bind: without this an
    // answer waits some 40 ms for the peer's delayed acknowledgement.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let local = local_listener(args.local_links, process.incarnation);
    chat.serve(&membership, me, token, local::beside(connections, local));
    chat.keep_shards(&membership, &process.ready);
    let watch = membership.clone().stop_when_lost(process.stop.clone());
    process.tasks.spawn("lease watch", watch);
    process.ready.started();

    if let Cause::Signal(_) | Cause::SupervisorGone = process.stopped().await {
        chat.leave(&membership).await;
    }
    process.finish().await
}

/// Where links come in past the network, if that is wanted and can be had.
fn local_listener(when: When, me: Incarnation) -> Option<local::Listener> {
    let listener = (when == When::Auto).then(|| local::Listener::bind(me))?;
    let refused = |error: &_| tracing::info!(%error, "links take the network: no Unix socket");
    listener.inspect_err(refused).ok()
}

/// The host by which others reach this process.
async fn reachable_host(listen: IpAddr, configured: Option<&str>) -> anyhow::Result<String> {
    if let Some(host) = configured.filter(|host| !host.is_empty()) {
        return Ok(host.to_owned());
    }
    if !listen.is_unspecified() {
        return Ok(SocketAddr::new(listen, 0).to_string().trim_end_matches(":0").to_owned());
    }
    let name = daemon::host_name();
    let addresses = tokio::net::lookup_host((name.as_str(), 0)).await.with_context(|| {
        format!("cannot find this host's own address under {name:?}; set --link-host")
    })?;
    let address = addresses.map(|address| address.ip()).find(IpAddr::is_ipv4);
    Ok(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string())
}
