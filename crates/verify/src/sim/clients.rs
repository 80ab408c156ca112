//! Clients that enter, talk, whisper and leave by chance, and remember what they saw.

use std::{collections::BTreeMap, time::Duration};

use model::{Code, Content, Position, RoomId, SendNumber, SessionId, Target, Time, UserName};
use room::{
    Push,
    message::{Body, Spoken},
};

use super::random::Random;
use crate::history::{Log, Name, Names, SessionKey, TextId, To};

/// How long a client that falls silent is so: some come to before it is too late for them. All
/// have before the end.
const SILENT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(6));

/// What a client does next.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Enter { user: UserName },
    Say { number: SendNumber, target: Target, content: Content },
    Leave,
}

/// One place for a client, filled by one session after the other.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its connector, by number.
    pub(crate) connector: usize,
    /// Its session, also its place among the logs.
    pub(crate) session: SessionId,
    pub(crate) room: usize,
    user: UserName,
    state: State,
    /// It does nothing until then, and answers nobody.
    silent_until: Time,
    /// Its own chance, so that what it does next depends on nobody else.
    random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    Entering,
    Inside,
}

/// All clients, and the logs of all their sessions.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) all: Vec<Client>,
    pub(crate) names: Names,
    pub(crate) logs: Vec<Log>,
    rooms: Vec<RoomId>,
    /// Whose session it is.
    owners: BTreeMap<SessionId, usize>,
    /// The true time, for the logs.
    pub(crate) now: Time,
}

impl Clients {
    pub(crate) fn new(
        count: usize,
        connectors: usize,
        rooms: &[RoomId],
        random: &mut Random,
    ) -> Self {
        let mut clients = Self {
            all: Vec::new(),
            names: Names::default(),
            logs: Vec::new(),
            rooms: rooms.to_vec(),
            owners: BTreeMap::new(),
            now: Time::ZERO,
        };
        for number in 0..count {
            // Some names are wanted by two clients.
            let user = name(&format!("u{}", number % (count * 3 / 4).max(1)));
            let connector = random.index(connectors);
            let state = State::Outside;
            let session = SessionId(0);
            let random = random.fork();
            let silent_until = Time::ZERO;
            let client = Client { connector, session, room: 0, user, state, silent_until, random };
            clients.all.push(client);
            clients.renew(number);
        }
        clients
    }

    /// Gives a client a fresh session in some room.
    pub(crate) fn renew(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.room = client.random.index(self.rooms.len());
        client.session = SessionId(self.logs.len() as u64);
        client.state = State::Outside;
        client.silent_until = Time::ZERO;
        let room = self.names.intern(self.rooms[client.room].as_str());
        let user = self.names.intern(client.user.as_str());
        self.logs.push(Log::new(room, user));
        self.owners.insert(client.session, number);
    }

    /// The client whose current session this is.
    pub(crate) fn of(&self, session: SessionId) -> Option<usize> {
        let number = *self.owners.get(&session)?;
        (self.all[number].session == session).then_some(number)
    }

    /// Lets a client look for another of so many connectors.
    pub(crate) fn look_elsewhere(&mut self, number: usize, connectors: usize) {
        let client = &mut self.all[number];
        client.connector = client.random.index(connectors);
    }

    /// How long a client waits before it acts again.
    pub(crate) fn pause(&mut self, number: usize) -> Duration {
        self.all[number].random.span(Duration::from_millis(5), Duration::from_millis(200))
    }

    /// Whether a client has fallen silent.
    pub(crate) fn is_silent(&self, number: usize) -> bool {
        self.all[number].silent_until > self.now
    }

    /// Another session that is in the same room under the same name, and its connector.
    pub(crate) fn namesake(&self, of: SessionId) -> Option<(SessionId, usize)> {
        let left = &self.all[*self.owners.get(&of)?];
        let room = self.logs[index(of)].room();
        let is_it = |client: &&Client| {
            client.user == left.user
                && client.session != of
                && client.state == State::Inside
                && self.logs[index(client.session)].room() == room
        };
        self.all.iter().find(is_it).map(|client| (client.session, client.connector))
    }

    /// What a client does now; its log knows already.
    pub(crate) fn act(&mut self, number: usize) -> Option<Action> {
        let users = self.all.len();
        if self.is_silent(number) {
            return None;
        }
        let now = self.now;
        let client = &mut self.all[number];
        let random = &mut client.random;
        let log = &mut self.logs[index(client.session)];
        match client.state {
            State::Outside => {
                client.state = State::Entering;
                log.at(now.since_start());
                log.asks();
                Some(Action::Enter { user: client.user.clone() })
            }
            // Some lose patience.
            State::Entering => random.one_in(30).then_some(Action::Leave),
            State::Inside if random.one_in(40) => Some(Action::Leave),
            State::Inside if random.one_in(60) => {
                client.silent_until = now + random.span(SILENT.0, SILENT.1);
                None
            }
            State::Inside => {
                let (to, target) = if random.one_in(6) {
                    let whom = format!("u{}", random.index((users * 3 / 4).max(1)));
                    (To::One(self.names.intern(&whom)), Target::One(name(&whom)))
                } else {
                    (To::Everyone, Target::Everyone { shown: Content::Text("*".into()) })
                };
                let sent = log.sent(to);
                let sender = SessionKey(u32::try_from(client.session.0).unwrap_or(u32::MAX));
                let id = TextId { sender, number: sent };
                let number = SendNumber(sent.into());
                let content = Content::Text(id.to_string().into());
                Some(Action::Say { number, target, content })
            }
        }
    }

    /// A session was told that it is in.
    pub(crate) fn entered(&mut self, session: SessionId, users: &[UserName], at: Position) {
        let Some(number) = self.of(session) else { return };
        self.all[number].state = State::Inside;
        let users: Vec<Name> = users.iter().map(|user| self.names.intern(user.as_str())).collect();
        let log = &mut self.logs[index(session)];
        log.at(self.now.since_start());
        log.joined(users);
        log.joined_at(at);
    }

    /// A session was told that it is not in; it will try again.
    pub(crate) fn refused(&mut self, session: SessionId) {
        if let Some(number) = self.of(session) {
            self.all[number].state = State::Outside;
        }
    }

    /// A session's send was answered.
    pub(crate) fn answered(&mut self, session: SessionId, number: SendNumber, code: Code) {
        if self.of(session).is_none() {
            return;
        }
        let log = &mut self.logs[index(session)];
        let number = u32::try_from(number.0).unwrap_or(u32::MAX);
        if code == Code::Ok {
            log.acked(number);
        } else if code != Code::Unknown {
            log.refused(number);
        }
    }

    /// A session was told something.
    pub(crate) fn hears(&mut self, session: SessionId, push: &Push) {
        if self.of(session).is_none() {
            return;
        }
        let log = &mut self.logs[index(session)];
        log.at(self.now.since_start());
        match push {
            Push::Add(user) => log.saw_add(self.names.intern(user.as_str())),
            Push::Leave(user) => log.saw_leave(self.names.intern(user.as_str())),
            Push::Chat(event) => {
                let Some(Spoken { from, content, .. }) = event.body.spoken() else { return };
                let whisper = matches!(event.body, Body::Whispered { .. });
                let from = self.names.intern(from.user.as_str());
                match content.as_text().and_then(TextId::parse) {
                    Some(id) => log.saw_at(event.position, from, id, whisper),
                    None => log.saw_foreign(),
                }
            }
        }
    }

    /// A session has ended.
    pub(crate) fn gone(&mut self, session: SessionId) {
        let log = &mut self.logs[index(session)];
        log.at(self.now.since_start());
        log.gone();
    }
}

fn index(session: SessionId) -> usize {
    usize::try_from(session.0).unwrap_or(usize::MAX)
}

fn name(text: &str) -> UserName {
    UserName::from_peer(text).expect("made-up names are short")
}
