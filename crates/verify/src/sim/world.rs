//! The nodes, what carries things between them, and what goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Incarnation, RoomId, SendNumber, SessionId, Shard, Term, Time};
use room::{LinkId, Owner, OwnerEvent, RelayEvent, Relays};

use super::{
    Config, Counters, FaultId, Outcome,
    clients::Clients,
    item::{Item, Node, Slot, Stream},
    network::Agenda,
    plan::plan,
    random::Random,
};
use crate::history::{History, Presence};

/// Shards that the rooms are spread over.
pub(super) const SHARDS: u16 = 4;
/// A node that stands still longer loses its streams.
pub(super) const STREAM_PATIENCE: Duration = Duration::from_millis(1200);
/// A node that stands still longer loses its lease.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long everything may take to come to rest.
const REST: Duration = Duration::from_secs(30);
/// When, in that time, everybody says something once more.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(20);

/// Tells the chance of clients that can come back from that of everything else.
const MODERN: u64 = 0x0bac_0bac;

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
    pub(super) rooms: Vec<RoomId>,
    pub(super) streams: BTreeMap<u64, Stream>,
    /// The registry: who owns what, and who lives as far as it knows.
    pub(super) owners: BTreeMap<Shard, (Option<Incarnation>, Term)>,
    pub(super) live: Vec<(Node, Incarnation)>,
    pub(super) lives: u64,
    /// Connectors and chats that cannot reach each other, and until when.
    pub(super) parted: BTreeMap<(usize, usize), Time>,
    /// Nodes that are slow to reach, and until when.
    pub(super) slow: BTreeMap<Node, Time>,
    /// Until then the registry is silent.
    pub(super) registry_back: Time,
    /// For a planted bug: the last number that no client has given a send.
    pub(super) fresh_number: u64,
    pub(super) seen_sends: BTreeSet<(SessionId, u64)>,
    /// Sends that have a position.
    pub(super) placed: BTreeSet<(SessionId, u64)>,
    pub(super) counters: Counters,
    pub(super) struck: Vec<FaultId>,
    /// Connections that carry nothing any more.
    pub(super) closed: BTreeSet<SessionId>,
    /// Sends without an answer.
    pub(super) outstanding: BTreeSet<(SessionId, SendNumber)>,
    trace: u64,
    story: Vec<String>,
}

impl<'a> World<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let mut chance = Random::new(config.seed);
        // What clients do depends on the seed only; what happens to it, also on the luck.
        let random = Random::new(chance.below(u64::MAX) ^ config.luck);
        let room = |n| RoomId::from_peer(&format!("r{n}")).expect("short");
        let rooms: Vec<RoomId> = (0..config.rooms).map(room).collect();
        // Drawn apart, so that without them everything is as it would be.
        let modern = config.faults.modern.then(|| Random::new(config.seed ^ MODERN));
        let clients = Clients::new(config.clients, config.connectors, &rooms, &mut chance, modern);
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
            parted: BTreeMap::new(),
            slow: BTreeMap::new(),
            registry_back: Time::ZERO,
            fresh_number: 1 << 40,
            seen_sends: BTreeSet::new(),
            placed: BTreeSet::new(),
            counters: Counters::default(),
            struck: Vec::new(),
            closed: BTreeSet::new(),
            outstanding: BTreeSet::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            story: Vec::new(),
        };
        for _ in 0..config.chats {
            world.chats.push(Slot::new(Owner::new(config.duplicates)));
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
        for fault in plan(config) {
            world.agenda.at(fault.at, Item::Fault(fault));
        }
        world
    }

    pub(super) fn run(mut self) -> Outcome {
        let talk = Time::ZERO + self.config.duration;
        while let Some((at, item)) = self.agenda.next(talk + REST) {
            self.now = at;
            self.clients.now = at;
            self.happen(item);
        }
        self.end_returns();
        let alive = |session| self.clients.of(session).is_some();
        let unanswered = self.outstanding.iter().filter(|(session, _)| alive(*session)).count();
        self.counters.unanswered = unanswered as u64;
        let mut history = History::new(self.clients.names, Presence::Announced);
        history.duplicates(self.config.duplicates);
        if let Some(bound) = self.config.leave_within {
            history.leave_within(bound);
        }
        if let Some(bound) = self.config.quiet_within {
            history.quiet_within(bound);
        }
        for log in self.clients.logs {
            self.counters.deliveries += log.deliveries();
            history.push(log);
        }
        Outcome {
            report: history.check(),
            counters: self.counters,
            trace: self.trace,
            faults: self.struck,
            story: self.story,
        }
    }

    /// Writes down what happens, for the trace and for the story.
    fn note(&mut self, item: &Item) {
        let nanos = u64::try_from(self.now.since_start().as_nanos()).unwrap_or(u64::MAX);
        for number in item.fingerprint().into_iter().chain([nanos]) {
            self.trace = (self.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if self.config.story {
            self.story.push(format!("{} {item:?}", self.now));
        }
    }

    /// Adds to the story.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.config.story {
            self.story.push(format!("{}   {}", self.now, line()));
        }
    }

    /// The node that something happens at, if it is one that can stand still.
    fn place(&self, item: &Item) -> Option<Node> {
        let stream = |id: &u64| self.streams.get(id).copied();
        match item {
            Item::Does { connector, .. }
            | Item::Noticed { connector, .. }
            | Item::Relay { connector, .. } => Some(Node::Connector(*connector)),
            Item::LinkUp(id) | Item::LinkDown(id) | Item::Down { stream: id, .. } => {
                stream(id).map(|stream| Node::Connector(stream.connector))
            }
            Item::Dialled(id) | Item::ChatLinkDown(id) | Item::Up { stream: id, .. } => {
                stream(id).map(|stream| Node::Chat(stream.chat))
            }
            Item::Owner { chat, .. } => Some(Node::Chat(*chat)),
            Item::GivenUp { node, .. } => Some(*node),
            Item::Acts(_)
            | Item::ComesBack { .. }
            | Item::Dial { .. }
            | Item::Gone(_)
            | Item::Missed(_)
            | Item::Again { .. }
            | Item::Broken(_)
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
            Item::Noticed { connector, life, session, room } => {
                self.noticed(connector, life, session, room);
            }
            Item::ComesBack { client, log } => self.comes_back(client, log),
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
            Item::Missed(life) => self.missed(life),
            Item::Broken(id) => self.cut(id),
            Item::Again { stream, frame } => self.again(stream, frame),
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
}
