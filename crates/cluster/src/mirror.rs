//! A node's picture of a registry that only stores, as etcd does: the map that follows from what
//! is stored, and what this node may do there.
//!
//! # What is stored
//!
//! A *record* for each life of a node, its *sign of life* under a lease, and for each shard who
//! holds it. Every change has a revision of the store; revisions only grow. The map is what
//! follows from the records at one revision, so that all nodes at one version see the same map.
//!
//! # Who lives
//!
//! A node lives as long as its record is there. A record goes when its node leaves, when a newer
//! life of the same name joins, or when another node, a *witness*, removes it because the sign of
//! life is gone. Shards of a node without a record are free, at the term that they had.
//!
//! The end of a lease is evidence and not a verdict: a store that was away, or slept, ends leases
//! of nodes that had no way to prolong them. So a witness acts only if the store has answered it
//! all the time, for at least a lease since it was last away; and a node that finds its sign of
//! life gone puts it anew, at the store's own word that its record is still there. Whoever comes
//! first decides, for all nodes alike. Witnesses take turns, so that a death does not make every
//! node write at once.
//!
//! A node whose link was ended by the other end's system need not wait for the end of a lease: it
//! *doubts* that node, by a word in its sign of life. A node that lives sees it and puts its sign
//! anew; one that has not within [`Timing::after_break`] is removed by the witnesses, if the doubt
//! still stands at that moment. The store must have been heard half-way, or that time begins again
//! by half: one that hangs, too short a while to be missed, lets nobody answer. A node that answers
//! is doubted once more, as that answer may be to another doubt, on its way when its node died. So
//! a link that broke for any other reason costs four writes. Only nodes are doubted whose sign of
//! life says that their build answers. A process that is slow, or stopped, is not doubted: its
//! system keeps its connections, and whoever gives one up by itself has no evidence.
//!
//! # Who has just joined
//!
//! A node that has just joined, and was answered ever since, slept nowhere and had no links that
//! others could have given up: it doubts at once. What it cannot know is whether the store itself has
//! just come back, so that the doubted one is on its way still. It removes a node that does not
//! answer as soon as others do if that node has done something in the store since this one joined,
//! which shows that it was heard; else not before [`Timing::settle`] has passed, within which
//! everybody is back. The end of a lease it believes after a whole lease only, like everybody.
//!
//! # Claims
//!
//! A claim is compare-and-swap on the revision of the shard's entry, and its own revision is the
//! new term. After the store was away no shard without owner is claimed before
//! [`Timing::settle`]: whoever had it may be on its way. A cluster that starts, where no live chat
//! owns anything, waits once as well, so that those who start together share from the beginning.
//!
//! # Another past
//!
//! A store that is behind what was seen of it has lost its memory, and one with another identity
//! is another store. Neither is believed: the map stays as it is until someone repairs that.

use std::{collections::BTreeMap, sync::Arc};

use model::{Incarnation, NodeId, Role, Shard, Term, Time, limits};

use crate::{
    map::{ClusterMap, Node},
    registrar::Gone,
    timing::Timing,
};

mod claims;
mod contact;
mod picture;
mod witness;

pub use claims::{Swap, Swapped};
use contact::Contact;
use witness::{Doom, Suspect};

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store has prolonged this node's lease.
    Heard,
    /// The store is not heard any more.
    Silent,
    /// The store has taken this node's record and sign of life.
    Enlisted {
        /// The revision at which it did.
        revision: u64,
    },
    /// All that is stored.
    Snapshot {
        /// The revision at which it is.
        revision: u64,
        /// Puts only.
        changes: Vec<Change>,
    },
    /// What has changed since, in order.
    Changed(Vec<Change>),
    /// A link to this node was ended by its system, as when a process dies.
    Broken(Incarnation),
    /// The moment of [`Mirror::poll_timeout`] has come.
    Timeout,
}

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was.
    pub revision: u64,
    /// What it was.
    pub what: What,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A record was put.
    Node {
        /// The record.
        node: Box<Node>,
        /// The revision at which it was put first.
        created: u64,
    },
    /// A record was removed.
    NodeGone(Incarnation),
    /// A sign of life was put.
    Alive(Incarnation),
    /// The same, by a build that does not say that it answers doubts.
    Mute(Incarnation),
    /// Somebody has put a doubt into a sign of life.
    Doubted(Incarnation),
    /// A sign of life went with its lease, or was removed.
    NotAlive(Incarnation),
    /// A shard changed hands.
    Shard(Shard, Holding),
    /// A shard's entry was removed, which no node does.
    ShardGone(Shard),
}

/// Who holds a shard, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// This node, if it lives; the term is the revision of the entry.
    Owned(Incarnation),
    /// Nobody.
    Free {
        /// The term of the last owner.
        last: Term,
    },
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The map has changed.
    Publish(Arc<ClusterMap>),
    /// The sign of life is gone: put it anew, under a new lease.
    Enlist,
    /// Doubt this node, if its sign of life is still the one of this revision.
    Doubt {
        /// The node.
        node: Incarnation,
        /// The revision.
        revision: u64,
    },
    /// This node is doubted: put its sign of life anew.
    AnswerDoubt,
    /// Ask for more time now, and not with the next beat: whether the store is heard has to be known.
    Ask,
    /// Remove these records.
    Remove(Vec<Doomed>),
    /// This incarnation is over.
    Over(Gone),
}

/// A node to be removed, if nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// Its role.
    pub role: Role,
    /// The node.
    pub node: Incarnation,
    /// The revision of the doubt that its sign of life must still be; none: there must be no sign.
    pub doubt: Option<u64>,
}

/// The store is not the one that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Estranged {
    /// Its history is shorter than what was seen of it.
    #[error(
        "etcd is at revision {now} and was at {seen}: it has lost its memory; restore it, or \
         restart every process of this cluster"
    )]
    Behind {
        /// Its revision.
        now: u64,
        /// The revision seen before.
        seen: u64,
    },
    /// Its identity is another one.
    #[error(
        "this endpoint belongs to another etcd cluster than the one joined; name only members of \
         one cluster in --registry"
    )]
    Other,
}

/// An entry of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    holding: Holding,
    /// When it was put; 0 if it is not there.
    revision: u64,
}

impl Slot {
    const NONE: Self = Self { holding: Holding::Free { last: Term(0) }, revision: 0 };

    const fn term(self) -> Term {
        match self.holding {
            Holding::Owned(_) => Term(self.revision),
            Holding::Free { last } => last,
        }
    }
}

struct Record {
    node: Node,
    created: u64,
    /// When it did something in the store last, as far as that was followed.
    did: u64,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    /// When it was put.
    revision: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alive,
    Mute,
    Doubted,
}

/// What one node knows of the store.
pub struct Mirror {
    me: Incarnation,
    name: NodeId,
    timing: Timing,
    store: Option<u64>,
    revision: u64,
    records: BTreeMap<Incarnation, Record>,
    alive: BTreeMap<Incarnation, Sign>,
    shards: Vec<Slot>,
    /// Entries known from answers to claims and releases, until the changes come to them.
    answered: BTreeMap<Shard, Slot>,
    /// Records without a sign of life, or with one in doubt.
    doomed: BTreeMap<Incarnation, Doom>,
    /// Nodes whose links broke.
    suspects: BTreeMap<Incarnation, Suspect>,
    contact: Option<Contact>,
    heard_before: bool,
    /// At which revision this node's record was put first, and its sign of life last.
    enlisted: Option<(u64, u64)>,
    /// The last doubt of this node that was to be answered.
    answered_doubt: u64,
    over: bool,
    map: Arc<ClusterMap>,
    published_at: Time,
    /// The map differs by loads only, which can wait.
    loads_wait: bool,
}

impl Mirror {
    /// A node that has heard nothing yet.
    #[must_use]
    pub fn new(me: Incarnation, name: NodeId, timing: Timing) -> Self {
        Self {
            me,
            name,
            timing,
            store: None,
            revision: 0,
            records: BTreeMap::new(),
            alive: BTreeMap::new(),
            shards: vec![Slot::NONE; usize::from(limits::SHARD_COUNT)],
            answered: BTreeMap::new(),
            doomed: BTreeMap::new(),
            suspects: BTreeMap::new(),
            contact: None,
            heard_before: false,
            enlisted: None,
            answered_doubt: 0,
            over: false,
            map: Arc::default(),
            published_at: Time::ZERO,
            loads_wait: false,
        }
    }

    /// The revision up to which all changes are known; 0 before the first snapshot.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the store has ever taken this node's record.
    #[must_use]
    pub const fn is_enlisted(&self) -> bool {
        self.enlisted.is_some()
    }

    /// Whether this node's record is stored, as far as this node knows.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.enlisted.is_some() && !self.over
    }

    /// Whether a doubt of this node stands, as far as it knows.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        // Its own build answers: a sign that does not say so was put by another node.
        self.alive.get(&self.me).is_some_and(|sign| sign.kind != Kind::Alive)
    }

    /// Earlier lives of this node's name, to be removed as it joins.
    #[must_use]
    pub fn former_lives(&self) -> Vec<(Role, Incarnation)> {
        let same =
            |(i, record): &(&Incarnation, &Record)| **i != self.me && record.node.id == self.name;
        self.records.iter().filter(same).map(|(i, record)| (record.node.role, *i)).collect()
    }

    /// Whether there are as many nodes as there may be, so that no other can join.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.records.len() >= limits::NODES_MAX && self.former_lives().is_empty()
    }

    /// Recognises the store that answers, by its identity and its revision.
    ///
    /// # Errors
    ///
    /// If it is not the one known, or has lost what it knew.
    pub fn recognise(&mut self, store: u64, revision: u64) -> Result<(), Estranged> {
        if *self.store.get_or_insert(store) != store {
            return Err(Estranged::Other);
        }
        if revision < self.revision {
            return Err(Estranged::Behind { now: revision, seen: self.revision });
        }
        Ok(())
    }

    /// When to call [`Mirror::handle`] with [`Event::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let loads = self.loads_wait.then(|| self.published_at + self.timing.load_interval);
        [self.removal(), loads].into_iter().flatten().min()
    }

    /// Takes in one event; what follows from it is appended to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        if self.over {
            return;
        }
        match event {
            Event::Heard => self.heard(now),
            Event::Silent => self.contact = None,
            Event::Enlisted { revision } => {
                let first = self.enlisted.map_or(revision, |(first, _)| first);
                self.enlisted = Some((first, revision));
                self.heard(now);
            }
            Event::Snapshot { revision, changes } => self.start_over(now, revision, changes, out),
            Event::Changed(changes) => self.follow(now, changes, out),
            Event::Broken(node) => self.doubt(now, node, out),
            Event::Timeout => {}
        }
        self.remove(now, out);
        if self.loads_wait && now - self.published_at >= self.timing.load_interval {
            self.publish(now, out);
        }
    }

    // ---- what is stored

    fn start_over(
        &mut self,
        now: Time,
        revision: u64,
        changes: Vec<Change>,
        out: &mut Vec<Effect>,
    ) {
        self.records.clear();
        self.alive.clear();
        for slot in &mut self.shards {
            // An entry that is not there any more must not take its term along.
            *slot = Slot { holding: Holding::Free { last: slot.term() }, revision: 0 };
        }
        for change in changes {
            self.apply(change);
        }
        self.revision = revision;
        self.changed(now, false, out);
    }

    fn follow(&mut self, now: Time, changes: Vec<Change>, out: &mut Vec<Effect>) {
        let mut only_loads = true;
        for change in changes {
            self.revision = self.revision.max(change.revision);
            only_loads &= self.apply(change);
        }
        self.changed(now, only_loads, out);
    }

    /// Applies one change; whether it was about nothing but a load.
    fn apply(&mut self, change: Change) -> bool {
        match change.what {
            What::Node { node, created } => {
                let incarnation = node.incarnation;
                let load = node.load;
                let record = Record { node: *node, created, did: change.revision };
                let was = self.records.get_mut(&incarnation).map(|record| {
                    record.node.load = load;
                    &record.node
                });
                let only_load = was == Some(&record.node);
                self.records.insert(incarnation, record);
                return only_load;
            }
            What::NodeGone(incarnation) => drop(self.records.remove(&incarnation)),
            What::Alive(node) => self.signed(node, change.revision, Kind::Alive),
            What::Mute(node) => self.signed(node, change.revision, Kind::Mute),
            What::Doubted(node) => self.signed(node, change.revision, Kind::Doubted),
            What::NotAlive(incarnation) => drop(self.alive.remove(&incarnation)),
            What::Shard(shard, holding) => {
                if let Holding::Owned(owner) = holding {
                    self.has_done(owner, change.revision);
                }
                self.shards[shard.index()] = Slot { holding, revision: change.revision };
            }
            What::ShardGone(shard) => {
                let last = self.shards[shard.index()].term();
                self.shards[shard.index()] = Slot { holding: Holding::Free { last }, revision: 0 };
            }
        }
        false
    }

    fn signed(&mut self, node: Incarnation, revision: u64, kind: Kind) {
        if kind == Kind::Alive {
            self.has_done(node, revision);
        }
        self.alive.insert(node, Sign { revision, kind });
    }

    fn has_done(&mut self, node: Incarnation, revision: u64) {
        if let Some(record) = self.records.get_mut(&node) {
            record.did = revision;
        }
    }

    fn changed(&mut self, now: Time, only_loads: bool, out: &mut Vec<Effect>) {
        let shards = &self.shards;
        self.answered.retain(|shard, slot| slot.revision > shards[shard.index()].revision);
        self.note_doomed(now);
        self.doubt_again(now, out);
        let enlisted = self.enlisted.filter(|(first, _)| self.revision >= *first);
        if enlisted.is_some() && !self.lives(self.me) {
            self.over = true;
            return out.push(Effect::Over(self.end()));
        }
        self.loads_wait |= only_loads;
        if !only_loads {
            self.publish(now, out);
        }
        match self.alive.get(&self.me) {
            Some(sign) if self.is_doubted() && sign.revision > self.answered_doubt => {
                self.answered_doubt = sign.revision;
                out.push(Effect::AnswerDoubt);
            }
            None if enlisted.is_some_and(|(_, last)| self.revision >= last) => {
                out.push(Effect::Enlist);
            }
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
