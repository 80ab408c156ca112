//! What a relay's sessions are answered, and what becomes of those that are not.

use model::{Code, MemberId, Position, SendNumber, SessionId, Time, limits};

use super::{Relay, own::Own};
use crate::{
    message::{Body, ToOwner, Welcome},
    relays::Effect,
};

impl Relay {
    /// The name that a session wants is taken, and its member is asked whether it lives. Returns
    /// until when the session waits for that, if it is news.
    pub(crate) fn wait(&mut self, now: Time, session: SessionId) -> Option<Time> {
        let own = self.asking(session).filter(|own| !own.joined && own.until.is_none())?;
        let until = now + limits::PROBE_ANSWER_TIMEOUT;
        own.until = Some(until);
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
        if is_over(own.lost()) || (own.joined && is_over(own.until)) {
            return self.leave(session, attaching);
        }
        if own.joined || !is_over(own.until) {
            return None;
        }
        let own = self.own.remove(&session)?;
        out.push(Effect::EnterRefused { session, code: Code::NotApplied });
        let refused = |number| Effect::SayRefused { session, number, code: Code::NotApplied };
        out.extend(own.unanswered.iter().map(|say| refused(say.number)));
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
            for say in own.unanswered.drain(..) {
                out.push(Effect::SayRefused {
                    session: *session,
                    number: say.number,
                    code: Code::Unknown,
                });
            }
        }
        let waiting: Vec<SessionId> =
            self.own.iter().filter(|(_, own)| !own.joined).map(|(id, _)| *id).collect();
        for session in waiting {
            if self.own.remove(&session).is_some_and(|own| own.asked) {
                self.withdrawn.insert(session);
            }
            out.push(Effect::EnterRefused { session, code: Code::NotApplied });
        }
    }

    /// A join was refused.
    pub(crate) fn join_refused(&mut self, session: SessionId, code: Code, out: &mut Vec<Effect>) {
        if self.asking(session).is_none_or(|own| own.joined) {
            return;
        }
        let Some(own) = self.own.remove(&session) else {
            return;
        };
        out.push(Effect::EnterRefused { session, code });
        for say in own.unanswered {
            let number = say.number;
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
        if own.unanswered.iter().any(|say| say.number == number) {
            own.unanswered.retain(|say| say.number != number);
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
            if matches!(event.body, Body::Whispered { .. }) {
                self.tail.disclose(event);
            }
        }
        if let Some(own) = self.asking(session).filter(|own| !own.joined)
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
        while let Some(say) = own.unanswered.pop_front_if(|say| say.number < number) {
            out.push(Effect::SayRefused {
                session: id.session,
                number: say.number,
                code: Code::NotApplied,
            });
        }
        own.unanswered.pop_front_if(|say| say.number == number).is_some()
    }
}
