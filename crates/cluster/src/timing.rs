//! How long the registry and its nodes wait for each other.

use std::time::Duration;

use model::limits;

/// How long the registry and its nodes wait for each other. Tests use shorter times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A node that says nothing for this long is gone. etcd counts in whole seconds, at least 2.
    pub lease: Duration,
    /// How often a node says that it lives.
    pub beat: Duration,
    /// How long a node whose stream broke may take to come back; with etcd, which sees no streams,
    /// how long a node that another one doubts may take to answer.
    pub after_break: Duration,
    /// How long a registry that has started waits for the nodes; with etcd, how long a node waits
    /// before it claims after etcd was away.
    pub settle: Duration,
    /// How often at most a map is published that differs by loads only.
    pub load_interval: Duration,
    /// Longest pause between two tries to reach the registry.
    pub retry_max: Duration,
    /// How long a try to join, a claim or a release may take.
    pub call_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: limits::LEASE,
            beat: limits::LEASE_BEAT,
            after_break: limits::LEASE_AFTER_BREAK,
            settle: limits::REGISTRY_SETTLE,
            load_interval: limits::REGISTRY_LOAD_INTERVAL,
            retry_max: limits::REGISTRY_RETRY_MAX,
            call_timeout: limits::REGISTRY_CALL_TIMEOUT,
        }
    }
}
