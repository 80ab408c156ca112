//! Planted bugs: what passes between the real machines is mangled on its way.

use model::{Incarnation, Outcome, SendNumber, SessionId, Shard};
use room::{
    LinkId, OwnerEvent,
    message::{Body, Frame, ToOwner, ToRelay},
};

use super::{Bug, world::World};

impl World<'_> {
    /// Whether a push is lost on its way to a client.
    pub(super) fn loses_a_push(&mut self) -> bool {
        match self.config.bug {
            Some(Bug::DropDeliveries(n)) => self.random.one_in(n),
            Some(
                Bug::ForgetTerms
                | Bug::ForgetNumbers
                | Bug::LeaveByName
                | Bug::LoseLeaves
                | Bug::SkipMissed
                | Bug::SkipWhispers
                | Bug::ForgetIds
                | Bug::EndGrace,
            )
            | None => false,
        }
    }

    /// A frame as a connector reads it that does not know of terms, or does not read to the end.
    pub(super) fn misread(&self, mut frame: Frame<ToRelay>) -> Frame<ToRelay> {
        if self.config.bug == Some(Bug::ForgetTerms)
            && let Some((_, term)) = self.owners.get(&frame.shard)
        {
            frame.term = *term;
        }
        if let ToRelay::Welcome { welcome, .. } = &mut frame.message
            && welcome.outcome == Outcome::Resumed
        {
            let events = &mut welcome.events;
            if self.config.bug == Some(Bug::SkipMissed) {
                events.pop();
            }
            if self.config.bug == Some(Bug::SkipWhispers) {
                events.retain(|event| !matches!(event.body, Body::Whispered(_)));
            }
        }
        frame
    }

    /// Whom a connector takes for the sender that does not know of terms.
    pub(super) fn mistake(&self, shard: Shard, from: Incarnation) -> Incarnation {
        match (self.config.bug, self.owners.get(&shard)) {
            (Some(Bug::ForgetTerms), Some((Some(owner), _))) => *owner,
            _ => from,
        }
    }

    /// What an owner makes of a frame; none if it loses it.
    pub(super) fn mangle(
        &mut self,
        connector: Incarnation,
        stream: u64,
        mut frame: Frame<ToOwner>,
    ) -> Option<OwnerEvent> {
        let mut from = (connector, stream);
        match (self.config.bug, &mut frame.message) {
            (Some(Bug::ForgetNumbers), ToOwner::Say { session, number, .. })
                if self.placed.contains(&(*session, number.0)) =>
            {
                // No owner has seen this one.
                self.fresh_number += 1;
                *number = SendNumber(self.fresh_number);
            }
            (Some(Bug::ForgetIds), ToOwner::Say { id, .. }) => *id = None,
            (Some(Bug::LoseLeaves), ToOwner::Leave { .. }) => return None,
            (Some(Bug::LeaveByName), ToOwner::Leave { session, .. }) => {
                if let Some((namesake, other)) = self.namesake(*session, stream) {
                    *session = namesake;
                    from = other;
                }
            }
            _ => {}
        }
        let (connector, link) = (from.0, LinkId(from.1));
        Some(OwnerEvent::Frame { connector, link, frame })
    }

    /// Another session that is in the same room under the same name, and the stream of its
    /// connector to the chat at the end of `stream`.
    fn namesake(&self, of: SessionId, stream: u64) -> Option<(SessionId, (Incarnation, u64))> {
        let (other, connector) = self.clients.namesake(of)?;
        let chat = self.open(stream)?.chat_life;
        let connector = self.connectors[connector].life;
        let stream = self.stream_between(connector, chat)?;
        Some((other, (connector, stream)))
    }
}
