//! Clients that enter, talk, whisper and leave by chance, and remember what they saw.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::{
    Code, Content, MessageId, Position, RoomId, SendNumber, SessionId, Target, Time, UserName,
};
use room::{
    Push,
    message::{Body, Event, Spoken, Ticket},
};

use super::{random::Random, returns::Modern};
use crate::history::{Log, Name, Names, SessionKey, TextId, To};

/// How long a client that falls silent is so: some come to before it is too late for them. All
/// have before the end.
const SILENT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(6));

/// What a client does next.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Enter { user: UserName, ticket: Option<Ticket> },
    Say { number: SendNumber, send: Send },
    Leave,
}

/// What a client says, as often as it says it.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    pub(crate) text: TextId,
    pub(crate) target: Target,
    pub(crate) content: Content,
    pub(crate) id: Option<MessageId>,
    /// Whether it was sent before: what is refused now may have been applied then.
    again: bool,
}

impl Send {
    /// Whether it may be sent again and be sure to be applied once.
    pub(super) const fn may_be_repeated(&self) -> bool {
        self.id.is_some()
    }
}

/// One place for a client, filled by one after the other.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its connector, by number.
    pub(crate) connector: usize,
    /// Its connection.
    pub(crate) session: SessionId,
    /// Its place among the logs: the same for all sessions by which it stays in a room.
    pub(crate) log: usize,
    pub(crate) room: usize,
    pub(super) user: UserName,
    pub(super) state: State,
    /// How many sends its session has made.
    pub(super) said: u64,
    /// Those of them that are not answered.
    pub(super) unanswered: VecDeque<(SendNumber, Send)>,
    /// What it is to send again.
    pub(super) again: VecDeque<Send>,
    /// If it can come back.
    pub(super) modern: Option<Modern>,
    /// It does nothing until then, and answers nobody.
    silent_until: Time,
    /// Its own chance, so that what it does next depends on nobody else.
    random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Outside,
    Entering,
    Inside,
    /// Its connection is lost.
    Away,
    /// It asks to be let in again.
    Returning,
}

/// All clients, and the logs of all their sessions.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) all: Vec<Client>,
    pub(crate) names: Names,
    pub(crate) logs: Vec<Log>,
    rooms: Vec<RoomId>,
    /// Whose session it is, and for which room.
    owners: BTreeMap<SessionId, (usize, usize)>,
    sessions: u64,
    /// The true time, for the logs.
    pub(crate) now: Time,
}

impl Clients {
    pub(crate) fn new(
        count: usize,
        connectors: usize,
        rooms: &[RoomId],
        random: &mut Random,
        mut modern: Option<Random>,
    ) -> Self {
        let mut clients = Self {
            all: Vec::new(),
            names: Names::default(),
            logs: Vec::new(),
            rooms: rooms.to_vec(),
            owners: BTreeMap::new(),
            sessions: 0,
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
            // Two of three, so that of those who want one name both can come back, or one can.
            let modern = modern.as_mut().filter(|_| number % 3 != 0);
            clients.all.push(Client {
                connector,
                session,
                log: 0,
                room: 0,
                user,
                state,
                said: 0,
                unanswered: VecDeque::new(),
                again: VecDeque::new(),
                modern: modern.map(|random| Modern::new(random.fork())),
                silent_until,
                random,
            });
            clients.renew(number);
        }
        clients
    }

    /// Lets a client begin anew, in some room.
    pub(crate) fn renew(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.room = client.random.index(self.rooms.len());
        client.state = State::Outside;
        client.silent_until = Time::ZERO;
        client.again.clear();
        if let Some(modern) = &mut client.modern {
            modern.stay = None;
        }
        self.connect(number);
        self.begin_log(number);
    }

    /// Gives a client a fresh session.
    pub(super) fn connect(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.session = SessionId(self.sessions);
        client.said = 0;
        client.unanswered.clear();
        self.sessions += 1;
        self.owners.insert(client.session, (number, client.room));
    }

    /// Gives a client a fresh log.
    pub(super) fn begin_log(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.log = self.logs.len();
        let room = self.names.intern(self.rooms[client.room].as_str());
        let user = self.names.intern(client.user.as_str());
        self.logs.push(Log::new(room, user));
    }

    /// The client that hears this session.
    pub(crate) fn of(&self, session: SessionId) -> Option<usize> {
        let (number, _) = *self.owners.get(&session)?;
        let client = &self.all[number];
        (client.session == session && !client.is_away()).then_some(number)
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
        let (left, room) = self.owners.get(&of)?;
        let is_it = |client: &&Client| {
            client.user == self.all[*left].user
                && client.session != of
                && client.state == State::Inside
                && client.room == *room
        };
        self.all.iter().find(is_it).map(|client| (client.session, client.connector))
    }

    /// What a client does now; its log knows already.
    pub(crate) fn act(&mut self, number: usize) -> Option<Action> {
        if self.is_silent(number) {
            return None;
        }
        let now = self.now;
        let client = &mut self.all[number];
        let random = &mut client.random;
        match client.state {
            State::Outside => {
                client.state = State::Entering;
                let log = &mut self.logs[client.log];
                log.at(now.since_start());
                log.asks();
                Some(Action::Enter { user: client.user.clone(), ticket: client.first_ticket() })
            }
            // Some lose patience.
            State::Entering => random.one_in(30).then_some(Action::Leave),
            State::Inside if random.one_in(40) => Some(Action::Leave),
            State::Inside if random.one_in(60) => {
                client.silent_until = now + random.span(SILENT.0, SILENT.1);
                None
            }
            State::Inside => Some(self.say(number)),
            State::Away | State::Returning => None,
        }
    }

    /// What was not answered goes first.
    fn say(&mut self, number: usize) -> Action {
        let again = self.all[number].again.pop_front();
        let send = match again {
            Some(send) => {
                self.logs[place(send.text.sender)].sent_again(send.text.number);
                Send { again: true, ..send }
            }
            None => self.make_up(number),
        };
        let client = &mut self.all[number];
        client.said += 1;
        let number = SendNumber(client.said);
        client.unanswered.push_back((number, send.clone()));
        Action::Say { number, send }
    }

    fn make_up(&mut self, number: usize) -> Send {
        let users = self.all.len();
        let client = &mut self.all[number];
        let random = &mut client.random;
        let (to, target) = if random.one_in(6) {
            let whom = format!("u{}", random.index((users * 3 / 4).max(1)));
            (To::One(self.names.intern(&whom)), Target::One(name(&whom)))
        } else {
            (To::Everyone, Target::Everyone { shown: Content::Text("*".into()) })
        };
        let sender = SessionKey(u32::try_from(client.log).unwrap_or(u32::MAX));
        let text = TextId { sender, number: self.logs[client.log].sent(to) };
        let content = Content::Text(text.to_string().into());
        let id = client.modern.as_ref().and_then(|_| MessageId::new(&text.to_string()).ok());
        Send { text, target, content, id, again: false }
    }

    /// A session that entered for the first time was told that it is in.
    pub(super) fn joined(&mut self, number: usize, users: &[UserName], at: Position) {
        let client = &mut self.all[number];
        client.state = State::Inside;
        let users: Vec<Name> = users.iter().map(|user| self.names.intern(user.as_str())).collect();
        let log = &mut self.logs[client.log];
        log.at(self.now.since_start());
        log.joined(users);
        log.joined_at(at);
    }

    /// A session was told that it is not in; it will try again.
    pub(crate) fn refused(&mut self, number: usize) {
        self.all[number].state = State::Outside;
    }

    /// A session's send was answered.
    pub(crate) fn answered(
        &mut self,
        session: SessionId,
        number: SendNumber,
        answer: Result<Position, Code>,
    ) {
        let Some(client) = self.of(session) else { return };
        let client = &mut self.all[client];
        let waiting = client.unanswered.iter().position(|(known, _)| *known == number);
        let Some((_, send)) = waiting.and_then(|at| client.unanswered.remove(at)) else { return };
        let TextId { sender, number } = send.text;
        let log = &mut self.logs[place(sender)];
        match answer {
            Ok(position) => log.acked_at(number, position),
            Err(Code::Unknown) if send.may_be_repeated() => client.again.push_back(send),
            Err(Code::Unknown) => {}
            Err(_) if send.again => {}
            Err(_) => log.refused(number),
        }
    }

    /// A session was told something.
    pub(crate) fn hears(&mut self, session: SessionId, push: &Push, position: Position) {
        let Some(number) = self.of(session) else { return };
        match push {
            Push::Add(user) => self.sees_add(number, user),
            Push::Leave(user) => self.sees_leave(number, user, position),
            // Who is here is judged by what is told of each; and it stands nowhere.
            Push::Count(_) => return,
            Push::Chat(event) => self.sees_chat(number, event),
        }
        if let Some(stay) = self.all[number].modern.as_mut().and_then(|it| it.stay.as_mut()) {
            stay.seen = position;
        }
    }

    fn log_now(&mut self, number: usize) -> &mut Log {
        let log = &mut self.logs[self.all[number].log];
        log.at(self.now.since_start());
        log
    }

    pub(super) fn sees_add(&mut self, number: usize, user: &UserName) {
        let user = self.names.intern(user.as_str());
        self.log_now(number).saw_add(user);
    }

    pub(super) fn sees_leave(&mut self, number: usize, user: &UserName, position: Position) {
        let user = self.names.intern(user.as_str());
        self.log_now(number).saw_leave_at(position, user);
    }

    pub(super) fn sees_chat(&mut self, number: usize, event: &Event) {
        let Some(Spoken { from, content, .. }) = event.body.spoken() else { return };
        let whisper = matches!(event.body, Body::Whispered(_));
        let from = self.names.intern(from.user.as_str());
        let log = self.log_now(number);
        match content.as_text().and_then(TextId::parse) {
            Some(id) => log.saw_at(event.position, from, id, whisper),
            None => log.saw_foreign(),
        }
    }

    /// A client's stay has ended.
    pub(crate) fn gone(&mut self, number: usize) {
        self.log_now(number).gone();
    }
}

fn place(log: SessionKey) -> usize {
    usize::try_from(log.0).unwrap_or(usize::MAX)
}

fn name(text: &str) -> UserName {
    UserName::from_peer(text).expect("made-up names are short")
}
