//! How this node stands with the store.

use model::{Incarnation, Time};

use super::{Holding, Mirror};

/// How this node stands with the store while it is heard.
#[derive(Clone, Copy)]
pub(super) struct Contact {
    pub(super) heard_at: Time,
    pub(super) claims_from: Time,
    /// From then on nodes are removed that show no sign of life.
    pub(super) removes_from: Time,
    /// The same for nodes that do not answer a doubt.
    pub(super) removes_doubted_from: Time,
    /// It has lasted since this node joined.
    pub(super) is_first: bool,
}

impl Mirror {
    /// The store has answered.
    pub(super) fn heard(&mut self, now: Time) {
        if let Some(contact) = &mut self.contact
            && now - contact.heard_at <= self.timing.lease / 2
        {
            contact.heard_at = now;
            return self.confirm_doubts(now);
        }
        // It was away, or this process slept: what was not heard in between says nothing.
        let is_first = !std::mem::replace(&mut self.heard_before, true);
        let settled = now + self.timing.settle;
        let removes_from = settled.max(now + self.timing.lease);
        self.contact = Some(Contact {
            heard_at: now,
            claims_from: if is_first && self.is_running() { now } else { settled },
            removes_from,
            removes_doubted_from: if is_first { settled } else { removes_from },
            is_first,
        });
        self.begin_anew();
    }

    /// How it stands, if it is heard still: a process that slept has not heard it.
    pub(super) fn contact(&self, now: Time) -> Option<Contact> {
        self.contact.filter(|contact| now - contact.heard_at <= self.timing.lease / 2)
    }

    /// Whether some shard has an owner who shows a sign of life.
    fn is_running(&self) -> bool {
        self.shards.iter().any(|slot| match slot.holding {
            Holding::Owned(owner) => {
                self.records.contains_key(&owner) && self.alive.contains_key(&owner)
            }
            Holding::Free { .. } => false,
        })
    }

    /// Whether the store has heard `node` since it heard this one first, and this one it ever since.
    pub(super) fn is_heard(&self, node: Incarnation) -> bool {
        let joined = self.enlisted.map(|(first, _)| first);
        let is_first = self.contact.is_some_and(|contact| contact.is_first);
        let did = self.records.get(&node).map(|record| record.did);
        is_first && joined.zip(did).is_some_and(|(joined, did)| did > joined)
    }
}
