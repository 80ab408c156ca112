//! The role `connector`: holds client sessions, and one relay for every room that has members here.
//!
//! ```text
//! frontend (sockets, sessions) ─► client ─► worker (drives room::Relays for its shards) ─► link
//! link (one task per chat) ─► worker ─► hub (session to queue, one encoding per dialect) ─► frontend
//! ```
//!
//! A connector dials every live chat, and nobody dials a connector but clients. A shard belongs to
//! one worker, so that a relay needs no lock.

pub mod advertise;
mod client;
mod connector;
mod drain;
mod hub;
mod link;
mod worker;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use advertise::{PublishedPorts, WHOAMI_PATH};
use axum::{Router, http::StatusCode, routing::get};
use cluster::{ClientAddress, Node};
use daemon::{Cause, CommonArgs, Process, UsageError, When, threads};
use frontend::{Frontend, PomeloFiles, Settings, Turns, Writes};
use model::{Rate, Role, limits};
use registry::Registry;
use rpc::{dial::System, link::Hello};

pub use crate::{
    connector::{Connector, Setup},
    link::Dialling,
};

/// More workers than this keep each other waiting for sockets and links.
const WORKERS_MAX: usize = 4;

const EXAMPLES: &str = "\
Examples:
  tangelo-connector                                 beside a gate on this machine
  tangelo-connector --listen 0.0.0.0:3050 --registry http://10.0.0.5:3005 \\
                    --advertise-host chat.example   on another machine, behind a name
  tangelo-connector --registry etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
                                                    with etcd as the registry

Clients find a connector by asking a gate. The address they are told is --advertise-host, or else
the host by which they reached the gate, and --advertise-ports, or else the port listened on.";

/// Holds client sessions and relays what happens in their rooms
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tangelo-connector", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where clients connect: WebSocket, Socket.IO and raw TCP on one port
    #[arg(long, env = "TANGELO_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:3050")]
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

    /// Host that clients are sent to [default: the one by which they reached the gate]
    #[arg(long, env = "TANGELO_ADVERTISE_HOST", value_name = "HOST")]
    pub advertise_host: Option<String>,

    /// Port that clients are sent to, or a range of published ports among which this connector
    /// finds its own [default: the port listened on]
    #[arg(long, env = "TANGELO_ADVERTISE_PORTS", value_name = "PORTS", value_parser = ports)]
    pub advertise_ports: Option<PublishedPorts>,

    /// Where published ports answer, seen from here; used with a range of --advertise-ports
    /// [default: --published-on, the default gateway, then host.docker.internal]
    #[arg(long, env = "TANGELO_PROBE_HOST", value_name = "HOST")]
    pub probe_host: Option<String>,

    /// Address of the host that ports are published on, if not on all
    #[arg(long, env = "TANGELO_PUBLISHED_ON", value_name = "IP")]
    pub published_on: Option<String>,

    /// Secret that all processes of the cluster show each other; best set by its variable, which
    /// other users of the machine cannot see
    #[arg(long, env = "TANGELO_CLUSTER_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub cluster_token: Option<String>,

    /// Most sends per second of one session, sustained; twice as many at once after a pause
    #[arg(long, env = "TANGELO_SENDS_PER_SECOND", value_name = "COUNT",
          default_value_t = model::limits::SESSION_SENDS_PER_SECOND)]
    pub sends_per_second: u32,

    /// Most clients that are let in per second. When more come at once, they wait for their turn
    /// for up to 2s; what is beyond that is told to come later, and gates spread those that know
    /// Tangelo over the time it takes. The default is a quarter of what one core does
    #[arg(long, env = "TANGELO_ADMISSIONS_PER_SECOND", value_name = "COUNT",
          default_value_t = limits::ADMISSIONS_PER_SECOND,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub admissions_per_second: u32,

    /// How often clients of the binary protocol give a sign of life; each is answered, and who is
    /// silent for twice as long is closed. Whole seconds, of which many sessions want many
    #[arg(long, env = "TANGELO_HEARTBEAT", value_name = "TIME", value_parser = heartbeat,
          default_value = "3s")]
    pub heartbeat: Duration,

    /// How long a client may take from its handshake to a room
    #[arg(long, env = "TANGELO_LOGIN_TIMEOUT", value_name = "TIME", value_parser = login_timeout,
          default_value = "10s")]
    pub login_timeout: Duration,

    /// Longest time over which a connector that is asked to end sends its clients elsewhere. Within
    /// that it takes at least 2s, and as long as it takes at half the pace at which the other
    /// connectors let clients in; whoever ends it by force must wait for that, and 8s more
    #[arg(long, env = "TANGELO_DRAIN_WINDOW", value_name = "TIME", value_parser = drain_window,
          default_value = "20s")]
    pub drain_window: Duration,

    /// Hands what a room's members hear to the kernel in few system calls, through io_uring
    /// [auto: where the system allows it, which containers mostly do not]
    #[arg(long, env = "TANGELO_IO_URING", value_name = "WHEN", value_enum,
          default_value_t = When::Auto)]
    pub io_uring: When,

    /// Opens links to chats of the same machine and user as Unix sockets, past the network
    /// [auto: where a chat is found so]
    #[arg(long, env = "TANGELO_LOCAL_LINKS", value_name = "WHEN", value_enum,
          default_value_t = When::Auto)]
    pub local_links: When,

    /// Allows any characters in user and room names, as the original server did
    #[arg(long, env = "TANGELO_ANY_NAMES")]
    pub any_names: bool,

    /// What the clients' application has agreed with them.
    #[command(flatten)]
    pub pomelo: PomeloFiles,

    /// Arguments that every process takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Whether the system lets processes like this one write through io_uring.
#[must_use]
pub fn may_use_io_uring() -> bool {
    Writes::can_be_together().is_ok()
}

/// Whether io_uring is to be used, by what the system says; the log tells.
fn writes_together(when: When) -> bool {
    let refused = match when {
        When::Off => Some("off, by --io-uring".to_owned()),
        When::Auto => Writes::can_be_together().err().map(|error| error.to_string()),
    };
    match &refused {
        None => tracing::info!("writes to clients go together, through io_uring"),
        Some(reason) => tracing::info!(reason, "writes to clients go one by one: no io_uring"),
    }
    refused.is_none()
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = (1..=3600).contains(&time.as_secs()) && time.subsec_nanos() == 0;
    if fits { Ok(time) } else { Err("whole seconds, between 1s and 1h, please".to_owned()) }
}

fn drain_window(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = time <= Duration::from_secs(3600);
    if fits { Ok(time) } else { Err("at most 1h, please".to_owned()) }
}

fn login_timeout(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let fits = time >= Duration::from_secs(1) && time <= Duration::from_secs(24 * 3600);
    if fits { Ok(time) } else { Err("between 1s and 24h, please".to_owned()) }
}

fn ports(text: &str) -> Result<PublishedPorts, advertise::BadPorts> {
    text.parse()
}

/// Runs a connector until it is asked to end.
///
/// # Errors
///
/// If an argument is wrong, an address cannot be had, or the registry gives the node up.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = settings(&args)?;
    let process = Process::start(Role::Connector, &args.common)?;
    process.ready.unmet("owners", "no owner of rooms is known yet");
    let token = registry::cluster_token(args.cluster_token.as_deref())?;
    let config =
        registry::Config { token: token.clone(), ..registry::Config::new(args.registry.as_str()) };
    let registry =
        Registry::new(&config).map_err(|error| UsageError(format!("--registry: {error}")))?;
    let options = Arc::clone(&settings.session.pomelo);
    let admissions = args.admissions_per_second;
    let frontend = Frontend::bind(args.listen, settings)?;
    let address = frontend.local_addr();
    let sockets = frontend.handle();
    process.announce("client", address)?;

    let setup = Setup {
        workers: WORKERS_MAX.min(threads()),
        admissions,
        writes_together: writes_together(args.io_uring),
    };
    let connector = Connector::start(setup, process.incarnation, &options, &process.tasks);
    let whoami = process.incarnation.to_string();
    let listening = process.tasks.clone();
    let (app, http) = (connector.application(), http(whoami.clone()));
    process.tasks.spawn("frontend", async move { frontend.run(app, http, &listening).await });

    let port = match &args.advertise_ports {
        None => address.port(),
        Some(ports) => {
            process.ready.unmet("address", "looking for the published port that leads here");
            let (host, on) = (args.probe_host.as_deref(), args.published_on.as_deref());
            let hosts = advertise::probe_hosts(host, on).await;
            tokio::select! {
                port = advertise::discover(ports, &hosts, &whoami) => port,
                () = process.stop.wait() => address.port(),
            }
        }
    };
    process.ready.met("address");
    let host = args.advertise_host.filter(|host| !host.is_empty());
    let node = Node {
        client: Some(ClientAddress { host, port, admissions }),
        admin: Some(process.admin_url()),
        ..Node::new(process.name.clone(), process.incarnation, Role::Connector)
    };
    let membership = registry.join(node, process.vital_tasks()).await;
    let me = Hello { node: process.name.clone(), incarnation: process.incarnation };
    let dialer = Arc::new(System { local_links: args.local_links == When::Auto });
    let dialling = Dialling { me, token, dialer };
    connector.follow(&membership, dialling, &process.ready);
    let watch = membership.clone().stop_when_lost(process.stop.clone());
    process.tasks.spawn("lease watch", watch);
    process.ready.started();

    let mut window = limits::DRAIN_WINDOW_MIN;
    if let Cause::Signal(_) | Cause::SupervisorGone = process.stopped().await {
        membership.set_draining(true);
        let (sessions, map) = (connector.connected(), Arc::clone(&membership.map.borrow()));
        window = drain::window(sessions, &map, membership.incarnation(), args.drain_window);
        tracing::info!(sessions, ?window, "sending clients elsewhere");
        process.drain_longer(window);
    }
    // Nobody new comes in, and those who are here leave their rooms before the links go.
    sockets.drain(window);
    drained(&connector, window).await;
    membership.leave().await;
    process.finish().await
}

/// Waits until the sessions that were told to close have left their rooms.
async fn drained(connector: &Connector, window: Duration) {
    let empty = async {
        while connector.connected() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(window + limits::CLOSE_TIMEOUT, empty).await;
    // The last leaves are on their way from the workers to the links.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn settings(args: &Args) -> Result<Settings, UsageError> {
    let mut config = session::Config::connector();
    config.pomelo = Arc::new(args.pomelo.connector(args.heartbeat)?);
    config.heartbeat = Some(args.heartbeat);
    config.names.anything = args.any_names;
    config.limits.login_timeout = args.login_timeout;
    config.limits.calls.per_second = args.sends_per_second;
    config.limits.calls.burst = args.sends_per_second.saturating_mul(2);
    let rate = Rate::even(args.admissions_per_second);
    let turns = Turns::new("connection", rate, limits::ADMISSION_PATIENCE);
    Ok(Settings { turns: Some(turns), ..Settings::new(config) })
}

/// What plain HTTP requests get: an identity for those who look for this process, and a hint for
/// people who open the wrong port.
fn http(whoami: String) -> Router {
    Router::new().route(WHOAMI_PATH, get(|| async move { whoami })).fallback(|| async {
        let text = "This is a Tangelo connector: it speaks WebSocket, Socket.IO and raw TCP.\n\
                    Open the chat page at the gate instead, usually on port 3014.\n";
        (StatusCode::NOT_FOUND, text)
    })
}
