//! What a gate is told, raw and checked.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use daemon::CommonArgs;
use frontend::PomeloFiles;
use model::limits;

/// Where the registry is hosted if nothing is said.
const REGISTRY_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3005);

const EXAMPLES: &str = "\
Examples:
  tangelo-gate                                      on 127.0.0.1, with the registry on port 3005
  tangelo-gate --listen 0.0.0.0:3014 --registry-listen 10.0.0.5:3005
                                                    for other machines
  tangelo-gate --listen 127.0.0.1:3015 --registry http://127.0.0.1:3005
                                                    a second gate
  tangelo-gate --web-root public --web-listen 127.0.0.1:3001
                                                    with the page of the original chat
  tangelo-gate --registry etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
                                                    with etcd as the registry

For more than one machine use etcd: the registry that a gate hosts is away while that gate is. Give
every process the same etcd://… address, with /NAME at its end if several clusters share an etcd.
Users, passwords and TLS of etcd are not supported, so let it listen only where the cluster reaches
it; and let it forget its history (--auto-compaction-retention=10m), or it fills up.

The page is at / of the client port, and GET /entry?uid=…&rid=… answers a client's connector.";

/// Answers which connector to use, serves the chat page, and can host the registry
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tangelo-gate", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where clients and browsers connect
    #[arg(long, env = "TANGELO_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:3014")]
    pub listen: SocketAddr,

    /// Host the registry here [default: 127.0.0.1:3005, unless --registry is given]; ignored if
    /// that is etcd
    #[arg(long, env = "TANGELO_REGISTRY_LISTEN", value_name = "ADDRESS")]
    pub registry_listen: Option<SocketAddr>,

    /// Use the registry of another gate, http://HOST:PORT (ignored with --registry-listen), or
    /// etcd, etcd://HOST:PORT,HOST:PORT,…
    #[arg(long, env = "TANGELO_REGISTRY", value_name = "URL")]
    pub registry: Option<String>,

    /// Serve the files of this folder in place of the chat page, such as the `web-server/public` of
    /// the original chat
    #[arg(long, env = "TANGELO_WEB_ROOT", value_name = "FOLDER", value_parser = frontend::path())]
    pub web_root: Option<PathBuf>,

    /// Serve the page at this address as well; that of the original chat is on port 3001
    #[arg(long, env = "TANGELO_WEB_LISTEN", value_name = "ADDRESS")]
    pub web_listen: Option<SocketAddr>,

    /// Most clients that may ask for a connector per second, over WebSocket or raw TCP; best above
    /// what all connectors let in. When more come at once, they wait for their turn for up to 5s;
    /// what is beyond that is told to come later
    #[arg(long, env = "TANGELO_ENTRIES_PER_SECOND", value_name = "COUNT",
          default_value_t = limits::ENTRIES_PER_SECOND,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub entries_per_second: u32,

    /// Secret that all processes of the cluster show each other; best set by its variable, which
    /// other users of the machine cannot see
    #[arg(long, env = "TANGELO_CLUSTER_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub cluster_token: Option<String>,

    /// What the clients' application has agreed with them.
    #[command(flatten)]
    pub pomelo: PomeloFiles,

    /// Arguments that every process takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Which registry a gate uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChoice {
    /// Its own, hosted at this address.
    Host(SocketAddr),
    /// Another gate's, or etcd, at this URL.
    Join(String),
}

impl RegistryChoice {
    /// Hosting wins over another gate: in a compose file every process may be told the registry's
    /// URL, and the one that is told to listen is that registry. etcd wins over hosting: nobody
    /// would join what is hosted.
    #[must_use]
    pub fn new(listen: Option<SocketAddr>, url: Option<&str>) -> Self {
        match (listen, url.filter(|url| !url.is_empty())) {
            (_, Some(url)) if registry::is_etcd(url) => Self::Join(url.to_owned()),
            (Some(listen), _) => Self::Host(listen),
            (None, Some(url)) => Self::Join(url.to_owned()),
            (None, None) => Self::Host(REGISTRY_LISTEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_hosts_the_registry_unless_told_where_it_is() {
        let listen = SocketAddr::from(([0, 0, 0, 0], 3005));
        let url = "http://gate:3005";
        let choice = RegistryChoice::new;
        assert_eq!(choice(None, None), RegistryChoice::Host(REGISTRY_LISTEN));
        assert_eq!(choice(None, Some("")), RegistryChoice::Host(REGISTRY_LISTEN));
        assert_eq!(choice(Some(listen), Some(url)), RegistryChoice::Host(listen));
        assert_eq!(choice(None, Some(url)), RegistryChoice::Join(url.to_owned()));
        let etcd = "etcd://10.0.0.1:2379";
        for listen in [None, Some(listen)] {
            assert_eq!(choice(listen, Some(etcd)), RegistryChoice::Join(etcd.to_owned()));
        }
    }
}
