//! One relay, a connector's end of one room: local members, gap check, unanswered sends.

mod own;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use model::{
    Code, Incarnation, MemberId, Outcome, Position, RoomId, SendNumber, SessionId, Time, UserName,
    limits,
};

use self::own::Own;
use crate::{
    members::Members,
    message::{
        Body, Event, Member, OwnMember, RoomState, Snapshot, Stay, Ticket, ToOwner, Welcome,
    },
    relays::Effect,
    room::Saying,
    tail::Tail,
};

/// What members are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Somebody came.
    Add(UserName),
    /// Somebody went.
    Leave(UserName),
    /// Somebody said something: the event is a `Said` or a `Whispered`.
    Chat(Arc<Event>),
}

/// A connector's end of one room. It exists while the connector has sessions in the room.
#[derive(Debug)]
pub(crate) struct Relay {
    me: Incarnation,
    room: RoomId,
    position: Position,
    members: Members,
    own: BTreeMap<SessionId, Own>,
    /// The sessions in `own` that are members: who hears a broadcast. Made anew when it changes,
    /// so that an effect can carry it without a copy.
    audience: Arc<[SessionId]>,
    tail: Tail,
    /// Sessions that left, or were expelled, after the state was sent and before the owner opened.
    leaving: Vec<SessionId>,
    /// Since when no session is here. The relay lingers, as it may be the only one beside the owner
    /// that holds what was acknowledged last.
    idle_since: Option<Time>,
}

/// What to do with an event of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was the next one.
    Next,
    /// It was seen before.
    Again,
    /// Something is missing before it.
    Gap,
}

impl Relay {
    pub(crate) fn new(me: Incarnation, room: RoomId) -> Self {
        Self {
            me,
            room,
            position: Position::default(),
            members: Members::default(),
            own: BTreeMap::new(),
            audience: Arc::default(),
            tail: Tail::default(),
            leaving: Vec::new(),
            idle_since: None,
        }
    }

    /// Notes whether sessions are here; returns when the relay may go if there are none.
    pub(crate) fn check_idle(&mut self, now: Time) -> Option<Time> {
        if !self.own.is_empty() {
            self.idle_since = None;
            return None;
        }
        Some(*self.idle_since.get_or_insert(now) + limits::RELAY_LINGER)
    }

    /// Whether a snapshot has come. Before it, events are leftovers of an earlier stay.
    pub(crate) fn has_seen_the_room(&self) -> bool {
        self.position != Position::default()
    }

    /// Adds a session that wants in.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        user: UserName,
        ticket: Option<Ticket>,
    ) -> ToOwner {
        let own = Own {
            user: user.clone(),
            joined: false,
            ticket,
            welcome: None,
            stay: None,
            lost: None,
            applied: SendNumber::default(),
            unanswered: VecDeque::new(),
        };
        self.own.insert(session, own);
        ToOwner::Join { room: self.room.clone(), session, user, ticket }
    }

    /// Notes that a session's connection is lost. If its client can come back, it stays for the
    /// grace; returns when that ends.
    pub(crate) fn lose(&mut self, now: Time, session: SessionId) -> Option<Time> {
        let own = self.own.get_mut(&session).filter(|own| own.joined && own.stay.is_some())?;
        let until = now + limits::RETURN_GRACE;
        own.lost = Some(until);
        self.refresh_audience();
        Some(until)
    }

    /// Whether the grace of a lost session is over.
    pub(crate) fn is_overdue(&self, now: Time, session: SessionId) -> bool {
        self.own.get(&session).and_then(|own| own.lost).is_some_and(|until| until <= now)
    }

    /// Takes a session out; the clean-up at the owner needs no answer.
    pub(crate) fn leave(&mut self, session: SessionId, attaching: bool) -> Option<ToOwner> {
        let own = self.own.remove(&session)?;
        if attaching {
            self.leaving.push(session);
        }
        if own.joined {
            self.refresh_audience();
        }
        Some(ToOwner::Leave { room: self.room.clone(), session })
    }

    /// Remembers a send until it is answered.
    ///
    /// # Errors
    ///
    /// `Unauthorized` if the session is not in the room, `SlowDown` if it has too many unanswered.
    pub(crate) fn say(&mut self, session: SessionId, saying: Saying) -> Result<ToOwner, Code> {
        let own = self.own.get_mut(&session).ok_or(Code::Unauthorized)?;
        if own.unanswered.len() >= limits::SESSION_UNACKED_MAX {
            return Err(Code::SlowDown);
        }
        let message = saying.message(&self.room, session);
        own.unanswered.push_back(saying);
        Ok(message)
    }

    /// What a new owner rebuilds the room from.
    pub(crate) fn state(&mut self) -> RoomState {
        self.leaving.clear();
        RoomState {
            room: self.room.clone(),
            position: self.position,
            own: self
                .own
                .iter()
                .filter(|(_, own)| own.joined)
                .map(|(session, own)| OwnMember {
                    session: *session,
                    applied: own.applied,
                    stay: own.stay,
                })
                .collect(),
            entering: self
                .own
                .iter()
                .filter(|(_, own)| !own.joined)
                .map(|(session, _)| *session)
                .collect(),
            members: self.members.iter().collect(),
            tail: self.tail.iter().cloned().collect(),
        }
    }

    /// Everything that the owner has not been told or has not answered.
    pub(crate) fn unanswered(&mut self) -> impl Iterator<Item = ToOwner> {
        let leaving = std::mem::take(&mut self.leaving);
        let room = self.room.clone();
        let leaves =
            leaving.into_iter().map(move |session| ToOwner::Leave { room: room.clone(), session });
        leaves.chain(self.unanswered_by_own())
    }

    fn unanswered_by_own(&self) -> impl Iterator<Item = ToOwner> {
        self.own.iter().flat_map(|(session, own)| {
            let join = (!own.joined).then(|| ToOwner::Join {
                room: self.room.clone(),
                session: *session,
                user: own.user.clone(),
                ticket: own.ticket,
            });
            let says = own.unanswered.iter().map(|say| say.message(&self.room, *session));
            join.into_iter().chain(says)
        })
    }

    /// Gives up on everything not answered yet: there is no owner. What was sent may have been
    /// applied by the last one, hence `Unknown`; a membership is kept.
    pub(crate) fn give_up(&mut self, attaching: bool, out: &mut Vec<Effect>) {
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
            self.own.remove(&session);
            if attaching {
                // Its join may have been applied by the last owner, and the state lists it.
                self.leaving.push(session);
            }
            out.push(Effect::EnterRefused { session, code: Code::NotApplied });
        }
    }

    /// Applies the next event. On [`Applied::Gap`] nothing was changed.
    pub(crate) fn apply(&mut self, event: Arc<Event>, out: &mut Vec<Effect>) -> Applied {
        if event.position <= self.position {
            return Applied::Again;
        }
        if event.position != self.position.next() {
            return Applied::Gap;
        }
        self.position = event.position;
        self.tail.push(Arc::clone(&event));
        match &event.body {
            Body::Joined(member) => self.joined(member, event.position, out),
            Body::Left(member) => self.left(member, event.position, out),
            Body::Moved { from, to } => self.moved(*from, to, event.position, out),
            Body::Said { from, number, .. } => {
                let answered = self.answered(from.id, *number, out);
                out.push(Effect::Push {
                    sessions: Arc::clone(&self.audience),
                    except: None,
                    push: Push::Chat(Arc::clone(&event)),
                    position: event.position,
                    answered: answered.then_some((from.id.session, *number)),
                });
            }
            Body::Whispered { from, number, to, .. } => {
                if self.answered(from.id, *number, out) {
                    let session = from.id.session;
                    out.push(Effect::Said { session, number: *number, position: event.position });
                }
                if to.id.connector == self.me && self.own.contains_key(&to.id.session) {
                    out.push(Effect::Push {
                        sessions: Arc::new([to.id.session]),
                        except: None,
                        push: Push::Chat(Arc::clone(&event)),
                        position: event.position,
                        answered: None,
                    });
                }
            }
            Body::Hidden => {}
        }
        Applied::Next
    }

    /// Replaces what the relay knew by the room as it stands.
    ///
    /// Sessions that were members are expelled: events may be missing that cannot be had any more,
    /// and a client that cannot be told of the loss in words is told by the close.
    pub(crate) fn replace(&mut self, snapshot: Snapshot, out: &mut Vec<Effect>) {
        self.members = snapshot.members.into_iter().collect();
        self.position = snapshot.position;
        self.tail.clear();
        for event in snapshot.tail {
            self.tail.push(event);
        }
        for OwnMember { session, applied, .. } in snapshot.applied {
            if let Some(own) = self.own.get_mut(&session) {
                own.forget(session, applied, out);
            }
        }
        let members: BTreeSet<SessionId> = self
            .members
            .group(self.me)
            .map(|group| group.sessions.iter().map(|(session, _)| *session).collect())
            .unwrap_or_default();
        self.own.retain(|session, own| {
            if own.joined {
                out.push(Effect::Expel { session: *session });
                if members.contains(session) {
                    self.leaving.push(*session);
                }
            }
            !own.joined
        });
        for session in members {
            self.enter_in(session, self.position, out);
        }
        self.refresh_audience();
    }

    /// A join was refused.
    pub(crate) fn join_refused(&mut self, session: SessionId, code: Code, out: &mut Vec<Effect>) {
        if self.own.get(&session).is_none_or(|own| own.joined) {
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
    /// A whisper that it thereby learns of was hidden from this connector. It is kept from now on,
    /// or the next owner might apply it again, and its target would hear it twice.
    pub(crate) fn welcome(&mut self, session: SessionId, welcome: Welcome) {
        for event in &welcome.events {
            if matches!(event.body, Body::Whispered { .. }) {
                self.tail.disclose(event);
            }
        }
        if let Some(own) = self.own.get_mut(&session).filter(|own| !own.joined) {
            own.welcome = Some(welcome);
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

    /// Makes one of our sessions a member. The audience is to be refreshed after.
    fn enter_in(&mut self, session: SessionId, position: Position, out: &mut Vec<Effect>) {
        let Some(own) = self.own.get_mut(&session) else { return };
        own.joined = true;
        // Without a welcome that got lost on the way nothing can be said of what it missed.
        let since = position.seq;
        let welcome = own.ticket.map(|Ticket { key, .. }| {
            own.welcome.take().unwrap_or(Welcome {
                outcome: Outcome::Reset,
                stay: Stay { key, since },
                events: Vec::new(),
            })
        });
        own.stay = welcome.as_ref().map(|welcome| welcome.stay);
        out.push(Effect::Entered { session, users: self.members.users(), position, welcome });
    }

    fn joined(&mut self, member: &Member, position: Position, out: &mut Vec<Effect>) {
        self.members.insert(member.clone());
        let own = (member.id.connector == self.me).then_some(member.id.session);
        if let Some(session) = own {
            self.enter_in(session, position, out);
            self.refresh_audience();
        }
        if self.members.len() <= limits::PRESENCE_MEMBERS_MAX {
            self.tell(own, Push::Add(member.user.clone()), position, out);
        }
    }

    /// A member's client came back as another session, here or elsewhere.
    fn moved(&mut self, from: MemberId, to: &Member, at: Position, out: &mut Vec<Effect>) {
        self.members.remove(from);
        self.members.insert(to.clone());
        if from.connector == self.me && self.own.remove(&from.session).is_some() {
            out.push(Effect::Supersede { session: from.session });
        }
        if to.id.connector == self.me {
            self.enter_in(to.id.session, at, out);
        }
        if [from.connector, to.id.connector].contains(&self.me) {
            self.refresh_audience();
        }
    }

    fn left(&mut self, member: &Member, position: Position, out: &mut Vec<Effect>) {
        let crowded = self.members.len() > limits::PRESENCE_MEMBERS_MAX;
        self.members.remove(member.id);
        if member.id.connector == self.me && self.own.remove(&member.id.session).is_some() {
            // The owner took a live session for gone, as its connector was cut off for too long.
            // What it missed cannot be made good, so it starts anew.
            out.push(Effect::Expel { session: member.id.session });
            self.refresh_audience();
        }
        if !crowded {
            self.tell(None, Push::Leave(member.user.clone()), position, out);
        }
    }

    /// Notes that a send is applied. True if this connector's client waits for the answer.
    ///
    /// A lower number still unanswered was refused, by an owner whose answer got lost with its
    /// link: numbers are handled in order.
    fn answered(&mut self, id: MemberId, number: SendNumber, out: &mut Vec<Effect>) -> bool {
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

    fn tell(
        &self,
        except: Option<SessionId>,
        push: Push,
        position: Position,
        out: &mut Vec<Effect>,
    ) {
        // A session that has gone meanwhile is excepted too, and stands in no audience.
        if self.audience.iter().all(|session| Some(*session) == except) {
            return;
        }
        let sessions = Arc::clone(&self.audience);
        out.push(Effect::Push { sessions, except, push, position, answered: None });
    }

    fn refresh_audience(&mut self) {
        self.audience =
            self.own.iter().filter(|(_, own)| own.is_told()).map(|(session, _)| *session).collect();
    }
}
