//! Clients: what they want, do and hear, over all their connections, and what they remember.
//!
//! Some are of old, and begin anew whenever their connection ends. The others ask for the modern
//! fields: whose connection is lost comes back, at any connector, to all that it missed, and says
//! again what was not answered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use model::{Position, Term};
use serde_json::{Value, json};
use session::CloseReason;
use verify::{
    history::{SessionKey, TextId, To},
    sim::Random,
};
use wire::{
    RequestId, Route,
    pomelo::{
        Hello,
        client::{Codec, Incoming, Kept},
        packet::{self, Kind},
    },
    route,
};

use crate::world::{QUIET, State as World, TALK, now};

/// How long a connector may not know that a connection is lost, unless the missing heartbeats tell it.
const NOTICED_MS: u64 = 7_000;

/// One user, over all its connections.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) seat: usize,
    /// Its place among the logs: the same for all connections by which it stays in a room.
    pub(crate) log: usize,
    /// When it connects next, if it has no connection.
    pub(crate) comes_at: Duration,
    /// How many seats and rooms there are.
    of: (usize, usize),
    is_modern: bool,
    user: String,
    room: String,
    state: State,
    /// With what it comes back.
    stay: Option<Stay>,
    /// The host that it is connected to, or was last.
    host: String,
    codec: Option<Codec>,
    asked: BTreeMap<u64, Asked>,
    /// What it is to say again.
    again: VecDeque<Said>,
    last_request: u64,
    random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Without a connection.
    Away,
    Greeting,
    Outside,
    Entering,
    Inside,
    /// Has said its last thing, and waits for the answer.
    Leaving,
    /// Stays until the end.
    Settled,
    /// It was told that its connection has lost its place.
    Displaced,
    /// It was told that it cannot come back.
    GivesUp,
}

/// A stay in a room that can be taken up again.
#[derive(Debug)]
struct Stay {
    token: String,
    /// Up to where it has seen the room.
    seen: Position,
    /// Where it was in last.
    host: String,
}

/// What a request was.
#[derive(Clone, Debug)]
enum Asked {
    Enter,
    Say(Said),
}

/// Something said, as often as it is said.
#[derive(Clone, Debug)]
struct Said {
    id: TextId,
    target: String,
    /// Whether it is the last thing that is said.
    last: bool,
    /// Whether it was said before: what is refused now may have been applied then.
    again: bool,
}

/// What a client does.
#[derive(Debug)]
pub(crate) enum Act {
    Nothing,
    Request(Bytes),
    /// It closes its connection.
    Leave,
    /// Its connection is lost, and its connector learns of it so much later.
    Lose(Duration),
}

impl Client {
    /// The client of a seat, who comes when the others do.
    pub(crate) fn new(seat: usize, of: (usize, usize), seed: u64, world: &mut World) -> Self {
        let mut client = Self {
            seat,
            log: 0,
            comes_at: Duration::ZERO,
            of,
            is_modern: !seat.is_multiple_of(3),
            user: format!("u{seat}"),
            room: String::new(),
            state: State::Away,
            stay: None,
            host: String::new(),
            codec: None,
            asked: BTreeMap::new(),
            again: VecDeque::new(),
            last_request: 0,
            random: Random::of(seed, !(seat as u64)),
        };
        client.renew(world);
        client.comes_at = TALK + client.random.millis(0, 500);
        client
    }

    /// Another source of chance.
    pub(crate) const fn fork(&mut self) -> Random {
        self.random.fork()
    }

    // ---- its connections

    /// It is connected to this host. Answers what it says first.
    pub(crate) fn connect(&mut self, host: &str) -> Bytes {
        host.clone_into(&mut self.host);
        self.state = State::Greeting;
        self.codec = None;
        self.last_request = 0;
        self.hello().encode()
    }

    fn hello(&self) -> Hello {
        let user = if self.is_modern { json!({ "tangelo": 1 }) } else { Value::Null };
        Hello { client_type: Some("js-socket".to_owned()), user, ..Hello::default() }
    }

    /// Its connector has closed the connection.
    pub(crate) fn closed(&mut self, reason: CloseReason, world: &mut World) {
        tracing::info!(log = self.log, user = self.user, %reason, "session over");
        *world.ends.entry(reason.to_string()).or_default() += 1;
        let is_elsewhere = [CloseReason::Superseded, CloseReason::Replaced].contains(&reason);
        if reason == CloseReason::ClientLeft {
            // It has left, or given up.
            self.begins_anew(world);
        } else if is_elsewhere && self.stay.is_some() {
            // Another connection of its own, which it has given up, has its place: two would chase
            // each other away.
            if let Some(log) = world.log(self.log) {
                log.superseded();
            }
            self.renew(world);
        } else {
            self.lost(world);
        }
    }

    /// Its connection is lost. What it said and had no answer for it will say again.
    pub(crate) fn lost(&mut self, world: &mut World) {
        if self.stay.is_none() {
            return self.begins_anew(world);
        }
        self.state = State::Away;
        world.settled.remove(&self.seat);
        let unanswered = std::mem::take(&mut self.asked).into_values();
        let said = unanswered.filter_map(|asked| match asked {
            Asked::Say(said) => Some(said),
            Asked::Enter => None,
        });
        let later = std::mem::take(&mut self.again);
        self.again = said.chain(later).collect();
        if let Some(log) = world.log(self.log) {
            log.lost();
        }
        let delay = match self.random.below(4) {
            0 | 1 => self.random.millis(0, 800),
            2 => self.random.millis(500, 4_700),
            // Longer than the grace is.
            _ => self.random.millis(4_000, 12_000),
        };
        // Nobody is away in the end.
        self.comes_at = (now() + delay).min(QUIET.max(now() + Duration::from_millis(200)));
    }

    /// Its stay has ended.
    fn begins_anew(&mut self, world: &mut World) {
        if let Some(log) = world.log(self.log) {
            log.gone();
        }
        self.renew(world);
    }

    /// It begins anew, in some room.
    fn renew(&mut self, world: &mut World) {
        self.state = State::Away;
        world.settled.remove(&self.seat);
        self.room = format!("r{}", self.random.index(self.of.1));
        self.stay = None;
        self.asked.clear();
        self.again.clear();
        self.log = world.open(&self.room, &self.user);
        self.comes_at = now() + self.random.millis(50, 600);
    }

    // ---- what it does

    pub(crate) fn act(&mut self, world: &mut World) -> Act {
        let is_quiet = now() >= QUIET;
        let is_back = self.stay.is_some();
        match self.state {
            State::Away | State::Greeting | State::Leaving | State::Settled => Act::Nothing,
            State::Displaced => Act::Lose(Duration::ZERO),
            State::GivesUp => Act::Leave,
            // It was refused, and tries elsewhere.
            State::Outside if is_back && self.asked_before() && self.random.one_in(3) => {
                Act::Lose(Duration::ZERO)
            }
            State::Outside => self.enter(world),
            State::Entering if !is_quiet && self.random.one_in(60) => self.end(),
            State::Entering => Act::Nothing,
            State::Inside
                if !is_quiet && self.random.one_in(if self.is_modern { 30 } else { 50 }) =>
            {
                if self.is_modern && self.random.one_in(2) {
                    // The last thing that it says is lost, too.
                    let _ = self.say(false, world);
                }
                self.end()
            }
            State::Inside => self.say(is_quiet, world),
        }
    }

    const fn asked_before(&self) -> bool {
        self.last_request > 0
    }

    /// Closes the connection, or loses it.
    fn end(&mut self) -> Act {
        if self.random.one_in(4) {
            Act::Leave
        } else if self.random.one_in(3) {
            Act::Lose(Duration::ZERO)
        } else {
            Act::Lose(self.random.millis(0, NOTICED_MS))
        }
    }

    fn enter(&mut self, world: &mut World) -> Act {
        self.state = State::Entering;
        let mut body = json!({ "username": self.user, "rid": self.room });
        if let Some(Stay { token, seen, .. }) = &self.stay {
            let Position { generation, seq } = seen;
            body["resume"] = json!({ "token": token, "gen": generation.0, "seq": seq });
        } else if let Some(log) = world.log(self.log) {
            log.asks();
        }
        self.request(Route::Enter, Asked::Enter, body)
    }

    /// What was not answered goes first.
    fn say(&mut self, last: bool, world: &mut World) -> Act {
        let said = match self.again.pop_front() {
            Some(said) => {
                if let Some(log) = world.log(place(said.id)) {
                    log.sent_again(said.id.number);
                }
                tracing::info!(user = self.user, id = %said.id, "says it again");
                Said { again: true, ..said }
            }
            None => match self.make_up(last, world) {
                Some(said) => said,
                None => return Act::Nothing,
            },
        };
        if said.last {
            self.state = State::Leaving;
        }
        let (text, target) = (said.id.to_string(), &said.target);
        let mut body =
            json!({ "rid": self.room, "content": text, "from": self.user, "target": target });
        if self.is_modern {
            body["id"] = text.into();
        }
        self.request(Route::Send, Asked::Say(said), body)
    }

    fn make_up(&mut self, last: bool, world: &mut World) -> Option<Said> {
        let whom = (!last && self.random.one_in(6)).then(|| self.random.index(self.of.0));
        let target = whom.map_or_else(|| "*".to_owned(), |number| format!("u{number}"));
        let to = whom.map_or(To::Everyone, |_| To::One(world.name(&target)));
        let number = world.log(self.log)?.sent(to);
        let sender = SessionKey(u32::try_from(self.log).unwrap_or(u32::MAX));
        Some(Said { id: TextId { sender, number }, target, last, again: false })
    }

    fn request(&mut self, route: Route, asked: Asked, body: Value) -> Act {
        let (Some(codec), Value::Object(body)) = (&self.codec, body) else { return Act::Nothing };
        self.last_request += 1;
        let id = self.last_request;
        let request = codec.encode_request(RequestId(id), route.name(), &body).unwrap();
        self.asked.insert(id, asked);
        Act::Request(request)
    }

    // ---- what it hears

    /// Answers what it says to that at once.
    pub(crate) fn hears(&mut self, unit: &[u8], world: &mut World) -> Option<Bytes> {
        let mut answer = None;
        for package in packet::split(unit, usize::MAX) {
            let package = package.unwrap();
            match package.kind {
                Kind::Handshake => {
                    let codec = Codec::from_answer(package.body, &self.hello(), &Kept::default());
                    self.codec = Some(codec.unwrap());
                    self.state = State::Outside;
                    answer = Some(packet::HANDSHAKE_ACK);
                }
                Kind::Data => self.hears_data(package.body, world),
                Kind::HandshakeAck | Kind::Heartbeat | Kind::Kick => {}
            }
        }
        answer
    }

    fn hears_data(&mut self, data: &[u8], world: &mut World) {
        let Some(codec) = self.codec.clone() else { return };
        match codec.decode(data).unwrap() {
            Incoming::Push { route, body } => self.hears_push(&route, &body, world),
            Incoming::Response { id, body } => match self.asked.remove(&id.0) {
                Some(Asked::Enter) => {
                    let body = codec.decode_body(Route::Enter.name(), body).unwrap();
                    self.entered(&body, world);
                }
                Some(Asked::Say(said)) => {
                    let body = codec.decode_body(Route::Send.name(), body).unwrap();
                    self.answered(said, &body, world);
                }
                None => panic!("an answer to nothing: {id:?}"),
            },
        }
    }

    fn entered(&mut self, body: &Value, world: &mut World) {
        let Some(users) = body.get("users").and_then(Value::as_array) else {
            return self.refused(body);
        };
        self.state = State::Inside;
        let users: Vec<_> =
            users.iter().filter_map(Value::as_str).map(|user| world.name(user)).collect();
        let (at, outcome) = (position(body), body.get("outcome").and_then(Value::as_str));
        match (self.stay.take(), at) {
            (Some(stay), Some(at)) if outcome == Some("resumed") => {
                let missed = body["events"].as_array().map_or(&[][..], Vec::as_slice);
                let (here, missed_some) = (stay.host == self.host, !missed.is_empty());
                let user = &self.user;
                tracing::info!(elsewhere = !here, missed_some, user, "is back");
                for event in missed {
                    self.hears_event(event["route"].as_str().unwrap_or(""), event, true, world);
                }
                let Some(log) = world.log(self.log) else { return };
                log.resumed(users, stay.seen, at);
            }
            (stay, at) => {
                if let Some(stay) = stay {
                    self.reset(&stay, at, world);
                }
                let Some(log) = world.log(self.log) else { return };
                log.joined(users);
                at.into_iter().for_each(|at| log.joined_at(at));
            }
        }
        let token = body.get("token").and_then(Value::as_str);
        self.stay = token.zip(at).map(|(token, seen)| Stay {
            token: token.to_owned(),
            seen,
            host: self.host.clone(),
        });
    }

    /// What it missed cannot be told. In another generation nobody knows what was said before.
    fn reset(&mut self, stay: &Stay, at: Option<Position>, world: &mut World) {
        let same_generation = at.is_some_and(|at| at.generation == stay.seen.generation);
        tracing::info!(user = self.user, same_generation, "is back by a reset");
        if !same_generation {
            self.again.clear();
        }
        if let Some(log) = world.log(self.log) {
            log.gone();
        }
        self.log = world.open(&self.room, &self.user);
        if let Some(log) = world.log(self.log) {
            log.asks();
            log.began_by_reset();
        }
    }

    fn refused(&mut self, body: &Value) {
        tracing::debug!(log = self.log, user = self.user, %body, "not let in");
        let may_retry = matches!(body["code"].as_u64(), Some(429 | 503 | 504));
        let gives_up = self.stay.is_some() && (!may_retry || self.random.one_in(20));
        self.state = if gives_up { State::GivesUp } else { State::Outside };
    }

    fn answered(&mut self, said: Said, body: &Value, world: &mut World) {
        // Clients of old hear no code if it was done.
        let code = body.get("code").and_then(Value::as_u64).unwrap_or(200);
        if said.last {
            self.state = if code == 200 { State::Settled } else { State::Inside };
        }
        if self.state == State::Settled {
            world.settled.insert(self.seat, now());
        }
        let TextId { number, .. } = said.id;
        let Some(log) = world.log(place(said.id)) else { return };
        match (code, position(body)) {
            (200, Some(position)) => log.acked_at(number, position),
            (200, None) => log.acked(number),
            // Whether it was applied is not known, nor to clients of old of any refusal.
            (504, _) if self.is_modern => self.again.push_back(said),
            _ if !self.is_modern => {}
            (code, _) => {
                if !said.again {
                    log.refused(number);
                }
                if code == 401 {
                    self.state = State::Displaced;
                }
            }
        }
    }

    fn hears_push(&mut self, name: &str, body: &Value, world: &mut World) {
        self.hears_event(name, body, false, world);
        if let Some((stay, position)) = self.stay.as_mut().zip(position(body)) {
            stay.seen = position;
        }
    }

    fn hears_event(&self, name: &str, body: &Value, missed: bool, world: &mut World) {
        let text = |member| body.get(member).and_then(Value::as_str).unwrap_or_default();
        let at = position(body);
        match name {
            route::ON_ADD => {
                let user = world.name(text("user"));
                world.log(self.log).into_iter().for_each(|log| log.saw_add(user));
            }
            route::ON_LEAVE => {
                let user = world.name(text("user"));
                let Some(log) = world.log(self.log) else { return };
                match at {
                    Some(at) if missed => log.missed_leave_at(at, user),
                    Some(at) => log.saw_leave_at(at, user),
                    None => log.saw_leave(user),
                }
            }
            route::ON_CHAT => {
                let (from, whisper) = (world.name(text("from")), text("target") != "*");
                let Some(log) = world.log(self.log) else { return };
                match (TextId::parse(text("msg")), at) {
                    (None, _) => log.saw_foreign(),
                    (Some(id), Some(at)) => log.saw_at(at, from, id, whisper),
                    (Some(id), None) => log.saw(from, id, whisper),
                }
            }
            _ => {}
        }
    }
}

/// The log of whoever said it.
fn place(id: TextId) -> usize {
    usize::try_from(id.sender.0).unwrap_or(usize::MAX)
}

fn position(body: &Value) -> Option<Position> {
    let number = |member| body.get(member).and_then(Value::as_u64);
    Some(Position { generation: Term(number("gen")?), seq: number("seq")? })
}
