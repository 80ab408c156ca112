//! Who becomes a member and who ceases to be one, and what happens to a name that is taken.

use std::sync::Arc;

use model::{Code, Incarnation, MemberId, RoomId, Shard, Time};

use super::Group;
use crate::{
    duplicates::{Duplicates, Newcomer, Probe, ProbeOutcome, Wait},
    message::{self, Body, ToRelay},
    owner::Effect,
    room::{Entered, Entry, Room},
};

impl Group {
    pub(super) fn join(
        &mut self,
        now: Time,
        shard: Shard,
        room: RoomId,
        newcomer: Newcomer,
        out: &mut Vec<Effect>,
    ) {
        let MemberId { connector, session } = newcomer.member.id;
        let position = self.first_position();
        let known = self.rooms.entry(room.clone()).or_insert_with(|| Room::new(position));
        let first_here = known.members().group(connector).is_none();
        let before = first_here.then(|| known.snapshot(&room, connector));
        match known.join(now, &newcomer, self.duplicates) {
            Ok(Entry::Already) => {}
            Ok(Entry::Entered(Entered { event, welcome })) => {
                self.empty.remove(&room);
                if let Some(snapshot) = before {
                    out.push(self.to(shard, connector, ToRelay::Snapshot(snapshot)));
                }
                if let Some(welcome) = welcome {
                    let room = room.clone();
                    let message = ToRelay::Welcome { room, session, welcome };
                    out.push(self.to(shard, connector, message));
                }
                self.broadcast(shard, &room, &event, out);
                if let Body::Moved { from, .. } = event.body {
                    self.tell_left_behind(shard, &room, from.connector, &event, out);
                    self.keep_name(shard, &room, from, out);
                }
            }
            Ok(Entry::Taken(holder)) if self.duplicates == Duplicates::Replace => {
                self.replace(now, shard, room, (holder, newcomer), out);
            }
            Ok(Entry::Taken(holder)) => self.ask(now, shard, room, (holder, newcomer), out),
            Err(code) => self.refuse(shard, &room, newcomer.member.id, code, out),
        }
    }

    fn refuse(
        &self,
        shard: Shard,
        room: &RoomId,
        MemberId { connector, session }: MemberId,
        code: Code,
        out: &mut Vec<Effect>,
    ) {
        let message = ToRelay::JoinRefused { room: room.clone(), session, code };
        out.push(self.to(shard, connector, message));
    }

    /// Puts a newcomer in the place of the session that has its name. Others hear of a leave and of
    /// a join right behind it: whether it is the same person nobody knows.
    fn replace(
        &mut self,
        now: Time,
        shard: Shard,
        room: RoomId,
        (holder, newcomer): (MemberId, Newcomer),
        out: &mut Vec<Effect>,
    ) {
        let event = self.rooms.get_mut(&room).and_then(|known| known.replace(holder));
        if let Some(event) = event {
            self.broadcast(shard, &room, &event, out);
            self.tell_left_behind(shard, &room, holder.connector, &event, out);
            let user = newcomer.member.user.clone();
            out.push(Effect::Replaced { shard, room: room.clone(), user });
        }
        self.join(now, shard, room, newcomer, out);
    }

    /// Lets a newcomer wait until it is known whether the member that has its name lives.
    ///
    /// A connector that is away is asked when it attaches. If that is too late it has not answered.
    fn ask(
        &mut self,
        now: Time,
        shard: Shard,
        room: RoomId,
        (holder, newcomer): (MemberId, Newcomer),
        out: &mut Vec<Effect>,
    ) {
        let id @ MemberId { connector, session } = newcomer.member.id;
        let user = newcomer.member.user.clone();
        let wait = self.probes.wait(now, &room, holder, newcomer);
        if wait == Wait::Full {
            self.refuse(shard, &room, id, Code::NameTaken, out);
            out.push(Effect::Probed { shard, room, user, outcome: ProbeOutcome::Full });
            return;
        }
        out.push(self.to(shard, connector, ToRelay::Probing { room: room.clone(), session }));
        if wait == Wait::First && self.attached.contains(&holder.connector) {
            let message = ToRelay::Probe { room, session: holder.session };
            out.push(self.to(shard, holder.connector, message));
        }
    }

    /// Asks a connector that has attached for the members that it was not asked for before.
    pub(super) fn ask_again(&self, shard: Shard, connector: Incarnation, out: &mut Vec<Effect>) {
        for (room, session) in self.probes.asked(connector) {
            let message = ToRelay::Probe { room: room.clone(), session };
            out.push(self.to(shard, connector, message));
        }
    }

    /// A member lives: whoever waits for its name is refused.
    pub(super) fn keep_name(
        &mut self,
        shard: Shard,
        room: &RoomId,
        holder: MemberId,
        out: &mut Vec<Effect>,
    ) {
        let Some(probe) = self.probes.end(room, holder) else { return };
        probed(shard, &probe, ProbeOutcome::Answered, out);
        for newcomer in probe.newcomers {
            self.refuse(shard, room, newcomer.member.id, Code::NameTaken, out);
        }
    }

    /// Gives the names of those who did not answer in time to whoever waits for them.
    pub(crate) fn end_probes(&mut self, now: Time, shard: Shard, out: &mut Vec<Effect>) {
        while let Some(probe) = self.probes.end_overdue(now) {
            self.pass_name_on(now, shard, probe, ProbeOutcome::Unanswered, out);
        }
    }

    /// Gives a name to the first who waits for it. The others are late for it.
    fn pass_name_on(
        &mut self,
        now: Time,
        shard: Shard,
        probe: Probe,
        outcome: ProbeOutcome,
        out: &mut Vec<Effect>,
    ) {
        probed(shard, &probe, outcome, out);
        let Probe { room, member, newcomers, .. } = probe;
        let mut newcomers = newcomers.into_iter();
        let Some(first) = newcomers.next() else { return };
        self.replace(now, shard, room.clone(), (member, first), out);
        for newcomer in newcomers {
            self.refuse(shard, &room, newcomer.member.id, Code::NameTaken, out);
        }
    }

    /// Tells the connector that a member went from of its going, if it has no other members here.
    fn tell_left_behind(
        &self,
        shard: Shard,
        room: &RoomId,
        connector: Incarnation,
        event: &Arc<message::Event>,
        out: &mut Vec<Effect>,
    ) {
        let has_more = |known: &Room| known.members().group(connector).is_some();
        let is_told = self.rooms.get(room).is_some_and(has_more);
        if !is_told && self.attached.contains(&connector) {
            let message = ToRelay::Event { room: room.clone(), event: Arc::clone(event) };
            out.push(self.to(shard, connector, message));
        }
    }

    pub(super) fn leave(
        &mut self,
        now: Time,
        shard: Shard,
        room: &RoomId,
        id: MemberId,
        out: &mut Vec<Effect>,
    ) {
        self.probes.forget(room, id);
        let Some(known) = self.rooms.get_mut(room) else {
            return;
        };
        let Some(event) = known.leave(now, id) else { return };
        if !self.drop_if_over(now, room) {
            self.broadcast(shard, room, &event, out);
        }
        if let Some(probe) = self.probes.end(room, id) {
            self.pass_name_on(now, shard, probe, ProbeOutcome::Left, out);
        }
    }
}

/// Notes how a probe ended that somebody waited for.
fn probed(shard: Shard, probe: &Probe, outcome: ProbeOutcome, out: &mut Vec<Effect>) {
    if let Some(first) = probe.newcomers.first() {
        let (room, user) = (probe.room.clone(), first.member.user.clone());
        out.push(Effect::Probed { shard, room, user, outcome });
    }
}
