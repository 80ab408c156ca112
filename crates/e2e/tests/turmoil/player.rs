//! Clients without a socket: each drives a session on its connector's host, talks by chance, and
//! remembers what it saw.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use frontend::{Application, Client, Delivery, Handler, Mailbox};
use model::{Incarnation, Position, SessionId, Term, limits};
use serde_json::{Value, json};
use session::{CloseReason, Config, Effect, Event, Protocol, Session, Transport};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use verify::history::{SessionKey, TextId, To};
use wire::{
    RequestId, Route,
    pomelo::{
        Hello,
        client::{Codec, Incoming, Kept},
        packet::{self, Kind},
    },
    route,
};

use verify::sim::Random;

use crate::world::{QUIET, TALK, World, now};

/// Where one client after the other sits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) number: usize,
    /// How many there are on all connectors.
    pub(crate) of: usize,
    pub(crate) rooms: usize,
}

/// What a request was.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Enter,
    /// The number of the send in its log, and whether it is the last thing that is said.
    Say {
        number: u32,
        last: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Outside,
    Entering,
    Inside,
    /// Has said its last thing, and waits for the answer.
    Leaving,
    /// Stays until the end.
    Settled,
}

/// Fills a seat with one session after the other until `end`.
pub(crate) async fn play<A: Application>(
    seat: Seat,
    life: Incarnation,
    app: A,
    world: World,
    end: CancellationToken,
) {
    let mut random = Random::of(world.seed, life.0 ^ seat.number as u64);
    let config = Arc::new(Config::connector());
    let early = TALK.saturating_sub(now());
    sleep(early + random.millis(0, 500)).await;
    while !end.is_cancelled() {
        let mut player = Player::connect(seat, &config, &app, &world, &mut random);
        tokio::select! {
            reason = player.run() => player.handler.closed(&reason).await,
            () = end.cancelled() => {}
        }
        drop(player);
        sleep(random.millis(50, 600)).await;
    }
}

/// One session.
struct Player<H> {
    seat: Seat,
    world: World,
    /// Its place among the logs.
    log: usize,
    room: String,
    user: String,
    is_modern: bool,
    session: Session,
    handler: H,
    mailbox: Mailbox,
    effects: Vec<Effect>,
    codec: Option<Codec>,
    start: Instant,
    state: State,
    asked: BTreeMap<u64, Asked>,
    last_request: u64,
    random: Random,
}

impl<H: Handler> Player<H> {
    fn connect<A: Application<Handler = H>>(
        seat: Seat,
        config: &Arc<Config>,
        app: &A,
        world: &World,
        random: &mut Random,
    ) -> Self {
        let mut random = random.fork();
        let room = format!("r{}", random.index(seat.rooms));
        let user = format!("u{}", seat.number);
        let log = world.state().open(&room, &user);
        let id = SessionId(log as u64 + 1);
        let (protocol, transport) = (Protocol::Pomelo, Transport::WebSocket);
        let (frames, bytes) = (limits::SESSION_QUEUE_FRAMES_MAX, limits::SESSION_QUEUE_BYTES_MAX);
        let (outbound, mailbox) = Mailbox::new(id, frames, bytes);
        let nowhere = ([127, 0, 0, 1], 1).into();
        let (peer, local) = (nowhere, nowhere);
        let handler =
            app.accept(Client { id, protocol, transport, peer, local, host: None, outbound });
        let start = Instant::now();
        let time = model::Time::ZERO;
        let session = Session::new(time, Arc::clone(config), protocol, transport);
        Self {
            seat,
            world: Arc::clone(world),
            log,
            room,
            user,
            is_modern: random.one_in(2),
            session,
            handler,
            mailbox,
            effects: Vec::new(),
            codec: None,
            start,
            state: State::Greeting,
            asked: BTreeMap::new(),
            last_request: 0,
            random,
        }
    }

    /// Runs until the session is over.
    async fn run(&mut self) -> CloseReason {
        let hello = self.hello().encode();
        self.event(Event::Connected);
        self.event(Event::Received(&hello));
        let mut acts_at = Instant::now();
        let mut beats_at = Instant::now() + Duration::from_secs(1);
        loop {
            if let Some(reason) = self.settle().await {
                self.gone(reason);
                return reason;
            }
            let timeout = self.session.poll_timeout().map(|at| self.start + at.since_start());
            let wakes_at = timeout.into_iter().chain([acts_at, beats_at]).min();
            tokio::select! {
                deliveries = self.mailbox.take() => deliveries.into_iter().for_each(|it| self.take(it)),
                () = sleep_until(wakes_at.unwrap_or(acts_at)) => {
                    let now = Instant::now();
                    if timeout.is_some_and(|at| at <= now) {
                        self.event(Event::Timeout);
                    }
                    if beats_at <= now {
                        beats_at = now + Duration::from_secs(1);
                        self.event(Event::Received(&packet::HEARTBEAT));
                    }
                    if acts_at <= now {
                        acts_at = now + self.random.millis(20, 400);
                        self.act();
                    }
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        let user = if self.is_modern { json!({ "tangelo": 1 }) } else { Value::Null };
        Hello { client_type: Some("js-socket".to_owned()), user, ..Hello::default() }
    }

    fn event(&mut self, event: Event<'_>) {
        let now = model::Time::from_start(self.start.elapsed());
        self.session.handle(now, event, &mut self.effects);
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Unit(unit) => self.effects.push(Effect::Transmit(unit)),
            Delivery::Event(event) => self.event(event),
        }
    }

    /// Applies effects, and those that follow from them. Returns why the session is over, if it is.
    async fn settle(&mut self) -> Option<CloseReason> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Transmit(unit) => self.hears(&unit),
                    Effect::Call { key, call } => {
                        let dialect = self.session.dialect();
                        self.handler.call(key, call, dialect).await;
                    }
                    Effect::Probe => self.event(Event::Answered),
                    Effect::Alive => self.handler.alive().await,
                    Effect::Count(oddity) => tracing::warn!(%oddity, "odd"),
                    Effect::Close(reason) => return Some(reason),
                }
            }
        }
        None
    }

    /// The client is gone, as far as it knows.
    fn gone(&self, reason: CloseReason) {
        tracing::info!(session = self.log, user = self.user, %reason, "session over");
        let mut state = self.world.state();
        *state.ends.entry(reason.to_string()).or_default() += 1;
        if let Some(log) = state.log(self.log) {
            log.gone();
        }
    }

    // ---- what it does

    fn act(&mut self) {
        let is_quiet = now() >= QUIET;
        match self.state {
            State::Greeting | State::Leaving | State::Settled => {}
            State::Outside => self.enter(),
            State::Entering if !is_quiet && self.random.one_in(60) => self.end(),
            State::Entering => {}
            State::Inside if is_quiet => self.say(true),
            State::Inside if self.random.one_in(50) => self.end(),
            State::Inside => self.say(false),
        }
    }

    /// Closes the connection, or loses it.
    fn end(&mut self) {
        let event = if self.random.one_in(3) {
            Event::Close(CloseReason::ConnectionLost)
        } else {
            Event::Disconnected
        };
        self.event(event);
    }

    fn enter(&mut self) {
        if let Some(log) = self.world.state().log(self.log) {
            log.asks();
        }
        self.state = State::Entering;
        let body = json!({ "username": self.user, "rid": self.room });
        self.request(Route::Enter, Asked::Enter, body);
    }

    fn say(&mut self, last: bool) {
        let whom = (!last && self.random.one_in(6)).then(|| self.random.index(self.seat.of));
        let target = whom.map_or_else(|| "*".to_owned(), |number| format!("u{number}"));
        let number = {
            let mut state = self.world.state();
            let to = whom.map_or(To::Everyone, |_| To::One(state.name(&target)));
            let Some(log) = state.log(self.log) else { return };
            log.sent(to)
        };
        if last {
            self.state = State::Leaving;
        }
        let sender = SessionKey(u32::try_from(self.log).unwrap_or(u32::MAX));
        let text = TextId { sender, number }.to_string();
        let body =
            json!({ "rid": self.room, "content": text, "from": self.user, "target": target });
        self.request(Route::Send, Asked::Say { number, last }, body);
    }

    fn request(&mut self, route: Route, asked: Asked, body: Value) {
        let (Some(codec), Value::Object(body)) = (&self.codec, body) else { return };
        self.last_request += 1;
        let id = self.last_request;
        let request = codec.encode_request(RequestId(id), route.name(), &body).unwrap();
        self.asked.insert(id, asked);
        self.event(Event::Received(&request));
    }

    // ---- what it hears

    fn hears(&mut self, unit: &[u8]) {
        for package in packet::split(unit, usize::MAX) {
            let package = package.unwrap();
            match package.kind {
                Kind::Handshake => {
                    let codec = Codec::from_answer(package.body, &self.hello(), &Kept::default());
                    self.codec = Some(codec.unwrap());
                    self.state = State::Outside;
                    self.event(Event::Received(&packet::HANDSHAKE_ACK));
                }
                Kind::Data => self.hears_data(package.body),
                Kind::HandshakeAck | Kind::Heartbeat | Kind::Kick => {}
            }
        }
    }

    fn hears_data(&mut self, data: &[u8]) {
        let Some(codec) = self.codec.clone() else { return };
        match codec.decode(data).unwrap() {
            Incoming::Push { route, body } => self.hears_push(&route, &body),
            Incoming::Response { id, body } => match self.asked.remove(&id.0) {
                Some(Asked::Enter) => {
                    let body = codec.decode_body(Route::Enter.name(), body).unwrap();
                    self.entered(&body);
                }
                Some(Asked::Say { number, last }) => {
                    let body = codec.decode_body(Route::Send.name(), body).unwrap();
                    self.answered(number, last, &body);
                }
                None => panic!("an answer to nothing: {id:?}"),
            },
        }
    }

    fn entered(&mut self, body: &Value) {
        let Some(users) = body.get("users").and_then(Value::as_array) else {
            tracing::debug!(session = self.log, user = self.user, %body, "not let in");
            self.state = State::Outside;
            return;
        };
        self.state = State::Inside;
        let mut state = self.world.state();
        let users: Vec<_> =
            users.iter().filter_map(Value::as_str).map(|user| state.name(user)).collect();
        let Some(log) = state.log(self.log) else { return };
        log.joined(users);
        if let Some(position) = position(body) {
            log.joined_at(position);
        }
    }

    fn answered(&mut self, number: u32, last: bool, body: &Value) {
        // Clients of old hear no code if it was done.
        let code = body.get("code").and_then(Value::as_u64).unwrap_or(200);
        if last {
            self.state = if code == 200 { State::Settled } else { State::Inside };
        }
        let mut state = self.world.state();
        if self.state == State::Settled {
            state.settled.insert(self.seat.number, now());
        }
        let Some(log) = state.log(self.log) else { return };
        match code {
            200 => log.acked(number),
            // Whether it was applied is not known, nor to clients of old of any refusal.
            504 => {}
            _ if self.is_modern => log.refused(number),
            _ => {}
        }
    }

    fn hears_push(&mut self, name: &str, body: &Value) {
        let mut state = self.world.state();
        let text = |member| body.get(member).and_then(Value::as_str).unwrap_or_default();
        match name {
            route::ON_ADD => {
                let user = state.name(text("user"));
                state.log(self.log).into_iter().for_each(|log| log.saw_add(user));
            }
            route::ON_LEAVE => {
                let user = state.name(text("user"));
                state.log(self.log).into_iter().for_each(|log| log.saw_leave(user));
            }
            route::ON_CHAT => {
                let (from, whisper) = (state.name(text("from")), text("target") != "*");
                let Some(log) = state.log(self.log) else { return };
                match (TextId::parse(text("msg")), position(body)) {
                    (None, _) => log.saw_foreign(),
                    (Some(id), Some(at)) => log.saw_at(at, from, id, whisper),
                    (Some(id), None) => log.saw(from, id, whisper),
                }
            }
            _ => {}
        }
    }
}

/// Whoever takes part in a crashed host is gone with it.
impl<H> Drop for Player<H> {
    fn drop(&mut self) {
        if let Some(log) = self.world.state().log(self.log) {
            log.gone();
        }
    }
}

fn position(body: &Value) -> Option<Position> {
    let number = |member| body.get(member).and_then(Value::as_u64);
    Some(Position { generation: Term(number("gen")?), seq: number("seq")? })
}
