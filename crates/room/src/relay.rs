//! One relay, a connector's end of one room: local members, gap check, unanswered sends.

mod answers;
mod crowd;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    Code, Incarnation, MemberId, Outcome, Position, RoomId, SessionId, Time, UserName, limits,
};

use self::{
    crowd::Crowd,
    own::{Back, Own, Stage},
};
use crate::{
    members::Members,
    message::{
        Body, Event, Member, OwnMember, RoomState, Snapshot, Spoken, Stay, Ticket, ToOwner, Welcome,
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
    /// So many are here, where it is not told of each that comes and goes. Only for clients that
    /// know Tangelo.
    Count(usize),
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
    /// Sessions that were refused here, after too long, and may be members for all that is known: an
    /// owner was asked. They may ask again, behind their withdrawal; what comes before that is
    /// settled is the answer to what they asked first, and nothing to them.
    withdrawn: BTreeSet<SessionId>,
    /// Since when no session is here. The relay lingers, as it may be the only one beside the owner
    /// that holds what was acknowledged last.
    idle_since: Option<Time>,
    crowd: Crowd,
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
            withdrawn: BTreeSet::new(),
            idle_since: None,
            crowd: Crowd::default(),
        }
    }

    /// Notes whether sessions are here; returns when the relay may go if there are none.
    pub(crate) fn check_idle(&mut self, now: Time) -> Option<Time> {
        if !self.own.is_empty() || !self.withdrawn.is_empty() {
            self.idle_since = None;
            return None;
        }
        Some(*self.idle_since.get_or_insert(now) + limits::RELAY_LINGER)
    }

    /// Whether a snapshot has come. Before it, events are leftovers of an earlier stay.
    pub(crate) fn has_seen_the_room(&self) -> bool {
        self.position != Position::default()
    }

    /// Adds a session that wants in; `attached` says that the owner is asked now.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        user: UserName,
        ticket: Option<Ticket>,
        attached: bool,
    ) -> ToOwner {
        self.own.insert(session, Own::new(user.clone(), ticket, attached));
        ToOwner::Join { room: self.room.clone(), session, user, ticket }
    }

    /// Notes that a session's connection is lost. If its client can come back, it stays for the
    /// grace; returns when that ends.
    ///
    /// So does one that is coming back and was not told yet that it is in: the owner may have put it
    /// in the place of the session before, whose grace it would end by leaving.
    pub(crate) fn lose(&mut self, now: Time, session: SessionId) -> Option<Time> {
        let own = self.own.get_mut(&session)?;
        let until = now + limits::RETURN_GRACE;
        if own.is_member() {
            own.stay()?;
            own.stage = Stage::Lost(until);
            self.refresh_audience();
        } else {
            let comes_back = |back: &&mut Box<Back>| back.ticket.seen.is_some();
            own.back.as_mut().filter(comes_back)?.lost = Some(until);
        }
        Some(until)
    }

    /// Takes a session out; the clean-up at the owner needs no answer.
    pub(crate) fn leave(&mut self, session: SessionId, attaching: bool) -> Option<ToOwner> {
        let own = self.own.remove(&session)?;
        if attaching {
            self.leaving.push(session);
        }
        if own.is_member() {
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
        own.unanswered.push(saying);
        Ok(message)
    }

    /// What a new owner rebuilds the room from.
    pub(crate) fn state(&mut self) -> RoomState {
        self.leaving.clear();
        // What a withdrawn join made of a session is not to be kept.
        let asks =
            |session: &SessionId, own: &Own| !own.is_member() && !self.withdrawn.contains(session);
        RoomState {
            room: self.room.clone(),
            position: self.position,
            own: self
                .own
                .iter()
                .filter(|(_, own)| own.is_member())
                .map(|(session, own)| OwnMember {
                    session: *session,
                    applied: own.applied,
                    stay: own.stay(),
                })
                .collect(),
            entering: self
                .own
                .iter()
                .filter(|(session, own)| asks(session, own))
                .map(|(session, _)| *session)
                .collect(),
            members: self.members.iter().collect(),
            tail: self.tail.iter().cloned().collect(),
        }
    }

    /// Everything that the owner has not been told or has not answered.
    pub(crate) fn unanswered(&mut self) -> impl Iterator<Item = ToOwner> {
        let leaving = std::mem::take(&mut self.leaving);
        self.own.values_mut().for_each(Own::note_asked);
        let room = self.room.clone();
        let leaves =
            leaving.into_iter().map(move |session| ToOwner::Leave { room: room.clone(), session });
        let withdraws = self.withdrawn.iter().map(|session| self.withdraw(*session));
        leaves.chain(withdraws).chain(self.unanswered_by_own())
    }

    fn withdraw(&self, session: SessionId) -> ToOwner {
        ToOwner::Withdraw { room: self.room.clone(), session }
    }

    fn unanswered_by_own(&self) -> impl Iterator<Item = ToOwner> {
        self.own.iter().flat_map(|(session, own)| {
            let join = own.asks().map(|wish| ToOwner::Join {
                room: self.room.clone(),
                session: *session,
                user: wish.user.clone(),
                ticket: own.ticket(),
            });
            let says = own.unanswered.iter().map(|say| say.message(&self.room, *session));
            join.into_iter().chain(says)
        })
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
            Body::Replaced(member) => self.replaced(member, event.position, out),
            Body::SessionJoined(member) => {
                self.session_joined(member, event.position, out);
            }
            Body::SessionLeft(member) => self.remove(member, out),
            Body::Moved { from, to } => self.moved(*from, to, event.position, out),
            Body::Said(spoken) => {
                let Spoken { from, number, .. } = &**spoken;
                let answered = self.answered(from.id, *number, out);
                out.push(Effect::Push {
                    room: self.room.clone(),
                    sessions: Arc::clone(&self.audience),
                    except: None,
                    push: Push::Chat(Arc::clone(&event)),
                    position: event.position,
                    answered: answered.then_some((from.id.session, *number)),
                });
            }
            Body::Whispered(whisper) => {
                let Spoken { from, number, .. } = &whisper.spoken;
                if self.answered(from.id, *number, out) {
                    let session = from.id.session;
                    out.push(Effect::Said { session, number: *number, position: event.position });
                }
                let is_in = |to: &MemberId| self.own.get(&to.session).is_some_and(Own::is_member);
                let is_here = |to: &MemberId| to.connector == self.me && is_in(to);
                for to in whisper.receivers().filter(is_here) {
                    out.push(Effect::Push {
                        room: self.room.clone(),
                        sessions: Arc::new([to.session]),
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
        // Whoever stays is told who is here.
        self.crowd = Crowd::default();
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
            if own.is_member() {
                out.push(Effect::Expel { session: *session });
                if members.contains(session) {
                    self.leaving.push(*session);
                }
            }
            !own.is_member()
        });
        for session in members {
            self.enter_in(session, self.position, out);
        }
        self.refresh_audience();
    }

    /// Makes one of our sessions a member. The audience is to be refreshed after.
    fn enter_in(&mut self, session: SessionId, position: Position, out: &mut Vec<Effect>) {
        let Some(own) = self.asking(session) else { return };
        own.stage = own.lost().map_or(Stage::Member, Stage::Lost);
        // Without a welcome that got lost on the way nothing can be said of what it missed.
        let since = position.seq;
        let welcome = own.back.as_mut().map(|back| {
            let key = back.ticket.key;
            let welcome = back.welcome.take().unwrap_or(Welcome {
                outcome: Outcome::Reset,
                stay: Stay { key, since },
                events: Vec::new(),
            });
            back.stay = Some(welcome.stay);
            welcome
        });
        out.push(Effect::Entered { session, users: self.members.users(), position, welcome });
    }

    fn joined(&mut self, member: &Member, position: Position, out: &mut Vec<Effect>) {
        let own = self.session_joined(member, position, out);
        if self.members.len() <= limits::PRESENCE_MEMBERS_MAX {
            self.tell(own, Push::Add(member.user.clone()), position, out);
        }
    }

    /// Takes a session in; returns it if it is one of ours.
    fn session_joined(
        &mut self,
        member: &Member,
        position: Position,
        out: &mut Vec<Effect>,
    ) -> Option<SessionId> {
        self.members.insert(member.clone());
        let own = (member.id.connector == self.me).then_some(member.id.session);
        if let Some(session) = own {
            self.enter_in(session, position, out);
            self.refresh_audience();
        }
        own
    }

    /// A member's client came back as another session, here or elsewhere.
    fn moved(&mut self, from: MemberId, to: &Member, at: Position, out: &mut Vec<Effect>) {
        self.members.remove(from);
        self.members.insert(to.clone());
        if self.take_own(from) {
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
        self.remove(member, out);
        if !crowded {
            self.tell(None, Push::Leave(member.user.clone()), position, out);
        }
    }

    /// Takes a session out, and sends it away if it is one of ours that lives.
    fn remove(&mut self, member: &Member, out: &mut Vec<Effect>) {
        self.members.remove(member.id);
        if self.forget_own(member.id) {
            // The owner took a live session for gone, as its connector was cut off for too long.
            // What it missed cannot be made good, so it starts anew.
            out.push(Effect::Expel { session: member.id.session });
        }
    }

    /// A member's name goes to another session.
    fn replaced(&mut self, member: &Member, position: Position, out: &mut Vec<Effect>) {
        let crowded = self.members.len() > limits::PRESENCE_MEMBERS_MAX;
        self.members.remove(member.id);
        if self.forget_own(member.id) {
            out.push(Effect::Replace { session: member.id.session });
        }
        // Other sessions of it may be here, if it could have several until lately.
        if !crowded && self.members.named(&member.user).is_none() {
            self.tell(None, Push::Leave(member.user.clone()), position, out);
        }
    }

    /// Forgets a session of ours that is a member no more. False if it was forgotten before.
    fn forget_own(&mut self, id: MemberId) -> bool {
        let was_here = self.take_own(id);
        if was_here {
            self.refresh_audience();
        }
        was_here
    }

    /// Takes out a session of ours, if it is not one that asks again.
    fn take_own(&mut self, id: MemberId) -> bool {
        let is_it = id.connector == self.me && !self.withdrawn.contains(&id.session);
        is_it && self.own.remove(&id.session).is_some()
    }

    /// The session that an answer to a join is for; none if that was withdrawn.
    fn asking(&mut self, session: SessionId) -> Option<&mut Own> {
        if self.withdrawn.contains(&session) { None } else { self.own.get_mut(&session) }
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
        let room = self.room.clone();
        out.push(Effect::Push { room, sessions, except, push, position, answered: None });
    }

    fn refresh_audience(&mut self) {
        self.audience =
            self.own.iter().filter(|(_, own)| own.is_told()).map(|(session, _)| *session).collect();
    }
}
