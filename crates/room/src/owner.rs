//! [`Owner`], a chat node's end of all rooms of some shards: opens shards, orders rooms, fans out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{Code, Incarnation, MemberId, Position, RoomId, Shard, Term, Time, limits};

use crate::{
    message::{self, Frame, Member, RoomState, Snapshot, ToOwner, ToRelay},
    relays::wake_at,
    room::Room,
    takeover,
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
    links: BTreeMap<Incarnation, LinkId>,
    shards: BTreeMap<Shard, Group>,
    /// No shard's deadline is before this; checked only when it comes.
    timeout: Option<Time>,
}

/// One owned shard.
#[derive(Debug)]
struct Group {
    term: Term,
    phase: Phase,
    rooms: BTreeMap<RoomId, Room>,
    /// Connectors that are in step: who gets events.
    attached: BTreeSet<Incarnation>,
    /// Connectors with members here that are not in step, and when their members leave.
    absent: BTreeMap<Incarnation, Time>,
    /// States of a connector that has not said `Attached` yet.
    arriving: BTreeMap<Incarnation, Vec<RoomState>>,
    /// A room that emptied and comes back goes on after this number, so that no position is used
    /// twice.
    floor: u64,
}

#[derive(Debug)]
enum Phase {
    /// Waits for the connectors that were live at the claim.
    Opening {
        waiting: BTreeSet<Incarnation>,
        states: BTreeMap<Incarnation, Vec<RoomState>>,
        deadline: Time,
    },
    Open,
}

impl Owner {
    /// How many rooms have members.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.shards.values().map(|group| group.rooms.len()).sum()
    }

    /// How many members there are in all rooms.
    #[must_use]
    pub fn members(&self) -> usize {
        let rooms = self.shards.values().flat_map(|group| group.rooms.values());
        rooms.map(|room| room.members().len()).sum()
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
                self.shards.remove(&shard);
            }
            Event::LinkUp { connector, link } => {
                self.unlink(now, connector);
                self.links.insert(connector, link);
            }
            Event::LinkDown { connector, link } => {
                if self.links.get(&connector) == Some(&link) {
                    self.unlink(now, connector);
                }
            }
            Event::ConnectorGone(connector) => {
                self.unlink(now, connector);
                for (shard, group) in &mut self.shards {
                    group.connector_gone(now, *shard, connector, out);
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
        let waiting: BTreeSet<Incarnation> = connectors.into_iter().collect();
        let mut group = Group {
            term,
            phase: Phase::Opening { waiting, states: BTreeMap::new(), deadline },
            rooms: BTreeMap::new(),
            attached: BTreeSet::new(),
            absent: BTreeMap::new(),
            arriving: BTreeMap::new(),
            floor: 0,
        };
        group.open_if_complete(now, shard, false, out);
        self.shards.insert(shard, group);
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
            if let Phase::Opening { waiting, states, .. } = &mut group.phase
                && states.remove(&connector).is_some()
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
                ToOwner::Join { .. } | ToOwner::Leave { .. } | ToOwner::Say { .. } => {
                    out.push(Effect::StaleFrame { shard, from, term });
                }
            }
            return;
        };
        let attaching = matches!(message, ToOwner::Attached { .. });
        group.hear(now, shard, from, message, out);
        if attaching {
            self.wake_for_absent();
        }
    }

    fn timed_out(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (shard, group) in &mut self.shards {
            if let Phase::Opening { deadline, .. } = group.phase
                && deadline <= now
            {
                group.open_if_complete(now, *shard, true, out);
            }
            let overdue: Vec<Incarnation> = group
                .absent
                .iter()
                .filter(|(_, until)| **until <= now)
                .map(|(connector, _)| *connector)
                .collect();
            for connector in overdue {
                group.absent.remove(&connector);
                group.remove_members_of(*shard, connector, out);
            }
        }
        self.timeout = None;
        self.wake_for_absent();
        for group in self.shards.values() {
            if let Phase::Opening { deadline, .. } = group.phase {
                wake_at(&mut self.timeout, deadline);
            }
        }
    }

    fn wake_for_absent(&mut self) {
        let earliest = self.shards.values().flat_map(|group| group.absent.values()).min();
        if let Some(at) = earliest {
            wake_at(&mut self.timeout, *at);
        }
    }
}

impl Group {
    fn to(&self, shard: Shard, to: Incarnation, message: ToRelay) -> Effect {
        Effect::Frame { to, frame: Frame { shard, term: self.term, message } }
    }

    /// Takes what a connector says at this term.
    fn hear(
        &mut self,
        now: Time,
        shard: Shard,
        from: Incarnation,
        message: ToOwner,
        out: &mut Vec<Effect>,
    ) {
        match message {
            ToOwner::State(state) => self.arriving.entry(from).or_default().push(state),
            ToOwner::Attached { rooms } => {
                let arrived = self.arriving.remove(&from).unwrap_or_default();
                if arrived.len() != rooms {
                    // Some came before the answer to the claim did, and were dropped.
                    out.push(self.to(shard, from, ToRelay::NotOwner));
                } else if let Phase::Opening { waiting, states, .. } = &mut self.phase {
                    waiting.remove(&from);
                    states.insert(from, arrived);
                    self.open_if_complete(now, shard, false, out);
                } else {
                    self.attach(shard, from, &arrived, out);
                }
            }
            // A connector talks only after it attached; the state that it sends then says it all.
            ToOwner::Join { .. } | ToOwner::Leave { .. } | ToOwner::Say { .. }
                if !self.attached.contains(&from) =>
            {
                out.push(Effect::StaleFrame { shard, from, term: self.term });
            }
            ToOwner::Join { room, session, user } => {
                let id = MemberId { connector: from, session };
                self.join(shard, room, Member { id, user }, out);
            }
            ToOwner::Leave { room, session } => {
                self.leave(shard, &room, MemberId { connector: from, session }, out);
            }
            ToOwner::Say { room, session, number, target, content } => {
                let id = MemberId { connector: from, session };
                let said = match self.rooms.get_mut(&room) {
                    Some(known) => known.say(id, number, &target, content),
                    None => Err(Code::Unauthorized),
                };
                match said {
                    Ok(Some(event)) => self.broadcast(shard, &room, &event, out),
                    Ok(None) => {}
                    Err(code) => {
                        let message = ToRelay::SayRefused { room, session, number, code };
                        out.push(self.to(shard, from, message));
                    }
                }
            }
        }
    }

    /// A connector that will never attach is not waited for.
    fn connector_gone(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        if let Phase::Opening { waiting, .. } = &mut self.phase
            && waiting.remove(&connector)
        {
            self.open_if_complete(now, shard, false, out);
        }
    }

    /// Opens the shard if nobody is waited for, or `anyway`: rebuilds its rooms, then brings every
    /// connector that attached into step.
    fn open_if_complete(&mut self, now: Time, shard: Shard, anyway: bool, out: &mut Vec<Effect>) {
        let Phase::Opening { waiting, states, .. } = &mut self.phase else {
            return;
        };
        if !waiting.is_empty() && !anyway {
            return;
        }
        let complete = waiting.is_empty();
        let states = std::mem::take(states);
        self.phase = Phase::Open;

        let reset = self.rebuild(now, complete, &states);
        out.push(Effect::Opened { shard, term: self.term, rooms: self.rooms.len(), reset });
        for (connector, states) in &states {
            self.attach(shard, *connector, states, out);
        }
    }

    /// Rebuilds all rooms; returns how many start a new generation.
    fn rebuild(
        &mut self,
        now: Time,
        complete: bool,
        states: &BTreeMap<Incarnation, Vec<RoomState>>,
    ) -> usize {
        let mut views: BTreeMap<&RoomId, Vec<(Incarnation, &RoomState)>> = BTreeMap::new();
        for (connector, rooms) in states {
            for state in rooms {
                views.entry(&state.room).or_default().push((*connector, state));
            }
        }
        let attached = states.keys().copied().collect();
        let mut resets = 0;
        for (room, views) in views {
            let Some(rebuilt) = takeover::rebuild(self.term, complete, &attached, &views) else {
                continue;
            };
            resets += usize::from(!rebuilt.continuous);
            let missing = rebuilt.room.members().groups().iter().map(|group| group.connector);
            for connector in missing.filter(|connector| !states.contains_key(connector)) {
                self.absent.entry(connector).or_insert(now + limits::CONNECTOR_GRACE);
            }
            self.rooms.insert(room.clone(), rebuilt.room);
        }
        resets
    }

    /// Brings a connector into step: its members are those it says it has, and it gets what it
    /// has not seen of each room.
    fn attach(
        &mut self,
        shard: Shard,
        connector: Incarnation,
        states: &[RoomState],
        out: &mut Vec<Effect>,
    ) {
        self.absent.remove(&connector);
        self.attached.remove(&connector);
        self.remove_members_not_in(shard, connector, states, out);
        for state in states.iter().filter(|state| state.position != Position::default()) {
            self.bring_up(shard, connector, state, out);
        }
        for state in states.iter().filter(|state| state.position == Position::default()) {
            // It has not seen the room; if its session is a member already, its join was applied
            // and the answer got lost.
            if self.rooms.get(&state.room).is_some_and(|r| r.members().group(connector).is_some()) {
                self.snapshot(shard, connector, &state.room, out);
            }
        }
        self.attached.insert(connector);
        out.push(self.to(shard, connector, ToRelay::Opened));
    }

    fn bring_up(
        &mut self,
        shard: Shard,
        connector: Incarnation,
        state: &RoomState,
        out: &mut Vec<Effect>,
    ) {
        let position = self.first_position();
        let room = self.rooms.entry(state.room.clone()).or_insert_with(|| Room::new(position));
        let (term, empty) = (self.term, room.members().is_empty());
        match room.repair(connector, state.position) {
            Some(events) => out.extend(events.into_iter().map(|event| {
                let message = ToRelay::Event { room: state.room.clone(), event };
                Effect::Frame { to: connector, frame: Frame { shard, term, message } }
            })),
            None => self.snapshot(shard, connector, &state.room, out),
        }
        if empty {
            self.drop_room(&state.room);
        }
    }

    fn snapshot(&self, shard: Shard, connector: Incarnation, room: &RoomId, out: &mut Vec<Effect>) {
        let Some(known) = self.rooms.get(room) else {
            return;
        };
        let snapshot = Snapshot {
            room: room.clone(),
            position: known.position(),
            members: known.members().iter().collect(),
            applied: known.applied_of(connector),
        };
        out.push(self.to(shard, connector, ToRelay::Snapshot(snapshot)));
    }

    /// Members of a connector that it does not list any more have left while it was away.
    fn remove_members_not_in(
        &mut self,
        shard: Shard,
        connector: Incarnation,
        states: &[RoomState],
        out: &mut Vec<Effect>,
    ) {
        let listed: BTreeSet<(&RoomId, MemberId)> = states
            .iter()
            .flat_map(|state| {
                state
                    .own
                    .iter()
                    .map(|own| (&state.room, MemberId { connector, session: own.session }))
            })
            .collect();
        let gone: Vec<(RoomId, MemberId)> = self
            .members_of(connector)
            .filter(|(room, id)| !listed.contains(&(room, *id)))
            .collect();
        for (room, id) in gone {
            self.leave(shard, &room, id, out);
        }
    }

    fn remove_members_of(&mut self, shard: Shard, connector: Incarnation, out: &mut Vec<Effect>) {
        let gone: Vec<(RoomId, MemberId)> = self.members_of(connector).collect();
        for (room, id) in gone {
            self.leave(shard, &room, id, out);
        }
    }

    fn members_of(&self, connector: Incarnation) -> impl Iterator<Item = (RoomId, MemberId)> {
        self.rooms.iter().flat_map(move |(room, known)| {
            let group = known.members().group(connector);
            let sessions = group.map(|group| group.sessions.as_slice()).unwrap_or_default();
            sessions
                .iter()
                .map(move |(session, _)| (room.clone(), MemberId { connector, session: *session }))
        })
    }

    fn join(&mut self, shard: Shard, room: RoomId, member: Member, out: &mut Vec<Effect>) {
        let MemberId { connector, session } = member.id;
        let position = self.first_position();
        let known = self.rooms.entry(room.clone()).or_insert_with(|| Room::new(position));
        let first_here = known.members().group(connector).is_none();
        let before = first_here.then(|| Snapshot {
            room: room.clone(),
            position: known.position(),
            members: known.members().iter().collect(),
            applied: Vec::new(),
        });
        match known.join(member) {
            Ok(Some(event)) => {
                if let Some(snapshot) = before {
                    out.push(self.to(shard, connector, ToRelay::Snapshot(snapshot)));
                }
                self.broadcast(shard, &room, &event, out);
            }
            Ok(None) => {}
            Err(code) => {
                out.push(self.to(shard, connector, ToRelay::JoinRefused { room, session, code }));
            }
        }
    }

    fn leave(&mut self, shard: Shard, room: &RoomId, id: MemberId, out: &mut Vec<Effect>) {
        let Some(known) = self.rooms.get_mut(room) else {
            return;
        };
        let Some(event) = known.leave(id) else { return };
        if known.members().is_empty() {
            self.drop_room(room);
        } else {
            self.broadcast(shard, room, &event, out);
        }
    }

    /// Sends an event once to every connector that has members in the room and is in step.
    fn broadcast(
        &self,
        shard: Shard,
        room: &RoomId,
        event: &Arc<message::Event>,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.rooms.get(room) else {
            return;
        };
        for group in known.members().groups() {
            if self.attached.contains(&group.connector) {
                let event = event.seen_by(group.connector);
                let message = ToRelay::Event { room: room.clone(), event };
                out.push(self.to(shard, group.connector, message));
            }
        }
    }

    fn first_position(&self) -> Position {
        Position { generation: self.term, seq: self.floor }
    }

    fn drop_room(&mut self, room: &RoomId) {
        if let Some(known) = self.rooms.remove(room) {
            self.floor = self.floor.max(known.position().seq);
        }
    }
}
