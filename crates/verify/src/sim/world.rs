//! The nodes, what carries things between them, and what goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Code, Incarnation, RoomId, SendNumber, SessionId, Shard, Term, Time};
use room::{
    LinkId, Owner, OwnerEffect, OwnerEvent, RelayEffect, RelayEvent, Relays,
    message::{Frame, ToOwner},
};

use super::{
    Bug, Config, Counters, Outcome,
    clients::{Action, Clients},
    item::{Fault, Item, Node, Slot, Stream},
    network::{Agenda, Channel},
    random::Random,
};
use crate::history::{History, Presence};

/// Shards that the rooms are spread over.
const SHARDS: u16 = 4;
/// A node that stands still longer loses its streams.
pub(super) const STREAM_PATIENCE: Duration = Duration::from_millis(1200);
/// A node that stands still longer loses its lease.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_secs(30);
/// When, in that time, everybody says something once more.
const LAST_WORDS: Duration = Duration::from_secs(20);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) random: Random,
    pub(super) now: Time,
    pub(super) agenda: Agenda<Item>,
    pub(super) connectors: Vec<Slot<Relays>>,
    pub(super) chats: Vec<Slot<Owner>>,
    pub(super) clients: Clients,
    rooms: Vec<RoomId>,
    pub(super) streams: BTreeMap<u64, Stream>,
    /// The registry: who owns what, and who lives as far as it knows.
    pub(super) owners: BTreeMap<Shard, (Option<Incarnation>, Term)>,
    pub(super) live: Vec<(Node, Incarnation)>,
    pub(super) lives: u64,
    arrivals: BTreeMap<SessionId, u64>,
    pub(super) seen_sends: BTreeSet<(SessionId, u64)>,
    pub(super) counters: Counters,
    /// Sends without an answer.
    outstanding: BTreeSet<(SessionId, SendNumber)>,
    trace: u64,
    story: Vec<String>,
}

impl<'a> World<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let mut random = Random::new(config.seed);
        let room = |n| RoomId::from_peer(&format!("r{n}")).expect("short");
        let rooms: Vec<RoomId> = (0..config.rooms).map(room).collect();
        let clients = Clients::new(config.clients, config.connectors, &rooms, &mut random);
        let mut world = Self {
            config,
            random,
            now: Time::ZERO,
            agenda: Agenda::new(),
            connectors: Vec::new(),
            chats: Vec::new(),
            clients,
            rooms,
            streams: BTreeMap::new(),
            owners: (0..SHARDS)
                .filter_map(Shard::new)
                .map(|shard| (shard, (None, Term(0))))
                .collect(),
            live: Vec::new(),
            lives: 0,
            arrivals: BTreeMap::new(),
            seen_sends: BTreeSet::new(),
            counters: Counters::default(),
            outstanding: BTreeSet::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            story: Vec::new(),
        };
        for _ in 0..config.chats {
            world.chats.push(Slot::new(Owner::default()));
        }
        for _ in 0..config.connectors {
            world.connectors.push(Slot::new(Relays::new(Incarnation(0))));
        }
        for chat in 0..config.chats {
            world.start(Node::Chat(chat));
        }
        for connector in 0..config.connectors {
            world.start(Node::Connector(connector));
        }
        for shard in world.owners.keys().copied().collect::<Vec<_>>() {
            world.agenda.at(Time::ZERO + ms(5), Item::Claim(shard));
        }
        for client in 0..config.clients {
            let at = world.random.span(ms(10), ms(500));
            world.agenda.at(Time::ZERO + at, Item::Acts(client));
        }
        world.plan_faults();
        world
    }

    pub(super) fn run(mut self) -> Outcome {
        let talk = Time::ZERO + self.config.duration;
        while let Some((at, item)) = self.agenda.next(talk + REST) {
            self.now = at;
            self.happen(item);
        }
        let alive = |session| self.clients.of(session).is_some();
        let unanswered = self.outstanding.iter().filter(|(session, _)| alive(*session)).count();
        self.counters.unanswered = unanswered as u64;
        let mut history = History::new(self.clients.names, Presence::Announced);
        for log in self.clients.logs {
            self.counters.deliveries += log.deliveries();
            history.push(log);
        }
        Outcome {
            report: history.check(),
            counters: self.counters,
            trace: self.trace,
            story: self.story,
        }
    }

    fn plan_faults(&mut self) {
        let faults = self.config.faults;
        let kinds = [
            (faults.chat_killed, Fault::ChatKilled),
            (faults.connector_killed, Fault::ConnectorKilled),
            (faults.link_cut, Fault::LinkCut),
            (faults.paused, Fault::Paused),
            (faults.moved, Fault::Moved),
        ];
        for (mean, fault) in kinds {
            let Some(mean) = mean else { continue };
            let mut at = Time::ZERO + ms(1000);
            loop {
                at = at + self.random.span(mean / 4, mean * 7 / 4);
                if at.since_start() >= self.config.duration {
                    break;
                }
                self.agenda.at(at, Item::Fault(fault));
            }
        }
    }

    /// Writes down what happens, for the trace and for the story.
    fn note(&mut self, item: &Item) {
        let line = format!("{} {item:?}", self.now);
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.config.story {
            self.story.push(line);
        }
    }

    /// The node that something happens at, if it is one that can stand still.
    fn place(&self, item: &Item) -> Option<Node> {
        let stream = |id: &u64| self.streams.get(id).copied();
        match item {
            Item::Does { connector, .. } | Item::Relay { connector, .. } => {
                Some(Node::Connector(*connector))
            }
            Item::LinkUp(id) | Item::LinkDown(id) | Item::Down { stream: id, .. } => {
                stream(id).map(|stream| Node::Connector(stream.connector))
            }
            Item::Dialled(id) | Item::ChatLinkDown(id) | Item::Up { stream: id, .. } => {
                stream(id).map(|stream| Node::Chat(stream.chat))
            }
            Item::Owner { chat, .. } => Some(Node::Chat(*chat)),
            Item::GivenUp { node, .. } => Some(*node),
            Item::Acts(_)
            | Item::Dial { .. }
            | Item::Gone(_)
            | Item::Claim(_)
            | Item::Start(_)
            | Item::Stalled { .. }
            | Item::Fault(_) => None,
        }
    }

    pub(super) fn paused_until(&self, node: Node) -> Time {
        match node {
            Node::Connector(n) => self.connectors[n].paused_until,
            Node::Chat(n) => self.chats[n].paused_until,
        }
    }

    pub(super) fn life(&self, node: Node) -> (Incarnation, bool) {
        match node {
            Node::Connector(n) => (self.connectors[n].life, self.connectors[n].alive),
            Node::Chat(n) => (self.chats[n].life, self.chats[n].alive),
        }
    }

    fn happen(&mut self, item: Item) {
        if let Some(until) = self.place(&item).map(|node| self.paused_until(node))
            && until > self.now
        {
            self.agenda.at(until, item);
            return;
        }
        self.note(&item);
        match item {
            Item::Acts(client) => self.acts(client),
            Item::Does { connector, life, session, room, action } => {
                self.does(connector, life, session, room, action);
            }
            Item::Relay { connector, life, event } => self.relay(connector, life, event),
            Item::Dialled(id) => self.dialled(id),
            Item::LinkUp(id) => {
                if let Some(stream) = self.open(id) {
                    let Stream { connector, connector_life, chat_life, .. } = stream;
                    self.relay(connector, connector_life, RelayEvent::LinkUp(chat_life));
                }
            }
            Item::LinkDown(id) => self.link_down(id),
            Item::ChatLinkDown(id) => {
                if let Some(Stream { chat, chat_life, connector_life, .. }) =
                    self.streams.get(&id).copied()
                {
                    let link = LinkId(id);
                    let event = OwnerEvent::LinkDown { connector: connector_life, link };
                    self.owner(chat, chat_life, event);
                }
            }
            Item::Up { stream, frame } => self.up(stream, frame),
            Item::Down { stream, frame } => {
                if let Some(Stream { connector, connector_life, chat_life, .. }) = self.open(stream)
                {
                    let frame = self.misread(frame);
                    let from = self.mistake(frame.shard, chat_life);
                    self.relay(connector, connector_life, RelayEvent::Frame { from, frame });
                }
            }
            Item::Owner { chat, life, event } => self.owner(chat, life, event),
            Item::Dial { connector, chat } => self.dial(connector, chat),
            Item::Gone(life) => self.gone(life),
            Item::GivenUp { node, life } => {
                if self.life(node) == (life, true) {
                    self.stop(node);
                    self.start(node);
                }
            }
            Item::Claim(shard) => self.claim(shard),
            Item::Start(node) => self.start(node),
            Item::Stalled { node, life } => {
                if self.life(node) == (life, true) {
                    self.break_streams_of(node);
                }
            }
            Item::Fault(fault) => self.fault(fault),
        }
    }

    fn talking(&self) -> bool {
        self.now.since_start() < self.config.duration
    }

    fn acts(&mut self, number: usize) {
        let last = Time::ZERO + self.config.duration + LAST_WORDS;
        if !self.talking() && self.now < last {
            self.agenda.at(last, Item::Acts(number));
            return;
        }
        let connector = self.clients.all[number].connector;
        let (life, alive) = self.life(Node::Connector(connector));
        if !alive {
            self.clients.all[number].connector = self.random.index(self.connectors.len());
        } else if let Some(action) = self.clients.act(number, &mut self.random) {
            let client = &self.clients.all[number];
            let (session, room) = (client.session, client.room);
            if let Action::Say { number, .. } = &action {
                self.outstanding.insert((session, *number));
            }
            let leaves = matches!(action, Action::Leave);
            let item = Item::Does { connector, life, session, room, action };
            let delay = self.random.delay();
            self.agenda.over(Channel::Client(number), self.now, delay, item);
            if leaves {
                self.clients.gone(session);
                self.clients.renew(number, &mut self.random);
            }
        }
        if self.talking() {
            let pause = self.random.span(ms(5), ms(200));
            self.agenda.at(self.now + pause, Item::Acts(number));
        }
    }

    fn does(
        &mut self,
        connector: usize,
        life: Incarnation,
        session: SessionId,
        room: usize,
        action: Action,
    ) {
        let shard = Shard::from_hash((room % usize::from(SHARDS)) as u64);
        let room = self.rooms[room].clone();
        let event = match action {
            Action::Enter { user } => RelayEvent::Enter { shard, room, session, user },
            Action::Say { number, target, content } => {
                RelayEvent::Say { shard, room, session, number, target, content }
            }
            Action::Leave => RelayEvent::Leave { shard, room, session },
        };
        self.relay(connector, life, event);
    }

    pub(super) fn relay(&mut self, connector: usize, life: Incarnation, event: RelayEvent) {
        let slot = &mut self.connectors[connector];
        if slot.life != life || !slot.alive {
            return;
        }
        if matches!(event, RelayEvent::Timeout) {
            slot.timer = None;
        }
        let mut effects = Vec::new();
        slot.machine.handle(self.now, event, &mut effects);
        for effect in effects {
            self.relay_effect(life, effect);
        }
        let slot = &mut self.connectors[connector];
        let timeout = slot.machine.poll_timeout();
        if let Some(at) = timeout.filter(|at| slot.wants_timer(*at)) {
            let event = RelayEvent::Timeout;
            self.agenda.at(at.max(self.now), Item::Relay { connector, life, event });
        }
    }

    fn relay_effect(&mut self, life: Incarnation, effect: RelayEffect) {
        match effect {
            RelayEffect::Frame { to, frame } => {
                self.count_repeats(&frame);
                if let Some(id) = self.stream_between(life, to) {
                    let delay = self.random.delay();
                    let channel = Channel::Stream { stream: id, up: true };
                    self.agenda.over(channel, self.now, delay, Item::Up { stream: id, frame });
                }
            }
            RelayEffect::CutLink(chat) => {
                if let Some(id) = self.stream_between(life, chat) {
                    self.cut(id);
                }
            }
            RelayEffect::Entered { session, users } => self.clients.entered(session, &users),
            RelayEffect::EnterRefused { session, .. } => self.clients.refused(session),
            RelayEffect::Said { session, number, .. } => self.answer(session, number, Code::Ok),
            RelayEffect::SayRefused { session, number, code } => {
                self.answer(session, number, code);
            }
            RelayEffect::Push { sessions, except, push, answered } => {
                for session in sessions.iter().filter(|session| Some(**session) != except) {
                    if !self.loses_a_push() {
                        self.clients.hears(*session, &push);
                    }
                }
                if let Some((session, number)) = answered {
                    self.answer(session, number, Code::Ok);
                }
            }
            RelayEffect::Expel { session } => {
                self.counters.expelled += 1;
                self.clients.gone(session);
                if let Some(number) = self.clients.of(session) {
                    self.clients.renew(number, &mut self.random);
                }
            }
            RelayEffect::StaleFrame { .. } => self.counters.stale_frames += 1,
            RelayEffect::Attached { .. } => {}
        }
    }

    fn answer(&mut self, session: SessionId, number: SendNumber, code: Code) {
        self.outstanding.remove(&(session, number));
        self.counters.acked += u64::from(code == Code::Ok);
        self.clients.answered(session, number, code);
    }

    fn up(&mut self, stream: u64, mut frame: Frame<ToOwner>) {
        let Some(Stream { chat, chat_life, connector_life, .. }) = self.open(stream) else {
            return;
        };
        match (&mut frame.message, self.config.bug) {
            (ToOwner::Say { session, number, .. }, Some(Bug::ForgetNumbers)) => {
                let arrived = self.arrivals.entry(*session).or_default();
                *arrived += 1;
                *number = SendNumber(*arrived);
            }
            (ToOwner::Leave { .. }, Some(Bug::LoseLeaves)) => return,
            _ => {}
        }
        let event = OwnerEvent::Frame { connector: connector_life, link: LinkId(stream), frame };
        self.owner(chat, chat_life, event);
    }

    pub(super) fn owner(&mut self, chat: usize, life: Incarnation, event: OwnerEvent) {
        let slot = &mut self.chats[chat];
        if slot.life != life || !slot.alive {
            return;
        }
        if matches!(event, OwnerEvent::Timeout) {
            slot.timer = None;
        }
        let mut effects = Vec::new();
        slot.machine.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                OwnerEffect::Frame { to, frame } => {
                    if let Some(id) = self.stream_between(to, life) {
                        let delay = self.random.delay();
                        let channel = Channel::Stream { stream: id, up: false };
                        let item = Item::Down { stream: id, frame };
                        self.agenda.over(channel, self.now, delay, item);
                    }
                }
                OwnerEffect::Opened { rooms, reset, .. } => {
                    self.counters.takeovers += u64::from(rooms > 0);
                    self.counters.resets += reset as u64;
                }
                OwnerEffect::CutLink(connector) => {
                    if let Some(id) = self.stream_between(connector, life) {
                        self.cut(id);
                    }
                }
                OwnerEffect::StaleFrame { .. } => self.counters.stale_frames += 1,
            }
        }
        let slot = &mut self.chats[chat];
        let timeout = slot.machine.poll_timeout();
        if let Some(at) = timeout.filter(|at| slot.wants_timer(*at)) {
            let event = OwnerEvent::Timeout;
            self.agenda.at(at.max(self.now), Item::Owner { chat, life, event });
        }
    }
}
