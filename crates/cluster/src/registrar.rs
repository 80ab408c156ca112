//! The embedded registry's state: who lives, who owns what at which term.
//!
//! # Who lives
//!
//! A node lives from its join until it leaves, is silent for [`Timing::lease`], or its stream
//! breaks and it is not back within [`Timing::after_break`] (a killed process breaks its streams
//! at once). Whoever is gone stays gone: that incarnation is told so when it shows up again. A
//! new incarnation of the same name replaces the old one at once.
//!
//! A node that goes leaves its shards without owner in the same version of the map, and the term
//! of each stays, so that the next claim is above it.
//!
//! # A registry that restarts
//!
//! It has lost its memory, and the nodes have not: each joins again with the shards it owns and
//! the terms it has seen, and is believed unless a higher term is known. Until
//! [`Timing::settle`] has passed since the start, no shard without owner is given away, for its
//! owner may still be on its way back; and no map is sent to a node that has one, because a map
//! that is half filled would look as if the others had gone.
//!
//! The settle time counts from the start of the registry and not from anything that happens
//! later, so a whole cluster that starts together waits for it once, and while it is starting
//! anyway: an empty registry cannot know that it is the first one ever.
//!
//! # A registry that sleeps
//!
//! After a pause of the registry's own process every node looks silent. A gap in the registry's
//! own calls is therefore not held against the nodes: their leases start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{Incarnation, NodeId, Shard, Term, Time, limits};

use self::departed::Departed;
use crate::{
    claim::Claim,
    map::{ClusterMap, MapDelta, NodeState, Ownership},
    member::Join,
    timing::Timing,
};

mod claims;
mod departed;

/// What happens to the registry.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stream's first report.
    Joined {
        /// The stream, never used before.
        stream: StreamId,
        /// Who it is.
        join: Box<Join>,
    },
    /// A node says that it lives.
    Beat {
        /// Its stream.
        stream: StreamId,
        /// How it is.
        state: NodeState,
    },
    /// A node says that it ends.
    Left {
        /// Its stream.
        stream: StreamId,
    },
    /// A stream ended without a word.
    Broke {
        /// The stream.
        stream: StreamId,
    },
    /// A chat claims shards.
    Claim {
        /// Names the answer.
        call: CallId,
        /// The claimant.
        incarnation: Incarnation,
        /// Each shard with the term seen of it.
        shards: Vec<(Shard, Term)>,
        /// No term is granted below this: microseconds since 1970.
        floor: Term,
    },
    /// A chat gives up shards.
    Release {
        /// Names the answer.
        call: CallId,
        /// The owner.
        incarnation: Incarnation,
        /// Each shard with the term it is owned at.
        shards: Vec<(Shard, Term)>,
    },
    /// The moment of [`Registrar::poll_timeout`] has come.
    Timeout,
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The node on this stream is live: tell it.
    Welcome(StreamId),
    /// From now on this stream follows the map: first [`Registrar::map`], then every change.
    Follow(StreamId),
    /// The map has changed: tell all streams that follow it.
    Publish(Arc<MapDelta>),
    /// A node is no longer live. For the log; the map says it to the nodes.
    Departed(NodeId, Incarnation, Gone),
    /// The incarnation on this stream is over: tell it, and end the stream.
    Dismiss(StreamId, Gone),
    /// This stream cannot join: end it.
    Refuse(StreamId, Refusal),
    /// The node goes on on another stream: end this one.
    Close(StreamId),
    /// A claim or a release is answered.
    Answer(CallId, Answer),
}

/// A stream of the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A call of the shell that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Why an incarnation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// It said nothing for longer than the lease.
    #[error("it was silent for longer than its lease")]
    Silent,
    /// Its stream broke and it did not come back in time.
    #[error("its stream broke and it did not come back in time")]
    Broken,
    /// A newer process has joined under the same name.
    #[error("another process has joined under its name")]
    Replaced,
    /// It left by itself.
    #[error("it has left")]
    Left,
}

/// Why a node cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are [`limits::NODES_MAX`] nodes.
    #[error("the cluster is full")]
    Full,
    /// What it says of itself cannot be.
    #[error("the join is malformed")]
    Malformed,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What became of each claim, in the order of the call.
    Claims(Vec<Claim>),
    /// The shards are released.
    Released,
    /// The caller is not a live chat; nothing was done.
    NotLive,
}

/// The embedded registry.
pub struct Registrar {
    timing: Timing,
    map: ClusterMap,
    leases: BTreeMap<Incarnation, Lease>,
    streams: BTreeMap<StreamId, Incarnation>,
    names: BTreeMap<NodeId, Incarnation>,
    gone: Departed,
    /// Streams that follow the map once the registry has settled.
    waiting: BTreeSet<StreamId>,
    settled_at: Time,
    /// Until then a broken stream is no sign of a death: the registry itself was away.
    lenient_until: Time,
    heard_at: Time,
    /// Loads reported and not yet published.
    loads: BTreeMap<Incarnation, u32>,
    loads_published_at: Time,
    /// The highest version of the map that any registry has published.
    version_seen: u64,
    changes: Changes,
}

struct Lease {
    stream: Option<StreamId>,
    ends: Time,
}

/// What the current event has changed in the map.
#[derive(Default)]
struct Changes {
    nodes: BTreeSet<Incarnation>,
    gone: BTreeSet<Incarnation>,
    shards: BTreeSet<Shard>,
}

impl Registrar {
    /// A registry that starts `now` without any memory. The first version of its map is
    /// `floor + 1`: microseconds since 1970 keep versions growing across restarts.
    #[must_use]
    pub fn new(now: Time, timing: Timing, floor: u64) -> Self {
        Self {
            timing,
            map: ClusterMap { version: floor, ..ClusterMap::default() },
            leases: BTreeMap::new(),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            gone: Departed::default(),
            waiting: BTreeSet::new(),
            settled_at: now + timing.settle,
            lenient_until: now + timing.settle,
            heard_at: now,
            loads: BTreeMap::new(),
            loads_published_at: now,
            version_seen: floor,
            changes: Changes::default(),
        }
    }

    /// The map as it is now.
    #[must_use]
    pub const fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// When to call [`Registrar::handle`] with [`Event::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let lease = self.leases.values().map(|lease| lease.ends).min()?;
        let settle = (!self.waiting.is_empty()).then_some(self.settled_at);
        let loads = (!self.loads.is_empty()).then(|| self.loads_due());
        // The tick by which a pause of this process itself is noticed.
        let tick = self.heard_at + self.timing.lease / 4;
        [Some(lease), settle, loads, Some(tick)].into_iter().flatten().min()
    }

    /// Takes in one event; what follows from it is appended to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        self.forgive_own_pause(now);
        match event {
            Event::Joined { stream, join } => self.join(now, stream, *join, out),
            Event::Beat { stream, state } => self.beat(now, stream, state),
            Event::Left { stream } => self.leave(stream, out),
            Event::Broke { stream } => self.stream_broke(now, stream),
            Event::Claim { call, incarnation, shards, floor } => {
                self.claim(now, call, incarnation, shards, floor, out)
            }
            Event::Release { call, incarnation, shards } => {
                self.release(call, incarnation, &shards, out)
            }
            Event::Timeout => self.expire(now, out),
        }
        self.publish_loads(now);
        self.publish(out);
        if now >= self.settled_at {
            let waiting = std::mem::take(&mut self.waiting);
            out.extend(waiting.into_iter().map(Effect::Follow));
        }
    }

    // ---- who lives

    fn forgive_own_pause(&mut self, now: Time) {
        // Twice the tick: with a beat lost just before, a node is still within its lease.
        if !self.leases.is_empty() && now - self.heard_at > self.timing.lease / 2 {
            for lease in self.leases.values_mut() {
                lease.ends = lease.ends.max(now + self.timing.lease);
            }
            self.lenient_until = self.lenient_until.max(now + self.timing.settle);
        }
        self.heard_at = now;
    }

    fn join(&mut self, now: Time, stream: StreamId, join: Join, out: &mut Vec<Effect>) {
        let incarnation = join.node.incarnation;
        if let Some(reason) = self.gone.get(incarnation) {
            return out.push(Effect::Dismiss(stream, reason));
        }
        let known = self.map.nodes.get(&incarnation);
        let same_name = known.is_none_or(|node| node.id == join.node.id);
        if !join.is_within_bounds() || !same_name || self.streams.contains_key(&stream) {
            return out.push(Effect::Refuse(stream, Refusal::Malformed));
        }
        let known = known.is_some();
        let namesake = self.names.get(&join.node.id).copied();
        let replaced = namesake.filter(|other| *other != incarnation);
        if !known && replaced.is_none() && self.leases.len() >= limits::NODES_MAX {
            return out.push(Effect::Refuse(stream, Refusal::Full));
        }
        if let Some(other) = replaced {
            self.remove(other, Gone::Replaced, out);
        }

        self.adopt(&join);
        self.names.insert(join.node.id.clone(), incarnation);
        self.loads.remove(&incarnation);
        self.changes.nodes.insert(incarnation);
        self.map.nodes.insert(incarnation, join.node);
        self.streams.insert(stream, incarnation);
        let lease = Lease { stream: Some(stream), ends: now + self.timing.lease };
        let earlier = self.leases.insert(incarnation, lease);
        if let Some(earlier) = earlier.and_then(|lease| lease.stream) {
            self.forget_stream(earlier);
            out.push(Effect::Close(earlier));
        }
        self.publish(out);
        out.push(Effect::Welcome(stream));
        if join.map_version > 0 && now < self.settled_at {
            self.waiting.insert(stream);
        } else {
            out.push(Effect::Follow(stream));
        }
    }

    /// Believes what a node says that it owns, unless a higher term is known.
    fn adopt(&mut self, join: &Join) {
        self.version_seen = self.version_seen.max(join.map_version);
        for (shard, seen) in Shard::all().zip(&join.terms_seen) {
            if *seen > self.map.ownership(shard).term {
                // Somebody else has had this shard after its owner as known here.
                let ownership = Ownership { owner: None, term: *seen };
                self.set(shard, ownership);
            }
        }
        for (shard, term) in &join.owned {
            let current = self.map.ownership(*shard);
            let free = current.owner.is_none() && *term == current.term;
            if free || *term > current.term {
                let ownership = Ownership { owner: Some(join.node.incarnation), term: *term };
                self.set(*shard, ownership);
            }
        }
    }

    fn beat(&mut self, now: Time, stream: StreamId, state: NodeState) {
        let Some(incarnation) = self.streams.get(&stream) else {
            return;
        };
        if let Some(lease) = self.leases.get_mut(incarnation) {
            lease.ends = now + self.timing.lease;
        }
        let Some(node) = self.map.nodes.get_mut(incarnation) else {
            return;
        };
        if (node.ready, node.draining) != (state.ready, state.draining) {
            node.set_state(state);
            self.loads.remove(incarnation);
            self.changes.nodes.insert(*incarnation);
        } else if node.load == state.load {
            self.loads.remove(incarnation);
        } else {
            self.loads.insert(*incarnation, state.load);
        }
    }

    fn leave(&mut self, stream: StreamId, out: &mut Vec<Effect>) {
        if let Some(incarnation) = self.streams.get(&stream).copied() {
            // It knows; nobody is left to be told.
            self.forget_stream(stream);
            self.remove_quietly(incarnation, Gone::Left, out);
        }
    }

    fn stream_broke(&mut self, now: Time, stream: StreamId) {
        let Some(incarnation) = self.streams.get(&stream).copied() else {
            return;
        };
        self.forget_stream(stream);
        if let Some(lease) = self.leases.get_mut(&incarnation) {
            lease.stream = None;
            let latest = (now + self.timing.after_break).max(self.lenient_until);
            lease.ends = lease.ends.min(latest);
        }
    }

    fn expire(&mut self, now: Time, out: &mut Vec<Effect>) {
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        let ended: Vec<_> =
            ended.map(|(incarnation, lease)| (*incarnation, lease.stream.is_some())).collect();
        for (incarnation, connected) in ended {
            let reason = if connected { Gone::Silent } else { Gone::Broken };
            self.remove(incarnation, reason, out);
        }
    }

    fn remove(&mut self, incarnation: Incarnation, reason: Gone, out: &mut Vec<Effect>) {
        if let Some(stream) = self.remove_quietly(incarnation, reason, out) {
            self.forget_stream(stream);
            out.push(Effect::Dismiss(stream, reason));
        }
    }

    /// Ends an incarnation; returns its stream, if it has one.
    fn remove_quietly(
        &mut self,
        incarnation: Incarnation,
        reason: Gone,
        out: &mut Vec<Effect>,
    ) -> Option<StreamId> {
        if let Some(node) = self.map.nodes.remove(&incarnation) {
            self.names.remove(&node.id);
            out.push(Effect::Departed(node.id, incarnation, reason));
        }
        self.loads.remove(&incarnation);
        self.gone.insert(incarnation, reason);
        self.changes.gone.insert(incarnation);
        let owned: Vec<_> = self.map.owned_by(incarnation).collect();
        for (shard, term) in owned {
            self.set(shard, Ownership { owner: None, term });
        }
        self.leases.remove(&incarnation)?.stream
    }

    fn forget_stream(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.waiting.remove(&stream);
    }

    fn set(&mut self, shard: Shard, ownership: Ownership) {
        self.map.shards[shard.index()] = ownership;
        self.changes.shards.insert(shard);
    }

    // ---- the map

    fn loads_due(&self) -> Time {
        self.loads_published_at + self.timing.load_interval
    }

    fn publish_loads(&mut self, now: Time) {
        if self.loads.is_empty() || now < self.loads_due() {
            return;
        }
        self.loads_published_at = now;
        for (incarnation, load) in std::mem::take(&mut self.loads) {
            if let Some(node) = self.map.nodes.get_mut(&incarnation) {
                node.load = load;
                self.changes.nodes.insert(incarnation);
            }
        }
    }

    fn publish(&mut self, out: &mut Vec<Effect>) {
        let changes = std::mem::take(&mut self.changes);
        if changes.nodes.is_empty() && changes.gone.is_empty() && changes.shards.is_empty() {
            return;
        }
        let base = self.map.version;
        self.map.version = base.max(self.version_seen) + 1;
        let nodes = changes.nodes.iter().filter_map(|i| self.map.nodes.get(i));
        let shards = changes.shards.iter();
        let delta = MapDelta {
            base,
            version: self.map.version,
            nodes: nodes.cloned().collect(),
            gone: changes.gone.into_iter().collect(),
            shards: shards.map(|s| (*s, self.map.ownership(*s))).collect(),
        };
        out.push(Effect::Publish(Arc::new(delta)));
    }
}

#[cfg(test)]
mod tests;
