//! [`Room`], the owner's end: members, positions, order.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    Code, Content, Incarnation, MemberId, Position, SendNumber, SessionId, Target, UserName, limits,
};

use crate::{
    members::Members,
    message::{Body, Event, Member, OwnMember},
    tail::Tail,
};

/// One room, as its owner orders it.
#[derive(Debug)]
pub(crate) struct Room {
    position: Position,
    members: Members,
    senders: BTreeMap<MemberId, Sender>,
    tail: Tail,
}

/// What the owner remembers of a member beside its place in the list.
#[derive(Debug)]
struct Sender {
    user: UserName,
    /// The highest number of its sends that has a position. Numbers arrive in order, so this one
    /// number recognises every repeated send.
    applied: SendNumber,
}

impl Room {
    /// A room without members whose next event stands right after `position`.
    pub(crate) fn new(position: Position) -> Self {
        Self {
            position,
            members: Members::default(),
            senders: BTreeMap::new(),
            tail: Tail::default(),
        }
    }

    /// A room as a takeover found it.
    pub(crate) fn restored(
        position: Position,
        members: Members,
        tail: Tail,
        applied: &BTreeMap<MemberId, SendNumber>,
    ) -> Self {
        let senders = members
            .iter()
            .map(|member| {
                let applied = applied.get(&member.id).copied().unwrap_or_default();
                (member.id, Sender { user: member.user, applied })
            })
            .collect();
        Self { position, members, senders, tail }
    }

    /// The last event's position.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The members.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// Whether a session is a member.
    pub(crate) fn has(&self, id: MemberId) -> bool {
        self.senders.contains_key(&id)
    }

    /// Makes a session a member. `None` if it is one already (a repeated join).
    ///
    /// # Errors
    ///
    /// `NameTaken`, or `SlowDown` if the room is full.
    pub(crate) fn join(&mut self, member: Member) -> Result<Option<Arc<Event>>, Code> {
        if self.has(member.id) {
            return Ok(None);
        }
        if self.members.named(&member.user).is_some() {
            return Err(Code::NameTaken);
        }
        if self.members.len() >= limits::ROOM_MEMBERS_MAX {
            return Err(Code::SlowDown);
        }
        self.members.insert(member.clone());
        let sender = Sender { user: member.user.clone(), applied: SendNumber::default() };
        self.senders.insert(member.id, sender);
        Ok(Some(self.append(Body::Joined(member))))
    }

    /// Ends a membership. `None` if there was none.
    pub(crate) fn leave(&mut self, id: MemberId) -> Option<Arc<Event>> {
        self.senders.remove(&id)?;
        let member = self.members.remove(id)?;
        Some(self.append(Body::Left(member)))
    }

    /// Gives a send its position. `None` if this number has one already.
    ///
    /// # Errors
    ///
    /// `Unauthorized` if the session is no member, `Absent` if the target is none.
    pub(crate) fn say(
        &mut self,
        id: MemberId,
        number: SendNumber,
        target: &Target,
        content: Content,
    ) -> Result<Option<Arc<Event>>, Code> {
        let sender = self.senders.get_mut(&id).ok_or(Code::Unauthorized)?;
        if number <= sender.applied {
            return Ok(None);
        }
        let from = Member { id, user: sender.user.clone() };
        let body = match target {
            Target::Everyone { shown } => {
                Body::Said { from, number, shown: shown.clone(), content }
            }
            Target::One(user) => {
                let to = self.members.named(user).ok_or(Code::Absent)?;
                let to = Member { id: to, user: user.clone() };
                let shown = Content::Text(user.as_str().into());
                Body::Whispered { from, number, to, shown, content }
            }
        };
        sender.applied = number;
        Ok(Some(self.append(body)))
    }

    /// All events after `position` as `connector` may see them; `None` if it needs a snapshot.
    pub(crate) fn repair(
        &self,
        connector: Incarnation,
        position: Position,
    ) -> Option<Vec<Arc<Event>>> {
        let missing = self.tail.since(position, self.position)?;
        Some(missing.map(|event| event.seen_by(connector)).collect())
    }

    /// The last events as `connector` may see them, for a snapshot.
    pub(crate) fn last_events(&self, connector: Incarnation) -> Vec<Arc<Event>> {
        let (count, bytes) = (limits::SNAPSHOT_EVENTS_MAX, limits::SNAPSHOT_BYTES_MAX);
        self.tail.last(count, bytes).iter().map(|event| event.seen_by(connector)).collect()
    }

    /// For a connector's members, the highest number of their sends that is applied.
    pub(crate) fn applied_of(&self, connector: Incarnation) -> Vec<OwnMember> {
        let first = MemberId { connector, session: SessionId(0) };
        let last = MemberId { connector, session: SessionId(u64::MAX) };
        self.senders
            .range(first..=last)
            .map(|(id, sender)| OwnMember { session: id.session, applied: sender.applied })
            .collect()
    }

    fn append(&mut self, body: Body) -> Arc<Event> {
        self.position = self.position.next();
        let event = Arc::new(Event { position: self.position, body });
        self.tail.push(Arc::clone(&event));
        event
    }
}
