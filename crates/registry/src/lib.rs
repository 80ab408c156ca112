//! Membership in a cluster: who lives, who owns which shard, and claims on shards.
//!
//! A process joins once, with [`Registry::join`], and holds a [`Membership`] from then on. What
//! stands behind it is chosen by configuration. Today that is the embedded registry, an
//! [`EmbeddedServer`] that some gate hosts and every node reaches over gRPC; the decisions are
//! those of [`cluster::Registrar`], and this crate carries them out.
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
mod membership;

use cluster::{Node, Timing};
use daemon::Tasks;
pub use rpc::token::{ClusterToken, TokenError};

pub use cluster::Lease;
pub use embedded::{EmbeddedServer, EmbeddedService};
pub use membership::{CallError, Membership};

/// Where the registry is, and how to speak to it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:port` or `host:port` of the gate that hosts the registry.
    pub address: String,
    /// The secret that the cluster shares, if it has one.
    pub token: Option<ClusterToken>,
    /// The same as the registry's, or nodes are taken for dead.
    pub timing: Timing,
}

impl Config {
    /// The registry at `address`, without a token.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), token: None, timing: Timing::default() }
    }
}

/// The address names no registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Another scheme than `http`.
    #[error("registry address {0:?}: only http://host:port is known here")]
    Scheme(String),
    /// No address at all.
    #[error("registry address {0:?} is not http://host:port")]
    Address(String),
}

/// A registry, not yet joined. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Backend);

#[derive(Clone, Debug)]
enum Backend {
    Embedded(embedded::Client),
}

impl Registry {
    /// Checks the address. Nothing is dialled before a join.
    ///
    /// # Errors
    ///
    /// If the address is none that this crate can dial.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        embedded::Client::new(config).map(|client| Self(Backend::Embedded(client)))
    }

    /// Joins as `node` and keeps the membership until it is left, lost, or `tasks` are cancelled.
    ///
    /// Returns at once, with an empty map and a lease that is [`Lease::Silent`] until the
    /// registry has answered; it is tried for ever.
    #[expect(clippy::unused_async, reason = "another registry may have to ask before it can join")]
    pub async fn join(&self, node: Node, tasks: &Tasks) -> Membership {
        match &self.0 {
            Backend::Embedded(client) => client.join(node, tasks),
        }
    }
}
