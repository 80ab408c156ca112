//! A chat's side of ownership: which shards to claim, which to give up, and when.
//!
//! # Claims
//!
//! Whatever the ring gives to this chat and nobody owns is claimed at once, in one batch. So is a
//! shard that the map says is ours and that we know nothing of: the answer to an earlier claim
//! was lost, and a claim of an own shard is granted again at a higher term.
//!
//! # Moves
//!
//! A shard that the ring gives to another chat stays for [`limits::MOVE_SETTLE`], then it is
//! released. At most [`limits::MOVE_SHARDS_MAX`] shards are on their way at once: the next go
//! when the map shows that these have an owner again, or after [`limits::MOVE_TIMEOUT`]. A chat
//! that the map shows as draining gives everything away like that, without the wait and in larger
//! batches; if no other chat takes work, all at once.
//!
//! A shard that was released keeps being ordered here until the release is confirmed; should the
//! registry not answer, nothing has changed. What two owners order side by side for that moment
//! is settled by the receivers, who follow the higher term.
//!
//! # Silence
//!
//! While the registry is silent nothing is claimed, released or given up. When the lease is lost
//! the machine does nothing any more; the process has to come back as a new incarnation.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use model::{Incarnation, Shard, Term, Time, limits};

use crate::{
    claim::{Claim, Outcome},
    map::{ClusterMap, Ownership},
    member::Lease,
    placement::Owners,
};

/// What happens to a chat's shards.
#[derive(Clone, Debug)]
pub enum Event {
    /// The map has changed. Versions in between may have been skipped.
    MapChanged(Arc<ClusterMap>),
    /// The lease has changed.
    LeaseChanged(Lease),
    /// The answer to the last [`Effect::Claim`].
    ClaimAnswered(Vec<Claim>),
    /// The last [`Effect::Claim`] failed; it may have been carried out.
    ClaimFailed,
    /// The last [`Effect::Release`] is confirmed.
    Released,
    /// The last [`Effect::Release`] failed; it may have been carried out.
    ReleaseFailed,
    /// The moment of [`Shards::poll_timeout`] has come.
    Timeout,
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Claim these shards, each with the term seen. One claim is under way at a time.
    Claim(Vec<(Shard, Term)>),
    /// Release these shards, each with the term owned. One release is under way at a time.
    Release(Vec<(Shard, Term)>),
    /// This node owns the shard from now on.
    Own {
        /// The shard.
        shard: Shard,
        /// The term of this ownership.
        term: Term,
        /// The connectors to wait for: those that were live at the claim, less those that the
        /// map already shows as gone. Whoever goes later is seen to go by a later map.
        connectors: Vec<Incarnation>,
    },
    /// This node does not own the shard any more.
    Disown(Shard),
}

/// The shards of one chat.
pub struct Shards {
    me: Incarnation,
    map: Arc<ClusterMap>,
    owners: Owners,
    lease: Lease,
    shards: BTreeMap<Shard, Hold>,
    claiming: bool,
    releasing: bool,
    /// Nothing is released before: the last release failed.
    release_after: Option<Time>,
    /// Shards not to be claimed at this term for a while.
    paused: BTreeMap<Shard, (Term, Time)>,
    /// Shards that the ring gives to another chat: to whom, and since when.
    strays: BTreeMap<Shard, (Incarnation, Time)>,
    /// Released shards on their way to their next owner: the term released, and since when.
    moving: BTreeMap<Shard, (Term, Time)>,
}

/// How this node holds a shard.
enum Hold {
    /// A claim at this term is under way.
    Claiming(Term),
    /// Won; to be opened when the map has come to the version of the claim.
    Won { term: Term, connectors: Arc<[Incarnation]>, map_version: u64, since: Time },
    /// Owned.
    Owned(Term),
    /// A release is under way; owned until it is confirmed.
    Releasing(Term),
    /// A release is under way of a shard that only the map gave to this node.
    Returning(Term),
}

impl Hold {
    /// The term held, if the shard is held already.
    const fn term(&self) -> Option<Term> {
        match self {
            Self::Claiming(_) => None,
            Self::Won { term, .. }
            | Self::Owned(term)
            | Self::Releasing(term)
            | Self::Returning(term) => Some(*term),
        }
    }

    /// Whether the shell was told that this node owns the shard.
    const fn is_open(&self) -> bool {
        matches!(self, Self::Owned(_) | Self::Releasing(_))
    }
}

impl Shards {
    /// A chat that owns nothing and has heard nothing.
    #[must_use]
    pub fn new(me: Incarnation) -> Self {
        Self {
            me,
            map: Arc::default(),
            owners: Owners::default(),
            lease: Lease::Silent,
            shards: BTreeMap::new(),
            claiming: false,
            releasing: false,
            release_after: None,
            paused: BTreeMap::new(),
            strays: BTreeMap::new(),
            moving: BTreeMap::new(),
        }
    }

    /// How many shards this node owns, has won, or is claiming. 0 after a drain: all are away.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shards.len()
    }

    /// When to call [`Shards::handle`] with [`Event::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.lease == Lease::Lost {
            return None;
        }
        let opening = self.shards.values().filter_map(|hold| match hold {
            Hold::Won { since, .. } => Some(*since + limits::MOVE_TIMEOUT),
            Hold::Claiming(_) | Hold::Owned(_) | Hold::Releasing(_) | Hold::Returning(_) => None,
        });
        let moved = self.moving.values().map(|(_, since)| *since + limits::MOVE_TIMEOUT);
        let timeouts = opening.chain(moved);
        if self.lease == Lease::Silent {
            return timeouts.min();
        }
        let paused = self.paused.values().map(|(_, until)| *until);
        // Without a free place they wait for the moving shards, not for a time.
        let may_release = !self.releasing && self.release_after.is_none() && self.moving.is_empty();
        let strays = self.strays.iter().filter(|(shard, _)| {
            may_release && matches!(self.shards.get(shard), Some(Hold::Owned(_)))
        });
        let strays =
            strays.map(
                |(_, (_, since))| {
                    if self.is_draining() { *since } else { *since + limits::MOVE_SETTLE }
                },
            );
        timeouts.chain(paused).chain(strays).chain(self.release_after).min()
    }

    /// Takes in one event; what follows from it is appended to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::MapChanged(map) => self.follow(now, map, out),
            Event::LeaseChanged(lease) => self.lease = lease,
            Event::ClaimAnswered(claims) => self.claim_answered(now, claims),
            Event::ClaimFailed => self.claim_failed(now),
            Event::Released => self.released(now, out),
            Event::ReleaseFailed => self.release_failed(now),
            Event::Timeout => {}
        }
        if self.lease == Lease::Lost {
            return;
        }
        self.forget_what_is_over(now);
        self.open(now, out);
        self.note_strays(now);
        if self.lease == Lease::Held {
            self.claim(out);
            self.release(now, out);
        }
    }

    // ---- the map

    fn follow(&mut self, now: Time, map: Arc<ClusterMap>, out: &mut Vec<Effect>) {
        self.map = map;
        self.owners.update(&self.map);
        let (map, me) = (&self.map, self.me);
        self.moving.retain(|shard, (term, _)| map.ownership(*shard).term <= *term);
        let moving = &mut self.moving;
        self.shards.retain(|shard, hold| {
            let shown = map.ownership(*shard);
            let Some(term) = hold.term().filter(|term| is_over(shown, me, *term)) else {
                return true;
            };
            if hold.is_open() {
                out.push(Effect::Disown(*shard));
            }
            if shown.term == term && shown.owner.is_none() {
                moving.insert(*shard, (term, now));
            }
            false
        });
    }

    /// Whether the cluster knows that this node gives everything away. Not before: the others
    /// would leave the shards to it.
    fn is_draining(&self) -> bool {
        self.map.nodes.get(&self.me).is_some_and(|node| node.draining)
    }

    fn forget_what_is_over(&mut self, now: Time) {
        self.paused.retain(|shard, (seen, until)| {
            *until > now && self.map.ownership(*shard).term == *seen
        });
        self.moving.retain(|_, (_, since)| now - *since < limits::MOVE_TIMEOUT);
        self.release_after = self.release_after.filter(|until| *until > now);
    }

    /// Hands out what was won, once the map shows the claim: a connector that is missing in it
    /// is gone then, and one that goes later will be seen to go.
    fn open(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (shard, hold) in &mut self.shards {
            let Hold::Won { term, connectors, map_version, since } = hold else {
                continue;
            };
            let shown = self.map.version >= *map_version;
            if !shown && now - *since < limits::MOVE_TIMEOUT {
                continue;
            }
            let live = |connector: &Incarnation| !shown || self.map.nodes.contains_key(connector);
            let connectors = connectors.iter().copied().filter(live).collect();
            out.push(Effect::Own { shard: *shard, term: *term, connectors });
            *hold = Hold::Owned(*term);
        }
    }

    // ---- claims

    fn claim(&mut self, out: &mut Vec<Effect>) {
        if self.claiming {
            return;
        }
        let batch: Vec<_> = Shard::all()
            .filter(|shard| self.is_for_claiming(*shard))
            .map(|shard| (shard, self.map.ownership(shard).term))
            .collect();
        if batch.is_empty() {
            return;
        }
        for (shard, seen) in &batch {
            self.shards.insert(*shard, Hold::Claiming(*seen));
        }
        self.claiming = true;
        out.push(Effect::Claim(batch));
    }

    fn is_for_claiming(&self, shard: Shard) -> bool {
        self.owners.preferred(shard) == Some(self.me)
            && self.map.ownership(shard).owner.is_none_or(|owner| owner == self.me)
            && !self.shards.contains_key(&shard)
            && !self.paused.contains_key(&shard)
            && !self.is_moving(shard)
    }

    /// Whether the map does not show yet what became of a shard released here.
    fn is_moving(&self, shard: Shard) -> bool {
        let now = self.map.ownership(shard);
        let moving = self.moving.get(&shard);
        now.owner == Some(self.me) && moving.is_some_and(|(term, _)| *term == now.term)
    }

    fn claim_answered(&mut self, now: Time, claims: Vec<Claim>) {
        for claim in claims {
            let Entry::Occupied(mut held) = self.shards.entry(claim.shard) else {
                continue;
            };
            let Hold::Claiming(seen) = *held.get() else {
                continue;
            };
            let pause = match claim.outcome {
                Outcome::Won { term, connectors, map_version } => {
                    if !is_over(self.map.ownership(claim.shard), self.me, term) {
                        held.insert(Hold::Won { term, connectors, map_version, since: now });
                        continue;
                    }
                    limits::CLAIM_RETRY
                }
                Outcome::Lost(_) => limits::CLAIM_RETRY,
                Outcome::Settling { retry_in } => retry_in,
            };
            held.remove();
            self.paused.insert(claim.shard, (seen, now + pause));
        }
        // What the answer does not mention has failed.
        self.claim_failed(now);
    }

    fn claim_failed(&mut self, now: Time) {
        self.claiming = false;
        let paused = &mut self.paused;
        self.shards.retain(|shard, hold| {
            if let Hold::Claiming(seen) = hold {
                paused.insert(*shard, (*seen, now + limits::CLAIM_RETRY));
                return false;
            }
            true
        });
    }

    // ---- moves

    fn note_strays(&mut self, now: Time) {
        let (owners, me, shards) = (&self.owners, self.me, &self.shards);
        self.strays.retain(|shard, _| shards.contains_key(shard));
        for shard in shards.keys() {
            match owners.preferred(*shard) {
                Some(chat) if chat != me => {
                    let stray = self.strays.entry(*shard).or_insert((chat, now));
                    if stray.0 != chat {
                        *stray = (chat, now);
                    }
                }
                Some(_) | None => {
                    self.strays.remove(shard);
                }
            }
        }
    }

    fn release(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.releasing || self.release_after.is_some() {
            return;
        }
        let at_once = if !self.is_draining() {
            limits::MOVE_SHARDS_MAX
        } else if self.strays.is_empty() {
            // No other chat takes work: there is nobody to wait for.
            usize::from(limits::SHARD_COUNT)
        } else {
            limits::DRAIN_SHARDS_MAX
        };
        let places = at_once.saturating_sub(self.moving.len());
        let batch: Vec<_> = Shard::all()
            .filter_map(|shard| Some((shard, self.for_release(now, shard)?)))
            .take(places)
            .collect();
        if batch.is_empty() {
            return;
        }
        for (shard, term) in &batch {
            let known = self.shards.contains_key(shard);
            let hold = if known { Hold::Releasing(*term) } else { Hold::Returning(*term) };
            self.shards.insert(*shard, hold);
        }
        self.releasing = true;
        out.push(Effect::Release(batch));
    }

    /// The term at which `shard` is to be released, if it is.
    fn for_release(&self, now: Time, shard: Shard) -> Option<Term> {
        let Some(hold) = self.shards.get(&shard) else {
            return self.for_return(shard);
        };
        let Hold::Owned(term) = hold else {
            return None;
        };
        let settled =
            self.strays.get(&shard).is_some_and(|(_, since)| now - *since >= limits::MOVE_SETTLE);
        (self.is_draining() || settled).then_some(*term)
    }

    /// The same for a shard that the map gives to this node, and that this node neither knows
    /// nor should have: the answer to a claim was lost.
    fn for_return(&self, shard: Shard) -> Option<Term> {
        let now = self.map.ownership(shard);
        let unwanted = self.owners.preferred(shard) != Some(self.me);
        let unknown = now.owner == Some(self.me) && !self.is_moving(shard);
        (unwanted && unknown && !self.claiming).then_some(now.term)
    }

    fn released(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.releasing = false;
        let moving = &mut self.moving;
        self.shards.retain(|shard, hold| {
            let (Hold::Releasing(term) | Hold::Returning(term)) = *hold else {
                return true;
            };
            if hold.is_open() {
                out.push(Effect::Disown(*shard));
            }
            moving.insert(*shard, (term, now));
            false
        });
    }

    fn release_failed(&mut self, now: Time) {
        self.releasing = false;
        self.release_after = Some(now + limits::CLAIM_RETRY);
        self.shards.retain(|_, hold| {
            if let Hold::Releasing(term) = hold {
                *hold = Hold::Owned(*term);
            }
            !matches!(hold, Hold::Returning(_))
        });
    }
}

/// Whether an ownership at `term` is over, by the map. A map of a lower term was made before that
/// ownership and says nothing about it.
fn is_over(now: Ownership, me: Incarnation, term: Term) -> bool {
    now.term > term || (now.term == term && now.owner != Some(me))
}

#[cfg(test)]
mod tests;
