//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.
//!
//! What a room's members hear in a row is gathered while the worker is busy with what has arrived,
//! and then goes to each of them in one piece, in one walk through the room: the busier the worker,
//! the fewer the writes. Whatever else a session is told ends the gathering first, so that the
//! order stays.
//!
//! A walk through a large room would keep all others waiting, at some microseconds a member. So it
//! goes in pieces, a piece with every [`Hub::flush`], and what the room hears meanwhile is gathered
//! for the next walk.

mod told;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use frontend::{Answer, Form, Outbound, Run, Writes};
use model::{Code, Position, SendNumber, SessionId, UserName, limits};
use room::{
    Push,
    message::{Event, Spoken, Welcome},
};
use session::{CloseReason, RequestKey};
use told::ToldLast;
use wire::{Dialect, Entered, Reply, Stamp, pomelo::Options};

/// Pushes gathered for one room at most. Fewer than a queue holds: a client that reads is never
/// taken for slow because much came at once.
const GATHERED_MAX: usize = limits::SESSION_QUEUE_FRAMES_MAX / 4;
/// Bytes of text gathered for one room after which it is told.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Members of a large room told at once, in a millisecond or less; smaller rooms are told whole.
const PIECE_MEMBERS: usize = 128;

/// The sessions of one worker that have asked to enter a room.
#[derive(Debug)]
pub(crate) struct Hub {
    sessions: HashMap<SessionId, Client>,
    /// The dictionary and the definitions that clients were told in their handshake.
    options: Arc<Options>,
    /// What rooms are yet to be told.
    gathered: Vec<Gathered>,
    /// Large rooms on whose members' way what was gathered is; each room at most once.
    walks: VecDeque<Walk>,
    /// What the last entrant was told that had happened before.
    told_last: ToldLast,
    /// How often members were told something, since the last [`Hub::flush`].
    told: usize,
    writes: Writes,
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

/// What is on its way through a room: some members have been told, the rest have not.
#[derive(Debug)]
struct Walk {
    room: Gathered,
    /// The pushes in the bytes of each dialect and form that somebody so far wanted.
    runs: Vec<(Dialect, Run)>,
    /// How many of the audience it has come by.
    next: usize,
    /// How many of them heard something.
    members: usize,
    /// Senders that have left the audience between their send and now.
    astray: Vec<(SessionId, RequestKey, Position)>,
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
        let (gathered, walks) = (Vec::new(), VecDeque::new());
        Self { sessions: HashMap::new(), options, gathered, walks, told_last, told: 0, writes }
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
        self.settle(session);
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
        self.settle(session);
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.answers(number)
        {
            client.outbound.reply(key, client.done(position));
        }
    }

    /// Tells a client that it is not in.
    pub(crate) fn enter_refused(&mut self, session: SessionId, code: Code) {
        self.settle(session);
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Refused { code, error: true });
        }
    }

    /// Tells a client that its send was not applied.
    pub(crate) fn say_refused(&mut self, session: SessionId, number: SendNumber, code: Code) {
        self.settle(session);
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
        self.settle(session);
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
            self.tell_whole(at);
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
            self.tell_whole(at);
        }
        let (newcomers, pushes) = (Vec::new(), Vec::new());
        let audience = Arc::clone(sessions);
        self.gathered.push(Gathered { audience, newcomers, pushes, bytes: 0 });
        self.gathered.len() - 1
    }

    /// Tells what was gathered: everybody in small rooms, and the next piece of one large room.
    /// Returns how often a member was told something since the last time.
    pub(crate) fn flush(&mut self) -> usize {
        let mut gathered = std::mem::take(&mut self.gathered);
        for room in gathered.drain(..) {
            if self.walk_in(&room).is_some() {
                self.gathered.push(room);
            } else if room.audience.len() <= PIECE_MEMBERS {
                self.tell(room);
            } else {
                let walk = self.begin(room);
                self.walks.push_back(walk);
            }
        }
        if self.gathered.is_empty() {
            // With the room that it has.
            self.gathered = gathered;
        }
        if let Some(mut walk) = self.walks.pop_front()
            && !self.go_on(&mut walk, PIECE_MEMBERS)
        {
            // Large rooms take turns.
            self.walks.push_back(walk);
        }
        std::mem::take(&mut self.told)
    }

    /// Whether somebody is yet to be told something that others of its room have been told, so that
    /// [`Hub::flush`] is due again.
    pub(crate) fn is_walking(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Tells everybody all that is left.
    pub(crate) fn finish(&mut self) {
        while let Some(mut walk) = self.walks.pop_front() {
            self.go_on(&mut walk, usize::MAX);
        }
        while !self.gathered.is_empty() {
            self.tell_whole(0);
        }
    }

    /// Tells a session's room what there is, so that what the session is told next comes after it,
    /// and nobody leaves a room while something is on its way there.
    fn settle(&mut self, session: SessionId) {
        if let Some(at) = self.walks.iter().position(|walk| walk.room.has(session)) {
            self.end_walk(at);
        }
        if let Some(at) = self.gathered.iter().position(|room| room.has(session)) {
            self.tell_whole(at);
        }
    }

    /// Tells a whole room at once what was gathered for it, and what is on its way before.
    fn tell_whole(&mut self, at: usize) {
        let room = self.gathered.remove(at);
        if let Some(before) = self.walk_in(&room) {
            self.end_walk(before);
        }
        self.tell(room);
    }

    /// Which walk goes through the same room. Nobody has left it since, so the two share members.
    fn walk_in(&self, room: &Gathered) -> Option<usize> {
        self.walks.iter().position(|walk| walk.room.is_of_room(&room.audience))
    }

    fn end_walk(&mut self, at: usize) {
        if let Some(mut walk) = self.walks.remove(at) {
            self.go_on(&mut walk, usize::MAX);
        }
    }

    fn tell(&mut self, room: Gathered) {
        let mut walk = self.begin(room);
        self.go_on(&mut walk, usize::MAX);
    }

    /// Sets out through a room, with the answers to those who spoke.
    fn begin(&mut self, room: Gathered) -> Walk {
        let mut astray = Vec::new();
        for (number, (_, position, answered)) in room.pushes.iter().enumerate() {
            let Some((session, said)) = *answered else { continue };
            let Some(client) = self.sessions.get_mut(&session) else { continue };
            let Some(key) = client.answers(said) else { continue };
            // The sender may have left the audience between its send and now.
            if room.has(session) {
                let unit = key.encode(&client.done(*position), client.dialect, &self.options);
                client.answers.push(Answer { push: number, unit });
            } else {
                astray.push((session, key, *position));
            }
        }
        Walk { room, runs: Vec::new(), next: 0, members: 0, astray }
    }

    /// Tells up to so many more members. Returns whether all have been told.
    fn go_on(&mut self, walk: &mut Walk, members: usize) -> bool {
        let audience = Arc::clone(&walk.room.audience);
        for session in audience.iter().skip(walk.next).take(members) {
            walk.next += 1;
            let from = walk.room.begins(*session);
            if from == walk.room.pushes.len() {
                continue;
            }
            let Some(client) = self.sessions.get_mut(session) else { continue };
            let run = walk.run(client.dialect, client.outbound.form(), &self.options);
            if run.frames(from) == 0 && client.answers.is_empty() {
                // Its dialect has no word for any of it.
                continue;
            }
            let reply_first = client.dialect.reply_before_push();
            self.writes.deliver(&client.outbound, run, from, &client.answers, reply_first);
            client.answers = Vec::new();
            self.told += run.frames(from);
            walk.members += 1;
        }
        self.writes.flush();
        if walk.next < audience.len() {
            return false;
        }
        for (session, key, position) in walk.astray.drain(..) {
            if let Some(client) = self.sessions.get(&session) {
                client.outbound.reply(key, client.done(position));
            }
        }
        walk.room.log(walk.members);
        true
    }
}

impl Gathered {
    fn has(&self, session: SessionId) -> bool {
        self.audience.binary_search(&session).is_ok()
    }

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
        if self.dialect.is_modern() { Reply::Placed(position) } else { Reply::Done }
    }

    fn refuse(&mut self, number: SendNumber, code: Code) {
        if let Some(key) = self.answers(number) {
            self.outbound.reply(key, Reply::Refused { code, error: false });
        }
    }
}

impl Walk {
    /// The pushes as a dialect and form want them, encoded when the first asks.
    fn run(&mut self, dialect: Dialect, form: Form, options: &Options) -> &Run {
        let is_it = |(of, run): &(Dialect, Run)| *of == dialect && run.form() == form;
        let at = self.runs.iter().position(is_it).unwrap_or_else(|| {
            let units = self.room.pushes.iter().map(|(push, position, _)| {
                let position = *position;
                let stamp = match push {
                    Push::Chat(event) => {
                        Some(Stamp { position, id: event.message_id().map(|(_, id)| id) })
                    }
                    Push::Add(_) | Push::Leave(_) => Some(Stamp { position, id: None }),
                    // It is no event of the room, and stands nowhere.
                    Push::Count(_) => None,
                };
                dialect.encode_push(&in_wire_terms(push)?, stamp, options)
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
        Push::Add(_) | Push::Leave(_) | Push::Count(_) => 64,
        Push::Chat(event) => event.weight(),
    }
}

fn in_wire_terms(push: &Push) -> Option<wire::Push<'_>> {
    match push {
        Push::Add(user) => Some(wire::Push::Add { user }),
        Push::Leave(user) => Some(wire::Push::Leave { user }),
        Push::Count(members) => Some(wire::Push::Count { members: *members }),
        Push::Chat(event) => chat(event),
    }
}

fn chat(event: &Event) -> Option<wire::Push<'_>> {
    let Spoken { from, shown, content, .. } = event.body.spoken()?;
    Some(wire::Push::Chat { content, from: &from.user, target: shown })
}

#[cfg(test)]
mod tests {
    use model::{NameRule, Term};

    use super::*;

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

    /// How far each walk has come.
    fn steps(hub: &Hub) -> Vec<usize> {
        hub.walks.iter().map(|walk| walk.next).collect()
    }

    fn crowd(sessions: std::ops::Range<u64>) -> Arc<[SessionId]> {
        sessions.map(SessionId).collect()
    }

    #[test]
    fn a_large_room_is_told_in_pieces_and_others_between_them() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        let (large, small) = (crowd(1000..1300), audience(&[1, 2]));
        add(&mut hub, &large, None);
        hub.flush();
        assert_eq!((steps(&hub), hub.gathered.len()), (vec![PIECE_MEMBERS], 0));
        add(&mut hub, &large, None);
        add(&mut hub, &small, None);
        hub.flush();
        assert_eq!(steps(&hub), [2 * PIECE_MEMBERS]);
        assert_eq!(
            hub.gathered.len(),
            1,
            "the small room has heard, the large one is not at its end"
        );
        hub.flush();
        assert!(!hub.is_walking(), "all have heard the first");
        hub.flush();
        assert_eq!(
            (steps(&hub), hub.gathered.len()),
            (vec![PIECE_MEMBERS], 0),
            "the second sets out"
        );
        hub.finish();
        assert!(!hub.is_walking());
    }

    #[test]
    fn large_rooms_take_turns() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        let rooms = [crowd(1000..1300), crowd(2000..2300)];
        rooms.iter().for_each(|room| add(&mut hub, room, None));
        hub.flush();
        assert_eq!(steps(&hub), [0, PIECE_MEMBERS]);
        hub.flush();
        assert_eq!(steps(&hub), [PIECE_MEMBERS; 2]);
    }

    #[test]
    fn nobody_leaves_a_room_while_something_is_on_its_way_there() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        let large = crowd(1000..1300);
        add(&mut hub, &large, None);
        hub.flush();
        add(&mut hub, &large, None);
        hub.leave(SessionId(1));
        assert_eq!((steps(&hub), hub.gathered.len()), (vec![PIECE_MEMBERS], 1), "another room's");
        hub.leave(SessionId(1299));
        assert!(!hub.is_walking() && hub.gathered.is_empty());
    }

    #[test]
    fn what_is_gathered_stays_bounded_while_a_room_is_told() {
        let mut hub = Hub::new(Arc::new(Options::chat_connector()), Writes::new(false));
        let large = crowd(1000..1300);
        add(&mut hub, &large, None);
        hub.flush();
        for _ in 0..GATHERED_MAX {
            add(&mut hub, &large, None);
        }
        assert!(!hub.is_walking() && hub.gathered.is_empty());
    }
}
