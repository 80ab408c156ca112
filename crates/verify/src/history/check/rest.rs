//! What can be judged only when every log has been walked, or at rest.

use std::collections::{BTreeMap, BTreeSet};

use model::Position;
use room::Duplicates;

use super::{
    ACKED, Checker, End, Event, First, History, Kind, Log, NONE, Name, SEEN, SEEN_BY_SENDER,
    SEEN_BY_TARGET, To, Walk, index_u32, mix,
};

/// Who is in a room at the end.
#[derive(Default)]
pub(super) struct There {
    users: BTreeSet<Name>,
    /// Who may be.
    unwatched: BTreeSet<Name>,
    /// Sum of the hashes of `users`.
    hash: u64,
}

pub(super) fn who_is_there(history: &History) -> BTreeMap<Name, There> {
    let mut rooms: BTreeMap<Name, There> = BTreeMap::new();
    for log in &history.logs {
        let room = rooms.entry(log.room).or_default();
        match log.end {
            End::Alive if log.joined => {
                if room.users.insert(log.user) {
                    let hash = mix(u64::from(log.user.0) + 1);
                    room.hash = room.hash.wrapping_add(hash);
                }
            }
            // One that never heard whether it entered may be there.
            End::Alive | End::Unwatched => {
                room.unwatched.insert(log.user);
            }
            End::Gone => {}
        }
    }
    rooms
}

impl Log {
    /// Whether this session ended before the other one was told that it is in. That one may have
    /// been a member before for a while, without its knowledge.
    fn ended_before(&self, other: &Self) -> bool {
        let times = self.times.gone.zip(other.times.joined);
        self.end == End::Gone && times.is_some_and(|(gone, joined)| gone <= joined)
    }

    /// Whether this session's send (counted from 0), a whisper, stands before the other one's join
    /// as that was told. An owner may have had the other one in before, and lost it untold: a
    /// session sees what comes from its join on.
    fn whispered_before_join(&self, send: usize, other: &Self) -> bool {
        let stands = |(number, _): &&(u32, Position)| *number as usize == send + 1;
        let at = self.whispers.iter().find(stands).map(|(_, at)| *at);
        at.zip(other.joined_at).is_some_and(|(at, joined)| at <= joined)
    }

    /// Whether a user was seen to leave after this session's send (counted from 0).
    fn saw_leave_after(&self, send: usize, user: Name) -> bool {
        let mut sends = 0;
        self.events.iter().any(|event| {
            sends += usize::from(*event == Event::Sent);
            sends > send && *event == Event::SawLeave(user)
        })
    }
}

/// The joins and leaves in a part of a log.
pub(super) fn presence_in(log: &Log, (start, end): (u32, u32)) -> impl Iterator<Item = Event> {
    let events = log.events.get(start as usize..end as usize).unwrap_or(&[]);
    let presence = |event: &Event| matches!(event, Event::SawAdd(_) | Event::SawLeave(_));
    events.iter().copied().filter(presence)
}

impl Checker<'_> {
    /// The others must have seen this session join right before its first message.
    pub(super) fn check_first(&mut self, first: &First) {
        let found = self.entries[first.entry as usize];
        if found.previous == NONE || !self.announced() {
            return;
        }
        let of = self.log(first.log);
        let theirs = self.log(found.previous_log);
        // What others may have seen of the coming and going of one who was away.
        let away = theirs.was_away().then_some(theirs.user);
        let again = of.was_away().then_some(of.user);
        let about = |event: &Event, user: Option<Name>| {
            user.is_some_and(|it| [Event::SawAdd(it), Event::SawLeave(it)].contains(event))
        };
        let own: Vec<Event> =
            presence_in(of, first.cell).filter(|event| !about(event, away)).collect();
        let theirs: Vec<Event> =
            presence_in(theirs, found.cell).filter(|event| !about(event, away)).collect();
        let is_own_join = |event: &Event| *event == Event::SawAdd(of.user);
        let mut after_join = (0..theirs.len()).filter(|at| is_own_join(&theirs[*at]));
        let unseen = |event: &&Event| !about(event, again);
        if after_join.any(|at| theirs[at + 1..].iter().filter(unseen).eq(&own)) {
            return;
        }
        // Of a further session of its name others hear nothing; what it missed, positions tell.
        let shares_names = self.history.duplicates == Duplicates::Multi;
        // Nor does one of its name who was away.
        let is_unheard = shares_names || of.by_reset || away == Some(of.user);
        let others: Vec<Event> = theirs.iter().filter(unseen).copied().collect();
        if is_unheard && others.ends_with(&own) {
            return;
        }
        if is_unheard || theirs.iter().any(is_own_join) {
            let detail = format!(
                "{} and session {} have other joins and leaves before its first message",
                self.who(first.log),
                found.previous_log
            );
            self.add(Kind::Presence, first.log, self.text_id(first.entry), detail);
        } else {
            self.gap_after_join(first, of.user);
        }
    }

    /// Looks back for the join, to name the first message that the session lacks.
    fn gap_after_join(&mut self, first: &First, user: Name) {
        let mut missed = self.entries[first.entry as usize].previous;
        for _ in 0..self.entries.len() {
            let found = self.entries[missed as usize];
            if found.previous == NONE {
                break;
            }
            let mut cell = presence_in(self.log(found.previous_log), found.cell);
            if cell.any(|event| event == Event::SawAdd(user)) {
                self.gap(first.log, missed);
                return;
            }
            missed = found.previous;
        }
        // Nobody saw it join: it was the first in the room, and lacks the room's first message.
        self.gap(first.log, missed);
    }

    /// What was acknowledged was seen by its sender, or its target, or whoever was surely there.
    pub(super) fn check_acked(&mut self) {
        let mut by_user: BTreeMap<(Name, Name), Vec<u32>> = BTreeMap::new();
        let mut by_room: BTreeMap<Name, Vec<u32>> = BTreeMap::new();
        for (index, log) in self.history.logs.iter().enumerate() {
            let sessions = by_user.entry((log.room, log.user)).or_default();
            sessions.push(index_u32(index));
            by_room.entry(log.room).or_default().push(index_u32(index));
        }
        for (index, log) in self.history.logs.iter().enumerate() {
            let alive = log.joined && log.end == End::Alive;
            for (number, to) in log.sends.iter().enumerate() {
                let entry = self.bases[index] + index_u32(number);
                let status = self.entries[entry as usize].status;
                if status & ACKED == 0 {
                    continue;
                }
                match to {
                    To::Everyone if alive && status & SEEN_BY_SENDER == 0 => {
                        self.gap(index_u32(index), entry);
                    }
                    To::Everyone if status & SEEN == 0 => {
                        let only = by_user.get(&(log.room, log.user)).map_or(0, Vec::len) == 1;
                        let room = by_room.get(&log.room).map_or(&[][..], Vec::as_slice);
                        if only && let Some(witness) = self.witness(room, log.user) {
                            self.gap(witness, entry);
                        }
                    }
                    To::One(user) if status & SEEN_BY_TARGET == 0 => {
                        // A target that was seen to leave need not have heard it.
                        let left = log.saw_leave_after(number, *user);
                        if let Some([target]) = by_user.get(&(log.room, *user)).map(Vec::as_slice)
                            && !left
                            && self.contains(*target, log.room.0)
                            && !log.ended_before(self.log(*target))
                            && !log.whispered_before_join(number, self.log(*target))
                        {
                            self.gap(*target, entry);
                        }
                    }
                    To::Everyone | To::One(_) => {}
                }
            }
        }
    }

    /// Somebody who was there before this user joined and is there still.
    fn witness(&mut self, room: &[u32], user: Name) -> Option<u32> {
        room.iter().copied().find(|log| {
            let of = self.log(*log);
            of.joined && of.end == End::Alive && of.events.contains(&Event::SawAdd(user))
        })
    }

    /// A member that is there at the end lists exactly who is there.
    pub(super) fn check_list_at_rest(&mut self, walk: &Walk) {
        if !self.announced() {
            return;
        }
        let room = self.log(walk.log).room;
        if self.report.count(Kind::Ghost) + self.report.count(Kind::Unlisted) > 1_000 {
            return;
        }
        let Some(there) = self.there.get(&room) else {
            return;
        };
        if there.unwatched.is_empty() && there.hash == walk.list_hash {
            return;
        }
        let mut wrong = Vec::new();
        for user in 0..self.listed.len() {
            let user = Name(index_u32(user));
            let listed = self.is_listed(walk, user);
            if listed && !there.users.contains(&user) && !there.unwatched.contains(&user) {
                wrong.push((Kind::Ghost, user));
            } else if !listed && there.users.contains(&user) {
                wrong.push((Kind::Unlisted, user));
            }
        }
        for (kind, user) in wrong {
            let name = self.history.names.text(user).to_owned();
            let detail = format!("{}: {name}", self.who(walk.log));
            self.add(kind, walk.log, None, detail);
        }
    }

    pub(super) fn check_names(&mut self) {
        if self.history.duplicates == Duplicates::Multi {
            return;
        }
        let mut there: BTreeMap<(Name, Name), u32> = BTreeMap::new();
        for (index, log) in self.history.logs.iter().enumerate() {
            if !log.joined || log.end != End::Alive {
                continue;
            }
            let index = index_u32(index);
            if let Some(other) = there.insert((log.room, log.user), index) {
                let detail = format!("{}, and session {other}", self.who(index));
                self.add(Kind::NameTwice, index, None, detail);
            }
        }
    }
}
