//! Sessions whose connections are lost and whose clients come back: one log goes on over all of
//! them, as the client sees one room without a break.

use std::{collections::BTreeMap, time::Duration};

use model::Position;

use super::{Event, Log, Name, index_u32};

/// What a log knows of connections that were lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns {
    pub(super) all: Vec<Return>,
    /// When the connection was lost for which the client has not come back yet: the first one,
    /// and the last one of those that it tried since.
    lost: Option<(Duration, Duration)>,
    /// Sends that were sent again, and how many the session had sent when each was, the last time.
    pub(super) again: BTreeMap<u32, u32>,
}

/// A client that was away, and came back to all that it had missed.
#[derive(Clone, Debug)]
pub(super) struct Return {
    /// From the loss of its connection until it was told that it is in again.
    pub(super) lost: Duration,
    pub(super) back: Duration,
    /// What it had seen, and up to where it was told then.
    pub(super) from: Position,
    pub(super) to: Position,
    /// Who is in the room then.
    pub(super) members: Vec<Name>,
}

impl Log {
    fn returns(&mut self) -> &mut Returns {
        self.returns.get_or_insert_default()
    }

    /// The connection is lost, or another one by which the client tried to come back. If it never
    /// does, this is when it ended ([`Self::gone`]).
    pub fn lost(&mut self) {
        let now = self.times.now.unwrap_or_default();
        let returns = self.returns();
        let first = returns.lost.map_or(now, |(first, _)| first);
        returns.lost = Some((first, now));
    }

    /// When the connection was lost, if the client has not come back since.
    pub(super) fn lost_since(&self) -> Option<Duration> {
        self.returns.as_ref()?.lost.map(|(_, last)| last)
    }

    /// The client came back: it had seen everything up to `from`, has since been told (and logged)
    /// what it missed up to `to`, and was told these members, itself included.
    pub fn resumed(
        &mut self,
        members: impl IntoIterator<Item = Name>,
        from: Position,
        to: Position,
    ) {
        let back = self.times.now.unwrap_or_default();
        let members = members.into_iter().collect();
        let returns = self.returns();
        let lost = returns.lost.take().map_or(back, |(first, _)| first);
        returns.all.push(Return { lost, back, from, to, members });
        let number = index_u32(returns.all.len() - 1);
        self.add(Event::Resumed(number));
    }

    /// The client came back and was told that what it missed cannot be told: this log begins
    /// another interval. The others need not have heard of it, if it never left.
    pub const fn began_by_reset(&mut self) {
        self.by_reset = true;
    }

    /// A send without an answer was sent once more under the same message id. It may stand behind
    /// whatever was sent before that.
    pub fn sent_again(&mut self, number: u32) {
        let sent = index_u32(self.sends.len());
        self.returns().again.insert(number, sent);
    }

    /// Another connection of the client has its place in the room, which the log does not know of.
    /// When that one ends is unknown.
    pub fn superseded(&mut self) {
        self.gone();
        self.times.gone = None;
    }

    /// Whether the client was away for a while without an end of this log.
    pub(super) fn was_away(&self) -> bool {
        self.returns.as_ref().is_some_and(|returns| !returns.all.is_empty())
    }

    /// Up to where the client has surely seen the room.
    pub(super) fn last_seen(&self) -> Option<Position> {
        let seen = self.positions.last().map(|(position, _)| *position);
        seen.max(self.all_returns().last().map(|back| back.to))
    }

    pub(super) fn all_returns(&self) -> &[Return] {
        self.returns.as_ref().map_or(&[], |returns| &returns.all)
    }

    /// Whether this send may come after the other one, of a higher number.
    pub(super) fn may_come_after(&self, number: u32, other: u32) -> bool {
        let again = self.returns.as_ref().and_then(|returns| returns.again.get(&number));
        again.is_some_and(|sent| other <= *sent)
    }
}
