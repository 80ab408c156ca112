//! What becomes of a claim.

use std::{sync::Arc, time::Duration};

use model::{Incarnation, Shard, Term};

use crate::map::Ownership;

/// What became of one claimed shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The shard.
    pub shard: Shard,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The claimant owns the shard.
    Won {
        /// Its term, above all earlier ones of the shard.
        term: Term,
        /// The connectors live at the moment of the claim: the owner waits until each of them
        /// has attached or is gone.
        connectors: Arc<[Incarnation]>,
        /// The version of the map that shows the claim. A connector missing in a map of this
        /// version or later is gone; in an earlier one it may not have been known yet.
        map_version: u64,
    },
    /// The shard was not at the term seen, or has an owner.
    Lost(Ownership),
    /// The registry has just started and the owner may still report.
    Settling {
        /// Ask again after this long.
        retry_in: Duration,
    },
}
