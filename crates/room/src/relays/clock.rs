//! What a connector's end does as time passes.

use model::{Time, limits};

use super::{Effect, Relays, State, wake_at};

impl Relays {
    pub(super) fn timed_out(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.timeout = None;
        self.expire(now, out);
        self.drop_idle(now);
        self.count_crowds(now, out);
        let mut again = Vec::new();
        for (shard, group) in &mut self.shards {
            let (retry, give_up) = match group.state {
                State::Idle | State::Attached => continue,
                State::Detached { retry, give_up } => (retry, give_up),
                State::Attaching { give_up } => (None, give_up),
            };
            if give_up <= now {
                for (room, relay) in &mut group.rooms {
                    relay.give_up(out);
                    if let Some(at) = relay.check_idle(now) {
                        self.idle.insert((at, *shard, room.clone()));
                        wake_at(&mut self.timeout, at);
                    }
                }
                let next = now + limits::OWNER_TIMEOUT;
                group.state = match group.state {
                    State::Attaching { .. } => State::Attaching { give_up: next },
                    State::Idle | State::Attached | State::Detached { .. } => {
                        State::Detached { retry, give_up: next }
                    }
                };
                wake_at(&mut self.timeout, next);
            } else {
                wake_at(&mut self.timeout, give_up);
            }
            match retry {
                Some(retry) if retry <= now => again.push(*shard),
                Some(retry) => wake_at(&mut self.timeout, retry),
                None => {}
            }
        }
        for shard in again {
            self.attach(now, shard, out);
        }
    }

    /// Ends the stays of those who did not come back in time, and the patience of those who wait
    /// for a name.
    fn expire(&mut self, now: Time, out: &mut Vec<Effect>) {
        while let Some((at, ..)) = self.expiring.first() {
            if *at > now {
                wake_at(&mut self.timeout, *at);
                return;
            }
            let Some((_, shard, room, session)) = self.expiring.pop_first() else { return };
            let attaching = self.is_attaching(shard);
            let leave = self
                .with(now, shard, &room, |relay| relay.expire(now, session, attaching, out))
                .flatten();
            if let Some(leave) = leave {
                self.send(shard, leave, out);
            }
        }
    }

    /// Tells large rooms how many members they have.
    fn count_crowds(&mut self, now: Time, out: &mut Vec<Effect>) {
        while let Some((at, ..)) = self.crowds.first() {
            if *at > now {
                wake_at(&mut self.timeout, *at);
                return;
            }
            let Some((_, shard, room)) = self.crowds.pop_first() else { return };
            let due = self.with(now, shard, &room, |relay| relay.tell_count(now, out)).flatten();
            if let Some(due) = due {
                self.count_at(due, shard, room);
            }
        }
    }

    /// Drops the relays that have had no session for long enough.
    fn drop_idle(&mut self, now: Time) {
        while let Some((at, ..)) = self.idle.first() {
            if *at > now {
                wake_at(&mut self.timeout, *at);
                return;
            }
            let Some((_, shard, room)) = self.idle.pop_first() else { return };
            let Some(group) = self.shards.get_mut(&shard) else { continue };
            let due = group.rooms.get_mut(&room).and_then(|relay| relay.check_idle(now));
            if due.is_none_or(|due| due > now) {
                continue;
            }
            if group.state == State::Attached {
                group.rooms.remove(&room);
            } else {
                // There may be no owner, and nobody else that holds what was acknowledged last.
                let again = now + limits::RELAY_LINGER;
                self.idle.insert((again, shard, room));
                wake_at(&mut self.timeout, again);
            }
        }
    }
}
