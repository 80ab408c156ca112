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
    pub(super) stage: Stage,
    /// For clients that can come back. Boxed, as a crowd of others should not pay for it.
    pub(super) back: Option<Box<Back>>,
    /// The highest number of its sends known to be applied.
    pub(super) applied: SendNumber,
    pub(super) unanswered: Unanswered,
}

/// How far a session has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// It wants to be a member. Boxed, as that does not take long.
    Wants(Box<Wish>),
    /// The owner has made it a member.
    Member,
    /// It is a member, and its connection is lost: until then it may come back.
    Lost(Time),
}

/// What a session asks for that wants to be a member.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) user: UserName,
    /// Whether some owner was asked for it.
    pub(super) asked: bool,
    /// The name is taken, and until then it waits to hear whether that stays so.
    pub(super) until: Option<Time>,
}

/// Sends that wait for their answers, in order.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "most sessions have none, and keep one word for it")]
pub(super) struct Unanswered(Option<Box<VecDeque<Saying>>>);

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
const _: () = assert!(size_of::<Own>() <= 40);

impl Own {
    /// One that wants in; `asked` says that the owner is asked now.
    pub(super) fn new(user: UserName, ticket: Option<Ticket>, asked: bool) -> Self {
        let back = |ticket| Box::new(Back { ticket, welcome: None, stay: None, lost: None });
        Self {
            stage: Stage::Wants(Box::new(Wish { user, asked, until: None })),
            back: ticket.map(back),
            applied: SendNumber::default(),
            unanswered: Unanswered::default(),
        }
    }

    /// Whether the owner has made it a member.
    pub(super) const fn is_member(&self) -> bool {
        self.wish().is_none()
    }

    /// What it asks for, until it is a member.
    pub(super) const fn wish(&self) -> Option<&Wish> {
        match &self.stage {
            Stage::Wants(wish) => Some(wish),
            Stage::Member | Stage::Lost(_) => None,
        }
    }

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

    /// What an owner is to be asked for. Nothing if its connection is lost: by now its client may
    /// have come back elsewhere, and must not be sent away from there.
    pub(super) fn asks(&self) -> Option<&Wish> {
        self.wish().filter(|_| self.lost().is_none())
    }

    /// Notes that an owner is asked for what it wants.
    pub(super) fn note_asked(&mut self) {
        let is_lost = self.lost().is_some();
        if let Stage::Wants(wish) = &mut self.stage {
            wish.asked |= !is_lost;
        }
    }

    /// Whether it hears what happens in the room.
    pub(super) const fn is_told(&self) -> bool {
        matches!(self.stage, Stage::Member)
    }

    /// Answers the sends that a snapshot covers: they may be in it or may have been refused.
    pub(super) fn forget(
        &mut self,
        session: SessionId,
        applied: SendNumber,
        out: &mut Vec<Effect>,
    ) {
        self.applied = self.applied.max(applied);
        while let Some(number) = self.unanswered.pop_if(|number| number <= applied) {
            out.push(Effect::SayRefused { session, number, code: Code::Unknown });
        }
    }
}

impl Unanswered {
    pub(super) fn len(&self) -> usize {
        self.iter().len()
    }

    pub(super) fn push(&mut self, saying: Saying) {
        self.0.get_or_insert_default().push_back(saying);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Saying> {
        self.0.as_deref().map(VecDeque::iter).unwrap_or_default()
    }

    /// Takes out the first if its number is such.
    pub(super) fn pop_if(
        &mut self,
        mut is_such: impl FnMut(SendNumber) -> bool,
    ) -> Option<SendNumber> {
        let saying = self.0.as_mut()?.pop_front_if(|say| is_such(say.number))?;
        self.0.take_if(|rest| rest.is_empty());
        Some(saying.number)
    }

    /// Takes out one. False if it is not there.
    pub(super) fn remove(&mut self, number: SendNumber) -> bool {
        let Some(says) = &mut self.0 else { return false };
        let before = says.len();
        says.retain(|say| say.number != number);
        let was_there = says.len() < before;
        self.0.take_if(|rest| rest.is_empty());
        was_there
    }

    /// Takes out all.
    pub(super) fn take(&mut self) -> impl Iterator<Item = SendNumber> {
        self.0.take().into_iter().flat_map(|says| *says).map(|say| say.number)
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
