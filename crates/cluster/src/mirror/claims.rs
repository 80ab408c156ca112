//! Claims and releases: what may be asked of the store, and what its answer means.

use std::sync::Arc;

use model::{Incarnation, Shard, Term, Time};

use super::{Holding, Mirror, Slot};
use crate::{
    claim::{Claim, Outcome},
    map::Ownership,
};

/// What became of one entry that was to change if it was still at a certain revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// It was, and it has changed.
    Done,
    /// It is this instead.
    Lost {
        /// Who holds the shard.
        holding: Holding,
        /// The revision of the entry; 0 if it is not there.
        revision: u64,
    },
}

/// What the store has answered to a claim, all at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// That revision.
    pub revision: u64,
    /// The connectors whose records were there.
    pub connectors: Vec<Incarnation>,
    /// What became of each shard, in the order asked.
    pub swaps: Vec<Swap>,
}

impl Mirror {
    /// What a claim of `shard` at the term seen comes to: the revision that its entry must still
    /// have, or an answer at once.
    ///
    /// # Errors
    ///
    /// The answer, if the store need not be asked.
    pub fn claim(&self, now: Time, shard: Shard, seen: Term) -> Result<u64, Outcome> {
        let slot = self.latest(shard);
        let current = self.ownership(slot);
        // Its own shard is granted again: the answer to the first claim may have been lost.
        if current.term != seen || current.owner.is_some_and(|owner| owner != self.me) {
            return Err(Outcome::Lost(current));
        }
        let claims_from =
            self.contact.map_or(now + self.timing.settle, |contact| contact.claims_from);
        if current.owner.is_none() && now < claims_from {
            return Err(Outcome::Settling { retry_in: claims_from - now });
        }
        Ok(slot.revision)
    }

    /// Takes in the answer to claims of `shards`, in their order, and says what became of them.
    pub fn claimed(&mut self, shards: &[Shard], answer: Swapped) -> Vec<Claim> {
        let connectors: Arc<[_]> = answer.connectors.into();
        let mut claims = Vec::with_capacity(shards.len());
        for (shard, swap) in shards.iter().zip(answer.swaps) {
            let slot = match swap {
                Swap::Done => Slot { holding: Holding::Owned(self.me), revision: answer.revision },
                Swap::Lost { holding, revision } => Slot { holding, revision },
            };
            self.note_answer(*shard, slot);
            let outcome = match swap {
                Swap::Done => Outcome::Won {
                    term: slot.term(),
                    connectors: Arc::clone(&connectors),
                    map_version: answer.revision,
                },
                Swap::Lost { .. } => Outcome::Lost(self.ownership(slot)),
            };
            claims.push(Claim { shard: *shard, outcome });
        }
        claims
    }

    /// The revision at which this node owns `shard` at `term`, if it does.
    #[must_use]
    pub fn release(&self, shard: Shard, term: Term) -> Option<u64> {
        let slot = self.latest(shard);
        let owned = slot.holding == Holding::Owned(self.me) && slot.term() == term;
        owned.then_some(slot.revision)
    }

    /// Takes in the answer to releases of `shards`, each with its term, in their order.
    pub fn released(&mut self, shards: &[(Shard, Term)], answer: &Swapped) {
        for ((shard, last), swap) in shards.iter().zip(&answer.swaps) {
            let slot = match *swap {
                Swap::Done => {
                    Slot { holding: Holding::Free { last: *last }, revision: answer.revision }
                }
                Swap::Lost { holding, revision } => Slot { holding, revision },
            };
            self.note_answer(*shard, slot);
        }
    }

    fn latest(&self, shard: Shard) -> Slot {
        let followed = self.shards[shard.index()];
        let answered = self.answered.get(&shard).copied();
        answered.filter(|slot| slot.revision > followed.revision).unwrap_or(followed)
    }

    fn note_answer(&mut self, shard: Shard, slot: Slot) {
        if slot.revision > self.latest(shard).revision {
            self.answered.insert(shard, slot);
        }
    }

    fn ownership(&self, slot: Slot) -> Ownership {
        // Its own record may not have come back to it yet.
        let lives = |owner: &Incarnation| {
            self.records.contains_key(owner) || (*owner == self.me && self.is_live())
        };
        let owner = match slot.holding {
            Holding::Owned(owner) => Some(owner).filter(lives),
            Holding::Free { .. } => None,
        };
        Ownership { owner, term: slot.term() }
    }
}
