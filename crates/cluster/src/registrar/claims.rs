//! Claims and releases.

use std::sync::Arc;

use model::{Incarnation, Role, Shard, Term, Time};

use super::{Answer, CallId, Effect, Registrar};
use crate::{
    claim::{Claim, Outcome},
    map::Ownership,
};

impl Registrar {
    pub(super) fn claim(
        &mut self,
        now: Time,
        call: CallId,
        claimant: Incarnation,
        shards: Vec<(Shard, Term)>,
        floor: Term,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_live_chat(claimant) {
            return out.push(Effect::Answer(call, Answer::NotLive));
        }
        let connectors: Arc<[_]> = self.map.connectors().map(|node| node.incarnation).collect();
        let mut claims: Vec<_> = shards
            .into_iter()
            .map(|(shard, seen)| Claim {
                shard,
                outcome: self.claim_one(now, claimant, shard, seen, floor, &connectors),
            })
            .collect();
        self.publish(out);
        for claim in &mut claims {
            if let Outcome::Won { map_version, .. } = &mut claim.outcome {
                *map_version = self.map.version;
            }
        }
        out.push(Effect::Answer(call, Answer::Claims(claims)));
    }

    fn claim_one(
        &mut self,
        now: Time,
        claimant: Incarnation,
        shard: Shard,
        seen: Term,
        floor: Term,
        connectors: &Arc<[Incarnation]>,
    ) -> Outcome {
        let current = self.map.ownership(shard);
        // Its own shard is granted again: the answer to the first claim may have been lost.
        if current.term != seen || current.owner.is_some_and(|owner| owner != claimant) {
            return Outcome::Lost(current);
        }
        if current.owner.is_none() && now < self.settled_at {
            let retry_in = self.settled_at - now;
            return Outcome::Settling { retry_in };
        }
        let term = Term(current.term.0 + 1).max(floor);
        let owner = Some(claimant);
        self.set(shard, Ownership { owner, term });
        Outcome::Won {
            term,
            connectors: Arc::clone(connectors),
            map_version: 0, // Known when the batch is published.
        }
    }

    pub(super) fn release(
        &mut self,
        call: CallId,
        incarnation: Incarnation,
        shards: &[(Shard, Term)],
        out: &mut Vec<Effect>,
    ) {
        if !self.is_live_chat(incarnation) {
            return out.push(Effect::Answer(call, Answer::NotLive));
        }
        for (shard, term) in shards {
            let owner = Some(incarnation);
            if self.map.ownership(*shard) == (Ownership { owner, term: *term }) {
                let free = Ownership { owner: None, term: *term };
                self.set(*shard, free);
            }
        }
        self.publish(out);
        out.push(Effect::Answer(call, Answer::Released));
    }

    fn is_live_chat(&self, incarnation: Incarnation) -> bool {
        let node = self.map.nodes.get(&incarnation);
        node.is_some_and(|node| node.role == Role::Chat)
    }
}
