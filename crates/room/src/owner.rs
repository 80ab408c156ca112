//! [`Owner`], a chat node's end of all rooms of some shards: opens shards, orders rooms, fans out.

use std::collections::BTreeMap;

use model::{Incarnation, RoomId, Shard, Term, Time, UserName, limits};

use crate::{
    duplicates::{Duplicates, ProbeOutcome},
    empty,
    group::{Group, Phase},
    message::{Frame, ToOwner, ToRelay},
    relays::wake_at,
};

/// One stream from one connector; a later stream of the same connector has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What happens to a chat node's end.
#[derive(Clone, Debug)]
pub enum Event {
    /// The registry granted a claim.
    Won {
        /// The shard.
        shard: Shard,
        /// The term of this ownership.
        term: Term,
        /// The connectors live at that moment: the shard opens when each has attached or is gone.
        connectors: Vec<Incarnation>,
    },
    /// This node does not own the shard any more (released, or claimed by another).
    Lost {
        /// The shard.
        shard: Shard,
    },
    /// A connector opened a stream; an earlier one of it does not count any more.
    LinkUp {
        /// Which connector.
        connector: Incarnation,
        /// Which stream.
        link: LinkId,
    },
    /// A connector's stream is gone.
    LinkDown {
        /// Which connector.
        connector: Incarnation,
        /// Which stream.
        link: LinkId,
    },
    /// The map says that a connector is gone.
    ConnectorGone(Incarnation),
    /// A connector says something.
    Frame {
        /// Which connector.
        connector: Incarnation,
        /// Over which stream.
        link: LinkId,
        /// What.
        frame: Frame<ToOwner>,
    },
    /// The time given by [`Owner::poll_timeout`] has come.
    Timeout,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame over a connector's stream.
    Frame {
        /// Which connector.
        to: Incarnation,
        /// What.
        frame: Frame<ToRelay>,
    },
    /// A shard serves.
    Opened {
        /// The shard.
        shard: Shard,
        /// The term of this ownership.
        term: Term,
        /// Rooms rebuilt from the connectors.
        rooms: usize,
        /// Those of them that had to start a new generation.
        reset: usize,
        /// Those that connectors had seen up to different positions.
        merged: usize,
    },
    /// A connector was brought into step with a shard that it had missed something of.
    Repaired {
        /// The shard.
        shard: Shard,
        /// Which connector.
        connector: Incarnation,
        /// Events that it got again.
        events: usize,
        /// Rooms that it got anew, as its events are not known any more.
        snapshots: usize,
    },
    /// End a connector's stream. The map says that the connector is gone, and nothing is heard
    /// from it any more; if it lives after all it dials again and attaches anew.
    CutLink(Incarnation),
    /// A member was put out, and its name goes to another session.
    Replaced {
        /// The shard.
        shard: Shard,
        /// The room.
        room: RoomId,
        /// The name.
        user: UserName,
    },
    /// It is settled who has a name that newcomers waited for.
    Probed {
        /// The shard.
        shard: Shard,
        /// The room.
        room: RoomId,
        /// The name.
        user: UserName,
        /// How.
        outcome: ProbeOutcome,
    },
    /// A frame of another term was dropped.
    StaleFrame {
        /// The shard.
        shard: Shard,
        /// Who sent it.
        from: Incarnation,
        /// The term it carried.
        term: Term,
    },
}

/// A chat node's end of all rooms of the shards that one worker drives.
#[derive(Debug, Default)]
pub struct Owner {
    duplicates: Duplicates,
    links: BTreeMap<Incarnation, LinkId>,
    shards: BTreeMap<Shard, Group>,
    /// The rooms of all shards that nobody is in and somebody may come back to.
    empty: empty::Size,
    given_up: u64,
    /// When a connector was last seen to go.
    departed: Option<Time>,
    /// No shard's deadline is before this; checked only when it comes.
    timeout: Option<Time>,
}

impl Owner {
    /// A chat node's end without shards, which treats names that are taken so.
    #[must_use]
    pub fn new(duplicates: Duplicates) -> Self {
        Self { duplicates, ..Self::default() }
    }

    /// How many rooms have members.
    #[must_use]
    pub fn rooms(&self) -> usize {
        let rooms = self.shards.values().flat_map(|group| group.rooms.values());
        rooms.filter(|room| !room.members().is_empty()).count()
    }

    /// How many members there are in all rooms.
    #[must_use]
    pub fn members(&self) -> usize {
        let rooms = self.shards.values().flat_map(|group| group.rooms.values());
        rooms.map(|room| room.members().len()).sum()
    }

    /// How many rooms are kept that nobody is in, for those who may come back.
    #[must_use]
    pub const fn empty_rooms(&self) -> usize {
        self.empty.rooms
    }

    /// About how many bytes these rooms keep alive.
    #[must_use]
    pub const fn empty_rooms_bytes(&self) -> usize {
        self.empty.bytes
    }

    /// How many of them were given up so far before their time, as there were too many.
    #[must_use]
    pub const fn empty_rooms_given_up(&self) -> u64 {
        self.given_up
    }

    /// The shards that serve, and the terms at which they do.
    pub fn open(&self) -> impl Iterator<Item = (Shard, Term)> {
        let open = self.shards.iter().filter(|(_, group)| matches!(group.phase, Phase::Open));
        open.map(|(shard, group)| (*shard, group.term))
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timeout
    }

    /// Takes one event; appends what must be done.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Won { shard, term, connectors } => self.won(now, shard, term, connectors, out),
            Event::Lost { shard } => {
                if let Some(group) = self.shards.remove(&shard) {
                    self.empty -= group.empty.size();
                }
            }
            Event::LinkUp { connector, link } => {
                if self.links.get(&connector).is_none_or(|known| *known < link) {
                    self.unlink(now, connector);
                    self.links.insert(connector, link);
                }
            }
            Event::LinkDown { connector, link } => {
                if self.links.get(&connector) == Some(&link) {
                    self.unlink(now, connector);
                }
            }
            Event::ConnectorGone(connector) => {
                if self.links.contains_key(&connector) {
                    out.push(Effect::CutLink(connector));
                }
                self.unlink(now, connector);
                self.departed = Some(now);
                for (shard, group) in &mut self.shards {
                    self.empty -= group.empty.size();
                    group.connector_gone(now, *shard, connector, out);
                    self.empty += group.empty.size();
                }
                self.wake_for_absent();
            }
            Event::Frame { connector, link, frame } => {
                if self.links.get(&connector) == Some(&link) {
                    self.frame(now, connector, frame, out);
                }
            }
            Event::Timeout => self.timed_out(now, out),
        }
    }

    fn won(
        &mut self,
        now: Time,
        shard: Shard,
        term: Term,
        connectors: Vec<Incarnation>,
        out: &mut Vec<Effect>,
    ) {
        let deadline = now + limits::ATTACH_TIMEOUT;
        let lately = |at: Time| now - at < limits::DEPARTURE_DOUBT;
        let departed = self.departed.is_some_and(lately);
        let mut group = Group::new(term, self.duplicates, connectors, departed, deadline);
        group.open_if_complete(now, shard, out);
        if let Some(former) = self.shards.insert(shard, group) {
            self.empty -= former.empty.size();
        }
        wake_at(&mut self.timeout, deadline);
    }

    /// Forgets a connector's stream; its members have until the end of the grace to come back.
    fn unlink(&mut self, now: Time, connector: Incarnation) {
        if self.links.remove(&connector).is_none() {
            return;
        }
        let until = now + limits::CONNECTOR_GRACE;
        for group in self.shards.values_mut() {
            group.arriving.remove(&connector);
            // They ask again; meanwhile nobody loses its name to somebody who may be gone.
            group.probes.forget_all_of(connector);
            if let Phase::Opening { live, waiting, states, .. } = &mut group.phase
                && states.remove(&connector).is_some()
                && live.contains(&connector)
            {
                waiting.insert(connector);
            }
            if group.attached.remove(&connector) {
                group.absent.insert(connector, until);
            }
        }
        wake_at(&mut self.timeout, until);
    }

    fn frame(
        &mut self,
        now: Time,
        from: Incarnation,
        frame: Frame<ToOwner>,
        out: &mut Vec<Effect>,
    ) {
        let Frame { shard, term, message } = frame;
        let Some(group) = self.shards.get_mut(&shard).filter(|group| group.term == term) else {
            match message {
                // An attach may overtake the answer to the claim: the connector tries again.
                ToOwner::Attached { .. } => {
                    let frame = Frame { shard, term, message: ToRelay::NotOwner };
                    out.push(Effect::Frame { to: from, frame });
                }
                ToOwner::State(_) => {}
                ToOwner::Join { .. }
                | ToOwner::Leave { .. }
                | ToOwner::Withdraw { .. }
                | ToOwner::Alive { .. }
                | ToOwner::Say { .. } => {
                    out.push(Effect::StaleFrame { shard, from, term });
                }
            }
            return;
        };
        let attaching = matches!(message, ToOwner::Attached { .. });
        self.empty -= group.empty.size();
        group.hear(now, shard, from, message, out);
        self.empty += group.empty.size();
        if let Some(at) = group.next_timeout() {
            wake_at(&mut self.timeout, at);
        }
        self.give_up_empty();
        if attaching {
            self.wake_for_absent();
        }
    }

    fn timed_out(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (shard, group) in &mut self.shards {
            self.empty -= group.empty.size();
            if let Phase::Opening { deadline, .. } = group.phase
                && deadline <= now
            {
                group.open_if_complete(now, *shard, out);
            }
            let overdue: Vec<Incarnation> = group
                .absent
                .iter()
                .filter(|(_, until)| **until <= now)
                .map(|(connector, _)| *connector)
                .collect();
            for connector in overdue {
                group.absent.remove(&connector);
                group.remove_members_of(now, *shard, connector, out);
            }
            group.end_probes(now, *shard, out);
            group.drop_empty(now);
            self.empty += group.empty.size();
        }
        self.give_up_empty();
        self.timeout = None;
        self.wake_for_absent();
        self.wake_for_rooms();
        for group in self.shards.values() {
            if let Phase::Opening { deadline, .. } = group.phase {
                wake_at(&mut self.timeout, deadline);
            }
        }
    }

    fn wake_for_rooms(&mut self) {
        let earliest = self.shards.values().filter_map(Group::next_timeout).min();
        if let Some(at) = earliest {
            wake_at(&mut self.timeout, at);
        }
    }

    /// Keeps the empty rooms within their bounds: those go first that have been empty for longest.
    fn give_up_empty(&mut self) {
        while self.empty.is_too_much() {
            let kept = self.shards.values_mut().filter(|group| group.empty.next().is_some());
            let Some(group) = kept.min_by_key(|group| group.empty.next()) else { return };
            self.empty -= group.empty.size();
            group.give_up_empty();
            self.empty += group.empty.size();
            self.given_up += 1;
        }
    }

    fn wake_for_absent(&mut self) {
        let earliest = self.shards.values().flat_map(|group| group.absent.values()).min();
        if let Some(at) = earliest {
            wake_at(&mut self.timeout, *at);
        }
    }
}
