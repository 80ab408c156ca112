//! A node's own membership: what it tells the registry when it joins, and joins again.

use std::{collections::BTreeMap, sync::Arc};

use model::{Incarnation, Role, Shard, Term, limits};

use crate::{
    claim::{Claim, Outcome},
    map::{ClusterMap, MapUpdate, MissedUpdate, Node},
};

/// No term reaches this. Terms are microseconds since 1970 or a little above; a larger one is an
/// error of the sender, and taking it over would leave no room to grow.
const TERM_END: Term = Term(1 << 62);

/// How a node stands with the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The registry counts the node as live.
    Held,
    /// The registry is not heard. Nothing is to be torn down for that.
    Silent,
    /// This incarnation is over. The process may come back only as a new one.
    Lost,
}

/// What a node says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Who it is.
    pub node: Node,
    /// The version of the map that it holds; 0 for a fresh process.
    pub map_version: u64,
    /// The shards that it owns, each with its term.
    pub owned: Vec<(Shard, Term)>,
    /// The highest term seen of every shard, in order; empty for a fresh process.
    pub terms_seen: Vec<Term>,
}

impl Join {
    /// Whether it is within all bounds: of addresses, of the number of shards and of terms.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        let count = usize::from(limits::SHARD_COUNT);
        let owned = self.owned.iter().map(|(_, term)| term);
        self.node.is_within_bounds()
            && self.map_version < TERM_END.0
            && self.owned.len() <= count
            && (self.owned.is_empty() || self.node.role == Role::Chat)
            && (self.terms_seen.is_empty() || self.terms_seen.len() == count)
            && owned.chain(&self.terms_seen).all(|term| *term < TERM_END)
    }
}

/// A node's membership: its own entry, the map, and the shards it owns.
#[derive(Clone, Debug)]
pub struct Member {
    node: Node,
    map: Arc<ClusterMap>,
    owned: BTreeMap<Shard, Term>,
}

impl Member {
    /// A process that has heard nothing yet.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self { node, map: Arc::default(), owned: BTreeMap::new() }
    }

    /// Which life of the node this is.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.node.incarnation
    }

    /// The map as last heard; kept while the registry is silent.
    #[must_use]
    pub const fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The node's own entry, to be changed before the next join.
    pub const fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// What to say on a new stream. A process that comes back says what it owns and which terms
    /// it has seen, for the registry may have lost its memory.
    #[must_use]
    pub fn join(&self) -> Join {
        let fresh = self.map.version == 0;
        let terms = self.map.shards.iter().map(|ownership| ownership.term);
        Join {
            node: self.node.clone(),
            map_version: self.map.version,
            owned: self.owned.iter().map(|(s, t)| (*s, *t)).collect(),
            terms_seen: if fresh { Vec::new() } else { terms.collect() },
        }
    }

    /// Follows the map.
    ///
    /// # Errors
    ///
    /// If an update was missed: the node must join again, and gets a snapshot.
    pub fn update(&mut self, update: MapUpdate) -> Result<(), MissedUpdate> {
        Arc::make_mut(&mut self.map).apply(update)?;
        let (map, me) = (&self.map, self.node.incarnation);
        self.owned.retain(|shard, term| {
            let now = map.ownership(*shard);
            // A map of an older term was made before the claim and says nothing about it.
            now.term < *term || (now.term == *term && now.owner == Some(me))
        });
        Ok(())
    }

    /// Takes note of what a claim has won.
    pub fn claimed(&mut self, claims: &[Claim]) {
        for claim in claims {
            if let Outcome::Won { term, .. } = claim.outcome {
                self.owned.insert(claim.shard, term);
            }
        }
    }

    /// Takes note of shards that the registry knows to be released.
    pub fn released(&mut self, shards: &[(Shard, Term)]) {
        for (shard, term) in shards {
            if self.owned.get(shard) == Some(term) {
                self.owned.remove(shard);
            }
        }
    }
}
