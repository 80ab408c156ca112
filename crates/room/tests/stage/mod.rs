//! Chats and connectors wired together without a network.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use model::{
    Content, Incarnation, MessageId, Position, ResumeKey, RoomId, SendNumber, SessionId, Shard,
    Target, Term, Time, UserName,
};
use room::{
    Duplicates, LinkId, Owner, OwnerEffect, OwnerEvent, ProbeOutcome, Push, RelayEffect,
    RelayEvent, Relays,
    message::{Body, Event, Frame, Ticket, ToOwner, ToRelay, Welcome},
};

pub(crate) type Way = (Incarnation, Incarnation);

/// Chats and connectors whose frames are delivered when a test says so.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) now: Time,
    pub(crate) chats: BTreeMap<Incarnation, Owner>,
    pub(crate) connectors: BTreeMap<Incarnation, Relays>,
    pub(crate) up: BTreeMap<Way, VecDeque<Frame<ToOwner>>>,
    pub(crate) down: BTreeMap<Way, VecDeque<Frame<ToRelay>>>,
    /// Ways on which nothing moves.
    pub(crate) held: BTreeSet<Way>,
    pub(crate) link_of: BTreeMap<Way, LinkId>,
    /// Sessions whose clients do not answer when they are asked whether they live.
    pub(crate) silent: BTreeSet<u64>,
    /// How probes ended.
    pub(crate) probed: Vec<ProbeOutcome>,
    /// What clients were told, as `session: what`.
    pub(crate) told: Vec<String>,
    pub(crate) resets: usize,
    /// Frames that connectors dropped, as they came from a former owner.
    pub(crate) stale: usize,
    /// What connectors did, for tests that look closer.
    pub(crate) effects: Vec<(Incarnation, RelayEffect)>,
    /// Every event that some connector took.
    pub(crate) events: BTreeMap<Position, Arc<Event>>,
}

pub(crate) fn shard() -> Shard {
    Shard::new(0).unwrap()
}

pub(crate) fn room() -> RoomId {
    RoomId::from_peer("r").unwrap()
}

pub(crate) const CHAT_A: Incarnation = Incarnation(1);
pub(crate) const CHAT_B: Incarnation = Incarnation(2);
pub(crate) const FRONT_1: Incarnation = Incarnation(11);
pub(crate) const FRONT_2: Incarnation = Incarnation(12);
pub(crate) const FRONT_3: Incarnation = Incarnation(13);

impl Stage {
    /// All nodes linked; the first chat owns the shard.
    pub(crate) fn new() -> Self {
        Self::with(Duplicates::Reject)
    }

    /// The same, with another policy for names that are taken.
    pub(crate) fn with(duplicates: Duplicates) -> Self {
        let fronts = [FRONT_1, FRONT_2, FRONT_3];
        let mut stage = Self {
            chats: [CHAT_A, CHAT_B].map(|chat| (chat, Owner::new(duplicates))).into(),
            connectors: fronts.map(|front| (front, Relays::new(front))).into(),
            ..Self::default()
        };
        for front in fronts {
            for chat in [CHAT_A, CHAT_B] {
                stage.link(front, chat);
            }
        }
        stage.own(CHAT_A, 1);
        stage
    }

    pub(crate) fn link(&mut self, front: Incarnation, chat: Incarnation) {
        self.up.insert((front, chat), VecDeque::new());
        self.down.insert((chat, front), VecDeque::new());
        self.held.remove(&(chat, front));
        let link = LinkId(self.link_of.get(&(front, chat)).map_or(0, |link| link.0) + 1);
        self.link_of.insert((front, chat), link);
        self.owner(chat, OwnerEvent::LinkUp { connector: front, link });
        self.relay(front, RelayEvent::LinkUp(chat));
    }

    /// A link breaks, with what is on its way, and is opened again.
    pub(crate) fn relink(&mut self, front: Incarnation, chat: Incarnation) {
        let link = self.link_of[&(front, chat)];
        self.owner(chat, OwnerEvent::LinkDown { connector: front, link });
        self.relay(front, RelayEvent::LinkDown(chat));
        self.link(front, chat);
    }

    /// A link breaks, and cannot be opened again.
    pub(crate) fn unlink(&mut self, front: Incarnation, chat: Incarnation) {
        self.down.remove(&(chat, front));
        self.relay(front, RelayEvent::LinkDown(chat));
    }

    /// A connector dies, and everybody hears of it.
    pub(crate) fn lose(&mut self, front: Incarnation) {
        self.connectors.remove(&front);
        self.down.retain(|(_, to), _| *to != front);
        self.up.retain(|(from, _), _| *from != front);
        for chat in [CHAT_A, CHAT_B] {
            self.owner(chat, OwnerEvent::ConnectorGone(front));
        }
        for other in self.connectors.keys().copied().collect::<Vec<_>>() {
            self.relay(other, RelayEvent::ConnectorGone);
        }
    }

    /// The registry grants the shard at a term, and everybody hears of it.
    pub(crate) fn own(&mut self, chat: Incarnation, term: u64) {
        let connectors = self.connectors.keys().copied().collect();
        let (shard, term) = (shard(), Term(term));
        self.owner(chat, OwnerEvent::Won { shard, term, connectors });
        for front in self.connectors.keys().copied().collect::<Vec<_>>() {
            self.relay(front, RelayEvent::Owner { shard, owner: Some(chat), term });
        }
        self.settle();
    }

    pub(crate) fn owner(&mut self, chat: Incarnation, event: OwnerEvent) {
        let mut effects = Vec::new();
        self.chats.get_mut(&chat).unwrap().handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                OwnerEffect::Frame { to, frame } => {
                    self.down.entry((chat, to)).or_default().push_back(frame);
                }
                OwnerEffect::Opened { reset, .. } => self.resets += reset,
                OwnerEffect::Probed { outcome, .. } => self.probed.push(outcome),
                OwnerEffect::Repaired { .. }
                | OwnerEffect::Replaced { .. }
                | OwnerEffect::CutLink(_)
                | OwnerEffect::StaleFrame { .. } => {}
            }
        }
    }

    fn record(&mut self, message: &ToRelay) {
        let events = match message {
            ToRelay::Event { event, .. } => std::slice::from_ref(event),
            ToRelay::Welcome { welcome, .. } => &welcome.events,
            ToRelay::Snapshot(snapshot) => &snapshot.tail,
            ToRelay::Opened
            | ToRelay::NotOwner
            | ToRelay::Repeated { .. }
            | ToRelay::Probe { .. }
            | ToRelay::Probing { .. }
            | ToRelay::Withdrawn { .. }
            | ToRelay::JoinRefused { .. }
            | ToRelay::SayRefused { .. } => return,
        };
        for event in events {
            let known = self.events.entry(event.position).or_insert_with(|| Arc::clone(event));
            assert_eq!(*known, *event, "two events at one position");
        }
    }

    pub(crate) fn relay(&mut self, front: Incarnation, event: RelayEvent) {
        let mut effects = Vec::new();
        let taken = if let RelayEvent::Frame { frame, .. } = &event {
            Some(frame.message.clone())
        } else {
            None
        };
        self.connectors.get_mut(&front).unwrap().handle(self.now, event, &mut effects);
        let is_stale = |it: &RelayEffect| matches!(it, RelayEffect::StaleFrame { .. });
        if let Some(message) = taken.filter(|_| !effects.iter().any(is_stale)) {
            self.record(&message);
        }
        for effect in effects {
            self.effects.push((front, effect.clone()));
            match effect {
                RelayEffect::Frame { to, frame } => {
                    self.up.entry((front, to)).or_default().push_back(frame);
                }
                RelayEffect::CutLink(_) => self.told.push("cut".to_owned()),
                RelayEffect::Entered { session, users, welcome, .. } => {
                    let users: Vec<&str> = users.iter().map(UserName::as_str).collect();
                    let welcome = welcome.map(|it| welcomed(&it)).unwrap_or_default();
                    self.told.push(format!("{}: in with {}{welcome}", session.0, users.join(" ")));
                }
                RelayEffect::Supersede { session } => {
                    self.told.push(format!("{}: elsewhere", session.0));
                }
                RelayEffect::Replace { session } => {
                    self.told.push(format!("{}: replaced", session.0));
                }
                RelayEffect::Probe { session } => {
                    if !self.silent.contains(&session.0) {
                        let (shard, room) = (shard(), room());
                        self.relay(front, RelayEvent::Alive { shard, room, session });
                    }
                }
                RelayEffect::Said { session, number, position } => {
                    let number = number.0;
                    self.told.push(format!("{}: {number} at {}", session.0, position.seq));
                }
                RelayEffect::Push { sessions, except, push, .. } => {
                    for session in sessions.iter().filter(|session| Some(**session) != except) {
                        self.told.push(format!("{}: {}", session.0, pushed(&push)));
                    }
                }
                RelayEffect::Expel { session } => self.told.push(format!("{}: out", session.0)),
                RelayEffect::EnterRefused { session, code } => {
                    self.told.push(format!("{}: refused {code}", session.0));
                }
                RelayEffect::SayRefused { .. } | RelayEffect::Attached { .. } => {}
                RelayEffect::StaleFrame { .. } => self.stale += 1,
            }
        }
    }

    /// Delivers until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        loop {
            let held = &self.held;
            let is_free = |way: &Way| !held.contains(way);
            let up = self.up.iter_mut().find(|(way, queue)| is_free(way) && !queue.is_empty());
            if let Some(((front, chat), frame)) =
                up.map(|(way, queue)| (*way, queue.pop_front().unwrap()))
            {
                let link = self.link_of[&(front, chat)];
                self.owner(chat, OwnerEvent::Frame { connector: front, link, frame });
                continue;
            }
            let down = self.down.iter_mut().find(|(way, queue)| is_free(way) && !queue.is_empty());
            let Some(((chat, front), frame)) =
                down.map(|(way, queue)| (*way, queue.pop_front().unwrap()))
            else {
                return;
            };
            self.relay(front, RelayEvent::Frame { from: chat, frame });
        }
    }

    pub(crate) fn enter(&mut self, front: Incarnation, session: u64, user: &str) {
        let user = UserName::from_peer(user).unwrap();
        let session = SessionId(session);
        let (shard, room) = (shard(), room());
        self.relay(front, RelayEvent::Enter { shard, room, session, user, ticket: None });
        self.settle();
    }

    /// A client that can come back enters by this key; `seen` says that it does come back.
    pub(crate) fn come(
        &mut self,
        front: Incarnation,
        session: u64,
        user: &str,
        key: u128,
        seen: Option<u64>,
    ) {
        let user = UserName::from_peer(user).unwrap();
        let session = SessionId(session);
        let seen = seen.map(|seq| Position { generation: Term(1), seq });
        let ticket = Some(Ticket { key: ResumeKey(key), seen });
        self.relay(
            front,
            RelayEvent::Enter { shard: shard(), room: room(), session, user, ticket },
        );
        self.settle();
    }

    /// A connection is lost.
    pub(crate) fn lost(&mut self, front: Incarnation, session: u64) {
        let (shard, room, session) = (shard(), room(), SessionId(session));
        self.relay(front, RelayEvent::Leave { shard, room, session, lost: true });
        self.settle();
    }

    /// Time passes, and everybody who wanted to be woken is.
    pub(crate) fn pass(&mut self, time: std::time::Duration) {
        self.now = self.now + time;
        for front in [FRONT_1, FRONT_2, FRONT_3] {
            if self.connectors.get(&front).is_some_and(|it| it.poll_timeout() <= Some(self.now)) {
                self.relay(front, RelayEvent::Timeout);
            }
        }
        self.settle();
        for chat in [CHAT_A, CHAT_B] {
            if self.chats.get(&chat).is_some_and(|it| it.poll_timeout() <= Some(self.now)) {
                self.owner(chat, OwnerEvent::Timeout);
            }
        }
        self.settle();
    }

    pub(crate) fn leave(&mut self, front: Incarnation, session: u64) {
        let session = SessionId(session);
        let (shard, room) = (shard(), room());
        self.relay(front, RelayEvent::Leave { shard, room, session, lost: false });
        self.settle();
    }

    pub(crate) fn say(&mut self, front: Incarnation, session: u64, number: u64) {
        self.say_as(front, session, number, Target::Everyone { shown: text("*") }, None);
    }

    pub(crate) fn say_as(
        &mut self,
        front: Incarnation,
        session: u64,
        number: u64,
        target: Target,
        id: Option<&str>,
    ) {
        let say = RelayEvent::Say {
            shard: shard(),
            room: room(),
            session: SessionId(session),
            number: SendNumber(number),
            target,
            content: Content::Text(format!("{session}/{number}").into()),
            id: id.map(|id| MessageId::new(id).unwrap()),
        };
        self.relay(front, say);
        self.settle();
    }

    pub(crate) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

pub(crate) fn pushed(push: &Push) -> String {
    match push {
        Push::Add(user) => format!("+{user}"),
        Push::Leave(user) => format!("-{user}"),
        Push::Count(members) => format!("{members} here"),
        Push::Chat(event) => match event.body.spoken() {
            Some(spoken) => spoken.content.as_text().unwrap().to_owned(),
            None => "?".to_owned(),
        },
    }
}

pub(crate) fn text(text: &str) -> Content {
    Content::Text(text.into())
}

pub(crate) fn welcomed(welcome: &Welcome) -> String {
    let told = welcome.events.iter().map(|event| match &event.body {
        Body::Joined(member) => format!(" +{}", member.user),
        Body::Left(member) | Body::Replaced(member) => format!(" -{}", member.user),
        Body::Said(_) | Body::Whispered(_) => {
            format!(" {}", event.body.spoken().unwrap().content.as_text().unwrap())
        }
        Body::SessionJoined(_) | Body::SessionLeft(_) | Body::Moved { .. } | Body::Hidden => {
            " ?".to_owned()
        }
    });
    format!(", {}:{}", welcome.outcome.name(), told.collect::<String>())
}
