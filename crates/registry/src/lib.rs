//! Membership in a cluster: who lives, who owns which shard, and claims on shards.
//!
//! A process joins once, with [`Registry::join`], and holds a [`Membership`] from then on. What
//! stands behind it is chosen by the address:
//!
//! - `http://host:port`: the embedded registry, an [`EmbeddedServer`] that some gate hosts and
//!   every node reaches over gRPC. The decisions are those of [`cluster::Registrar`].
//! - `etcd://host:port,host:port,…`: etcd, which every node speaks to by itself. The decisions are
//!   those of [`cluster::Mirror`].
//!
//! This crate carries them out.
//!
//! The registry is never on the path of a message. While it is silent the map stays as it is,
//! beats and tries to reach it go on, and only claims fail.
//!
//! # Invariants
//!
//! - **Silence changes nothing here.** A map changes only by word of the registry.
//! - **Nobody waits for a reader.** A node that reads its map slowly, or not at all, still beats;
//!   a stream that lags gets a fresh snapshot instead of a queue without end.

mod backoff;
mod embedded;
mod etcd;
mod membership;
mod standing;

use cluster::{Node, Timing};
use daemon::{Tasks, UsageError};
use rpc::dial::{Dialer, System};
pub use rpc::token::{ClusterToken, TokenError};

pub use cluster::Lease;
pub use embedded::{EmbeddedServer, EmbeddedService};
pub use membership::{CallError, Membership};

/// How an address of etcd begins.
const ETCD_SCHEME: &str = "etcd://";

/// Whether the address is one of etcd, so that no gate has to host a registry.
#[must_use]
pub fn is_etcd(address: &str) -> bool {
    address.starts_with(ETCD_SCHEME)
}

/// The secret of `--cluster-token`; none where the argument is absent or empty.
///
/// # Errors
///
/// If it is none, with what is wrong with it.
pub fn cluster_token(text: Option<&str>) -> Result<Option<ClusterToken>, UsageError> {
    let token = text.filter(|text| !text.is_empty()).map(ClusterToken::new).transpose();
    token.map_err(|error| UsageError(format!("--cluster-token: {error}")))
}

/// Where the registry is, and how to speak to it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:port` or `host:port` of the gate that hosts the registry, or
    /// `etcd://host:port,host:port,…` with an optional `/name` for each cluster that shares an
    /// etcd.
    pub address: String,
    /// The secret that the cluster shares, if it has one. etcd is not shown it.
    pub token: Option<ClusterToken>,
    /// The same as the registry's, or nodes are taken for dead.
    pub timing: Timing,
    /// Who opens the connections.
    pub dialer: Dialer,
}

impl Config {
    /// The registry at `address`, without a token, over TCP.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        let (timing, dialer) = (Timing::default(), System::dialer());
        Self { address: address.into(), token: None, timing, dialer }
    }
}

/// The address names no registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An unknown scheme.
    #[error(
        "registry address {0:?}: use http://host:port for a gate that hosts the registry, or \
         etcd://host:port,host:port for etcd (without TLS)"
    )]
    Scheme(String),
    /// What is wrong with an address of etcd, and what to do.
    #[error("registry address {0:?}: {1}")]
    Etcd(String, &'static str),
    /// No address at all.
    #[error("registry address {0:?} is not http://host:port")]
    Address(String),
}

/// A registry, not yet joined. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Backend);

#[derive(Clone, Debug)]
enum Backend {
    Embedded(Box<embedded::Client>),
    Etcd(etcd::Client),
}

impl Registry {
    /// Checks the address. Nothing is dialled before a join.
    ///
    /// # Errors
    ///
    /// If the address is none that this crate can dial.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self(match config.address.strip_prefix(ETCD_SCHEME) {
            Some(rest) => Backend::Etcd(etcd::Client::new(config, rest)?),
            None => Backend::Embedded(Box::new(embedded::Client::new(config)?)),
        }))
    }

    /// Joins as `node` and keeps the membership until it is left, lost, or `tasks` are cancelled.
    ///
    /// Returns at once, with an empty map and a lease that is [`Lease::Silent`] until the
    /// registry has answered; it is tried for ever.
    #[expect(clippy::unused_async, reason = "another registry may have to ask before it can join")]
    pub async fn join(&self, node: Node, tasks: &Tasks) -> Membership {
        match &self.0 {
            Backend::Embedded(client) => client.join(node, tasks),
            Backend::Etcd(client) => client.join(node, tasks),
        }
    }
}
