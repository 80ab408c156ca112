//! What clients did and saw, and whether it keeps the promises.
//!
//! Every session (one connection of one client) keeps a [`Log`]; a [`History`] gathers them when
//! everything has come to rest and [`History::check`] judges. Nothing but what a Pomelo client
//! can see is needed; positions and times are judged where a log has them. A text carries the identity of its send
//! ([`TextId`], such as `m:7:12`), so that a delivery can be traced to it.
//!
//! What is checked, for every room:
//!
//! - Members see one order. Chat messages are unique, so it is enough that whoever saw both has
//!   the same neighbour before and after each; a neighbour that one member lacks is a gap.
//! - Joins and leaves stand at the same places between the messages for everyone, and everyone has
//!   the same list of members at every message.
//! - A member sees everything from its own join on: the others see its join exactly before the
//!   first message that it sees.
//! - A member that is still there at the end has seen the room's last message, and lists exactly
//!   the members that are still there.
//! - Nothing is seen twice, nothing that was never sent or that was refused; a sender's messages
//!   come in the order of sending, under its name, in its room, while it is a member.
//! - What was acknowledged was seen.
//! - No two messages have one position, and everyone's positions grow ([`Log::saw_at`]), from
//!   the join on without a gap ([`Log::joined_at`]). Whoever saw what stands before and after a whisper to it
//!   has seen that, too ([`Log::acked_at`]).
//! - Nobody is listed, or only now seen to leave, that ended longer ago than a bound
//!   ([`History::leave_within`], [`Log::at`]).
//! - A client that comes back has seen everything, once and in order, as if it had never been away
//!   ([`Log::resumed`]), or begins a new log by a reset ([`Log::began_by_reset`]); if it was away for
//!   less than a bound, nobody has seen it leave ([`History::quiet_within`]).

mod check;
mod report;
mod returns;
#[cfg(test)]
mod tests;
mod text;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use model::Position;
use room::Duplicates;

pub use report::{Kind, Report, Violation};
use returns::Returns;

/// A user's or a room's name, as a number. Made by [`Names::intern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

/// The names of a history: each text has one number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    texts: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
}

impl Names {
    /// The number of `text`, new if it was not known.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(number) = self.numbers.get(text) {
            return Name(*number);
        }
        let number = index_u32(self.texts.len());
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        Name(number)
    }

    /// The text of a name.
    #[must_use]
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("?", |text| text)
    }
}

/// One session in a history: its log's place, counted from 0 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u32);

/// Which send a text belongs to: the `number`-th (from 1) of a session.
///
/// Written as `m:<session>:<number>`; anything may follow after a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextId {
    /// The sending session.
    pub sender: SessionKey,
    /// Its how many-th send, from 1.
    pub number: u32,
}

impl TextId {
    /// Reads the identity at the start of a text, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("m:")?;
        let (sender, rest) = rest.split_once(':')?;
        let number = rest.split(' ').next()?;
        Some(Self {
            sender: SessionKey(sender.parse().ok()?),
            number: number.parse().ok().filter(|number| *number > 0)?,
        })
    }
}

impl fmt::Display for TextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m:{}:{}", self.sender.0, self.number)
    }
}

/// Whom a send names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// `*`: the room.
    Everyone,
    /// One user of the room.
    One(Name),
}

/// One thing that a session did or saw. Small, since there are millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Joined,
    Sent,
    Acked(u32),
    Refused(u32),
    Saw {
        from: Name,
        id: TextId,
        whisper: bool,
    },
    SawForeign,
    SawAdd(Name),
    SawLeave(Name),
    /// The how many-th return.
    Resumed(u32),
}

/// How a log ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// Still connected when everything had come to rest.
    #[default]
    Alive,
    /// Closed by the client, or by whatever else: it is a member no more.
    Gone,
    /// Nobody looked any further; the session may be a member still.
    Unwatched,
}

/// What one session did and saw, in the order in which it happened to it.
#[derive(Clone, Debug)]
pub struct Log {
    room: Name,
    user: Name,
    members: Vec<Name>,
    sends: Vec<To>,
    events: Vec<Event>,
    joined: bool,
    end: End,
    /// Where messages stood in the room, if the client was told.
    positions: Vec<(Position, TextId)>,
    /// Where its whispers stand, if it was told with the answers.
    whispers: Vec<(u32, Position)>,
    /// Where the room stood when it joined, if the client was told.
    joined_at: Option<Position>,
    /// Whether it began as its client came back, and could not be told what it had missed.
    by_reset: bool,
    /// Boxed, as most sessions never lose their connections.
    returns: Option<Box<Returns>>,
    times: Times,
}

/// When some of it happened, if the log is told the time.
#[derive(Clone, Debug, Default)]
struct Times {
    now: Option<Duration>,
    asked: Option<Duration>,
    joined: Option<Duration>,
    gone: Option<Duration>,
    leaves: Vec<Leave>,
}

/// Another user's leave, as it was announced.
#[derive(Clone, Copy, Debug)]
struct Leave {
    user: Name,
    /// When, if it was not told later.
    at: Option<Duration>,
    /// Where in the room's order, if the client was told.
    position: Option<Position>,
}

impl Log {
    /// An empty log of a session that means to enter `room` as `user`.
    #[must_use]
    pub const fn new(room: Name, user: Name) -> Self {
        Self {
            room,
            user,
            members: Vec::new(),
            sends: Vec::new(),
            events: Vec::new(),
            joined: false,
            end: End::Alive,
            positions: Vec::new(),
            whispers: Vec::new(),
            joined_at: None,
            by_reset: false,
            returns: None,
            times: Times { now: None, asked: None, joined: None, gone: None, leaves: Vec::new() },
        }
    }

    /// The room that it is about.
    #[must_use]
    pub const fn room(&self) -> Name {
        self.room
    }

    /// The user that it is about.
    #[must_use]
    pub const fn user(&self) -> Name {
        self.user
    }

    /// What follows happens at this time, by a clock that all logs of the history share.
    pub const fn at(&mut self, now: Duration) {
        self.times.now = Some(now);
    }

    /// The session asks to enter, once more or for the first time.
    pub const fn asks(&mut self) {
        self.times.asked = self.times.now;
    }

    /// Entering was answered with these members, the session's own user included. Only the first
    /// counts: a session enters once.
    pub fn joined(&mut self, members: impl IntoIterator<Item = Name>) {
        if !self.joined {
            self.joined = true;
            self.times.joined = self.times.now;
            self.members = members.into_iter().collect();
            self.add(Event::Joined);
        }
    }

    /// Entering was answered with this position: the session sees all that comes after it.
    pub const fn joined_at(&mut self, position: Position) {
        self.joined_at = Some(position);
    }

    /// The session sends: the answer is the number to put into the text's [`TextId`].
    pub fn sent(&mut self, to: To) -> u32 {
        self.sends.push(to);
        self.add(Event::Sent);
        index_u32(self.sends.len())
    }

    /// A send was answered with success.
    pub fn acked(&mut self, number: u32) {
        self.add(Event::Acked(number));
    }

    /// A send was answered with success, and with its position.
    pub fn acked_at(&mut self, number: u32, position: Position) {
        self.acked(number);
        let to = (number as usize).checked_sub(1).and_then(|at| self.sends.get(at));
        if let Some(To::One(_)) = to {
            self.whispers.push((number, position));
        }
    }

    /// A send was answered with a refusal that says that nothing was applied. An answer that
    /// leaves it open is not recorded at all.
    pub fn refused(&mut self, number: u32) {
        self.add(Event::Refused(number));
    }

    /// A message arrived. `whisper` if it was addressed to one user.
    pub fn saw(&mut self, from: Name, id: TextId, whisper: bool) {
        self.add(Event::Saw { from, id, whisper });
    }

    /// A message arrived, and the client was told its position in the room.
    pub fn saw_at(&mut self, position: Position, from: Name, id: TextId, whisper: bool) {
        self.positions.push((position, id));
        self.saw(from, id, whisper);
    }

    /// A message arrived whose text is no [`TextId`].
    pub fn saw_foreign(&mut self) {
        self.add(Event::SawForeign);
    }

    /// Another user's join was announced.
    pub fn saw_add(&mut self, user: Name) {
        self.add(Event::SawAdd(user));
    }

    /// Another user's leave was announced.
    pub fn saw_leave(&mut self, user: Name) {
        self.left(user, self.times.now, None);
    }

    /// Another user's leave was announced, and the client was told its position in the room.
    pub fn saw_leave_at(&mut self, position: Position, user: Name) {
        self.left(user, self.times.now, Some(position));
    }

    /// Another user's leave was among what the client missed while it was away.
    pub fn missed_leave_at(&mut self, position: Position, user: Name) {
        self.left(user, None, Some(position));
    }

    fn left(&mut self, user: Name, at: Option<Duration>, position: Option<Position>) {
        self.add(Event::SawLeave(user));
        if at.is_some() || position.is_some() {
            self.times.leaves.push(Leave { user, at, position });
        }
    }

    /// The connection has ended, by whomever. What the session missed from here on is no loss. If
    /// its connection was lost before, it ended with that.
    pub fn gone(&mut self) {
        if self.end != End::Gone {
            self.times.gone = self.lost_since().or(self.times.now);
        }
        self.end = End::Gone;
    }

    /// Nobody looks any further, though the session may live on: nothing is concluded from what
    /// it has not seen at the end, nor from whether others list it.
    pub fn unwatched(&mut self) {
        if self.end == End::Alive {
            self.end = End::Unwatched;
        }
    }

    /// Adds an event. Grows by a quarter: twice as much would leave half of what a crowd has
    /// empty.
    fn add(&mut self, event: Event) {
        if self.events.len() == self.events.capacity() {
            self.events.reserve_exact((self.events.len() / 4).max(8));
        }
        self.events.push(event);
    }

    /// How many messages arrived.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        let saw = |event: &&Event| matches!(event, Event::Saw { .. } | Event::SawForeign);
        self.events.iter().filter(saw).count() as u64
    }

    /// Makes room for that many more events, so that recording does not allocate.
    pub fn reserve(&mut self, events: usize) {
        self.events.reserve(events);
    }
}

/// Whether joins and leaves are pushed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Each is pushed: member lists and the places of joins and leaves are checked.
    #[default]
    Announced,
    /// Rooms are too large for that, or the logs leave it out: only messages are checked.
    Silent,
}

/// All sessions' logs of one run, at rest.
#[derive(Clone, Debug, Default)]
pub struct History {
    names: Names,
    logs: Vec<Log>,
    presence: Presence,
    leave_within: Option<Duration>,
    quiet_within: Option<Duration>,
    duplicates: Duplicates,
}

impl History {
    /// A history whose logs use these names.
    #[must_use]
    pub const fn new(names: Names, presence: Presence) -> Self {
        Self {
            names,
            logs: Vec::new(),
            presence,
            leave_within: None,
            quiet_within: None,
            duplicates: Duplicates::Reject,
        }
    }

    /// Also judges that nobody is listed longer than this after the end of its session.
    pub const fn leave_within(&mut self, bound: Duration) {
        self.leave_within = Some(bound);
    }

    /// Also judges that nobody sees a client leave that comes back within less than this.
    pub const fn quiet_within(&mut self, bound: Duration) {
        self.quiet_within = Some(bound);
    }

    /// What became of a name that two wanted; unless this is said, the second was refused.
    ///
    /// If it replaces the first, that one may never have known that it was in. If they share the
    /// name, others hear of the first one's join and of the last one's leave only.
    pub const fn duplicates(&mut self, policy: Duplicates) {
        self.duplicates = policy;
    }

    /// Adds the log of the next session: [`SessionKey`] 0 first.
    pub fn push(&mut self, log: Log) -> SessionKey {
        self.logs.push(log);
        SessionKey(index_u32(self.logs.len() - 1))
    }

    /// Judges. Takes time in proportion to the events, and a little more for each violation.
    #[must_use]
    pub fn check(&self) -> Report {
        check::Checker::new(self).run()
    }
}

/// Histories stay far below 2^32 of anything; one that does not is judged wrongly, not unsafely.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
