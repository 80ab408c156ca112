//! What a relay's sessions are answered, and what becomes of those that are not.

use model::{Code, MemberId, Position, SendNumber, SessionId, Time, limits};

use super::{
    Relay,
    own::{Own, Stage},
};
use crate::{
    message::{Body, ToOwner, Welcome},
    relays::Effect,
};

impl Relay {
    /// The name that a session wants is taken, and its member is asked whether it lives. Returns
    /// until when the session waits for that, if it is news.
    pub(crate) fn wait(&mut self, now: Time, session: SessionId) -> Option<Time> {
        let Stage::Wants(wish) = &mut self.asking(session)?.stage else { return None };
        if wish.until.is_some() {
            return None;
        }
        let until = now + limits::PROBE_ANSWER_TIMEOUT;
        wish.until = Some(until);
        Some(until)
    }

    /// The time of a session is over, unless that is not so any more: one that waits for a name is
    /// refused, one whose connection is lost leaves. Returns what the owner is to be told.
    pub(crate) fn expire(
        &mut self,
        now: Time,
        session: SessionId,
        attaching: bool,
        out: &mut Vec<Effect>,
    ) -> Option<ToOwner> {
        let own = self.own.get(&session)?;
        let is_over = |until: Option<Time>| until.is_some_and(|until| until <= now);
        match &own.stage {
            _ if is_over(own.lost()) => return self.leave(session, attaching),
            Stage::Lost(until) if is_over(Some(*until)) => return self.leave(session, attaching),
            Stage::Wants(wish) if is_over(wish.until) => {}
            Stage::Wants(_) | Stage::Member | Stage::Lost(_) => return None,
        }
        let mut own = self.own.remove(&session)?;
        out.push(Effect::EnterRefused { session, code: Code::NotApplied });
        let refused = |number| Effect::SayRefused { session, number, code: Code::NotApplied };
        out.extend(own.unanswered.take().map(refused));
        self.withdrawn.insert(session);
        Some(self.withdraw(session))
    }

    /// It is settled that a session which was refused here is no member.
    pub(crate) fn settled(&mut self, session: SessionId) {
        self.withdrawn.remove(&session);
    }

    /// Asks whether a member lives. One whose connection is lost does not answer: its client has
    /// until the owner loses patience to come back.
    pub(crate) fn probe(&self, session: SessionId, out: &mut Vec<Effect>) {
        if self.own.get(&session).is_some_and(Own::is_told) {
            out.push(Effect::Probe { session });
        }
    }

    /// A member that was asked lives.
    pub(crate) fn alive(&self, session: SessionId) -> Option<ToOwner> {
        let is_member = self.own.get(&session).is_some_and(Own::is_told);
        is_member.then(|| ToOwner::Alive { room: self.room.clone(), session })
    }

    /// Gives up on everything not answered yet: there is no owner. What was sent may have been
    /// applied by the last one, hence `Unknown`; a membership is kept. So may a join that it was asked
    /// for, which the next one is told not to keep.
    pub(crate) fn give_up(&mut self, out: &mut Vec<Effect>) {
        for (session, own) in &mut self.own {
            for number in own.unanswered.take() {
                let session = *session;
                out.push(Effect::SayRefused { session, number, code: Code::Unknown });
            }
        }
        let waiting: Vec<SessionId> =
            self.own.iter().filter(|(_, own)| !own.is_member()).map(|(id, _)| *id).collect();
        for session in waiting {
            let own = self.own.remove(&session);
            if own.and_then(|own| own.wish().map(|wish| wish.asked)).unwrap_or_default() {
                self.withdrawn.insert(session);
            }
            out.push(Effect::EnterRefused { session, code: Code::NotApplied });
        }
    }

    /// A join was refused.
    pub(crate) fn join_refused(&mut self, session: SessionId, code: Code, out: &mut Vec<Effect>) {
        if self.asking(session).is_none_or(|own| own.is_member()) {
            return;
        }
        let Some(mut own) = self.own.remove(&session) else {
            return;
        };
        out.push(Effect::EnterRefused { session, code });
        for number in own.unanswered.take() {
            out.push(Effect::SayRefused { session, number, code: Code::Unauthorized });
        }
    }

    /// A send was refused.
    pub(crate) fn say_refused(
        &mut self,
        session: SessionId,
        number: SendNumber,
        code: Code,
        out: &mut Vec<Effect>,
    ) {
        let Some(own) = self.own.get_mut(&session) else {
            return;
        };
        if own.unanswered.remove(number) {
            out.push(Effect::SayRefused { session, number, code });
        }
    }

    /// What an entrant is to be told; what makes it a member comes next.
    ///
    /// A whisper that it thereby learns of may have been hidden from this connector by an owner of a
    /// version before. It is kept from now on, or the next owner might apply it again, and its
    /// target would hear it twice.
    pub(crate) fn welcome(&mut self, session: SessionId, welcome: Welcome) {
        for event in &welcome.events {
            if matches!(event.body, Body::Whispered(_)) {
                self.tail.disclose(event);
            }
        }
        if let Some(own) = self.asking(session).filter(|own| !own.is_member())
            && let Some(back) = &mut own.back
        {
            back.welcome = Some(welcome);
        }
    }

    /// A send had a position already, under its message id.
    pub(crate) fn repeated(
        &mut self,
        session: SessionId,
        number: SendNumber,
        position: Position,
        out: &mut Vec<Effect>,
    ) {
        let id = MemberId { connector: self.me, session };
        if self.answered(id, number, out) {
            out.push(Effect::Said { session, number, position });
        }
    }

    /// Notes that a send is applied. True if this connector's client waits for the answer.
    ///
    /// A lower number still unanswered was refused, by an owner whose answer got lost with its
    /// link: numbers are handled in order.
    pub(super) fn answered(
        &mut self,
        id: MemberId,
        number: SendNumber,
        out: &mut Vec<Effect>,
    ) -> bool {
        if id.connector != self.me {
            return false;
        }
        let Some(own) = self.own.get_mut(&id.session) else {
            return false;
        };
        own.applied = own.applied.max(number);
        let session = id.session;
        while let Some(number) = own.unanswered.pop_if(|said| said < number) {
            out.push(Effect::SayRefused { session, number, code: Code::NotApplied });
        }
        own.unanswered.pop_if(|said| said == number).is_some()
    }
}
