//! The command line of `tangelo`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use daemon::LogFormat;

const EXAMPLES: &str = "\
Examples:
  tangelo                                a cluster on this machine: 1 gate, 2 connectors, 2 chats
  tangelo up --connectors 4 --chats 3    a larger one
  tangelo up --host 0.0.0.0              reachable from other machines
  tangelo up --gate-port 4014 --connector-port 4050 --registry-port 4005 --logs logs-2
                                         a second one beside it
  tangelo up --registry etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
                                         with etcd as the registry
  tangelo up --log debug                 with the way of every message in the logs
  tangelo up --help                      all options of `up`

Open the page that it prints, take a name and a room, and chat. Ctrl-C ends it all.";

const UP_EXAMPLES: &str = "\
Clients reach gates and connectors at --host, on the ports above. All else stays on 127.0.0.1: the
registry on its port, chats and what answers /metrics on free ones. Each process writes its log to
<logs>/<name>.log, with the log of the run before in <name>.log.1. Ctrl-C drains the cluster; a
second Ctrl-C kills it at once.

Examples:
  tangelo up --connectors 4 --chats 3
  tangelo up --host 0.0.0.0 --logs /var/log/tangelo --log-format json
  tangelo up --log info,session=debug
  tangelo up --web-root chatofpomelo-websocket/web-server/public --web-port 3001
                                         the page of the original chat, unmodified";

const BENCH_EXAMPLES: &str = "\
Examples:
  tangelo bench --up                                    a cluster of its own, 1,000 clients
  tangelo bench --clients 1000 --rooms 1 --rate 50      one large room
  tangelo bench --up --clients 1000 --saturate          as much as it can
  tangelo bench --up --dialect sio09-xhr --clients 200  clients of another time
  tangelo bench --up --dialect all --clients 500        a table of all dialects
  tangelo bench --gate 10.0.0.7:3014 --json             a cluster elsewhere, for a script
  tangelo bench --up --connectors 12 --processes 10 --clients 150000 --rooms 1500 \\
                --enter-rate 1500 --heartbeat 60 --rate 200
                                                        more than one process can hold";

const STORM_EXAMPLES: &str = "\
Examples:
  tangelo up --connectors 3 --chats 3 --gates 2   a cluster, in another terminal
  tangelo storm                                   20,000 clients as those of the original
  tangelo storm --modern --clients 10000          clients that know Tangelo, and resume
  tangelo storm --gate 10.0.0.7:3014              a cluster elsewhere";

/// A chat cluster for Pomelo clients: starts one on this machine, and looks into one.
#[derive(Debug, clap::Parser)]
#[command(
    name = "tangelo",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; `up` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The options of `up`, which need not be named.
    #[command(flatten)]
    pub up: UpArgs,
}

impl Cli {
    /// Threads for this process, if the command line says so.
    #[must_use]
    pub fn threads(&self) -> Option<u16> {
        match self.command.as_ref()? {
            Command::Gate(args) => args.common.threads,
            Command::Connector(args) => args.common.threads,
            Command::Chat(args) => args.common.threads,
            Command::Up(_)
            | Command::Bench(_)
            | Command::Storm(_)
            | Command::Doctor(_)
            | Command::Healthcheck(_) => None,
        }
    }
}

/// What `tangelo` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine, each process on its own (the default)
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<UpArgs>),

    /// Measure a cluster: deliveries, latency, cost, and whether it keeps its promises
    #[command(after_help = BENCH_EXAMPLES, args_override_self = true)]
    Bench(Box<crate::bench::Args>),

    /// Cut a crowd's connections in one moment, and measure its return and what others notice of it
    #[command(after_help = STORM_EXAMPLES)]
    Storm(Box<crate::storm::Args>),

    /// Say which limits of this machine are in the way of many sessions, and what to set
    Doctor(DoctorArgs),

    /// Ask a process whether it is well; exit 0 if so
    Healthcheck(HealthcheckArgs),

    /// Run a gate
    #[command(hide = true)]
    Gate(Box<gate::Args>),

    /// Run a connector
    #[command(hide = true)]
    Connector(Box<connector::Args>),

    /// Run a chat
    #[command(hide = true)]
    Chat(Box<chat::Args>),
}

/// What `tangelo up` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// Connectors, which hold the clients' connections
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count())]
    pub connectors: u16,

    /// Chats, which own the rooms
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count())]
    pub chats: u16,

    /// Gates, which tell clients their connector; the first hosts the registry, unless it is etcd
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count())]
    pub gates: u16,

    /// Threads of each process [default: the processors, shared among connectors and chats]
    #[arg(long, env = "TANGELO_THREADS", value_name = "COUNT", value_parser = daemon::thread_count())]
    pub threads: Option<u16>,

    /// Address that clients reach; 0.0.0.0 is every address of this machine
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Port of the first gate and its page; further gates take the next ports
    #[arg(long, value_name = "PORT", default_value_t = 3014, value_parser = port())]
    pub gate_port: u16,

    /// Port of the first connector; further connectors take the next ports
    #[arg(long, value_name = "PORT", default_value_t = 3050, value_parser = port())]
    pub connector_port: u16,

    /// Port of the registry, on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 3005, value_parser = port())]
    pub registry_port: u16,

    /// Serve the files of this folder in place of the chat page, such as the `web-server/public` of
    /// the original chat
    #[arg(long, env = "TANGELO_WEB_ROOT", value_name = "FOLDER", value_parser = gate::path())]
    pub web_root: Option<PathBuf>,

    /// Another port of the first gate, for its page; further gates take the next ports. The page of
    /// the original chat is on 3001 [default: none but --gate-port]
    #[arg(long, value_name = "PORT", value_parser = port())]
    pub web_port: Option<u16>,

    /// etcd as the registry, etcd://HOST:PORT,HOST:PORT,…; it must run already, and no gate hosts
    /// a registry then
    #[arg(long, env = "TANGELO_REGISTRY", value_name = "URL")]
    pub registry: Option<String>,

    /// What becomes of a newcomer whose name somebody in the room has.
    /// `reject`: it is refused, unless the other does not answer within 2 s.
    /// `replace`: it gets the name, and the other is kicked.
    /// `multi`: both are there as one member
    #[arg(
        long,
        env = "TANGELO_DUPLICATES",
        value_name = "POLICY",
        default_value_t = chat::Duplicates::default(),
        value_parser = chat::duplicates(),
        verbatim_doc_comment
    )]
    pub duplicates: chat::Duplicates,

    /// Folder for the logs, one file per process
    #[arg(long, value_name = "DIR", default_value = "logs")]
    pub logs: PathBuf,

    /// What every process logs: a level, or levels by module, such as `info,session=debug`
    /// [default: RUST_LOG, or info]
    #[arg(long, env = "TANGELO_LOG", value_name = "FILTER", value_parser = daemon::filter_text)]
    pub log: Option<String>,

    /// How log lines look; `pretty` is coloured on a terminal unless NO_COLOR is set
    #[arg(long, env = "TANGELO_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub log_format: LogFormat,

    /// What the clients' application has agreed with them.
    #[command(flatten)]
    pub pomelo: gate::PomeloFiles,

    /// Drain when standard input ends: whoever has started the cluster holds the other end, and
    /// cannot forget it
    #[arg(long, hide = true)]
    pub watch_stdin: bool,
}

impl UpArgs {
    /// The folder in place of the page, if one is given.
    pub(crate) fn web_root(&self) -> Option<&Path> {
        self.web_root.as_deref().filter(|folder| !folder.as_os_str().is_empty())
    }
}

/// What `tangelo doctor` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Sessions that the connectors of this machine are to hold
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub sessions: u32,

    /// Connectors of this machine that share them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count())]
    pub connectors: u16,

    /// Clients play on this machine, too, as those of `bench` do, in as many processes
    #[arg(long)]
    pub clients: bool,
}

/// What `tangelo healthcheck` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthcheckArgs {
    /// Admin address of the process; of 0.0.0.0, the loopback is asked
    #[arg(long, env = "TANGELO_ADMIN", value_name = "ADDRESS")]
    pub admin: SocketAddr,

    /// Ask whether it can serve (/readyz), not only whether it lives (/healthz)
    #[arg(long)]
    pub ready: bool,
}

/// Most processes of one role on one machine; a typing error must not start a thousand.
const COUNT_MAX: i64 = 64;

fn count() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=COUNT_MAX)
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_need_not_be_named() {
        let cli = Cli::try_parse_from(["tangelo"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!((cli.up.gates, cli.up.connectors, cli.up.chats), (1, 2, 2));
        let cli = Cli::try_parse_from(["tangelo", "--connectors", "4"]).unwrap();
        assert_eq!(cli.up.connectors, 4);
        let cli = Cli::try_parse_from(["tangelo", "up", "--chats", "3"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Up(up)) if up.chats == 3));
    }

    #[test]
    fn roles_are_hidden_and_there() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("healthcheck"), "{help}");
        assert!(!help.contains("Run a gate"), "{help}");
        let cli = Cli::try_parse_from(["tangelo", "chat", "--name", "chat-1"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Chat(_))));
    }

    #[test]
    fn counts_have_bounds() {
        for bad in [["--connectors", "0"], ["--chats", "65"], ["--gate-port", "0"]] {
            let args = ["tangelo"].into_iter().chain(bad);
            assert!(Cli::try_parse_from(args).is_err(), "{bad:?}");
        }
    }
}
