//! What goes wrong, and whom it strikes.

use std::time::Duration;

use model::{Shard, Time};
use room::OwnerEvent;

use super::{
    item::{Item, Node},
    network::Channel,
    plan::{Kind, Planned},
    random::Random,
    world::{LEASE, STREAM_PATIENCE, World, ms},
};

/// A node that is killed comes back within this span.
const BACK: (Duration, Duration) = (ms(200), ms(2000));

impl World<'_> {
    pub(super) fn fault(&mut self, fault: Planned) {
        let Planned { id, kind, mut random, .. } = fault;
        let random = &mut random;
        let struck = match kind {
            Kind::ChatKilled => self.kill_chat(random),
            Kind::ConnectorKilled => self.kill_connector(random),
            Kind::LinkCut => self.cut_some(random),
            Kind::OneWay => self.cut_one_way(random),
            Kind::Parted => self.part(random),
            Kind::Paused => self.pause(random),
            Kind::Slow => self.slow_down(random),
            Kind::Moved => self.move_shard(random),
            Kind::RegistryAway => self.silence_registry(random),
            Kind::ConnectionLost => self.lose_some_connection(random),
        };
        if struck {
            self.struck.push(id);
        }
    }

    fn kill_chat(&mut self, random: &mut Random) -> bool {
        let chat = random.index(self.chats.len());
        let alive = self.chats.iter().filter(|chat| chat.alive).count();
        if !self.chats[chat].alive || alive == 1 {
            return false;
        }
        self.kill(Node::Chat(chat), random);
        true
    }

    fn kill_connector(&mut self, random: &mut Random) -> bool {
        let connector = random.index(self.connectors.len());
        if !self.connectors[connector].alive {
            return false;
        }
        self.kill(Node::Connector(connector), random);
        true
    }

    fn kill(&mut self, node: Node, random: &mut Random) {
        self.counters.killed += 1;
        self.stop(node);
        let back = random.span(BACK.0, BACK.1);
        self.agenda.at(self.now + back, Item::Start(node));
    }

    fn some_stream(&self, random: &mut Random) -> Option<u64> {
        let open = self.streams.iter().filter(|(_, stream)| stream.open);
        let open: Vec<u64> = open.map(|(id, _)| *id).collect();
        (!open.is_empty()).then(|| open[random.index(open.len())])
    }

    fn cut_some(&mut self, random: &mut Random) -> bool {
        let Some(stream) = self.some_stream(random) else { return false };
        self.cut(stream);
        true
    }

    /// What is sent one way arrives late, or not at all if the ends lose patience before.
    fn cut_one_way(&mut self, random: &mut Random) -> bool {
        let Some(stream) = self.some_stream(random) else { return false };
        self.counters.one_way += 1;
        let up = random.one_in(2);
        let span = random.span(ms(50), ms(3000));
        self.agenda.hold(Channel::Stream { stream, up }, self.now + span);
        let patience = random.span(STREAM_PATIENCE / 2, STREAM_PATIENCE);
        if span > patience {
            self.agenda.at(self.now + patience, Item::Broken(stream));
        }
        true
    }

    fn part(&mut self, random: &mut Random) -> bool {
        let connector = random.index(self.connectors.len());
        let chat = random.index(self.chats.len());
        let until = self.now + random.span(ms(500), ms(12_000));
        self.counters.parted += 1;
        self.parted.insert((connector, chat), until);
        let between = |id: &u64| {
            let stream = &self.streams[id];
            stream.open && stream.connector == connector && stream.chat == chat
        };
        for id in self.streams.keys().copied().filter(between).collect::<Vec<_>>() {
            self.cut(id);
        }
        true
    }

    fn some_node(&self, random: &mut Random) -> Node {
        if random.one_in(2) {
            Node::Chat(random.index(self.chats.len()))
        } else {
            Node::Connector(random.index(self.connectors.len()))
        }
    }

    fn pause(&mut self, random: &mut Random) -> bool {
        let node = self.some_node(random);
        let (life, alive) = self.life(node);
        if !alive || self.paused_until(node) > self.now {
            return false;
        }
        self.counters.pauses += 1;
        let span = random.span(ms(100), ms(6000));
        let until = self.now + span;
        match node {
            Node::Connector(n) => self.connectors[n].paused_until = until,
            Node::Chat(n) => self.chats[n].paused_until = until,
        }
        if span > STREAM_PATIENCE {
            self.agenda.at(self.now + STREAM_PATIENCE, Item::Stalled { node, life });
        }
        if span > LEASE {
            self.agenda.at(self.now + LEASE, Item::Gone(life));
        }
        true
    }

    fn slow_down(&mut self, random: &mut Random) -> bool {
        self.counters.slow += 1;
        let node = self.some_node(random);
        let until = self.now + random.span(ms(500), ms(4000));
        self.slow.insert(node, until);
        true
    }

    fn move_shard(&mut self, random: &mut Random) -> bool {
        let shards: Vec<Shard> = self.owners.keys().copied().collect();
        let shard = shards[random.index(shards.len())];
        let Some((Some(owner), _)) = self.owners.get(&shard).copied() else { return false };
        let chat = self.chats.iter().position(|chat| chat.life == owner && chat.alive);
        let Some(chat) = chat.filter(|_| self.registry_back <= self.now) else { return false };
        self.counters.moved += 1;
        self.tell_chat(chat, OwnerEvent::Lost { shard });
        self.free(shard);
        true
    }

    fn silence_registry(&mut self, random: &mut Random) -> bool {
        self.counters.registry_away += 1;
        let back: Time = self.now + random.span(ms(500), ms(10_000));
        self.registry_back = self.registry_back.max(back);
        true
    }
}
