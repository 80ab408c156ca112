//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.
//!
//! What a room's members hear in a row is gathered while the worker is busy with what has arrived,
//! and then goes to each of them in one piece, in one walk through the room: the busier the worker,
//! the fewer the writes. Whatever else a session is told ends the gathering first, so that the
//! order stays.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use frontend::{Answer, Form, Outbound, Run, Writes};
use model::{Code, Position, SendNumber, SessionId, UserName, limits};
use room::{
    Push,
    message::{Body, Event, Member, Spoken, Welcome},
};
use session::{CloseReason, RequestKey};
use wire::{
    Dialect, Entered, Reply, Stamp,
    pomelo::{Options, modern},
};

/// Pushes gathered for one room at most. Fewer than a queue holds: a client that reads is never
/// taken for slow because much came at once.
const GATHERED_MAX: usize = limits::SESSION_QUEUE_FRAMES_MAX / 4;
/// Bytes of text gathered for one room after which it is told.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// The sessions of one worker that have asked to enter a room.
#[derive(Debug)]
pub(crate) struct Hub {
    sessions: HashMap<SessionId, Client>,
    /// The dictionary and the definitions that clients were told in their handshake.
    options: Arc<Options>,
    /// What rooms are yet to be told.
    gathered: Vec<Gathered>,
    /// What the last entrant was told that had happened before.
    told_last: ToldLast,
    /// How often members were told something, since the last [`Hub::flush`].
    told: usize,
    writes: Writes,
}

/// The events that an entrant was told, in JSON: those who enter a room together are told the same,
/// and it is written once.
#[derive(Debug, Default)]
struct ToldLast {
    events: Vec<Arc<Event>>,
    json: Arc<str>,
}

/// What one room is yet to be told.
#[derive(Debug)]
struct Gathered {
    /// Who hears the last of it: as long as something is gathered, a room only grows.
    audience: Arc<[SessionId]>,
    /// Who does not hear all of it, and the number of the first push that it hears.
    newcomers: Vec<(SessionId, usize)>,
    pushes: Vec<Placed>,
    bytes: usize,
}

/// A push, where its event stands in the log, and the send of a member that it answers.
type Placed = (Push, Position, Option<(SessionId, SendNumber)>);

/// What a worker needs to answer a client.
#[derive(Debug)]
struct Client {
    outbound: Outbound,
    dialect: Dialect,
    /// The `enter` that waits for its answer.
    entering: Option<RequestKey>,
    /// The sends that wait for theirs, in order.
    saying: VecDeque<(SendNumber, RequestKey)>,
    /// Those of them that what is gathered answers.
    answers: Vec<Answer>,
}

impl Hub {
    /// A hub without sessions.
    pub(crate) fn new(options: Arc<Options>, writes: Writes) -> Self {
        let told_last = ToldLast::default();
        Self { sessions: HashMap::new(), options, gathered: Vec::new(), told_last, told: 0, writes }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session that asks to enter.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        outbound: Outbound,
        dialect: Dialect,
        key: RequestKey,
    ) {
        let (saying, answers) = (VecDeque::new(), Vec::new());
        let client = Client { outbound, dialect, entering: Some(key), saying, answers };
        self.sessions.insert(session, client);
    }

    /// Notes which request a send answers.
    pub(crate) fn say(&mut self, session: SessionId, number: SendNumber, key: RequestKey) {
        if let Some(client) = self.sessions.get_mut(&session) {
            client.saying.push_back((number, key));
        }
    }

    /// Forgets a session.
    pub(crate) fn leave(&mut self, session: SessionId) {
        self.tell_all();
        self.sessions.remove(&session);
    }

    /// Tells a client that it is in.
    pub(crate) fn entered(
        &mut self,
        session: SessionId,
        users: Vec<UserName>,
        position: Position,
        welcome: Option<Welcome>,
    ) {
        // Nothing that is gathered is for this session: it is in no audience yet.
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            let reply = match welcome {
                None => Reply::Users(users),
                Some(Welcome { outcome, stay, events }) => {
                    let (key, events) = (stay.key, self.told_last.in_json(events));
                    Reply::Entered(Box::new(Entered { outcome, users, position, key, events }))
                }
            };
            client.outbound.reply(key, reply);
        }
    }

    /// Tells a client that its send has a position.
    pub(crate) fn placed(&mut self, session: SessionId, number: SendNumber, position: Position) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.answers(number)
        {
            client.outbound.reply(key, client.done(position));
        }
    }

    /// Tells a client that it is not in.
    pub(crate) fn enter_refused(&mut self, session: SessionId, code: Code) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Refused { code, error: true });
        }
    }

    /// Tells a client that its send was not applied.
    pub(crate) fn say_refused(&mut self, session: SessionId, number: SendNumber, code: Code) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session) {
            client.refuse(number, code);
        }
    }

    /// Asks whether a client lives.
    pub(crate) fn probe(&self, session: SessionId) {
        if let Some(client) = self.sessions.get(&session) {
            client.outbound.probe();
        }
    }

    /// Closes a session.
    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        self.tell_all();
        if let Some(client) = self.sessions.remove(&session) {
            client.outbound.close(reason);
        }
    }

    /// Tells members something, at the next [`Hub::flush`]; `answered` gets the reply to its send
    /// beside it, in the order that its dialect wants.
    pub(crate) fn push(
        &mut self,
        sessions: &Arc<[SessionId]>,
        except: Option<SessionId>,
        (push, position): (&Push, Position),
        answered: Option<(SessionId, SendNumber)>,
    ) {
        let at = self.gathering(sessions, except);
        let room = &mut self.gathered[at];
        room.bytes += weight(push);
        room.pushes.push((push.clone(), position, answered));
        if let Some(session) = except {
            room.newcomers.push((session, room.pushes.len()));
        }
        if room.pushes.len() >= GATHERED_MAX || room.bytes >= GATHERED_BYTES_MAX {
            self.tell_all();
        }
    }

    /// Where to gather what these sessions hear, but for one that is new among them.
    ///
    /// A session is in one room, so audiences that share one are of one room, and nobody leaves it
    /// while something is gathered.
    fn gathering(&mut self, sessions: &Arc<[SessionId]>, except: Option<SessionId>) -> usize {
        let is_same = |it: &Gathered| except.is_none() && Arc::ptr_eq(&it.audience, sessions);
        if let Some(at) = self.gathered.iter().position(is_same) {
            return at;
        }
        if let Some(at) = self.gathered.iter().position(|it| it.is_of_room(sessions)) {
            if except.is_some_and(|newcomer| self.gathered[at].grows(sessions, newcomer)) {
                self.gathered[at].audience = Arc::clone(sessions);
                return at;
            }
            self.tell_all();
        }
        let (newcomers, pushes) = (Vec::new(), Vec::new());
        let audience = Arc::clone(sessions);
        self.gathered.push(Gathered { audience, newcomers, pushes, bytes: 0 });
        self.gathered.len() - 1
    }

    /// Tells everybody what was gathered. Returns how often a member was told something since the
    /// last time.
    pub(crate) fn flush(&mut self) -> usize {
        self.tell_all();
        std::mem::take(&mut self.told)
    }

    fn tell_all(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        for room in gathered.drain(..) {
            self.tell(&room);
        }
        self.gathered = gathered;
    }

    fn tell(&mut self, room: &Gathered) {
        let mut astray = Vec::new();
        for (number, (_, position, answered)) in room.pushes.iter().enumerate() {
            let Some((session, said)) = *answered else { continue };
            let Some(client) = self.sessions.get_mut(&session) else { continue };
            let Some(key) = client.answers(said) else { continue };
            // The sender may have left the audience between its send and now.
            if room.audience.binary_search(&session).is_ok() {
                let unit = key.encode(&client.done(*position), client.dialect, &self.options);
                client.answers.push(Answer { push: number, unit });
            } else {
                astray.push((session, key, *position));
            }
        }
        let mut encoded = Encoded::new(room);
        let mut members = 0;
        for session in room.audience.iter() {
            let from = room.begins(*session);
            if from == room.pushes.len() {
                continue;
            }
            let Some(client) = self.sessions.get_mut(session) else { continue };
            let run = encoded.of(client.dialect, client.outbound.form(), &self.options);
            let reply_first = client.dialect.reply_before_push();
            self.writes.deliver(&client.outbound, run, from, &client.answers, reply_first);
            client.answers = Vec::new();
            self.told += run.frames(from);
            members += 1;
        }
        self.writes.flush();
        for (session, key, position) in astray {
            if let Some(client) = self.sessions.get(&session) {
                client.outbound.reply(key, client.done(position));
            }
        }
        room.log(members);
    }
}

impl ToldLast {
    fn in_json(&mut self, events: Vec<Arc<Event>>) -> Arc<str> {
        let is_same = |(one, other): (&Arc<Event>, &Arc<Event>)| Arc::ptr_eq(one, other);
        let is_known = !events.is_empty()
            && self.events.len() == events.len()
            && self.events.iter().zip(&events).all(is_same);
        if !is_known {
            self.json = in_json(&events).into();
            self.events = events;
        }
        Arc::clone(&self.json)
    }
}

impl Gathered {
    /// Whether these sessions are in the same room. Neither is empty.
    fn is_of_room(&self, sessions: &[SessionId]) -> bool {
        let has = |audience: &[SessionId], other: &[SessionId]| {
            other.first().is_some_and(|session| audience.binary_search(session).is_ok())
        };
        has(sessions, &self.audience) || has(&self.audience, sessions)
    }

    /// Whether these sessions are the audience and a newcomer.
    fn grows(&self, sessions: &[SessionId], newcomer: SessionId) -> bool {
        let others = sessions.iter().filter(|session| **session != newcomer);
        sessions.len() == self.audience.len() + 1 && others.eq(self.audience.iter())
    }

    /// The number of the first push that a session hears.
    fn begins(&self, session: SessionId) -> usize {
        let newcomer = self.newcomers.iter().find(|(newcomer, _)| *newcomer == session);
        newcomer.map_or(0, |(_, from)| *from)
    }

    fn log(&self, members: usize) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for (push, _, answered) in &self.pushes {
            if let Push::Chat(event) = push {
                let (session, number) = answered.unzip();
                tracing::debug!(
                    position = %event.position, members,
                    session = session.map(|session| session.0), number = number.map(|it| it.0),
                    "told"
                );
            }
        }
    }
}

impl Client {
    /// The request that this send was, once.
    fn answers(&mut self, number: SendNumber) -> Option<RequestKey> {
        // Answers come in the order of the sends, but for refusals that need no owner.
        let at = self.saying.iter().position(|(said, _)| *said == number)?;
        self.saying.remove(at).map(|(_, key)| key)
    }

    /// The answer to a send that has this position.
    fn done(&self, position: Position) -> Reply {
        if self.dialect == Dialect::Modern { Reply::Placed(position) } else { Reply::Done }
    }

    fn refuse(&mut self, number: SendNumber, code: Code) {
        if let Some(key) = self.answers(number) {
            self.outbound.reply(key, Reply::Refused { code, error: false });
        }
    }
}

/// Pushes in the bytes of each dialect and form that somebody in the room wants.
struct Encoded<'a> {
    pushes: Vec<Option<(wire::Push<'a>, Stamp<'a>)>>,
    runs: Vec<(Dialect, Run)>,
}

impl<'a> Encoded<'a> {
    fn new(room: &'a Gathered) -> Self {
        let pushes = room.pushes.iter().map(|(push, position, _)| {
            let id = match push {
                Push::Chat(event) => event.message_id().map(|(_, id)| id),
                Push::Add(_) | Push::Leave(_) => None,
            };
            Some((in_wire_terms(push)?, Stamp { position: *position, id }))
        });
        Self { pushes: pushes.collect(), runs: Vec::new() }
    }

    fn of(&mut self, dialect: Dialect, form: Form, options: &Options) -> &Run {
        let is_it = |(of, run): &(Dialect, Run)| *of == dialect && run.form() == form;
        let at = self.runs.iter().position(is_it).unwrap_or_else(|| {
            let units = self.pushes.iter().map(|placed| {
                let (push, stamp) = placed.as_ref()?;
                dialect.encode_push(push, Some(*stamp), options)
            });
            self.runs.push((dialect, Run::new(form, units)));
            self.runs.len() - 1
        });
        &self.runs[at].1
    }
}

/// Roughly how many bytes a push will take. Only the text can be large.
fn weight(push: &Push) -> usize {
    match push {
        Push::Add(_) | Push::Leave(_) => 64,
        Push::Chat(event) => event.weight(),
    }
}

fn in_wire_terms(push: &Push) -> Option<wire::Push<'_>> {
    match push {
        Push::Add(user) => Some(wire::Push::Add { user }),
        Push::Leave(user) => Some(wire::Push::Leave { user }),
        Push::Chat(event) => chat(event),
    }
}

fn chat(event: &Event) -> Option<wire::Push<'_>> {
    let Spoken { from, shown, content, .. } = event.body.spoken()?;
    Some(wire::Push::Chat { content, from: &from.user, target: shown })
}

/// Events as the pushes that a client would have had, in a JSON array.
fn in_json(events: &[Arc<Event>]) -> String {
    let mut json = b"[".to_vec();
    for event in events {
        let push = match &event.body {
            Body::Joined(Member { user, .. }) => Some(wire::Push::Add { user }),
            Body::Left(Member { user, .. }) | Body::Replaced(Member { user, .. }) => {
                Some(wire::Push::Leave { user })
            }
            Body::Said { .. } | Body::Whispered { .. } => chat(event),
            Body::SessionJoined(_) | Body::SessionLeft(_) | Body::Moved { .. } | Body::Hidden => {
                None
            }
        };
        let Some(push) = push else { continue };
        if json.len() > 1 {
            json.push(b',');
        }
        let id = event.message_id().map(|(_, id)| id);
        let stamp = Stamp { position: event.position, id };
        modern::write_push(&mut json, &push, Some(stamp));
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_else(|_| "[]".to_owned())
}

#[cfg(test)]
mod tests {
    use model::{Content, Incarnation, MemberId, NameRule, Term};

    use super::*;

    fn said(seq: u64) -> Arc<Event> {
        let id = MemberId { connector: Incarnation(3), session: SessionId(1) };
        let from = Member { id, user: UserName::from_peer("alice").unwrap() };
        let (shown, content) = (Content::Text("*".into()), Content::Text("hi".into()));
        let body = Body::Said { from, number: SendNumber(1), shown, content, id: None };
        Arc::new(Event { position: Position { generation: Term(1), seq }, body })
    }

    #[test]
    fn what_many_are_told_is_written_once_and_only_for_them() {
        let mut told = ToldLast::default();
        let (one, two, three) = (said(1), said(2), said(3));
        let events = vec![one, Arc::clone(&two)];
        let first = told.in_json(events.clone());
        assert_eq!(&*first, in_json(&events));
        assert!(Arc::ptr_eq(&first, &told.in_json(events.clone())));
        for events in [vec![two, three], Vec::new(), events, vec![said(1), said(2)]] {
            let json = told.in_json(events.clone());
            assert_eq!(&*json, in_json(&events));
            assert!(!Arc::ptr_eq(&first, &json), "written for other events");
        }
    }

    fn audience(sessions: &[u64]) -> Arc<[SessionId]> {
        sessions.iter().copied().map(SessionId).collect()
    }

    fn add(hub: &mut Hub, sessions: &Arc<[SessionId]>, newcomer: Option<u64>) {
        let user = UserName::parse("alice", &NameRule::default()).unwrap();
        let position = Position { generation: Term(1), seq: 1 };
        hub.push(sessions, newcomer.map(SessionId), (&Push::Add(user), position), None);
    }

    fn begins(room: &Gathered) -> Vec<usize> {
        room.audience.iter().map(|session| room.begins(*session)).collect()
    }

    #[test]
    fn who_enters_meanwhile_hears_the_rest() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        add(&mut hub, &audience(&[4]), Some(4));
        add(&mut hub, &audience(&[2, 4]), Some(2));
        // Another room.
        add(&mut hub, &audience(&[1, 3]), Some(3));
        let all = audience(&[2, 4, 9]);
        add(&mut hub, &all, Some(9));
        add(&mut hub, &all, None);
        assert_eq!(hub.gathered.len(), 2);
        assert_eq!(hub.gathered[0].pushes.len(), 4);
        assert_eq!(begins(&hub.gathered[0]), [2, 1, 3]);
        assert_eq!(begins(&hub.gathered[1]), [0, 1]);
    }

    #[test]
    fn another_audience_of_a_room_ends_the_gathering() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        add(&mut hub, &audience(&[2, 4]), None);
        add(&mut hub, &audience(&[4]), None);
        assert_eq!(hub.gathered.len(), 1);
        assert_eq!(begins(&hub.gathered[0]), [0]);
        add(&mut hub, &audience(&[2, 4, 6]), None);
        assert_eq!(hub.gathered[0].pushes.len(), 1, "who is new is not known");
    }
}
