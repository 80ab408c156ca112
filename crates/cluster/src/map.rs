//! The map of the cluster, and how it changes.

use std::collections::BTreeMap;

use model::{Incarnation, NodeId, Role, Shard, Term, limits};

/// Where clients reach a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Absent: the host by which the client reached the gate.
    pub host: Option<String>,
    /// The port, never 0.
    pub port: u16,
    /// How many clients it lets in per second; 0 if it has not said so.
    pub admissions: u32,
}

/// What changes while a node lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Client sessions it holds.
    pub load: u32,
    /// Whether it can be given work.
    pub ready: bool,
    /// Whether it is on its way out and must be given nothing new.
    pub draining: bool,
}

/// A live process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name for people; one live node per name.
    pub id: NodeId,
    /// Which life of the process this is.
    pub incarnation: Incarnation,
    /// What it does.
    pub role: Role,
    /// What other nodes dial, `http://host:port`. Chats have one.
    pub link: Option<String>,
    /// Where clients reach it. Connectors have one.
    pub client: Option<ClientAddress>,
    /// Its admin page, `http://host:port`.
    pub admin: Option<String>,
    /// Client sessions it holds, as last reported.
    pub load: u32,
    /// Whether it is on its way out and must be given nothing new.
    pub draining: bool,
    /// Whether it can be given work.
    pub ready: bool,
}

impl Node {
    /// A node that can be reached nowhere and takes no work yet.
    #[must_use]
    pub const fn new(id: NodeId, incarnation: Incarnation, role: Role) -> Self {
        Self {
            id,
            incarnation,
            role,
            link: None,
            client: None,
            admin: None,
            load: 0,
            draining: false,
            ready: false,
        }
    }

    /// Whether it may be given something new.
    #[must_use]
    pub const fn takes_work(&self) -> bool {
        self.ready && !self.draining
    }

    /// The part that changes while it lives.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        NodeState { load: self.load, ready: self.ready, draining: self.draining }
    }

    /// Replaces the part that changes.
    pub const fn set_state(&mut self, state: NodeState) {
        self.load = state.load;
        self.ready = state.ready;
        self.draining = state.draining;
    }

    /// Whether its addresses keep within [`limits::ADDRESS_BYTES_MAX`].
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        let client = self.client.as_ref().and_then(|client| client.host.as_ref());
        [self.link.as_ref(), self.admin.as_ref(), client]
            .into_iter()
            .flatten()
            .all(|address| address.len() <= limits::ADDRESS_BYTES_MAX)
    }
}

/// Who owns a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The chat that orders the shard's rooms; none while it moves or its owner is gone.
    pub owner: Option<Incarnation>,
    /// The owner's term; without an owner, the last one's.
    pub term: Term,
}

/// A picture of the cluster at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    /// Grows with every change. 0: nothing has been heard yet.
    pub version: u64,
    /// The live nodes, at most [`limits::NODES_MAX`].
    pub nodes: BTreeMap<Incarnation, Node>,
    /// Who owns what: always [`limits::SHARD_COUNT`] entries, in the order of shards.
    pub shards: Vec<Ownership>,
}

impl Default for ClusterMap {
    fn default() -> Self {
        Self {
            version: 0,
            nodes: BTreeMap::new(),
            shards: vec![Ownership::default(); usize::from(limits::SHARD_COUNT)],
        }
    }
}

/// The changes between two versions of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapDelta {
    /// The version that the changes apply to.
    pub base: u64,
    /// The version that they lead to.
    pub version: u64,
    /// Nodes that are new or changed, as they are now.
    pub nodes: Vec<Node>,
    /// Nodes that are no longer live.
    pub gone: Vec<Incarnation>,
    /// Shards whose owner or term changed, as they are now.
    pub shards: Vec<(Shard, Ownership)>,
}

/// What a follower of the map hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapUpdate {
    /// The whole map.
    Snapshot(ClusterMap),
    /// What changed since the version heard last.
    Delta(MapDelta),
}

/// A delta came for another version than the map's: some update was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change from version {base} came to a map of version {version}")]
pub struct MissedUpdate {
    /// The version of the map.
    pub version: u64,
    /// The version that the delta starts from.
    pub base: u64,
}

impl ClusterMap {
    /// Who owns `shard`.
    #[must_use]
    pub fn ownership(&self, shard: Shard) -> Ownership {
        self.shards[shard.index()]
    }

    /// The node that owns `shard`.
    #[must_use]
    pub fn owner(&self, shard: Shard) -> Option<&Node> {
        self.nodes.get(&self.ownership(shard).owner?)
    }

    /// The live nodes of one role, by incarnation.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.role == role)
    }

    /// The live connectors.
    pub fn connectors(&self) -> impl Iterator<Item = &Node> {
        self.of_role(Role::Connector)
    }

    /// The live chats.
    pub fn chats(&self) -> impl Iterator<Item = &Node> {
        self.of_role(Role::Chat)
    }

    /// The shards that `incarnation` owns, in order, each with its term.
    pub fn owned_by(&self, incarnation: Incarnation) -> impl Iterator<Item = (Shard, Term)> {
        Shard::all().zip(&self.shards).filter_map(move |(shard, ownership)| {
            (ownership.owner == Some(incarnation)).then_some((shard, ownership.term))
        })
    }

    /// Brings the map to the next version, or to that of a snapshot.
    ///
    /// # Errors
    ///
    /// If an update was missed; the map is unchanged.
    pub fn apply(&mut self, update: MapUpdate) -> Result<(), MissedUpdate> {
        match update {
            MapUpdate::Snapshot(map) => *self = map,
            MapUpdate::Delta(delta) => self.apply_delta(delta)?,
        }
        Ok(())
    }

    fn apply_delta(&mut self, delta: MapDelta) -> Result<(), MissedUpdate> {
        if delta.base != self.version {
            return Err(MissedUpdate { version: self.version, base: delta.base });
        }
        self.version = delta.version;
        for incarnation in &delta.gone {
            self.nodes.remove(incarnation);
        }
        for node in delta.nodes {
            self.nodes.insert(node.incarnation, node);
        }
        for (shard, ownership) in delta.shards {
            self.shards[shard.index()] = ownership;
        }
        Ok(())
    }

    /// The changes that lead from this map to `newer`.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> MapDelta {
        let changed = |node: &&Node| self.nodes.get(&node.incarnation) != Some(node);
        let gone = |incarnation: &&Incarnation| !newer.nodes.contains_key(incarnation);
        MapDelta {
            base: self.version,
            version: newer.version,
            nodes: newer.nodes.values().filter(changed).cloned().collect(),
            gone: self.nodes.keys().filter(gone).copied().collect(),
            shards: Shard::all()
                .filter(|shard| self.ownership(*shard) != newer.ownership(*shard))
                .map(|shard| (shard, newer.ownership(shard)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_for_another_version_is_refused() {
        let mut map = ClusterMap::default();
        let delta = MapDelta { base: 4, version: 5, ..MapDelta::default() };
        let before = map.clone();
        assert_eq!(map.apply(MapUpdate::Delta(delta)), Err(MissedUpdate { version: 0, base: 4 }));
        assert_eq!(map, before);
    }

    #[test]
    fn the_empty_map_has_all_shards_and_no_owner() {
        let map = ClusterMap::default();
        assert_eq!(map.shards.len(), Shard::all().len());
        assert!(Shard::all().all(|shard| map.owner(shard).is_none()));
    }
}
