//! What a relay knows of its own sessions.

use std::collections::VecDeque;

use model::{Code, RoomId, SendNumber, SessionId, Time, UserName};

use crate::{
    message::{Stay, Ticket, ToOwner, Welcome},
    relays::Effect,
    room::Saying,
};

/// A session of this connector in the room.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) user: UserName,
    /// Whether the owner has made it a member.
    pub(super) joined: bool,
    /// Whether some owner was asked to.
    pub(super) asked: bool,
    /// For clients that can come back. Boxed, as a crowd of others should not pay for it.
    pub(super) back: Option<Box<Back>>,
    /// Of a member: its connection is lost, and until then it may come back. Of one that wants in:
    /// its name is taken, and until then it waits to hear whether that stays so.
    pub(super) until: Option<Time>,
    /// The highest number of its sends known to be applied.
    pub(super) applied: SendNumber,
    pub(super) unanswered: VecDeque<Saying>,
}

/// What is known of a session whose client can come back.
#[derive(Debug)]
pub(super) struct Back {
    /// How it can come back, or comes back.
    pub(super) ticket: Ticket,
    /// What it is to be told once it is a member.
    pub(super) welcome: Option<Welcome>,
    /// Its stay, once it is a member.
    pub(super) stay: Option<Stay>,
    /// Of one that comes back: its connection is lost once more, before it was told that it is in,
    /// and until then it may come back again.
    pub(super) lost: Option<Time>,
}

// Idle members are millions.
const _: () = assert!(size_of::<Own>() <= 88);

impl Own {
    /// How it can come back, or comes back.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.back.as_ref().map(|back| back.ticket)
    }

    /// Its stay, once it is a member and if its client can come back.
    pub(super) fn stay(&self) -> Option<Stay> {
        self.back.as_ref().and_then(|back| back.stay)
    }

    /// Until when one that is coming back may come back again, if its connection is lost.
    pub(super) fn lost(&self) -> Option<Time> {
        self.back.as_ref().and_then(|back| back.lost)
    }

    /// Whether an owner is to be asked for it. Not if its connection is lost: by now its client may
    /// have come back elsewhere, and must not be sent away from there.
    pub(super) fn asks(&self) -> bool {
        !self.joined && self.lost().is_none()
    }

    /// Whether it hears what happens in the room.
    pub(super) const fn is_told(&self) -> bool {
        self.joined && self.until.is_none()
    }

    /// Answers the sends that a snapshot covers: they may be in it or may have been refused.
    pub(super) fn forget(
        &mut self,
        session: SessionId,
        applied: SendNumber,
        out: &mut Vec<Effect>,
    ) {
        self.applied = self.applied.max(applied);
        while let Some(say) = self.unanswered.pop_front_if(|say| say.number <= applied) {
            out.push(Effect::SayRefused { session, number: say.number, code: Code::Unknown });
        }
    }
}

impl Saying {
    pub(super) fn message(&self, room: &RoomId, session: SessionId) -> ToOwner {
        ToOwner::Say {
            room: room.clone(),
            session,
            number: self.number,
            target: self.target.clone(),
            content: self.content.clone(),
            id: self.id.clone(),
        }
    }
}
