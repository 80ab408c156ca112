//! What a connector's end makes of what owners say.

use model::{Incarnation, Time, limits};

use super::{Effect, Relays, State};
use crate::{
    message::{Frame, ToRelay},
    relay::{Applied, Relay},
};

impl Relays {
    pub(super) fn frame(
        &mut self,
        now: Time,
        from: Incarnation,
        frame: Frame<ToRelay>,
        out: &mut Vec<Effect>,
    ) {
        let Frame { shard, term, message } = frame;
        let Some(group) = self.shards.get_mut(&shard) else {
            return;
        };
        let heard = group.owner == Some(from)
            && group.term == term
            && matches!(group.state, State::Attaching { .. } | State::Attached);
        if !heard {
            out.push(Effect::StaleFrame { shard, from, term });
            return;
        }
        match message {
            ToRelay::Opened => {
                group.state = State::Attached;
                group.cut_off = false;
                out.push(Effect::Attached { shard, owner: from, term });
                let again = group.rooms.values_mut().flat_map(Relay::unanswered);
                out.extend(again.map(|message| Effect::Frame {
                    to: from,
                    frame: Frame { shard, term, message },
                }));
            }
            ToRelay::NotOwner => self.detach(now, shard, Some(now + limits::ATTACH_RETRY)),
            ToRelay::Snapshot(snapshot) => {
                let room = snapshot.room.clone();
                self.with(now, shard, &room, |relay| relay.replace(snapshot, out));
            }
            ToRelay::Event { room, event } => {
                let due = self.with(now, shard, &room, |relay| {
                    let before = relay.len();
                    if relay.apply(event, out) == Applied::Gap && relay.has_seen_the_room() {
                        out.push(Effect::CutLink(from));
                    }
                    relay.recount(now, before, out)
                });
                if let Some(due) = due.flatten() {
                    self.count_at(due, shard, room);
                }
            }
            ToRelay::Welcome { room, session, welcome } => {
                self.with(now, shard, &room, |relay| relay.welcome(session, welcome));
            }
            ToRelay::Repeated { room, session, number, position } => {
                self.with(now, shard, &room, |relay| {
                    relay.repeated(session, number, position, out);
                });
            }
            ToRelay::Probe { room, session } => {
                self.with(now, shard, &room, |relay| relay.probe(session, out));
            }
            ToRelay::Probing { room, session } => {
                let until = self.with(now, shard, &room, |relay| relay.wait(now, session));
                if let Some(until) = until.flatten() {
                    self.expire_at(until, shard, room, session);
                }
            }
            ToRelay::Withdrawn { room, session } => {
                self.with(now, shard, &room, |relay| relay.settled(session));
            }
            ToRelay::JoinRefused { room, session, code } => {
                self.with(now, shard, &room, |relay| relay.join_refused(session, code, out));
            }
            ToRelay::SayRefused { room, session, number, code } => {
                self.with(now, shard, &room, |relay| relay.say_refused(session, number, code, out));
            }
        }
    }
}
