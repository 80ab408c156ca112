//! The map that follows from what is stored.

use std::{collections::BTreeMap, sync::Arc};

use model::{Incarnation, NodeId, Time};

use super::{Effect, Holding, Mirror, Record, Slot};
use crate::{
    map::{ClusterMap, Ownership},
    registrar::Gone,
};

impl Mirror {
    /// Why this node's record does not count any more.
    pub(super) fn end(&self) -> Gone {
        let namesake =
            |record: &Record| record.node.id == self.name && record.node.incarnation != self.me;
        if self.records.values().any(namesake) { Gone::Replaced } else { Gone::Silent }
    }

    /// Whether a node's record is there and no newer life of its name.
    pub(super) fn lives(&self, node: Incarnation) -> bool {
        self.records.get(&node).is_some_and(|record| {
            let newer =
                |other: &Record| (other.created, other.node.incarnation) > (record.created, node);
            !self.records.values().any(|other| other.node.id == record.node.id && newer(other))
        })
    }

    pub(super) fn publish(&mut self, now: Time, out: &mut Vec<Effect>) {
        // Nothing is shown to a node that is not in it yet.
        if self.map.version == 0 && !self.records.contains_key(&self.me) {
            return;
        }
        self.loads_wait = false;
        self.published_at = now;
        let mut newest: BTreeMap<&NodeId, &Record> = BTreeMap::new();
        for record in self.records.values() {
            let best = newest.entry(&record.node.id).or_insert(record);
            if (record.created, record.node.incarnation) > (best.created, best.node.incarnation) {
                *best = record;
            }
        }
        let nodes: BTreeMap<_, _> =
            newest.values().map(|record| (record.node.incarnation, record.node.clone())).collect();
        let ownership = |slot: &Slot| Ownership {
            owner: match slot.holding {
                Holding::Owned(owner) => Some(owner).filter(|owner| nodes.contains_key(owner)),
                Holding::Free { .. } => None,
            },
            term: slot.term(),
        };
        let shards = self.shards.iter().map(ownership).collect();
        self.map = Arc::new(ClusterMap { version: self.revision, nodes, shards });
        out.push(Effect::Publish(Arc::clone(&self.map)));
    }
}
