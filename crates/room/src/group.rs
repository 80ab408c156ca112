//! One shard in the hands of its owner: opens it, orders its rooms, fans out.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{Code, Incarnation, MemberId, Position, RoomId, Shard, Term, Time, limits};

use crate::{
    duplicates::{Duplicates, Newcomer, Probes},
    empty::EmptyRooms,
    message::{self, Frame, Member, RoomState, ToOwner, ToRelay},
    owner::Effect,
    room::{Room, Said, Saying},
    takeover,
};

/// One owned shard.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) term: Term,
    duplicates: Duplicates,
    pub(crate) phase: Phase,
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    /// Connectors that are in step: who gets events.
    pub(crate) attached: BTreeSet<Incarnation>,
    /// Connectors with members here that are not in step, and when their members leave.
    pub(crate) absent: BTreeMap<Incarnation, Time>,
    /// States of a connector that has not said `Attached` yet.
    pub(crate) arriving: BTreeMap<Incarnation, Vec<RoomState>>,
    /// Rooms that nobody is in and somebody may come back to.
    pub(crate) empty: EmptyRooms,
    /// A room that emptied and comes back goes on after this number, so that no position is used
    /// twice.
    pub(crate) floor: u64,
    /// Who waits for a name that is taken.
    pub(crate) probes: Probes,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Waits for the connectors that were live at the claim.
    Opening {
        /// The connectors that were live at the claim.
        live: BTreeSet<Incarnation>,
        /// Those of them that have neither attached nor gone.
        waiting: BTreeSet<Incarnation>,
        states: BTreeMap<Incarnation, Vec<RoomState>>,
        /// Whether some connector could not hear the last owner to its end.
        cut_off: bool,
        /// Whether a connector has gone lately, which may have heard it.
        departed: bool,
        deadline: Time,
    },
    Open,
}

impl Group {
    /// A shard just won: opens when the connectors that were live at the claim have attached, or
    /// at `deadline`. `departed` says that some connector has gone lately.
    pub(crate) fn new(
        term: Term,
        duplicates: Duplicates,
        connectors: Vec<Incarnation>,
        departed: bool,
        deadline: Time,
    ) -> Self {
        let live: BTreeSet<Incarnation> = connectors.into_iter().collect();
        let waiting = live.clone();
        Self {
            term,
            duplicates,
            phase: Phase::Opening {
                live,
                waiting,
                states: BTreeMap::new(),
                cut_off: false,
                departed,
                deadline,
            },
            rooms: BTreeMap::new(),
            attached: BTreeSet::new(),
            absent: BTreeMap::new(),
            arriving: BTreeMap::new(),
            empty: EmptyRooms::default(),
            floor: 0,
            probes: Probes::default(),
        }
    }

    fn to(&self, shard: Shard, to: Incarnation, message: ToRelay) -> Effect {
        Effect::Frame { to, frame: Frame { shard, term: self.term, message } }
    }

    /// Takes what a connector says at this term.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        shard: Shard,
        from: Incarnation,
        message: ToOwner,
        out: &mut Vec<Effect>,
    ) {
        match message {
            ToOwner::State(state) => self.arriving.entry(from).or_default().push(state),
            ToOwner::Attached { rooms, in_step, departed: saw_one_go } => {
                let arrived = self.arriving.remove(&from).unwrap_or_default();
                if arrived.len() != rooms {
                    // Some came before the answer to the claim did, and were dropped.
                    out.push(self.to(shard, from, ToRelay::NotOwner));
                } else if let Phase::Opening { waiting, states, cut_off, departed, .. } =
                    &mut self.phase
                {
                    waiting.remove(&from);
                    states.insert(from, arrived);
                    *cut_off |= !in_step;
                    // An owner that has just started may not have seen it.
                    *departed |= !in_step && saw_one_go;
                    self.open_if_complete(now, shard, out);
                } else {
                    self.attach(now, shard, from, &arrived, out);
                }
            }
            // A connector talks only after it attached; the state that it sends then says it all.
            ToOwner::Join { .. }
            | ToOwner::Leave { .. }
            | ToOwner::Withdraw { .. }
            | ToOwner::Alive { .. }
            | ToOwner::Say { .. }
                if !self.attached.contains(&from) =>
            {
                out.push(Effect::StaleFrame { shard, from, term: self.term });
            }
            ToOwner::Join { room, session, user, ticket } => {
                let id = MemberId { connector: from, session };
                let newcomer = Newcomer { member: Member { id, user }, ticket };
                self.join(now, shard, room, newcomer, out);
            }
            ToOwner::Leave { room, session } => {
                self.leave(now, shard, &room, MemberId { connector: from, session }, out);
            }
            ToOwner::Withdraw { room, session } => {
                self.leave(now, shard, &room, MemberId { connector: from, session }, out);
                out.push(self.to(shard, from, ToRelay::Withdrawn { room, session }));
            }
            ToOwner::Alive { room, session } => {
                self.keep_name(shard, &room, MemberId { connector: from, session }, out);
            }
            ToOwner::Say { room, session, number, target, content, id } => {
                let member = MemberId { connector: from, session };
                let saying = Saying { number, target, content, id };
                let said = match self.rooms.get_mut(&room) {
                    Some(known) => known.say(now, member, saying),
                    None => Err(Code::Unauthorized),
                };
                match said {
                    Ok(Said::Now(event)) => self.broadcast(shard, &room, &event, out),
                    Ok(Said::Before) => {}
                    Ok(Said::Repeated(position)) => {
                        let message = ToRelay::Repeated { room, session, number, position };
                        out.push(self.to(shard, from, message));
                    }
                    Err(code) => {
                        let message = ToRelay::SayRefused { room, session, number, code };
                        out.push(self.to(shard, from, message));
                    }
                }
            }
        }
    }

    /// A connector that will never attach is not waited for.
    pub(crate) fn connector_gone(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        if let Phase::Opening { waiting, departed, .. } = &mut self.phase {
            *departed = true;
            if waiting.remove(&connector) {
                self.open_if_complete(now, shard, out);
            }
        }
    }

    /// Opens the shard if nobody is waited for, or its deadline has come: rebuilds its rooms, then
    /// brings every connector that attached into step.
    pub(crate) fn open_if_complete(&mut self, now: Time, shard: Shard, out: &mut Vec<Effect>) {
        let Phase::Opening { waiting, states, cut_off, departed, deadline, .. } = &mut self.phase
        else {
            return;
        };
        if !waiting.is_empty() && now < *deadline {
            return;
        }
        // One that is gone may have shown its clients what those that were cut off never got.
        let complete = waiting.is_empty() && !(*cut_off && *departed);
        let states = std::mem::take(states);
        self.phase = Phase::Open;

        let (reset, merged) = self.rebuild(now, complete, &states);
        let (term, rooms) = (self.term, self.rooms.len());
        out.push(Effect::Opened { shard, term, rooms, reset, merged });
        for (connector, states) in &states {
            self.attach(now, shard, *connector, states, out);
        }
    }

    /// Rebuilds all rooms; returns how many start a new generation, and how many connectors had
    /// seen up to different positions.
    fn rebuild(
        &mut self,
        now: Time,
        complete: bool,
        states: &BTreeMap<Incarnation, Vec<RoomState>>,
    ) -> (usize, usize) {
        let mut views: BTreeMap<&RoomId, Vec<(Incarnation, &RoomState)>> = BTreeMap::new();
        for (connector, rooms) in states {
            for state in rooms {
                views.entry(&state.room).or_default().push((*connector, state));
            }
        }
        let attached = states.keys().copied().collect();
        let (mut resets, mut merged) = (0, 0);
        for (room, views) in views {
            let Some(rebuilt) = takeover::rebuild(now, self.term, complete, &attached, &views)
            else {
                continue;
            };
            resets += usize::from(!rebuilt.continuous);
            merged += usize::from(rebuilt.merged);
            let missing = rebuilt.room.members().groups().iter().map(|group| group.connector);
            for connector in missing.filter(|connector| !states.contains_key(connector)) {
                self.absent.entry(connector).or_insert(now + limits::CONNECTOR_GRACE);
            }
            self.rooms.insert(room.clone(), rebuilt.room);
        }
        (resets, merged)
    }

    /// Brings a connector into step: its members are those it says it has, and it gets what it
    /// has not seen of each room.
    fn attach(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        states: &[RoomState],
        out: &mut Vec<Effect>,
    ) {
        self.absent.remove(&connector);
        self.attached.remove(&connector);
        self.probes.forget_all_of(connector);
        self.remove_members_not_in(now, shard, connector, states, out);
        let (mut events, mut snapshots) = (0, 0);
        for state in states {
            let seen = state.position != Position::default();
            let known = self.rooms.get(&state.room);
            match known.and_then(|room| room.repair(state.position)) {
                Some(missed) => {
                    events += missed.len();
                    self.repair(now, shard, connector, (&state.room, missed), out);
                }
                None => {
                    self.take_back_joins(now, shard, connector, state, out);
                    // Whoever has not seen the room gets a snapshot with its first join.
                    if seen {
                        snapshots += 1;
                        self.snapshot(shard, connector, &state.room, out);
                    }
                }
            }
        }
        if events + snapshots > 0 {
            out.push(Effect::Repaired { shard, connector, events, snapshots });
        }
        self.attached.insert(connector);
        out.push(self.to(shard, connector, ToRelay::Opened));
        self.ask_again(shard, connector, out);
    }

    /// Sends the events of a room that a connector has missed. Whoever has missed its own join, too,
    /// thereby gets all that came after it.
    fn repair(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        (room, missed): (&RoomId, Vec<Arc<message::Event>>),
        out: &mut Vec<Effect>,
    ) {
        for event in missed {
            let message = ToRelay::Event { room: room.clone(), event };
            out.push(self.to(shard, connector, message));
        }
        self.drop_if_over(now, room);
    }

    /// Takes back the joins that a connector was never told of, if what came after them is not at
    /// hand: their sessions would lack it. They ask again, and join anew.
    fn take_back_joins(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        state: &RoomState,
        out: &mut Vec<Effect>,
    ) {
        for session in &state.entering {
            self.leave(now, shard, &state.room, MemberId { connector, session: *session }, out);
        }
    }

    /// Sends a room as it stands; one that is not known is empty.
    fn snapshot(&self, shard: Shard, connector: Incarnation, room: &RoomId, out: &mut Vec<Effect>) {
        let snapshot = match self.rooms.get(room) {
            Some(known) => known.snapshot(room, connector),
            None => Room::new(self.first_position()).snapshot(room, connector),
        };
        out.push(self.to(shard, connector, ToRelay::Snapshot(snapshot)));
    }

    /// Members of a connector that it does not list any more have left while it was away.
    fn remove_members_not_in(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        states: &[RoomState],
        out: &mut Vec<Effect>,
    ) {
        let sessions = |state: &RoomState| {
            let own = state.own.iter().map(|own| own.session);
            own.chain(state.entering.iter().copied()).collect::<Vec<_>>()
        };
        let listed: BTreeSet<(&RoomId, MemberId)> = states
            .iter()
            .flat_map(|state| sessions(state).into_iter().map(move |s| (&state.room, s)))
            .map(|(room, session)| (room, MemberId { connector, session }))
            .collect();
        let gone: Vec<(RoomId, MemberId)> = self
            .members_of(connector)
            .filter(|(room, id)| !listed.contains(&(room, *id)))
            .collect();
        for (room, id) in gone {
            self.leave(now, shard, &room, id, out);
        }
    }

    pub(crate) fn remove_members_of(
        &mut self,
        now: Time,
        shard: Shard,
        connector: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        let gone: Vec<(RoomId, MemberId)> = self.members_of(connector).collect();
        for (room, id) in gone {
            self.leave(now, shard, &room, id, out);
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

    /// Drops a room that nobody is in and nobody can come back to; notes when nobody can any more.
    /// True if it was dropped.
    fn drop_if_over(&mut self, now: Time, room: &RoomId) -> bool {
        let Some(known) = self.rooms.get_mut(room).filter(|known| known.members().is_empty())
        else {
            return false;
        };
        match known.awaits(now) {
            Some(until) => {
                let bytes = known.weight();
                self.empty.insert(until, room.clone(), bytes);
                false
            }
            None => {
                self.remove(room);
                true
            }
        }
    }

    /// When something here is due, but for an opening and for those who are away.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.probes.deadline().into_iter().chain(self.empty.next()).min()
    }

    /// Drops a room. Whoever comes back to it begins anew, after all positions that it had.
    fn remove(&mut self, room: &RoomId) {
        if let Some(known) = self.rooms.remove(room) {
            self.floor = self.floor.max(known.position().seq);
        }
        self.empty.remove(room);
    }

    /// Drops the rooms whose time has come.
    pub(crate) fn drop_empty(&mut self, now: Time) {
        while self.empty.next().is_some_and(|at| at <= now)
            && let Some(room) = self.empty.pop()
        {
            self.drop_if_over(now, &room);
        }
    }

    /// Drops the room that has been empty for longest: whoever comes back to it is told so.
    pub(crate) fn give_up_empty(&mut self) {
        if let Some(room) = self.empty.pop() {
            self.remove(&room);
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
                let message = ToRelay::Event { room: room.clone(), event: Arc::clone(event) };
                out.push(self.to(shard, group.connector, message));
            }
        }
    }

    fn first_position(&self) -> Position {
        Position { generation: self.term, seq: self.floor }
    }
}
