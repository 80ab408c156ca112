//! Clients that can come back: how they lose their connections, when and where they try again,
//! and what they make of the answer.

use std::time::Duration;

use model::{Incarnation, Outcome, Position, ResumeKey, SessionId, Time, UserName};
use room::{
    RelayEvent,
    message::{Body, Ticket, Welcome},
};

use super::{
    Bug,
    clients::{Action, Client, Clients, Send, State},
    item::{Item, Node},
    network::Channel,
    random::Random,
    world::{LAST_WORDS, World, ms},
};
use crate::history::Name;

/// How long a connector may not know that a connection is lost.
const NOTICED: (Duration, Duration) = (ms(0), ms(2500));
/// Between two tries of a client that was refused, or found nobody.
const RETRY: (Duration, Duration) = (ms(50), ms(500));

/// What a client has that can come back.
#[derive(Debug)]
pub(crate) struct Modern {
    /// Its chance for when and where it comes back.
    random: Random,
    /// Its stay in a room, once it is in.
    pub(super) stay: Option<Stay>,
}

/// A stay in a room that the client can take up again.
#[derive(Debug)]
pub(crate) struct Stay {
    key: ResumeKey,
    /// Up to where it has seen everything.
    pub(super) seen: Position,
    /// Where it was in last.
    connector: usize,
}

/// What a client was told that entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Joined,
    /// It is back; perhaps on another connector, perhaps with something to be told.
    Resumed {
        elsewhere: bool,
        missed: usize,
    },
    /// It is back, and may have missed something.
    Reset,
}

impl Modern {
    pub(super) const fn new(random: Random) -> Self {
        Self { random, stay: None }
    }

    /// How long it takes to come back: often at once, sometimes longer than the grace is.
    fn delay(&mut self) -> Duration {
        let (from, to) = match self.random.below(4) {
            0 | 1 => (ms(0), ms(800)),
            2 => (ms(500), ms(4700)),
            _ => (ms(4000), ms(12_000)),
        };
        self.random.span(from, to)
    }
}

impl Client {
    /// With what it enters who was not here before. Its connector makes the key up.
    pub(super) fn first_ticket(&self) -> Option<Ticket> {
        let key = ResumeKey(u128::from(self.session.0) + 1);
        self.modern.as_ref().map(|_| Ticket { key, seen: None })
    }

    /// With what it comes back; none if it cannot.
    fn ticket(&self) -> Option<Ticket> {
        let stay = self.modern.as_ref()?.stay.as_ref()?;
        Some(Ticket { key: stay.key, seen: Some(stay.seen) })
    }

    /// Whether it has no connection, and will come back.
    pub(super) fn is_away(&self) -> bool {
        self.state == State::Away
    }

    /// Whether it has a connection that can be lost.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, State::Entering | State::Inside | State::Returning)
    }
}

impl Clients {
    /// A client's connection is lost. What it sent and had no answer for it will send again.
    fn lose(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.state = State::Away;
        let unanswered = client.unanswered.drain(..).map(|(_, send)| send);
        let unanswered = unanswered.filter(Send::may_be_repeated);
        let later = std::mem::take(&mut client.again);
        client.again = unanswered.chain(later).collect();
        let log = &mut self.logs[client.log];
        log.at(self.now.since_start());
        log.lost();
    }

    /// A session was told that it is in.
    pub(super) fn entered(
        &mut self,
        connector: usize,
        session: SessionId,
        users: &[UserName],
        at: Position,
        welcome: Option<&Welcome>,
    ) -> Option<Told> {
        let number = self.of(session)?;
        let told = match (self.all[number].state, welcome) {
            (State::Returning, Some(welcome)) if welcome.outcome == Outcome::Resumed => {
                self.resumed(number, connector, users, at, welcome)
            }
            (State::Returning, _) => {
                self.reset(number, users, at);
                Told::Reset
            }
            _ => {
                self.joined(number, users, at);
                Told::Joined
            }
        };
        if let Some((modern, welcome)) = self.all[number].modern.as_mut().zip(welcome) {
            modern.stay = Some(Stay { key: welcome.stay.key, seen: at, connector });
        }
        Some(told)
    }

    fn resumed(
        &mut self,
        number: usize,
        connector: usize,
        users: &[UserName],
        at: Position,
        welcome: &Welcome,
    ) -> Told {
        for event in &welcome.events {
            match &event.body {
                Body::Joined(member) => self.sees_add(number, &member.user),
                Body::Left(member) | Body::Replaced(member) => {
                    let user = self.names.intern(member.user.as_str());
                    self.logs[self.all[number].log].missed_leave_at(event.position, user);
                }
                Body::Said(_) | Body::Whispered(_) => self.sees_chat(number, event),
                Body::SessionJoined(_)
                | Body::SessionLeft(_)
                | Body::Moved { .. }
                | Body::Hidden => {}
            }
        }
        let client = &mut self.all[number];
        client.state = State::Inside;
        let stay = client.modern.as_ref().and_then(|modern| modern.stay.as_ref());
        let (seen, was_at) = stay.map_or((at, connector), |stay| (stay.seen, stay.connector));
        let users: Vec<Name> = users.iter().map(|user| self.names.intern(user.as_str())).collect();
        let log = &mut self.logs[client.log];
        log.at(self.now.since_start());
        log.resumed(users, seen, at);
        Told::Resumed { elsewhere: was_at != connector, missed: welcome.events.len() }
    }

    /// What it missed cannot be told. In another generation nobody knows what was said before.
    fn reset(&mut self, number: usize, users: &[UserName], at: Position) {
        self.gone(number);
        let client = &mut self.all[number];
        let stay = client.modern.as_ref().and_then(|modern| modern.stay.as_ref());
        if stay.is_none_or(|stay| stay.seen.generation != at.generation) {
            client.again.clear();
        }
        self.begin_log(number);
        let log = &mut self.logs[self.all[number].log];
        log.at(self.now.since_start());
        log.asks();
        log.began_by_reset();
        self.joined(number, users, at);
    }
}

impl World<'_> {
    /// A connection breaks of a client that can come back. Its connector learns of it in its own
    /// time; what the client sent last may have got lost, too.
    pub(super) fn lose_some_connection(&mut self, random: &mut Random) -> bool {
        let can_return = |client: &Client| client.modern.is_some() && client.is_connected();
        let found: Vec<usize> = (0..self.clients.all.len())
            .filter(|number| can_return(&self.clients.all[*number]))
            .collect();
        if found.is_empty() {
            return false;
        }
        self.counters.connections_lost += 1;
        let number = found[random.index(found.len())];
        let at_once = random.one_in(3);
        self.lose_connection(number, at_once);
        true
    }

    fn lose_connection(&mut self, number: usize, at_once: bool) {
        let Client { connector, session, room, log, .. } = self.clients.all[number];
        let life = self.connectors[connector].life;
        let Some(random) = self.clients.all[number].modern.as_mut().map(|it| &mut it.random) else {
            return;
        };
        let noticed = if at_once { ms(0) } else { random.span(NOTICED.0, NOTICED.1) };
        if at_once {
            self.closed.insert(session);
        }
        self.tell(|| format!("client {number} loses {session:?} in connector {connector}"));
        let item = Item::Noticed { connector, life, session, room };
        self.agenda.at(self.now + noticed, item);
        self.go_away(number, log);
    }

    /// A client has no connection any more: it comes back, or begins anew if it was never in.
    pub(super) fn go_away(&mut self, number: usize, log: usize) {
        if self.clients.all[number].ticket().is_none() {
            self.clients.gone(number);
            self.clients.renew(number);
            return;
        }
        self.clients.lose(number);
        let Some(modern) = self.clients.all[number].modern.as_mut() else { return };
        let delay = modern.delay();
        // Some lose patience with a try at once, or never learn that it went well.
        let twice = modern.random.one_in(4).then(|| modern.random.span(ms(0), ms(300)));
        self.agenda.at(self.now + delay, Item::ComesBack { client: number, log });
        if let Some(more) = twice {
            self.agenda.at(self.now + delay + more, Item::ComesBack { client: number, log });
        }
    }

    /// A connector learns that a connection is lost.
    pub(super) fn noticed(
        &mut self,
        connector: usize,
        life: Incarnation,
        session: SessionId,
        room: usize,
    ) {
        self.closed.insert(session);
        let (shard, room) = self.room(room);
        let lost = self.config.bug != Some(Bug::EndGrace);
        self.relay(connector, life, RelayEvent::Leave { shard, room, session, lost });
    }

    /// A client tries to come back, by another connection than it may have.
    pub(super) fn comes_back(&mut self, number: usize, log: usize) {
        let last = Time::ZERO + self.config.duration + LAST_WORDS;
        if self.clients.all[number].log != log || self.now >= last {
            return;
        }
        if self.clients.all[number].is_connected() {
            self.counters.tried_twice += 1;
            let Client { connector, session, room, .. } = self.clients.all[number];
            let life = self.connectors[connector].life;
            self.clients.lose(number);
            let noticed = self.random.span(NOTICED.0, NOTICED.1);
            let item = Item::Noticed { connector, life, session, room };
            self.agenda.at(self.now + noticed, item);
        }
        let connectors = self.connectors.len();
        self.clients.connect(number);
        let client = &mut self.clients.all[number];
        let (Some(ticket), Some(modern)) = (client.ticket(), &mut client.modern) else { return };
        let connector = modern.random.index(connectors);
        client.connector = connector;
        let (life, alive) = self.life(Node::Connector(connector));
        if !alive {
            self.try_later(number);
            return;
        }
        let client = &mut self.clients.all[number];
        client.state = State::Returning;
        let Client { session, room, .. } = *client;
        let action = Action::Enter { user: client.user.clone(), ticket: Some(ticket) };
        self.tell(|| format!("client {number} comes back by connector {connector}: {ticket:?}"));
        let delay = self.random.delay();
        let item = Item::Does { connector, life, session, room, action };
        self.agenda.over(Channel::Client(number), self.now, delay, item);
    }

    pub(super) fn try_later(&mut self, number: usize) {
        let client = &mut self.clients.all[number];
        client.state = State::Away;
        let log = client.log;
        let Some(modern) = &mut client.modern else { return };
        let later = modern.random.span(RETRY.0, RETRY.1);
        self.agenda.at(self.now + later, Item::ComesBack { client: number, log });
    }

    /// A session was told that it is not in. If its client comes back it tries again, or gives up.
    pub(super) fn refused(&mut self, session: SessionId) {
        let Some(number) = self.clients.of(session) else { return };
        let client = &mut self.clients.all[number];
        if client.state != State::Returning {
            self.clients.refused(number);
        } else if client.modern.as_mut().is_some_and(|modern| modern.random.one_in(5)) {
            self.clients.gone(number);
            self.clients.renew(number);
        } else {
            self.try_later(number);
        }
    }

    /// Counts what came of a return.
    pub(super) fn count_return(&mut self, told: Told) {
        match told {
            Told::Joined => {}
            Told::Resumed { elsewhere, missed } => {
                self.counters.resumed += 1;
                self.counters.resumed_elsewhere += u64::from(elsewhere);
                self.counters.caught_up += missed as u64;
            }
            Told::Reset => self.counters.reset_returns += 1,
        }
    }

    /// At the end, whoever is not back has gone; whoever was never answered is stranded.
    pub(super) fn end_returns(&mut self) {
        for number in 0..self.clients.all.len() {
            match self.clients.all[number].state {
                State::Away => self.clients.gone(number),
                State::Returning => {
                    self.counters.stranded += 1;
                    let log = self.clients.all[number].log;
                    self.clients.logs[log].unwatched();
                }
                State::Outside | State::Entering | State::Inside => {}
            }
        }
    }
}
