//! The judge.
//!
//! Every message has an [`Entry`] in one table; a session's walk over its log is one pass with a
//! constant number of table accesses per delivery. Nothing is compared pairwise: whoever comes
//! first to an entry leaves what it saw there, and everyone after is held against that. Only on a
//! difference are the two logs looked at in full, to tell who is wrong.
//!
//! The end of the run is a message too, the last of every room, seen by all who are still there:
//! a tail that one member lost is then a gap like any other.

mod blame;
mod bounds;
mod rest;
mod returns;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    End, Event, History, Kind, Log, Name, Presence, Report, SessionKey, TextId, To, Violation,
    index_u32, report,
};
use rest::There;

/// "Nothing there", in tables of indexes.
const NONE: u32 = u32::MAX;

// What is known of a send.
const ACKED: u8 = 1;
const REFUSED: u8 = 2;
const SEEN: u8 = 4;
const SEEN_BY_SENDER: u8 = 8;
const SEEN_BY_TARGET: u8 = 16;

/// What sessions saw around one message.
#[derive(Clone, Copy)]
struct Entry {
    /// The message before it, and whose log says so.
    previous: u32,
    previous_log: u32,
    /// The message after it, and whose log says so.
    next: u32,
    next_log: u32,
    /// Where the joins and leaves between `previous` and this stand in `previous_log`.
    cell: (u32, u32),
    cell_hash: u64,
    /// The members at this message, as a sum of hashes, and whose log says so.
    list_hash: u64,
    list_log: u32,
    /// The last session that saw it, plus one.
    stamp: u32,
    status: u8,
}

const UNSEEN: Entry = Entry {
    previous: NONE,
    previous_log: NONE,
    next: NONE,
    next_log: NONE,
    cell: (0, 0),
    cell_hash: 0,
    list_hash: 0,
    list_log: NONE,
    stamp: 0,
    status: 0,
};

/// One session's way through its log.
struct Walk {
    log: u32,
    /// The last message seen, or [`NONE`].
    previous: u32,
    /// Where the joins and leaves since then begin in the log, and their hash.
    cell_start: u32,
    cell_hash: u64,
    list_hash: u64,
    joined: bool,
    /// Whether a difference about members was reported: one per session is enough.
    presence_reported: bool,
}

/// A session's first message, judged when every log has been walked.
struct First {
    log: u32,
    entry: u32,
    cell: (u32, u32),
}

pub(super) struct Checker<'a> {
    history: &'a History,
    report: Report,
    /// Ends of rooms first (by the room's [`Name`]), then every session's sends.
    entries: Vec<Entry>,
    /// Where each session's sends begin in `entries`.
    bases: Vec<u32>,
    /// By user: the last session (plus one) that had it in its list.
    listed: Vec<u32>,
    /// By sender: the last session (plus one) that heard it, and the number it heard.
    heard: Vec<(u32, u32)>,
    firsts: Vec<First>,
    gaps: BTreeSet<(u32, u32)>,
    sorted: BTreeMap<u32, Vec<u32>>,
    classified: u32,
    there: BTreeMap<Name, There>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let names = history.names.texts.len();
        let mut bases = Vec::with_capacity(history.logs.len());
        let mut total = names;
        for log in &history.logs {
            bases.push(index_u32(total));
            total += log.sends.len();
        }
        Self {
            history,
            report: Report::default(),
            entries: vec![UNSEEN; total],
            bases,
            listed: vec![0; names],
            heard: vec![(0, 0); history.logs.len()],
            firsts: Vec::new(),
            gaps: BTreeSet::new(),
            sorted: BTreeMap::new(),
            classified: 0,
            there: rest::who_is_there(history),
        }
    }

    pub(super) fn run(mut self) -> Report {
        self.collect_answers();
        for log in 0..self.history.logs.len() {
            self.walk(index_u32(log));
        }
        for first in std::mem::take(&mut self.firsts) {
            self.check_first(&first);
        }
        self.check_acked();
        self.check_names();
        self.check_positions();
        self.check_whispers();
        self.check_times();
        self.check_quiet();
        self.report
    }

    fn log(&self, log: u32) -> &'a Log {
        &self.history.logs[log as usize]
    }

    fn announced(&self) -> bool {
        self.history.presence == Presence::Announced
    }

    /// Which send an entry stands for; none for a room's end.
    fn text_id(&self, entry: u32) -> Option<TextId> {
        if (entry as usize) < self.history.names.texts.len() {
            return None;
        }
        // The last session whose sends begin at or before the entry; sessions without sends
        // share their beginning with the next.
        let session = self.bases.partition_point(|base| *base <= entry) - 1;
        Some(TextId {
            sender: SessionKey(index_u32(session)),
            number: entry - self.bases[session] + 1,
        })
    }

    fn add(&mut self, kind: Kind, log: u32, message: Option<TextId>, detail: String) {
        let room = self.history.names.text(self.log(log).room);
        let session = SessionKey(log);
        let violation = || Violation { kind, session, room: room.to_owned(), message, detail };
        self.report.add(violation, kind);
    }

    /// "alice in r1", for a person.
    fn who(&self, log: u32) -> String {
        let names = &self.history.names;
        let of = self.log(log);
        format!("{} in {}", names.text(of.user), names.text(of.room))
    }

    fn describe(&self, entry: u32) -> String {
        match self.text_id(entry) {
            Some(id) => id.to_string(),
            None => "the end".to_owned(),
        }
    }

    fn collect_answers(&mut self) {
        self.report.sessions = self.history.logs.len() as u64;
        for (index, log) in self.history.logs.iter().enumerate() {
            self.report.sends += log.sends.len() as u64;
            for event in &log.events {
                let (number, status) = match event {
                    Event::Acked(number) => (*number, ACKED),
                    Event::Refused(number) => (*number, REFUSED),
                    Event::Joined
                    | Event::Sent
                    | Event::Saw { .. }
                    | Event::SawForeign
                    | Event::SawAdd(_)
                    | Event::SawLeave(_)
                    | Event::Resumed(_) => continue,
                };
                if number == 0 || number as usize > log.sends.len() {
                    continue;
                }
                self.entries[(self.bases[index] + number - 1) as usize].status |= status;
                self.report.acked += u64::from(status == ACKED);
            }
        }
    }

    fn walk(&mut self, log: u32) {
        let mut walk = Walk {
            log,
            previous: NONE,
            cell_start: 0,
            cell_hash: 0,
            list_hash: 0,
            joined: false,
            presence_reported: false,
        };
        for (at, event) in self.log(log).events.iter().enumerate() {
            let at = index_u32(at);
            match event {
                Event::Joined => self.join(&mut walk, at),
                Event::Saw { from, id, whisper } => {
                    self.report.deliveries += 1;
                    self.saw(&mut walk, at, *from, *id, *whisper);
                }
                Event::SawForeign => {
                    self.report.deliveries += 1;
                    let detail = format!("{} saw a text that nobody sent", self.who(log));
                    self.add(Kind::NeverSent, log, None, detail);
                }
                Event::SawAdd(user) => self.presence(&mut walk, *user, true),
                Event::SawLeave(user) => self.presence(&mut walk, *user, false),
                Event::Resumed(number) => self.resume(&mut walk, *number),
                Event::Sent | Event::Acked(_) | Event::Refused(_) => {}
            }
        }
        let ended = self.log(log);
        if walk.joined && ended.end == End::Alive {
            let at = index_u32(ended.events.len());
            self.link(&mut walk, at, ended.room.0);
            self.check_list_at_rest(&walk);
        }
    }

    fn join(&mut self, walk: &mut Walk, at: u32) {
        walk.joined = true;
        walk.cell_start = at + 1;
        let log = self.log(walk.log);
        for member in &log.members {
            self.list(walk, *member, true);
        }
        if self.announced() && !self.is_listed(walk, log.user) {
            let list = report::list(&self.history.names, &log.members);
            let detail = format!("{} entered and is not among {list}", self.who(walk.log));
            self.add(Kind::Unlisted, walk.log, None, detail);
            self.list(walk, log.user, true);
        }
    }

    fn is_listed(&self, walk: &Walk, user: Name) -> bool {
        self.listed[user.0 as usize] == walk.log + 1
    }

    /// Puts a user on the walk's list or takes it off; false if that changes nothing.
    fn list(&mut self, walk: &mut Walk, user: Name, present: bool) -> bool {
        if self.is_listed(walk, user) == present {
            return false;
        }
        self.listed[user.0 as usize] = if present { walk.log + 1 } else { 0 };
        let hash = mix(u64::from(user.0) + 1);
        walk.list_hash = if present {
            walk.list_hash.wrapping_add(hash)
        } else {
            walk.list_hash.wrapping_sub(hash)
        };
        true
    }

    fn presence(&mut self, walk: &mut Walk, user: Name, present: bool) {
        if !walk.joined {
            self.before_join(walk, None);
            return;
        }
        let change = (u64::from(user.0) << 1) | u64::from(present);
        walk.cell_hash = mix(walk.cell_hash ^ mix(change + 1));
        if self.announced() && !self.list(walk, user, present) {
            let detail = format!(
                "{} saw {} {}",
                self.who(walk.log),
                self.history.names.text(user),
                if present { "join who was there" } else { "leave who was not there" }
            );
            self.add(Kind::Repeated, walk.log, None, detail);
        }
    }

    fn before_join(&mut self, walk: &Walk, message: Option<TextId>) {
        let detail = format!("{} saw a push too early", self.who(walk.log));
        self.add(Kind::BeforeJoin, walk.log, message, detail);
    }

    fn saw(&mut self, walk: &mut Walk, at: u32, from: Name, id: TextId, whisper: bool) {
        if !walk.joined {
            self.before_join(walk, Some(id));
            return;
        }
        let Some(entry) = self.delivered_rightly(walk, from, id, whisper) else {
            return;
        };
        let stamp = walk.log + 1;
        if self.entries[entry as usize].stamp == stamp {
            let detail = self.who(walk.log);
            self.add(Kind::Twice, walk.log, Some(id), detail);
            return;
        }
        self.entries[entry as usize].stamp = stamp;
        let (hearer, number) = self.heard[id.sender.0 as usize];
        let is_later = hearer == stamp && number > id.number;
        if is_later && !self.log(id.sender.0).may_come_after(id.number, number) {
            let detail = format!("{} saw number {number} before", self.who(walk.log));
            self.add(Kind::SenderOrder, walk.log, Some(id), detail);
        }
        let highest = if hearer == stamp { number.max(id.number) } else { id.number };
        self.heard[id.sender.0 as usize] = (stamp, highest);
        if self.announced() && !self.is_listed(walk, from) {
            let detail =
                format!("{} does not list {}", self.who(walk.log), self.history.names.text(from));
            self.add(Kind::NotMember, walk.log, Some(id), detail);
        }
        if !whisper {
            self.link(walk, at, entry);
        }
    }

    /// The entry of a message that may be seen by this session in this way.
    fn delivered_rightly(
        &mut self,
        walk: &Walk,
        from: Name,
        id: TextId,
        whisper: bool,
    ) -> Option<u32> {
        let reader = self.log(walk.log);
        let sent = self.history.logs.get(id.sender.0 as usize);
        let sent =
            sent.and_then(|log| Some((log, *log.sends.get((id.number as usize).checked_sub(1)?)?)));
        let Some((sender, to)) = sent else {
            let detail = format!("{} saw a message that nobody sent", self.who(walk.log));
            self.add(Kind::NeverSent, walk.log, Some(id), detail);
            return None;
        };
        let entry = self.bases[id.sender.0 as usize] + id.number - 1;
        let found = &mut self.entries[entry as usize];
        found.status |= SEEN;
        if id.sender.0 == walk.log {
            found.status |= SEEN_BY_SENDER;
        }
        if found.status & REFUSED != 0 {
            let detail = format!("{} saw a refused message", self.who(walk.log));
            self.add(Kind::NeverSent, walk.log, Some(id), detail);
            return None;
        }
        let addressed = match to {
            To::Everyone => !whisper,
            To::One(user) => whisper && user == reader.user,
        };
        if whisper && addressed {
            found.status |= SEEN_BY_TARGET;
        }
        if sender.room != reader.room || sender.user != from || !addressed {
            let detail = format!(
                "{} saw it from {}; it was sent by {} to {to:?}",
                self.who(walk.log),
                self.history.names.text(from),
                self.who(id.sender.0),
            );
            self.add(Kind::Misdelivered, walk.log, Some(id), detail);
            return None;
        }
        Some(entry)
    }

    /// The walk has come to `entry`, at this place of its log.
    fn link(&mut self, walk: &mut Walk, at: u32, entry: u32) {
        let cell = (walk.cell_start, at);
        if walk.previous == NONE {
            let log = walk.log;
            self.firsts.push(First { log, entry, cell });
        } else {
            self.link_previous(walk, cell, entry);
            self.link_next(walk, entry);
        }
        self.compare_list(walk, entry);
        walk.previous = entry;
        walk.cell_start = at + 1;
        walk.cell_hash = 0;
    }

    fn link_previous(&mut self, walk: &mut Walk, cell: (u32, u32), entry: u32) {
        let found = self.entries[entry as usize];
        let replace = if found.previous == NONE {
            true
        } else if found.previous == walk.previous {
            let (theirs, mine) = ((found.previous_log, found.cell), (walk.log, cell));
            let differs = found.cell_hash != walk.cell_hash && self.announced();
            if differs && !self.same_presence(theirs, mine) {
                self.presence_differs(walk, found.previous_log, entry, "joins and leaves before");
            }
            // Whoever was never away knows more.
            differs && self.log(found.previous_log).was_away()
        } else {
            let (theirs, mine) = (found.previous, walk.previous);
            self.differ(found.previous_log, walk.log, theirs, mine, entry)
        };
        if replace {
            let found = &mut self.entries[entry as usize];
            found.previous = walk.previous;
            found.previous_log = walk.log;
            found.cell = cell;
            found.cell_hash = walk.cell_hash;
        }
    }

    fn link_next(&mut self, walk: &Walk, entry: u32) {
        let before = self.entries[walk.previous as usize];
        let replace = if before.next == NONE {
            true
        } else if before.next == entry {
            false
        } else {
            self.differ(before.next_log, walk.log, before.next, entry, walk.previous)
        };
        if replace {
            let before = &mut self.entries[walk.previous as usize];
            before.next = entry;
            before.next_log = walk.log;
        }
    }

    fn compare_list(&mut self, walk: &mut Walk, entry: u32) {
        let found = self.entries[entry as usize];
        let (theirs, mine) = ((found.list_log, found.list_hash), (walk.log, walk.list_hash));
        let same = found.list_log != NONE && self.same_members(theirs, mine);
        // Whoever was never away knows more.
        let knows_less = || same && self.log(found.list_log).was_away();
        if found.list_log == NONE || (found.list_hash != walk.list_hash && knows_less()) {
            let found = &mut self.entries[entry as usize];
            found.list_log = walk.log;
            found.list_hash = walk.list_hash;
        } else if !same && self.announced() {
            let other = found.list_log;
            self.presence_differs(walk, other, entry, "members at");
        }
    }

    fn presence_differs(&mut self, walk: &mut Walk, other: u32, entry: u32, what: &str) {
        if walk.presence_reported {
            return;
        }
        walk.presence_reported = true;
        let detail = format!(
            "{} and session {other} have other {what} {}",
            self.who(walk.log),
            self.describe(entry)
        );
        self.add(Kind::Presence, walk.log, self.text_id(entry), detail);
    }
}

/// Spreads a number over 64 bits (the finish of SplitMix64), so that sums of hashes tell sets
/// apart.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
