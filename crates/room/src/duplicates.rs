//! What becomes of a newcomer whose name is taken, and who waits to hear whether its member lives.

use std::{collections::VecDeque, fmt, str::FromStr};

use model::{Incarnation, MemberId, RoomId, SessionId, Time, limits};

use crate::message::{Member, Ticket};

/// What becomes of a newcomer whose name somebody in the room has. The owner of a room decides, so
/// all chats of a cluster should be told the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Duplicates {
    /// It is refused, as in the original, unless the member does not answer a probe within
    /// [`limits::PROBE_TIMEOUT`].
    #[default]
    Reject,
    /// It gets the name at once, and the member's session is closed. Who comes back by a key that
    /// is not the member's is refused: two would chase each other away.
    Replace,
    /// Both are the one member of that name. Others hear of its first session's coming and of its
    /// last one's going.
    Multi,
}

impl Duplicates {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Reject, Self::Replace, Self::Multi];

    /// The policy's name in arguments.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Replace => "replace",
            Self::Multi => "multi",
        }
    }
}

impl fmt::Display for Duplicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of reject, replace, multi")]
pub struct NoSuchPolicy;

impl FromStr for Duplicates {
    type Err = NoSuchPolicy;

    fn from_str(name: &str) -> Result<Self, NoSuchPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or(NoSuchPolicy)
    }
}

/// How it ended that newcomers waited for a name, or that one could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeOutcome {
    /// The member lives. All are refused.
    Answered,
    /// It did not say so in time. The first of them has the name.
    Unanswered,
    /// It left meanwhile. The first of them has the name.
    Left,
    /// Too many wait already. A newcomer is refused unheard.
    Full,
}

impl ProbeOutcome {
    /// The outcome's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Left => "left",
            Self::Full => "full",
        }
    }
}

/// A session that wants in.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) member: Member,
    pub(crate) ticket: Option<Ticket>,
}

impl Newcomer {
    /// Whether its client says that it was here before.
    pub(crate) fn comes_back(&self) -> bool {
        self.ticket.is_some_and(|ticket| ticket.seen.is_some())
    }
}

/// A member that was asked whether it lives, and who waits for its name.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) room: RoomId,
    pub(crate) member: MemberId,
    deadline: Time,
    /// In the order of their coming. Empty if they have all gone again.
    pub(crate) newcomers: Vec<Newcomer>,
}

/// What became of a newcomer that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It waits, and the member is to be asked.
    First,
    /// It waits with others, or waited already.
    Behind,
    /// There is no place.
    Full,
}

/// The probes of one shard: at most [`limits::PROBE_NEWCOMERS_MAX`] newcomers wait in all.
///
/// Few, if any, at most times, so that what is looked for is found by walking.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// Oldest first, which is the order of their deadlines.
    all: VecDeque<Probe>,
}

impl Probes {
    /// When the next probe is over.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.all.front().map(|probe| probe.deadline)
    }

    /// Lets a newcomer wait for the name of a member.
    pub(crate) fn wait(
        &mut self,
        now: Time,
        room: &RoomId,
        member: MemberId,
        newcomer: Newcomer,
    ) -> Wait {
        let at = self.position(room, member);
        let id = newcomer.member.id;
        let waits = |probe: &Probe| probe.newcomers.iter().any(|it| it.member.id == id);
        if at.is_some_and(|at| waits(&self.all[at])) {
            return Wait::Behind;
        }
        let waiting: usize = self.all.iter().map(|probe| probe.newcomers.len()).sum();
        if waiting >= limits::PROBE_NEWCOMERS_MAX {
            return Wait::Full;
        }
        if let Some(at) = at {
            self.all[at].newcomers.push(newcomer);
            return Wait::Behind;
        }
        let (room, deadline) = (room.clone(), now + limits::PROBE_TIMEOUT);
        self.all.push_back(Probe { room, member, deadline, newcomers: vec![newcomer] });
        Wait::First
    }

    /// A newcomer does not wait any more.
    pub(crate) fn forget(&mut self, room: &RoomId, id: MemberId) {
        for probe in self.all.iter_mut().filter(|probe| probe.room == *room) {
            probe.newcomers.retain(|newcomer| newcomer.member.id != id);
        }
    }

    /// The newcomers of a connector do not wait any more: they ask again once it has attached.
    pub(crate) fn forget_all_of(&mut self, connector: Incarnation) {
        for probe in &mut self.all {
            probe.newcomers.retain(|newcomer| newcomer.member.id.connector != connector);
        }
    }

    /// Ends the probe of a member, if there is one.
    pub(crate) fn end(&mut self, room: &RoomId, member: MemberId) -> Option<Probe> {
        let at = self.position(room, member)?;
        self.all.remove(at)
    }

    /// Ends the oldest probe whose time is over.
    pub(crate) fn end_overdue(&mut self, now: Time) -> Option<Probe> {
        self.all.pop_front_if(|probe| probe.deadline <= now)
    }

    /// The members of a connector that are asked.
    pub(crate) fn asked(
        &self,
        connector: Incarnation,
    ) -> impl Iterator<Item = (&RoomId, SessionId)> {
        let asked = self.all.iter().filter(move |probe| probe.member.connector == connector);
        asked.map(|probe| (&probe.room, probe.member.session))
    }

    fn position(&self, room: &RoomId, member: MemberId) -> Option<usize> {
        self.all.iter().position(|probe| probe.member == member && probe.room == *room)
    }
}

#[cfg(test)]
mod tests {
    use model::UserName;

    use super::*;

    fn id(session: u64) -> MemberId {
        MemberId { connector: Incarnation(1), session: SessionId(session) }
    }

    fn newcomer(session: u64) -> Newcomer {
        let user = UserName::from_peer("alice").unwrap();
        Newcomer { member: Member { id: id(session), user }, ticket: None }
    }

    #[test]
    fn policies_are_known_by_their_names() {
        for policy in Duplicates::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        assert_eq!("kick".parse::<Duplicates>(), Err(NoSuchPolicy));
        assert_eq!(Duplicates::default(), Duplicates::ALL[0]);
    }

    #[test]
    fn who_waits_is_bounded_and_waits_once() {
        let room = RoomId::from_peer("r").unwrap();
        let mut probes = Probes::default();
        let now = Time::ZERO;
        assert_eq!(probes.wait(now, &room, id(0), newcomer(1)), Wait::First);
        assert_eq!(probes.wait(now, &room, id(0), newcomer(1)), Wait::Behind);
        for session in 2..=limits::PROBE_NEWCOMERS_MAX as u64 {
            assert_eq!(probes.wait(now, &room, id(0), newcomer(session)), Wait::Behind);
        }
        assert_eq!(probes.wait(now, &room, id(0), newcomer(9999)), Wait::Full);
        assert_eq!(probes.wait(now, &room, id(9998), newcomer(9999)), Wait::Full);
        probes.forget(&room, id(1));
        assert_eq!(probes.wait(now, &room, id(9998), newcomer(9999)), Wait::First);
        probes.forget_all_of(Incarnation(1));
        assert!(probes.end(&room, id(0)).unwrap().newcomers.is_empty());
        assert_eq!(probes.deadline(), Some(now + limits::PROBE_TIMEOUT));
        assert!(probes.end_overdue(now).is_none());
        assert_eq!(probes.end_overdue(now + limits::PROBE_TIMEOUT).unwrap().member, id(9998));
        assert_eq!(probes.deadline(), None);
    }
}
