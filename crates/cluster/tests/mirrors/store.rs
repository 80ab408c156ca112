//! etcd, as far as nodes ask anything of it: revisions, leases, compare-and-swap, changes to follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{
    Node,
    mirror::{Change, Doomed, Holding, Swap, Swapped, What},
};
use model::{Incarnation, Role, Shard, Term, Time};

pub(crate) type Lease = u64;

/// What a node asks, as `rpc::etcd` does.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Greet,
    Grant,
    KeepAlive(Lease),
    Snapshot,
    Watch { from: u64 },
    Enlist { node: Box<Node>, lease: Lease, former: Vec<Incarnation> },
    EnlistAgain { node: Box<Node>, lease: Lease },
    Update(Box<Node>),
    Withdraw(Incarnation, Lease),
    Doubt { node: Incarnation, revision: u64, by: Incarnation },
    AnswerDoubt { node: Incarnation, lease: Lease },
    Remove { nodes: Vec<Doomed>, by: Incarnation, asked_at: Time },
    Claim(Incarnation, Vec<(Shard, u64)>),
    Release(Incarnation, Vec<(Shard, u64, Term)>),
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Revision(u64),
    Granted(Lease),
    Runs(bool),
    Snapshot(u64, Vec<Change>),
    Watching,
    Compacted,
    /// At which revision, if the record was there.
    Listed(Option<u64>),
    Swapped(Option<Swapped>),
    /// An error, or no connection.
    Failed,
}

/// A sign of life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sign {
    pub(crate) revision: u64,
    pub(crate) doubted_by: Option<Incarnation>,
    pub(crate) at: Time,
    lease: Lease,
}

/// A record that a witness has removed.
pub(crate) struct Removal {
    pub(crate) node: Incarnation,
    pub(crate) by: Incarnation,
    pub(crate) asked_at: Time,
    /// The doubt that it had not answered; none: its lease had ended.
    pub(crate) doubt: Option<Sign>,
}

struct Stored {
    node: Box<Node>,
    created: u64,
    revision: u64,
}

pub(crate) struct Store {
    ttl: Duration,
    pub(crate) revision: u64,
    nodes: BTreeMap<Incarnation, Stored>,
    signs: BTreeMap<Incarnation, Sign>,
    shards: BTreeMap<Shard, (Holding, u64)>,
    leases: BTreeMap<Lease, Time>,
    last_lease: Lease,
    history: Vec<Change>,
    compacted: u64,
    /// Since they were asked for last.
    removals: Vec<Removal>,
    doubts: u64,
    /// Nodes of a build that does not answer doubts, nor makes any.
    mute: BTreeSet<Incarnation>,
    /// A mistake: whoever was doubted is removed whatever it has answered.
    pub(crate) forgets_answers: bool,
}

impl Store {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            revision: 1,
            nodes: BTreeMap::new(),
            signs: BTreeMap::new(),
            shards: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            history: Vec::new(),
            compacted: 0,
            removals: Vec::new(),
            doubts: 0,
            mute: BTreeSet::new(),
            forgets_answers: false,
        }
    }

    pub(crate) fn handle(&mut self, now: Time, request: Request) -> Answer {
        let revision = self.revision + 1;
        match request {
            Request::Greet => return Answer::Revision(self.revision),
            Request::Grant => {
                self.last_lease += 1;
                self.leases.insert(self.last_lease, now + self.ttl);
                return Answer::Granted(self.last_lease);
            }
            Request::KeepAlive(lease) => {
                let end = self.leases.get_mut(&lease);
                return Answer::Runs(end.map(|end| *end = now + self.ttl).is_some());
            }
            Request::Snapshot => return Answer::Snapshot(self.revision, self.everything()),
            Request::Watch { from } if from <= self.compacted => return Answer::Compacted,
            Request::Watch { .. } => return Answer::Watching,
            Request::Enlist { node, lease, former } => {
                if !self.leases.contains_key(&lease) {
                    return Answer::Failed;
                }
                let me = node.incarnation;
                self.put_node(revision, node);
                self.put_sign(now, revision, me, lease);
                for node in former {
                    self.remove_node(revision, node);
                }
            }
            Request::EnlistAgain { node, lease } => {
                let me = node.incarnation;
                if !self.nodes.contains_key(&me) {
                    return Answer::Listed(None);
                }
                if !self.leases.contains_key(&lease) {
                    return Answer::Failed;
                }
                self.put_node(revision, node);
                self.put_sign(now, revision, me, lease);
                self.revision = revision;
                return Answer::Listed(Some(revision));
            }
            Request::Update(node) if self.nodes.contains_key(&node.incarnation) => {
                self.put_node(revision, node);
            }
            Request::Update(_) => {}
            Request::Withdraw(node, lease) => {
                self.remove_node(revision, node);
                self.remove_sign(revision, node);
                self.leases.remove(&lease);
            }
            Request::Doubt { node, revision: seen, by } => {
                if let Some(sign) = self.signs.get_mut(&node).filter(|it| it.revision == seen) {
                    *sign = Sign { revision, doubted_by: Some(by), at: now, ..*sign };
                    self.doubts += 1;
                    self.note(revision, What::Doubted(node));
                }
            }
            Request::AnswerDoubt { node, lease } => {
                if self.nodes.contains_key(&node) {
                    if !self.leases.contains_key(&lease) {
                        return Answer::Failed;
                    }
                    self.put_sign(now, revision, node, lease);
                }
            }
            Request::Remove { nodes, by, asked_at } => {
                for doomed in nodes {
                    self.remove_doomed(revision, doomed, by, asked_at);
                }
            }
            Request::Claim(owner, shards) => {
                let free = |(shard, at): (Shard, u64)| (shard, at, Holding::Owned(owner));
                return self.swap(owner, shards.into_iter().map(free));
            }
            Request::Release(owner, shards) => {
                let free = |(shard, at, last)| (shard, at, Holding::Free { last });
                return self.swap(owner, shards.into_iter().map(free));
            }
        }
        Answer::Revision(self.revision)
    }

    fn remove_doomed(&mut self, revision: u64, doomed: Doomed, by: Incarnation, asked_at: Time) {
        let sign = self.signs.get(&doomed.node).copied();
        let stands = sign.map(|sign| sign.revision) == doomed.doubt;
        let stands = stands || (self.forgets_answers && doomed.doubt.is_some());
        if stands && self.nodes.contains_key(&doomed.node) {
            self.remove_node(revision, doomed.node);
            self.removals.push(Removal { node: doomed.node, by, asked_at, doubt: sign });
        }
    }

    fn swap(
        &mut self,
        owner: Incarnation,
        shards: impl Iterator<Item = (Shard, u64, Holding)>,
    ) -> Answer {
        if !self.nodes.contains_key(&owner) {
            return Answer::Swapped(None);
        }
        let (revision, mut swaps) = (self.revision + 1, Vec::new());
        for (shard, seen, holding) in shards {
            let is = self.shards.get(&shard).copied();
            let (is, at) = is.unwrap_or((Holding::Free { last: Term(0) }, 0));
            if at == seen {
                self.shards.insert(shard, (holding, revision));
                self.note(revision, What::Shard(shard, holding));
                swaps.push(Swap::Done);
            } else {
                swaps.push(Swap::Lost { holding: is, revision: at });
            }
        }
        let connectors = self.nodes.values().filter(|it| it.node.role == Role::Connector);
        let connectors = connectors.map(|it| it.node.incarnation).collect();
        Answer::Swapped(Some(Swapped { revision: self.revision, connectors, swaps }))
    }

    fn put_node(&mut self, revision: u64, node: Box<Node>) {
        let created = self.nodes.get(&node.incarnation).map_or(revision, |it| it.created);
        let stored = Stored { node: node.clone(), created, revision };
        self.nodes.insert(node.incarnation, stored);
        self.note(revision, What::Node { node, created });
    }

    fn put_sign(&mut self, at: Time, revision: u64, node: Incarnation, lease: Lease) {
        self.signs.insert(node, Sign { revision, doubted_by: None, at, lease });
        let is_mute = self.mute.contains(&node);
        self.note(revision, if is_mute { What::Mute(node) } else { What::Alive(node) });
    }

    fn remove_node(&mut self, revision: u64, node: Incarnation) {
        if self.nodes.remove(&node).is_some() {
            self.note(revision, What::NodeGone(node));
        }
    }

    fn remove_sign(&mut self, revision: u64, node: Incarnation) {
        if self.signs.remove(&node).is_some() {
            self.note(revision, What::NotAlive(node));
        }
    }

    fn note(&mut self, revision: u64, what: What) {
        self.revision = revision;
        self.history.push(Change { revision, what });
    }

    fn everything(&self) -> Vec<Change> {
        let nodes = self.nodes.values().map(|it| Change {
            revision: it.revision,
            what: What::Node { node: it.node.clone(), created: it.created },
        });
        let signs = self.signs.iter().map(|(node, sign)| {
            let what = match sign.doubted_by {
                Some(_) => What::Doubted(*node),
                None if self.mute.contains(node) => What::Mute(*node),
                None => What::Alive(*node),
            };
            Change { revision: sign.revision, what }
        });
        let shards = self.shards.iter().map(|(shard, (holding, revision))| Change {
            revision: *revision,
            what: What::Shard(*shard, *holding),
        });
        signs.chain(nodes).chain(shards).collect()
    }

    // ---- time

    /// Ends the leases that were not prolonged.
    pub(crate) fn sweep(&mut self, now: Time) {
        let over: Vec<_> =
            self.leases.iter().filter(|(_, end)| **end <= now).map(|(lease, _)| *lease).collect();
        for lease in over {
            self.leases.remove(&lease);
            let of_it = self.signs.iter().filter(|(_, sign)| sign.lease == lease);
            let revision = self.revision + 1;
            for node in of_it.map(|(node, _)| *node).collect::<Vec<_>>() {
                self.remove_sign(revision, node);
            }
        }
    }

    /// A leader that is new gives every lease its whole time again.
    pub(crate) fn renew_leases(&mut self, now: Time) {
        for end in self.leases.values_mut() {
            *end = now + self.ttl;
        }
    }

    pub(crate) const fn compact(&mut self) {
        self.compacted = self.revision;
    }

    // ---- for those who look on

    /// All that changed in revisions from `from` to `to`.
    pub(crate) fn changes(&self, from: u64, to: u64) -> &[Change] {
        let start = self.history.partition_point(|change| change.revision < from);
        let end = self.history.partition_point(|change| change.revision <= to);
        &self.history[start..end]
    }

    pub(crate) fn removals(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.removals)
    }

    pub(crate) const fn doubts(&self) -> u64 {
        self.doubts
    }

    pub(crate) fn nodes(&self) -> BTreeSet<Incarnation> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn has(&self, node: Incarnation) -> bool {
        self.nodes.contains_key(&node)
    }

    pub(crate) fn is_mute(&self, node: Incarnation) -> bool {
        self.mute.contains(&node)
    }

    pub(crate) fn mute(&mut self, node: Incarnation) {
        self.mute.insert(node);
    }

    /// Whether a node has done something since another one joined.
    pub(crate) fn has_done(&self, node: Incarnation, since: Incarnation) -> bool {
        let joined = self.nodes.get(&since).map_or(u64::MAX, |it| it.created);
        let put = self.nodes.get(&node).map(|it| it.revision);
        let claimed = self.shards.values().filter(|(holding, _)| *holding == Holding::Owned(node));
        put.into_iter().chain(claimed.map(|(_, revision)| *revision)).any(|at| at > joined)
    }

    pub(crate) fn sign(&self, node: Incarnation) -> Option<Sign> {
        self.signs.get(&node).copied()
    }
}
