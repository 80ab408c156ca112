//! [`Room`], the owner's end: members, positions, order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use model::{
    Code, Content, Incarnation, MemberId, MessageId, Outcome, Position, ResumeKey, RoomId,
    SendNumber, SessionId, Target, Time, UserName, limits,
};

use crate::{
    dedup::Dedup,
    duplicates::{Duplicates, Newcomer},
    members::Members,
    message::{Body, Event, Member, OwnMember, Snapshot, Spoken, Stay, Ticket, Welcome, Whisper},
    tail::Tail,
};

/// One room, as its owner orders it.
#[derive(Debug)]
pub(crate) struct Room {
    position: Position,
    members: Members,
    senders: BTreeMap<MemberId, Sender>,
    tail: Tail,
    dedup: Dedup,
    /// Who left and may come back, oldest first.
    departed: VecDeque<Departed>,
}

/// What the owner remembers of a member beside its place in the list.
#[derive(Debug)]
struct Sender {
    user: UserName,
    /// The highest number of its sends that has a position. Numbers arrive in order, so this one
    /// number recognises every repeated send.
    applied: SendNumber,
    /// For clients that can come back. Boxed, as a crowd of others should not pay for it.
    stay: Option<Box<Stay>>,
}

/// A member that left and may come back.
#[derive(Debug)]
struct Departed {
    user: UserName,
    stay: Stay,
    /// The number of the event by which its name went with it; none while another session has it.
    until: Option<u64>,
    at: Time,
}

/// What a member said, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Saying {
    pub(crate) number: SendNumber,
    pub(crate) target: Target,
    pub(crate) content: Content,
    pub(crate) id: Option<MessageId>,
}

/// What became of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It has a position now.
    Now(Arc<Event>),
    /// This number had one before, and its sender has been told.
    Before,
    /// This message id had one before.
    Repeated(Position),
}

/// What became of a session that wants in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is in.
    Entered(Entered),
    /// It was in already: its join came twice.
    Already,
    /// This session has its name.
    Taken(MemberId),
}

/// A session that became a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    /// The event that everybody with members in the room gets.
    pub(crate) event: Arc<Event>,
    /// What the entrant is told before it, if it can come back.
    pub(crate) welcome: Option<Welcome>,
}

/// What a takeover knows of members beside their places in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) applied: SendNumber,
    pub(crate) stay: Option<Stay>,
}

impl Room {
    /// A room without members whose next event stands right after `position`.
    pub(crate) fn new(position: Position) -> Self {
        Self {
            position,
            members: Members::default(),
            senders: BTreeMap::new(),
            tail: Tail::default(),
            dedup: Dedup::default(),
            departed: VecDeque::new(),
        }
    }

    /// A room as a takeover found it.
    pub(crate) fn restored(
        now: Time,
        position: Position,
        members: Members,
        tail: Tail,
        known: &BTreeMap<MemberId, Known>,
    ) -> Self {
        let senders = members
            .iter()
            .map(|member| {
                let Known { applied, stay } = known.get(&member.id).copied().unwrap_or_default();
                (member.id, Sender { user: member.user, applied, stay: stay.map(Box::new) })
            })
            .collect();
        let mut dedup = Dedup::default();
        for event in tail.iter() {
            if let Some((user, id)) = event.message_id() {
                dedup.insert(now, user.clone(), id.clone(), event.position);
            }
        }
        Self { position, members, senders, tail, dedup, departed: VecDeque::new() }
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

    /// When nobody can come back any more who has left, at the latest; nothing if that is so now.
    pub(crate) fn awaits(&mut self, now: Time) -> Option<Time> {
        while let Some(oldest) = self.departed.front()
            && now - oldest.at >= limits::RESUME_WINDOW
        {
            self.departed.pop_front();
        }
        self.departed.back().map(|last| last.at + limits::RESUME_WINDOW)
    }

    /// About how many bytes it keeps alive, beside its members.
    pub(crate) fn weight(&self) -> usize {
        let departed = self.departed.len() * size_of::<Departed>();
        size_of::<Self>() + self.tail.bytes() + self.dedup.bytes() + departed
    }

    /// Makes a session a member, unless its name is taken and the policy has it wait.
    ///
    /// # Errors
    ///
    /// `NameTaken`, or `SlowDown` if the room is full, or the member has too many sessions.
    pub(crate) fn join(
        &mut self,
        now: Time,
        newcomer: &Newcomer,
        duplicates: Duplicates,
    ) -> Result<Entry, Code> {
        let Newcomer { member, ticket } = newcomer;
        if self.has(member.id) {
            return Ok(Entry::Already);
        }
        if let Some(ticket) = ticket.filter(|_| newcomer.comes_back())
            && let Some((old, stay)) = self.stay_of(&member.user, ticket.key)
        {
            return Ok(Entry::Entered(self.come_back(old, member.clone(), stay, ticket)));
        }
        let holder = self.members.named(&member.user);
        match (holder, duplicates) {
            (Some(holder), Duplicates::Reject) => return Ok(Entry::Taken(holder)),
            (Some(_), Duplicates::Replace) if newcomer.comes_back() => return Err(Code::NameTaken),
            (Some(holder), Duplicates::Replace) => return Ok(Entry::Taken(holder)),
            (Some(_), Duplicates::Multi) => {
                let sessions = self.members.all_named(&member.user).count();
                if sessions >= limits::MEMBER_SESSIONS_MAX {
                    return Err(Code::SlowDown);
                }
            }
            (None, _) if self.members.len() >= limits::ROOM_MEMBERS_MAX => {
                return Err(Code::SlowDown);
            }
            (None, _) => {}
        }
        let welcome = ticket.map(|ticket| self.welcome_joining(now, &member.user, ticket));
        let stay = welcome.as_ref().map(|welcome| Box::new(welcome.stay));
        self.members.insert(member.clone());
        let (user, applied) = (member.user.clone(), SendNumber::default());
        self.senders.insert(member.id, Sender { user, applied, stay });
        let joined = if holder.is_none() { Body::Joined } else { Body::SessionJoined };
        let event = self.append(joined(member.clone()));
        Ok(Entry::Entered(Entered { event, welcome }))
    }

    /// The session of this name whose stay has this key, and the stay.
    fn stay_of(&self, user: &UserName, key: ResumeKey) -> Option<(MemberId, Stay)> {
        self.members.all_named(user).find_map(|id| {
            let stay = self.senders.get(&id)?.stay.as_deref().filter(|stay| stay.key == key)?;
            Some((id, *stay))
        })
    }

    /// Puts a session in the place of the one that its client had before.
    fn come_back(&mut self, old: MemberId, member: Member, stay: Stay, ticket: Ticket) -> Entered {
        let until = self.position.seq;
        let welcome = self.welcome_back(&member.user, stay, until, ticket);
        self.senders.remove(&old);
        self.members.remove(old);
        self.members.insert(member.clone());
        let (user, applied) = (member.user.clone(), SendNumber::default());
        self.senders.insert(member.id, Sender { user, applied, stay: Some(Box::new(stay)) });
        let event = self.append(Body::Moved { from: old, to: Box::new(member) });
        Entered { event, welcome: Some(welcome) }
    }

    /// What one is told who becomes a member anew.
    fn welcome_joining(&mut self, now: Time, user: &UserName, ticket: Ticket) -> Welcome {
        let stay = Stay { key: ticket.key, since: self.position.seq + 1 };
        // Whoever is forgotten by time is so here, too.
        let _ = self.awaits(now);
        let known = |it: &Departed| it.stay.key == ticket.key && it.user == *user;
        let welcome = match self.departed.iter().rposition(known) {
            Some(at) if ticket.seen.is_some() => {
                let departed = self.departed.remove(at);
                departed.map(|it| {
                    let until = it.until.unwrap_or(self.position.seq);
                    self.welcome_back(user, it.stay, until, ticket)
                })
            }
            Some(_) | None => None,
        };
        match welcome {
            Some(welcome) => Welcome { stay, ..welcome },
            None => {
                let outcome = if ticket.seen.is_some() { Outcome::Reset } else { Outcome::Joined };
                Welcome { outcome, stay, events: self.history() }
            }
        }
    }

    /// What one is told who comes back. Whispers count up to `until`: after that the name may have
    /// been another's.
    fn welcome_back(&self, user: &UserName, stay: Stay, until: u64, ticket: Ticket) -> Welcome {
        let missed = ticket.seen.filter(|seen| seen.seq >= stay.since).and_then(|seen| {
            let missed: Vec<_> = self.tail.since(seen, self.position)?.collect();
            // A placeholder may stand for a whisper to just this client.
            let is_known = missed.iter().all(|event| event.body != Body::Hidden);
            let is_for = |event: &&Arc<Event>| event.is_for(user, until);
            is_known.then(|| missed.into_iter().filter(is_for).cloned().collect())
        });
        match missed {
            Some(events) => Welcome { outcome: Outcome::Resumed, stay, events },
            None => Welcome { outcome: Outcome::Reset, stay, events: self.history() },
        }
    }

    /// What was said to everyone last.
    fn history(&self) -> Vec<Arc<Event>> {
        let (count, bytes) = (limits::TAIL_EVENTS_MAX, limits::SNAPSHOT_BYTES_MAX);
        let events = self.tail.last(count, bytes);
        let said = events.into_iter().filter(|event| matches!(event.body, Body::Said(_)));
        let mut said: Vec<_> = said.collect();
        let surplus = said.len().saturating_sub(limits::HISTORY_EVENTS_MAX);
        said.drain(..surplus);
        said
    }

    /// Ends a membership, or a session of one that has others. `None` if there was none.
    pub(crate) fn leave(&mut self, now: Time, id: MemberId) -> Option<Arc<Event>> {
        let sender = self.senders.remove(&id)?;
        let member = self.members.remove(id)?;
        let is_last = self.members.named(&member.user).is_none();
        let left = if is_last { Body::Left } else { Body::SessionLeft };
        let event = self.append(left(member));
        let until = is_last.then_some(event.position.seq);
        if let Some(until) = until {
            self.name_went(&sender.user, until);
        }
        if let Some(stay) = sender.stay.as_deref().copied() {
            if self.departed.len() >= limits::DEPARTED_MAX {
                self.departed.pop_front();
            }
            self.departed.push_back(Departed { user: sender.user, stay, until, at: now });
        }
        Some(event)
    }

    /// Ends the membership of a session whose name goes to another. Its client cannot take it up
    /// again. `None` if there was none.
    pub(crate) fn replace(&mut self, id: MemberId) -> Option<Arc<Event>> {
        let sender = self.senders.remove(&id)?;
        let member = self.members.remove(id)?;
        let event = self.append(Body::Replaced(member));
        self.name_went(&sender.user, event.position.seq);
        Some(event)
    }

    /// What comes later for this name is none of the business of sessions that had it before.
    fn name_went(&mut self, user: &UserName, until: u64) {
        for it in self.departed.iter_mut().filter(|it| it.until.is_none() && it.user == *user) {
            it.until = Some(until);
        }
    }

    /// Gives a send its position.
    ///
    /// # Errors
    ///
    /// `Unauthorized` if the session is no member, `Absent` if the target is none.
    pub(crate) fn say(
        &mut self,
        now: Time,
        member: MemberId,
        saying: Saying,
    ) -> Result<Said, Code> {
        let sender = self.senders.get_mut(&member).ok_or(Code::Unauthorized)?;
        let Saying { number, target, content, id } = saying;
        if number <= sender.applied {
            return Ok(Said::Before);
        }
        if let Some(id) = &id
            && let Some(position) = self.dedup.position(now, &sender.user, id)
        {
            sender.applied = number;
            return Ok(Said::Repeated(position));
        }
        let from = Member { id: member, user: sender.user.clone() };
        let named = id.clone().map(|id| (from.user.clone(), id));
        let said = |shown| Spoken { from, number, shown, content, id };
        let body = match target {
            Target::Everyone { shown } => Body::Said(Box::new(said(shown))),
            Target::One(user) => {
                let mut sessions = self.members.all_named(&user);
                let to = sessions.next().ok_or(Code::Absent)?;
                let also = sessions.collect();
                let spoken = said(Content::Text(user.as_str().into()));
                let to = Member { id: to, user };
                Body::Whispered(Box::new(Whisper { spoken, to, also }))
            }
        };
        sender.applied = number;
        let event = self.append(body);
        if let Some((user, id)) = named {
            self.dedup.insert(now, user, id, event.position);
        }
        Ok(Said::Now(event))
    }

    /// All events after `position`; `None` if who has come so far needs a snapshot.
    pub(crate) fn repair(&self, position: Position) -> Option<Vec<Arc<Event>>> {
        let missing = self.tail.since(position, self.position)?;
        Some(missing.cloned().collect())
    }

    /// The room as it stands, for `connector`.
    pub(crate) fn snapshot(&self, room: &RoomId, connector: Incarnation) -> Snapshot {
        Snapshot {
            room: room.clone(),
            position: self.position,
            members: self.members.iter().collect(),
            applied: self.applied_of(connector),
            tail: self.tail.last(limits::SNAPSHOT_EVENTS_MAX, limits::SNAPSHOT_BYTES_MAX),
        }
    }

    /// For a connector's members, the highest number of their sends that is applied.
    fn applied_of(&self, connector: Incarnation) -> Vec<OwnMember> {
        let first = MemberId { connector, session: SessionId(0) };
        let last = MemberId { connector, session: SessionId(u64::MAX) };
        self.senders
            .range(first..=last)
            .map(|(id, sender)| OwnMember {
                session: id.session,
                applied: sender.applied,
                stay: None,
            })
            .collect()
    }

    fn append(&mut self, body: Body) -> Arc<Event> {
        self.position = self.position.next();
        let event = Arc::new(Event { position: self.position, body });
        self.tail.push(Arc::clone(&event));
        event
    }
}
