//! The clients and the real machines: what reaches them, and what they want done.

use model::{Code, Incarnation, Position, RoomId, SendNumber, SessionId, Shard, Target, Time};
use room::{
    OwnerEffect, OwnerEvent, ProbeOutcome, RelayEffect, RelayEvent,
    message::{Body, Frame, ToOwner, ToRelay},
};

use super::{
    clients::{Action, Send},
    item::{Item, Node, Stream},
    network::Channel,
    world::{LAST_WORDS, SHARDS, World, ms},
};

impl World<'_> {
    fn talking(&self) -> bool {
        self.now.since_start() < self.config.duration
    }

    pub(super) fn acts(&mut self, number: usize) {
        let last = Time::ZERO + self.config.duration + LAST_WORDS;
        if !self.talking() && self.now < last {
            self.agenda.at(last, Item::Acts(number));
            return;
        }
        let connector = self.clients.all[number].connector;
        let (life, alive) = self.life(Node::Connector(connector));
        if !alive {
            self.clients.look_elsewhere(number, self.connectors.len());
        } else if let Some(action) = self.clients.act(number) {
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
                self.clients.gone(number);
                self.clients.renew(number);
            }
        }
        if self.talking() {
            let pause = self.clients.pause(number);
            self.agenda.at(self.now + pause, Item::Acts(number));
        }
    }

    pub(super) fn does(
        &mut self,
        connector: usize,
        life: Incarnation,
        session: SessionId,
        room: usize,
        action: Action,
    ) {
        if self.closed.contains(&session) {
            return;
        }
        let (shard, room) = self.room(room);
        let event = match action {
            Action::Enter { user, ticket } => {
                RelayEvent::Enter { shard, room, session, user, ticket }
            }
            Action::Say { number, send: Send { target, content, id, .. } } => {
                RelayEvent::Say { shard, room, session, number, target, content, id }
            }
            Action::Leave => RelayEvent::Leave { shard, room, session, lost: false },
        };
        self.relay(connector, life, event);
    }

    pub(super) fn room(&self, number: usize) -> (Shard, RoomId) {
        let shard = Shard::from_hash((number % usize::from(SHARDS)) as u64);
        (shard, self.rooms[number].clone())
    }

    /// A client that is asked whether it lives says so, unless it has fallen silent.
    fn probe(&mut self, connector: usize, session: SessionId) {
        let Some(number) = self.clients.of(session) else { return };
        if self.clients.is_silent(number) {
            self.tell(|| format!("{session:?} says nothing"));
            return;
        }
        let life = self.connectors[connector].life;
        let (shard, room) = self.room(self.clients.all[number].room);
        let delay = self.random.delay();
        let event = RelayEvent::Alive { shard, room, session };
        let item = Item::Relay { connector, life, event };
        self.agenda.over(Channel::Client(number), self.now, delay, item);
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
        slot.machine.handle(slot.clock.local(self.now), event, &mut effects);
        for effect in effects {
            self.relay_effect(connector, effect);
        }
        let slot = &mut self.connectors[connector];
        let timeout = slot.machine.poll_timeout();
        if let Some(at) = timeout.filter(|at| slot.wants_timer(*at)) {
            let at = slot.clock.global(at).max(self.now);
            self.agenda.at(at, Item::Relay { connector, life, event: RelayEvent::Timeout });
        }
    }

    fn relay_effect(&mut self, connector: usize, effect: RelayEffect) {
        let life = self.connectors[connector].life;
        match effect {
            RelayEffect::Frame { to, frame } => {
                self.count_repeats(&frame);
                if let Some(id) = self.stream_between(life, to) {
                    self.send_up(id, frame);
                }
            }
            RelayEffect::CutLink(chat) => {
                if let Some(id) = self.stream_between(life, chat) {
                    self.cut(id);
                }
            }
            RelayEffect::Entered { session, users, position, welcome } => {
                let welcome = welcome.as_ref();
                let told = self.clients.entered(connector, session, &users, position, welcome);
                self.tell(|| format!("{session:?} is in at {position}: {told:?}"));
                if let Some(told) = told {
                    self.count_return(told);
                }
            }
            RelayEffect::Probe { session } => self.probe(connector, session),
            RelayEffect::Replace { session } => {
                self.tell(|| format!("connector {connector} closes {session:?}: replaced"));
                self.counters.replaced += 1;
                self.end(session);
            }
            RelayEffect::EnterRefused { session, .. } => {
                self.counters.refused_joins += 1;
                self.refused(session);
            }
            RelayEffect::Said { session, number, position } => {
                self.answer(session, number, Ok(position));
            }
            RelayEffect::SayRefused { session, number, code } => {
                self.answer(session, number, Err(code));
            }
            RelayEffect::Push { sessions, except, push, position, answered, .. } => {
                for session in sessions.iter().filter(|session| Some(**session) != except) {
                    if !self.loses_a_push() {
                        self.clients.hears(*session, &push, position);
                    }
                }
                if let Some((session, number)) = answered {
                    self.answer(session, number, Ok(position));
                }
            }
            RelayEffect::Expel { session } => {
                self.tell(|| format!("connector {connector} expels {session:?}"));
                self.counters.expelled += 1;
                if let Some(number) = self.clients.of(session) {
                    self.go_away(number, self.clients.all[number].log);
                }
            }
            RelayEffect::Supersede { session } => {
                self.tell(|| format!("connector {connector} closes {session:?}: it is elsewhere"));
                self.counters.superseded += 1;
                if let Some(number) = self.clients.of(session) {
                    self.clients.logs[self.clients.all[number].log].superseded();
                    self.clients.renew(number);
                }
            }
            RelayEffect::StaleFrame { .. } => self.counters.stale_frames += 1,
            RelayEffect::Attached { .. } => {}
        }
    }

    /// A session was closed; its client will enter anew.
    fn end(&mut self, session: SessionId) {
        if let Some(number) = self.clients.of(session) {
            self.clients.gone(number);
            self.clients.renew(number);
        }
    }

    fn answer(&mut self, session: SessionId, number: SendNumber, answer: Result<Position, Code>) {
        self.outstanding.remove(&(session, number));
        self.counters.acked += u64::from(answer.is_ok());
        self.clients.answered(session, number, answer);
    }

    pub(super) fn up(&mut self, stream: u64, frame: Frame<ToOwner>) {
        let Some(Stream { chat, chat_life, connector_life, .. }) = self.open(stream) else {
            return;
        };
        if let ToOwner::Say { session, number, .. } = &frame.message {
            let again = self.placed.contains(&(*session, number.0));
            self.counters.recognised += u64::from(again);
        }
        if let Some(event) = self.mangle(connector_life, stream, frame) {
            self.owner(chat, chat_life, event);
        }
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
        slot.machine.handle(slot.clock.local(self.now), event, &mut effects);
        for effect in effects {
            self.owner_effect(chat, effect);
        }
        let slot = &mut self.chats[chat];
        let timeout = slot.machine.poll_timeout();
        if let Some(at) = timeout.filter(|at| slot.wants_timer(*at)) {
            let at = slot.clock.global(at).max(self.now);
            self.agenda.at(at, Item::Owner { chat, life, event: OwnerEvent::Timeout });
        }
    }

    fn owner_effect(&mut self, chat: usize, effect: OwnerEffect) {
        let life = self.chats[chat].life;
        match effect {
            OwnerEffect::Frame { to, frame } => {
                if let ToRelay::Event { event, .. } = &frame.message
                    && let Some((from, number)) = event.send()
                {
                    self.placed.insert((from.session, number.0));
                }
                self.count_frame(to, &frame.message);
                if let Some(id) = self.stream_between(to, life) {
                    let delay = self.delay_over(id);
                    let channel = Channel::Stream { stream: id, up: false };
                    self.agenda.over(channel, self.now, delay, Item::Down { stream: id, frame });
                }
            }
            OwnerEffect::Opened { shard, rooms, reset, merged, .. } => {
                self.tell(|| {
                    format!(
                        "chat {chat} opens {shard:?}: {rooms} rooms, {reset} reset, {merged} merged"
                    )
                });
                self.counters.takeovers += u64::from(rooms > 0);
                self.counters.resets += reset as u64;
                self.counters.merges += merged as u64;
            }
            OwnerEffect::Probed { outcome, .. } => match outcome {
                ProbeOutcome::Answered => self.counters.probed_refused += 1,
                ProbeOutcome::Unanswered => self.counters.probed_replaced += 1,
                ProbeOutcome::Left | ProbeOutcome::Full => {}
            },
            // Counted where it closes a session.
            OwnerEffect::Replaced { .. } => {}
            OwnerEffect::Repaired { events, .. } => self.counters.repaired_events += events as u64,
            OwnerEffect::CutLink(connector) => {
                if let Some(id) = self.stream_between(connector, life) {
                    self.cut(id);
                }
            }
            OwnerEffect::StaleFrame { .. } => self.counters.stale_frames += 1,
        }
    }

    /// Sends a frame; a send perhaps twice, as by somebody who does not wait for its answer.
    fn send_up(&mut self, stream: u64, frame: Frame<ToOwner>) {
        let channel = Channel::Stream { stream, up: true };
        // A whisper may be refused, and then be right a moment later: that would be another send.
        let is_send = matches!(frame.message, ToOwner::Say { target: Target::Everyone { .. }, .. });
        if is_send && self.config.faults.repeats && self.random.one_in(30) {
            let later = self.random.span(ms(0), ms(300));
            let frame = frame.clone();
            self.agenda.at(self.now + later, Item::Again { stream, frame });
        }
        let delay = self.delay_over(stream);
        self.agenda.over(channel, self.now, delay, Item::Up { stream, frame });
    }

    /// Sends a frame once more over the same stream, behind whatever went since.
    pub(super) fn again(&mut self, stream: u64, frame: Frame<ToOwner>) {
        if self.open(stream).is_some() {
            let delay = self.delay_over(stream);
            let channel = Channel::Stream { stream, up: true };
            self.agenda.over(channel, self.now, delay, Item::Up { stream, frame });
        }
    }

    fn count_frame(&mut self, to: Incarnation, message: &ToRelay) {
        if let ToRelay::Repeated { .. } = message {
            self.counters.ids_recognised += 1;
        }
        let ToRelay::Event { event, .. } = message else { return };
        if let Body::SessionJoined(_) = event.body {
            self.counters.shared += 1;
        }
        if let Body::Moved { from, to: now } = &event.body
            && now.id.connector == to
        {
            self.counters.quiet_returns += 1;
            let believed = !self.closed.contains(&from.session);
            self.counters.half_open += u64::from(believed);
        }
    }

    fn count_repeats(&mut self, frame: &Frame<ToOwner>) {
        if let ToOwner::Say { session, number, .. } = &frame.message {
            let key: (SessionId, u64) = (*session, number.0);
            if !self.seen_sends.insert(key) {
                self.counters.sent_again += 1;
            }
        }
    }

    /// How long something takes over a stream; longer if a node at its end is slow.
    fn delay_over(&mut self, stream: u64) -> std::time::Duration {
        let Stream { connector, chat, .. } = self.streams[&stream];
        let ends = [Node::Connector(connector), Node::Chat(chat)];
        let is_slow = |node: &Node| self.slow.get(node).is_some_and(|until| *until > self.now);
        let slow = ends.iter().any(is_slow);
        let delay = self.random.delay();
        if slow { delay + self.random.span(ms(20), ms(500)) } else { delay }
    }
}
