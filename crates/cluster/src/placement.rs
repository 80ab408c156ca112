//! What belongs where: the only hashing of keys in the system.
//!
//! All nodes must agree on these results, also while two releases run side by side. So the hash
//! is fixed (XXH3, 64 bits, seed 0), keys are hashed as their raw bytes, and golden tests hold
//! the outcome. Changing any of it is a change of the protocol between nodes.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
    time::Duration,
};

use consistent_hash::{RingHash, StaticHashRing};
use model::{Incarnation, NodeId, RoomId, Shard, Time, limits};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::map::{ClusterMap, Node};

/// The shard that a room belongs to.
#[must_use]
pub fn shard_of(room: &RoomId) -> Shard {
    Shard::from_hash(xxh3_64(room.as_str().as_bytes()))
}

// ---- the ring

/// Hashes raw bytes and nothing else; what `Hash` of `str` writes is not promised to stay.
struct Key<'a>(&'a [u8]);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

/// A node's name as a key, so that a restarted node takes its old place.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey(NodeId);

impl Hash for NodeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Key(self.0.as_str().as_bytes()).hash(state);
    }
}

struct Xxh3Hash;

impl RingHash for Xxh3Hash {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut hasher = Xxh3::new();
        item.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_vnode<K: Hash>(&self, node_key: &K, vnode_seq: usize) -> u64 {
        let mut hasher = Xxh3::new();
        node_key.hash(&mut hasher);
        // The default writes a `usize`, whose bytes differ from machine to machine.
        hasher.write(&(vnode_seq as u64).to_le_bytes());
        hasher.finish()
    }
}

/// A ring of nodes. Immutable; built again when its members change.
struct Ring {
    members: Vec<(NodeId, Incarnation)>,
    ring: StaticHashRing<'static, NodeKey, Incarnation, Xxh3Hash>,
}

impl Ring {
    fn new(members: Vec<(NodeId, Incarnation)>) -> Self {
        let nodes = members.iter().map(|(id, incarnation)| {
            consistent_hash::Node::new(NodeKey(id.clone()))
                .value(*incarnation)
                .quantity(limits::RING_POINTS_PER_NODE)
        });
        let ring = StaticHashRing::new(Xxh3Hash, nodes);
        Self { members, ring }
    }

    fn empty() -> Self {
        Self::new(Vec::new())
    }

    /// Builds the ring again if the nodes that take work have changed; says whether it did.
    fn update<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>) -> bool {
        let members: Vec<_> = nodes
            .filter(|node| node.takes_work())
            .map(|node| (node.id.clone(), node.incarnation))
            .collect();
        let changed = members != self.members;
        if changed {
            *self = Self::new(members);
        }
        changed
    }

    /// All members, the most preferred first.
    fn candidates(&self, key: &[u8]) -> impl Iterator<Item = Incarnation> {
        self.ring.calc_candidates(&Key(key)).map(|node| node.value)
    }
}

/// The most that one of `nodes` may hold of `total`: [`limits::LOAD_FACTOR_PERCENT`] of the mean,
/// rounded up.
fn load_bound(total: u64, nodes: usize) -> u64 {
    (total * u64::from(limits::LOAD_FACTOR_PERCENT)).div_ceil(100 * nodes.max(1) as u64)
}

// ---- shard -> chat

/// Which chat *should* own each shard: a ring of the chats that take work, with bounded load.
///
/// Depends on nothing but the set of these chats, so every node computes the same from the same
/// map. Which chat *does* own a shard is in the map.
pub struct Owners {
    ring: Ring,
    preferred: Vec<Option<Incarnation>>,
}

impl Default for Owners {
    fn default() -> Self {
        Self { ring: Ring::empty(), preferred: vec![None; usize::from(limits::SHARD_COUNT)] }
    }
}

impl Owners {
    /// Follows the map; says whether any preference may have changed.
    pub fn update(&mut self, map: &ClusterMap) -> bool {
        let changed = self.ring.update(map.chats());
        if changed {
            self.assign();
        }
        changed
    }

    /// The chat that should own `shard`; none while no chat takes work.
    #[must_use]
    pub fn preferred(&self, shard: Shard) -> Option<Incarnation> {
        self.preferred[shard.index()]
    }

    fn assign(&mut self) {
        let bound = load_bound(limits::SHARD_COUNT.into(), self.ring.members.len());
        let mut held: BTreeMap<Incarnation, u64> = BTreeMap::new();
        for shard in Shard::all() {
            let key = shard.number().to_le_bytes();
            let choice = self
                .ring
                .candidates(&key)
                .find(|chat| held.get(chat).is_none_or(|count| *count < bound));
            if let Some(chat) = choice {
                *held.entry(chat).or_default() += 1;
            }
            self.preferred[shard.index()] = choice;
        }
    }
}

// ---- key -> connector

/// Chooses connectors for clients: a ring of the connectors that take work, with bounded load.
///
/// A room's clients go to one connector until it holds more than its share, then to the next one
/// on the ring. A session counts from the moment it is placed, not only when the connector
/// reports it, so that a burst between two reports spreads too.
pub struct Connectors {
    ring: Ring,
    seats: BTreeMap<Incarnation, Seat>,
}

impl Default for Connectors {
    fn default() -> Self {
        Self { ring: Ring::empty(), seats: BTreeMap::new() }
    }
}

impl Connectors {
    /// Follows the map.
    pub fn update(&mut self, now: Time, map: &ClusterMap) {
        self.ring.update(map.connectors());
        self.seats.retain(|incarnation, _| map.nodes.contains_key(incarnation));
        for (_, incarnation) in &self.ring.members {
            let seat = self.seats.entry(*incarnation).or_default();
            if let Some(node) = map.nodes.get(incarnation) {
                seat.report(now, node.load);
            }
        }
    }

    /// Places one session for `key`: the room, or the user's id for a client that names no room.
    ///
    /// None if no connector takes work.
    pub fn place(&mut self, now: Time, key: &str) -> Option<Incarnation> {
        let members = &self.ring.members;
        let mut total = 0;
        for (_, incarnation) in members {
            if let Some(seat) = self.seats.get_mut(incarnation) {
                seat.expire(now);
                total += seat.load();
            }
        }
        // The session to be placed counts, or the very first one would fit nowhere.
        let bound = load_bound(total + 1, members.len());
        let has_room = |incarnation: &Incarnation| {
            let seat = self.seats.get(incarnation);
            seat.is_some_and(|seat| seat.load() < bound)
        };
        let choice = self.ring.candidates(key.as_bytes()).find(has_room)?;
        if let Some(seat) = self.seats.get_mut(&choice) {
            seat.place(now);
        }
        Some(choice)
    }
}

/// Placed sessions are counted in slots of this length, which bounds their number.
const SLOT: Duration = Duration::from_millis(250);

/// How full one connector is.
#[derive(Default)]
struct Seat {
    reported: u32,
    /// Sessions placed and not yet reported: when, and how many, oldest first.
    placed: VecDeque<(Time, u32)>,
}

impl Seat {
    fn load(&self) -> u64 {
        let placed: u64 = self.placed.iter().map(|(_, count)| u64::from(*count)).sum();
        u64::from(self.reported) + placed
    }

    fn place(&mut self, now: Time) {
        match self.placed.back_mut() {
            Some((start, count)) if now - *start < SLOT => *count += 1,
            Some(_) | None => self.placed.push_back((now, 1)),
        }
    }

    /// Takes the sessions by which the report has grown for the oldest placed ones.
    fn report(&mut self, now: Time, load: u32) {
        let mut arrived = load.saturating_sub(self.reported);
        self.reported = load;
        self.expire(now);
        while let Some((_, count)) = self.placed.front_mut() {
            if *count > arrived {
                *count -= arrived;
                break;
            }
            arrived -= *count;
            self.placed.pop_front();
        }
    }

    /// Forgets clients that were sent here and have not come.
    fn expire(&mut self, now: Time) {
        while let Some((start, _)) = self.placed.front()
            && now - *start >= limits::PLACED_SESSION_EXPIRY
        {
            self.placed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
