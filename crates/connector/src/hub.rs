//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.
//!
//! What a room's members hear in a row is gathered while the worker is busy with what has arrived,
//! and then goes to each of them in one piece, in one walk through the room: the busier the worker,
//! the fewer the writes. Whatever else a session is told ends the gathering first, so that the
//! order stays. Who comes and who leaves end nothing: the one hears only what comes after, the other
//! nothing more, and the leaves of a crowd are told together.
//!
//! A walk through a large room would keep all others waiting, at some microseconds a member. So it
//! goes in pieces, a piece at most with every [`Hub::flush`], with [rests](pace) between them while
//! the room is busy, and what the room hears meanwhile is gathered for the next walk.

mod client;
mod gathered;
mod pace;
mod told;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use frontend::{Answer, Form, Outbound, Run, Writes};
use model::{Code, Position, RoomId, SendNumber, SessionId, Time, UserName, limits};
use room::{
    Push,
    message::{Event, Spoken, Welcome},
};
use session::{CloseReason, RequestKey};
use wire::{Dialect, Entered, Reply, Stamp, pomelo::Options};

use self::{
    client::Client,
    gathered::{Gathered, Placed},
    pace::{COMPANY_PUSHES, Pace},
    told::ToldLast,
};

/// Pushes gathered for one room at most. Fewer than a queue holds: a client that polls, for which
/// each is an item of its own, is not taken for slow because much came at once.
const GATHERED_MAX: usize = limits::SESSION_QUEUE_ITEMS_MAX / 4;
/// Bytes of text gathered for one room after which it is told.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// A room of more members is told in pieces.
const WHOLE_MEMBERS: usize = 128;
/// Members of such a room told at once, in a quarter of a millisecond at most: whatever comes from
/// outside waits for half a piece before it is read.
const PIECE_MEMBERS: usize = 16;

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
    /// Large rooms that are not walked through and have not rested from it yet, and some that have:
    /// they are forgotten when the next walk sets out.
    resting: HashMap<RoomId, Pace>,
    /// What the last entrant was told that had happened before.
    told_last: ToldLast,
    /// What members were told since the last [`Hub::flush`].
    told: Told,
    writes: Writes,
}

/// What members were told in one turn of the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// How often one was told something.
    pub(crate) deliveries: usize,
    /// How often in rooms that are told whole.
    whole: usize,
    /// In so many writes there.
    writes: usize,
}

impl Told {
    /// How long the worker should [stand still](pace) if all this took so long.
    pub(crate) fn stand(self, took: Duration) -> Duration {
        pace::stand(took, self.whole, self.writes)
    }
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
    pace: Pace,
    /// Whether it does not rest, as the next one has enough to bring.
    hurries: bool,
}

impl Hub {
    /// A hub without sessions.
    pub(crate) fn new(options: Arc<Options>, writes: Writes) -> Self {
        let told_last = ToldLast::default();
        let (gathered, walks) = (Vec::new(), VecDeque::new());
        let (sessions, resting) = (HashMap::new(), HashMap::new());
        let told = Told::default();
        Self { sessions, options, gathered, walks, resting, told_last, told, writes }
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
        self.sessions.insert(session, Client::new(outbound, dialect, key));
    }

    /// Notes which request a send answers.
    pub(crate) fn say(&mut self, session: SessionId, number: SendNumber, key: RequestKey) {
        if let Some(client) = self.sessions.get_mut(&session) {
            client.says(number, key);
        }
    }

    /// Forgets a session, which has nothing more to hear. What is on its way to others goes on.
    pub(crate) fn leave(&mut self, session: SessionId) {
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
            && let Some(key) = client.entering()
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
            && let Some(key) = client.saying(number)
        {
            client.outbound.reply(key, client.done(position));
        }
    }

    /// Tells a client that it is not in.
    pub(crate) fn enter_refused(&mut self, session: SessionId, code: Code) {
        self.settle(session);
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering()
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

    /// Tells members something, at the next [`Hub::flush`]; whoever it answers gets the reply to
    /// its send beside it, in the order that its dialect wants.
    ///
    /// Who is no member any more is to be forgotten or closed before this.
    pub(crate) fn push(
        &mut self,
        room: &RoomId,
        audience: &Arc<[SessionId]>,
        except: Option<SessionId>,
        placed: Placed,
    ) {
        let at = self.gathering(room, audience);
        let room = &mut self.gathered[at];
        room.add(placed, except);
        let (pushes, bytes) = (room.pushes.len(), room.bytes());
        if pushes >= GATHERED_MAX || bytes >= GATHERED_BYTES_MAX {
            self.tell_whole(at);
        } else if (pushes >= COMPANY_PUSHES || bytes >= GATHERED_BYTES_MAX / 2)
            && let Some(before) = self.walk_in(&self.gathered[at].room)
        {
            self.walks[before].hurries = true;
        }
    }

    /// Where to gather what these sessions of a room hear.
    fn gathering(&mut self, room: &RoomId, audience: &Arc<[SessionId]>) -> usize {
        if let Some(at) = self.gathered.iter().position(|it| it.room == *room) {
            let is_gone = |session| !self.sessions.contains_key(&session);
            if self.gathered[at].becomes(audience, is_gone) {
                return at;
            }
            // Only some of the room hear what comes next, as of a whisper.
            self.tell_whole(at);
        }
        self.gathered.push(Gathered::new(room, audience));
        self.gathered.len() - 1
    }

    /// Tells what was gathered: everybody in small rooms, and the next piece of one large room if
    /// that is due. Returns what members were told since the last time.
    pub(crate) fn flush(&mut self, clock: impl Fn() -> Time) -> Told {
        // The readers of a large room are busy, also while its walk rests.
        self.writes.offer(self.walks.is_empty());
        self.set_out(&clock);
        if !self.walks.is_empty() {
            self.tell_piece(&clock);
        }
        mem::take(&mut self.told)
    }

    /// Tells everybody in small rooms, and sets out through large ones that are not walked through.
    fn set_out(&mut self, clock: impl Fn() -> Time) {
        let mut gathered = mem::take(&mut self.gathered);
        for room in gathered.drain(..) {
            if self.walk_in(&room.room).is_some() {
                self.gathered.push(room);
            } else if room.audience.len() <= WHOLE_MEMBERS {
                self.tell(room);
            } else {
                let now = clock();
                self.resting.retain(|_, pace| pace.is_owed(now));
                let mut walk = self.begin(room);
                walk.pace = self.resting.remove(&walk.room.room).unwrap_or_default();
                self.walks.push_back(walk);
            }
        }
        if self.gathered.is_empty() {
            // With the room that it has.
            self.gathered = gathered;
        }
    }

    /// When [`Hub::flush`] is due again, if somebody is yet to be told something.
    pub(crate) fn walk_due(&self) -> Option<Time> {
        self.walks.iter().map(Walk::due).min()
    }

    /// Tells the next piece of a large room, if one is due.
    fn tell_piece(&mut self, clock: impl Fn() -> Time) {
        let begin = clock();
        let next = self.walks.iter().position(|walk| walk.due() <= begin);
        let Some(mut walk) = next.and_then(|at| self.walks.remove(at)) else { return };
        let is_over = self.go_on(&mut walk, PIECE_MEMBERS);
        walk.pace.walked(begin, clock());
        if is_over {
            self.resting.insert(walk.room.room, walk.pace);
            // Nobody may come who would flush what was gathered meanwhile.
            self.set_out(clock);
        } else {
            // Large rooms take turns.
            self.walks.push_back(walk);
        }
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

    /// Tells a session's room what there is, so that what the session is told next comes after it.
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
        if let Some(before) = self.walk_in(&room.room) {
            self.end_walk(before);
        }
        self.tell(room);
    }

    /// Which walk goes through a room.
    fn walk_in(&self, room: &RoomId) -> Option<usize> {
        self.walks.iter().position(|walk| walk.room.room == *room)
    }

    fn end_walk(&mut self, at: usize) {
        if let Some(mut walk) = self.walks.remove(at) {
            self.go_on(&mut walk, usize::MAX);
            self.resting.insert(walk.room.room, walk.pace);
        }
    }

    fn tell(&mut self, room: Gathered) {
        let before = self.told.deliveries;
        let mut walk = self.begin(room);
        self.go_on(&mut walk, usize::MAX);
        self.told.whole += self.told.deliveries - before;
        self.told.writes += walk.members;
    }

    /// Sets out through a room, with the answers to those who spoke.
    fn begin(&mut self, room: Gathered) -> Walk {
        let mut astray = Vec::new();
        for (number, (_, position, answered)) in room.pushes.iter().enumerate() {
            let Some((session, said)) = *answered else { continue };
            let Some(client) = self.sessions.get_mut(&session) else { continue };
            let Some(key) = client.saying(said) else { continue };
            // The sender may have left the audience between its send and now.
            if room.has(session) {
                let unit = key.encode(&client.done(*position), client.dialect, &self.options);
                client.answer(Answer { push: number, unit });
            } else {
                astray.push((session, key, *position));
            }
        }
        let (runs, pace) = (Vec::new(), Pace::default());
        Walk { room, runs, next: 0, members: 0, astray, pace, hurries: false }
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
            let answers = client.take_answers();
            if run.frames(from) == 0 && answers.is_empty() {
                // Its dialect has no word for any of it.
                continue;
            }
            let reply_first = client.dialect.reply_before_push();
            self.writes.deliver(&client.outbound, run, from, &answers, reply_first);
            self.told.deliveries += run.frames(from);
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

impl Walk {
    /// When its next piece is.
    fn due(&self) -> Time {
        if self.hurries { Time::ZERO } else { self.pace.due() }
    }

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
mod tests;
