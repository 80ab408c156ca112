//! What a check found.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Names, SessionKey, TextId};

/// Violations kept with their details; the rest is only counted.
const KEPT_MAX: usize = 100;

/// What kind of promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An acknowledged message that a member should have seen, and did not.
    Lost,
    /// A message not acknowledged, but seen by others, that a member should have seen too.
    Gap,
    /// The same message twice.
    Twice,
    /// A sender's later message before its earlier one.
    SenderOrder,
    /// Two members have the same messages in another order.
    RoomOrder,
    /// Two members have joins and leaves at other places, or other lists of members.
    Presence,
    /// A message that was never sent, or was refused.
    NeverSent,
    /// Seen under another name, in another room or by another user than it was sent for.
    Misdelivered,
    /// A message from somebody who, to its reader, was not a member.
    NotMember,
    /// A push before the answer to `enter`.
    BeforeJoin,
    /// A join of somebody already there, or a leave of somebody absent.
    Repeated,
    /// At rest, a member is listed who is not there.
    Ghost,
    /// At rest, a member that is there is not listed.
    Unlisted,
    /// Two sessions that are both there have one name in one room.
    NameTwice,
    /// Two messages have one position, or positions do not grow.
    Fork,
    /// Listed for longer than the bound after the end of its session.
    Late,
    /// Others saw a client leave that came back in time.
    Noticed,
}

impl Kind {
    /// The kind in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Lost => "acknowledged but lost",
            Self::Gap => "gap",
            Self::Twice => "seen twice",
            Self::SenderOrder => "sender's order broken",
            Self::RoomOrder => "members disagree on the order",
            Self::Presence => "members disagree on who is there",
            Self::NeverSent => "seen but never sent",
            Self::Misdelivered => "misdelivered",
            Self::NotMember => "speaks while no member",
            Self::BeforeJoin => "push before the answer to enter",
            Self::Repeated => "join or leave repeated",
            Self::Ghost => "ghost",
            Self::Unlisted => "member not listed",
            Self::NameTwice => "one name twice",
            Self::Fork => "one position twice",
            Self::Late => "listed for too long",
            Self::Noticed => "return noticed",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// Whose log shows it.
    pub session: SessionKey,
    /// Its room.
    pub room: String,
    /// The message concerned, if one is.
    pub message: Option<TextId>,
    /// Names and neighbours, for a person.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: session {}", self.kind.text(), self.session.0)?;
        if let Some(message) = self.message {
            write!(f, ", {message}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first violations, at most 100.
    pub violations: Vec<Violation>,
    /// How many violations of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// How many sessions were looked at.
    pub sessions: u64,
    /// How many messages were sent.
    pub sends: u64,
    /// How many of them were acknowledged.
    pub acked: u64,
    /// How many messages arrived.
    pub deliveries: u64,
    /// The longest time from the end of a session to when somebody saw it leave, if the logs
    /// know the time.
    pub leave_latest: Option<Duration>,
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many violations of one kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, violation: impl FnOnce() -> Violation, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
        if self.violations.len() < KEPT_MAX {
            self.violations.push(violation());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sessions, {} sends, {} acknowledged, {} deliveries: ",
            self.sessions, self.sends, self.acked, self.deliveries
        )?;
        if self.is_clean() {
            return f.write_str("clean");
        }
        let total: u64 = self.counts.values().sum();
        write!(f, "{total} violations")?;
        for (kind, count) in &self.counts {
            write!(f, "\n  {count} × {}", kind.text())?;
        }
        for violation in self.violations.iter().take(20) {
            write!(f, "\n  - {violation}")?;
        }
        Ok(())
    }
}

/// A list of names for a person, shortened.
pub(super) fn list(names: &Names, of: &[super::Name]) -> String {
    let mut text: Vec<&str> = of.iter().take(8).map(|name| names.text(*name)).collect();
    if of.len() > 8 {
        text.push("…");
    }
    text.join(", ")
}
