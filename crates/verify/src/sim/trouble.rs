//! Lives, streams and the registry.

use std::time::Duration;

use model::{Incarnation, Shard, Term, Time};
use room::{LinkId, Owner, OwnerEvent, RelayEvent, Relays};

use super::{
    clients::Client,
    clock::Clock,
    item::{Item, Node, Stream},
    network::Channel,
    world::{LEASE, STREAM_PATIENCE, World, ms},
};

/// After a silence the registry waits this long before it gives anybody up or grants a claim.
const SETTLE: Duration = Duration::from_secs(2);

impl World<'_> {
    // ---- lives

    pub(super) fn start(&mut self, node: Node) {
        self.lives += 1;
        let life = Incarnation(self.lives);
        let clock = if self.config.faults.skew {
            Clock::skewed(self.now, &mut self.random)
        } else {
            Clock::TRUE
        };
        match node {
            Node::Chat(n) => {
                self.chats[n].begin(life, clock, Owner::new(self.config.duplicates));
            }
            Node::Connector(n) => self.connectors[n].begin(life, clock, Relays::new(life)),
        }
        self.live.push((node, life));
        match node {
            Node::Chat(chat) => {
                for connector in 0..self.connectors.len() {
                    self.agenda.at(self.now + ms(1), Item::Dial { connector, chat });
                }
            }
            Node::Connector(connector) => {
                for (shard, (owner, term)) in self.owners.clone() {
                    self.tell_connector(connector, life, shard, owner, term);
                }
                for chat in 0..self.chats.len() {
                    self.agenda.at(self.now + ms(1), Item::Dial { connector, chat });
                }
            }
        }
    }

    /// Ends a life at once. Its streams break; the registry notices later.
    pub(super) fn stop(&mut self, node: Node) {
        let (life, _) = self.life(node);
        match node {
            Node::Chat(n) => self.chats[n].alive = false,
            Node::Connector(n) => {
                self.connectors[n].alive = false;
                for client in 0..self.clients.all.len() {
                    let Client { connector, log, .. } = self.clients.all[client];
                    if connector != n {
                        continue;
                    }
                    if !self.clients.all[client].is_away() {
                        self.go_away(client, log);
                        self.clients.look_elsewhere(client, self.connectors.len());
                    }
                }
            }
        }
        self.break_streams_of(node);
        let noticed = self.random.span(ms(100), LEASE);
        self.agenda.at(self.now + noticed, Item::Gone(life));
    }

    // ---- registry

    /// When the registry, now silent, will act again.
    fn settled(&self) -> Option<Time> {
        (self.registry_back > self.now).then(|| self.registry_back + SETTLE)
    }

    /// A silent registry has given nobody up; afterwards it asks who is there.
    pub(super) fn gone(&mut self, life: Incarnation) {
        if let Some(later) = self.settled() {
            self.agenda.at(later, Item::Missed(life));
            return;
        }
        let Some(at) = self.live.iter().position(|(_, live)| *live == life) else { return };
        let (node, _) = self.live.remove(at);
        match node {
            Node::Connector(_) => {
                for chat in 0..self.chats.len() {
                    self.tell_chat(chat, OwnerEvent::ConnectorGone(life));
                }
                self.tell_others_gone();
            }
            Node::Chat(_) => {
                for shard in self.owned_by(life) {
                    self.free(shard);
                }
            }
        }
        self.counters.given_up += u64::from(self.life(node) == (life, true));
        let told = self.random.delay();
        let item = Item::GivenUp { node, life };
        self.agenda.over(Channel::Map(life.0), self.now, told, item);
    }

    /// Gives a life up that has not come back after the registry's silence.
    pub(super) fn missed(&mut self, life: Incarnation) {
        let node = self.live.iter().find(|(_, live)| *live == life).map(|(node, _)| *node);
        let back = |node| self.life(node) == (life, true) && self.paused_until(node) <= self.now;
        if !node.is_some_and(back) {
            self.gone(life);
        }
    }

    fn owned_by(&self, life: Incarnation) -> Vec<Shard> {
        let owned = self.owners.iter().filter(|(_, (owner, _))| *owner == Some(life));
        owned.map(|(shard, _)| *shard).collect()
    }

    pub(super) fn free(&mut self, shard: Shard) {
        let Some((owner, term)) = self.owners.get_mut(&shard) else { return };
        *owner = None;
        let term = *term;
        self.tell_connectors(shard, None, term);
        let claimed = self.random.span(ms(1), ms(60));
        self.agenda.at(self.now + claimed, Item::Claim(shard));
    }

    pub(super) fn claim(&mut self, shard: Shard) {
        if let Some(later) = self.settled() {
            self.agenda.at(later, Item::Claim(shard));
            return;
        }
        let Some((None, Term(term))) = self.owners.get(&shard).copied() else { return };
        let chats: Vec<(usize, Incarnation)> = self
            .live
            .iter()
            .filter_map(|(node, life)| match node {
                Node::Chat(n) => Some((*n, *life)),
                Node::Connector(_) => None,
            })
            .collect();
        if chats.is_empty() {
            self.agenda.at(self.now + ms(50), Item::Claim(shard));
            return;
        }
        let (chat, life) = chats[self.random.index(chats.len())];
        if self.life(Node::Chat(chat)) != (life, true) {
            // The registry does not know yet that this one is dead, so it will not claim.
            self.agenda.at(self.now + ms(50), Item::Claim(shard));
            return;
        }
        let term = Term(term + 1);
        self.owners.insert(shard, (Some(life), term));
        let connectors = self
            .live
            .iter()
            .filter(|(node, _)| matches!(node, Node::Connector(_)))
            .map(|(_, life)| *life)
            .collect();
        self.tell_chat(chat, OwnerEvent::Won { shard, term, connectors });
        self.tell_connectors(shard, Some(life), term);
    }

    pub(super) fn tell_chat(&mut self, chat: usize, event: OwnerEvent) {
        let (life, alive) = self.life(Node::Chat(chat));
        if alive {
            let delay = self.random.delay();
            let item = Item::Owner { chat, life, event };
            self.agenda.over(Channel::Map(life.0), self.now, delay, item);
        }
    }

    fn tell_connectors(&mut self, shard: Shard, owner: Option<Incarnation>, term: Term) {
        for connector in 0..self.connectors.len() {
            let (life, alive) = self.life(Node::Connector(connector));
            if alive {
                self.tell_connector(connector, life, shard, owner, term);
            }
        }
    }

    /// Tells connectors that another is gone, before what the map says next, which is what counts.
    /// It takes no time, so that seeds are what they were before connectors were told.
    fn tell_others_gone(&mut self) {
        for connector in 0..self.connectors.len() {
            let (life, alive) = self.life(Node::Connector(connector));
            if alive {
                let item = Item::Relay { connector, life, event: RelayEvent::ConnectorGone };
                self.agenda.over(Channel::Map(life.0), self.now, ms(0), item);
            }
        }
    }

    fn tell_connector(
        &mut self,
        connector: usize,
        life: Incarnation,
        shard: Shard,
        owner: Option<Incarnation>,
        term: Term,
    ) {
        let delay = self.random.delay();
        let event = RelayEvent::Owner { shard, owner, term };
        let item = Item::Relay { connector, life, event };
        self.agenda.over(Channel::Map(life.0), self.now, delay, item);
    }

    // ---- streams

    pub(super) fn dial(&mut self, connector: usize, chat: usize) {
        let (connector_life, here) = self.life(Node::Connector(connector));
        let (chat_life, there) = self.life(Node::Chat(chat));
        let between = |stream: &Stream| {
            stream.connector_life == connector_life && stream.chat_life == chat_life
        };
        let parted = self.parted.get(&(connector, chat)).copied().unwrap_or_default();
        if here && there && parted > self.now {
            let pause = self.random.span(ms(5), ms(400));
            self.agenda.at(parted + pause, Item::Dial { connector, chat });
            return;
        }
        if !here || !there || self.streams.values().any(|s| between(s) && !s.mourned) {
            return;
        }
        let id = self.streams.len() as u64 + 1;
        let stream =
            Stream { connector, connector_life, chat, chat_life, open: true, mourned: false };
        self.streams.insert(id, stream);
        let delay = self.random.delay();
        let channel = Channel::Stream { stream: id, up: true };
        self.agenda.over(channel, self.now, delay, Item::Dialled(id));
    }

    pub(super) fn dialled(&mut self, id: u64) {
        let Some(Stream { chat, chat_life, connector_life, .. }) = self.open(id) else { return };
        let event = OwnerEvent::LinkUp { connector: connector_life, link: LinkId(id) };
        self.owner(chat, chat_life, event);
        let delay = self.random.delay();
        let channel = Channel::Stream { stream: id, up: false };
        self.agenda.over(channel, self.now, delay, Item::LinkUp(id));
    }

    pub(super) fn link_down(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.mourned = true;
        let Stream { connector, connector_life, chat, chat_life, .. } = *stream;
        self.relay(connector, connector_life, RelayEvent::LinkDown(chat_life));
        let pause = self.random.span(ms(5), ms(400));
        self.agenda.at(self.now + pause, Item::Dial { connector, chat });
    }

    /// The stream, if it still carries something.
    pub(super) fn open(&self, id: u64) -> Option<Stream> {
        self.streams.get(&id).copied().filter(|stream| stream.open)
    }

    pub(super) fn stream_between(&self, connector: Incarnation, chat: Incarnation) -> Option<u64> {
        let between = |stream: &Stream| {
            stream.open && stream.connector_life == connector && stream.chat_life == chat
        };
        self.streams.iter().rev().find(|(_, stream)| between(stream)).map(|(id, _)| *id)
    }

    /// Breaks a stream; what is on its way is lost, and both ends notice in their own time.
    pub(super) fn cut(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.open) else { return };
        stream.open = false;
        self.counters.cuts += 1;
        let noticed = self.random.span(ms(0), STREAM_PATIENCE);
        self.agenda.at(self.now + noticed, Item::LinkDown(id));
        let noticed = self.random.span(ms(0), STREAM_PATIENCE);
        self.agenda.at(self.now + noticed, Item::ChatLinkDown(id));
    }

    pub(super) fn break_streams_of(&mut self, node: Node) {
        let of = |stream: &Stream| match node {
            Node::Connector(n) => stream.connector == n,
            Node::Chat(n) => stream.chat == n,
        };
        let open = self.streams.iter().filter(|(_, stream)| stream.open && of(stream));
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cut(id);
        }
    }
}
