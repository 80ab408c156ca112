//! The machine: events in, effects out.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use model::{Content, Role, SendNumber, Time, limits};
use wire::{
    Dialect, Reply, RequestId, Route,
    pomelo::{
        Hello, PacketError, handshake,
        packet::{self, Decoder, Packet},
    },
    route,
};

use crate::{
    Bucket, Call, CloseReason, Config, Oddity, call,
    dialect::{Stage, Step, step},
};

/// What a session hears.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The client sent something: on TCP any piece of its stream, on WebSocket the payload of one
    /// message, text or binary.
    Received(&'a [u8]),
    /// The role answers a call. Every call is answered once, notifies too.
    Reply {
        /// The key that came with the call.
        request: RequestKey,
        /// The answer.
        reply: Reply,
    },
    /// The client is to be told a reason and to go.
    Kick {
        /// What it is told.
        reason: String,
    },
    /// The session is to end.
    Close(CloseReason),
    /// The node ends, and with it the session.
    Drain,
    /// The moment of [`Session::poll_timeout`] has come.
    Timeout,
    /// The client closed the connection.
    Disconnected,
}

/// What a session wants done. The shell applies effects in order, before the next event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the client: one or more finished packages, one WebSocket message.
    Transmit(Bytes),
    /// Have the role carry this out, and answer it with [`Event::Reply`].
    Call {
        /// Comes back with the answer.
        key: RequestKey,
        /// What to do.
        call: Call,
    },
    /// The client did something odd.
    Count(Oddity),
    /// Send what was transmitted, then close the connection. Always the last effect.
    Close(CloseReason),
}

/// Which request a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    id: RequestId,
    route: Route,
}

impl RequestKey {
    /// Whether the reply will not be sent to the client, who did not ask for one.
    #[must_use]
    pub const fn is_notify(self) -> bool {
        self.id.is_notify()
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.route.name(), self.id)
    }
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A stream of bytes, cut anywhere.
    Tcp,
    /// Messages, each of whole packages.
    WebSocket,
}

/// One client, from its handshake to its close.
#[derive(Debug)]
pub struct Session {
    framing: Framing,
    client: Client,
}

// Idle sessions are millions.
const _: () = assert!(size_of::<Session>() <= 192);

/// How packages are cut out of what arrives.
#[derive(Debug)]
enum Framing {
    Stream(Decoder),
    Messages,
}

/// What is known of the client.
#[derive(Debug)]
struct Client {
    config: Arc<Config>,
    /// When the handshake must have come or, after it, a room must have been entered.
    deadline: Time,
    /// When the client last sent anything.
    heard: Time,
    bucket: Bucket,
    /// The last send.
    number: SendNumber,
    /// Sends that the role has not answered yet.
    unanswered: usize,
    stage: Stage,
    entry: Entry,
    dialect: Dialect,
}

/// Whether the client is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Out,
    /// It asked; sends behind that are passed on, the role keeps them in order.
    Entering,
    In,
}

impl Session {
    /// A session whose client has just connected.
    #[must_use]
    pub fn new(now: Time, config: Arc<Config>, transport: Transport) -> Self {
        let framing = match transport {
            Transport::Tcp => Framing::Stream(Decoder::new(config.limits.message_bytes_max)),
            Transport::WebSocket => Framing::Messages,
        };
        let client = Client {
            deadline: now + config.limits.handshake_timeout,
            heard: now,
            bucket: Bucket::default(),
            number: SendNumber::default(),
            unanswered: 0,
            stage: Stage::Greeting,
            entry: Entry::Out,
            dialect: Dialect::Pomelo,
            config,
        };
        Self { framing, client }
    }

    /// Takes one event and appends what it causes to `out`.
    ///
    /// After [`Effect::Close`] nothing more is appended, ever. What is received causes at most
    /// two effects for each package in it, and two more.
    pub fn handle(&mut self, now: Time, event: Event<'_>, out: &mut Vec<Effect>) {
        let client = &mut self.client;
        if client.stage == Stage::Closed {
            return;
        }
        match event {
            Event::Received(bytes) => {
                client.heard = now;
                let received = self.framing.receive(bytes, client, now, out);
                if let Err(reason) = received {
                    client.close(reason, out);
                }
            }
            Event::Reply { request, reply } => client.reply(now, request, reply, out),
            Event::Kick { reason } => client.kick(&reason, CloseReason::Kicked, out),
            Event::Close(reason) => client.close(reason, out),
            Event::Drain => client.close(CloseReason::Draining, out),
            Event::Timeout => client.timeout(now, out),
            Event::Disconnected => client.close(CloseReason::ClientLeft, out),
        }
    }

    /// When to call [`Session::handle`] with [`Event::Timeout`]; nothing if the session is closed.
    /// Later is allowed, earlier has no effect.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.client.next_timeout().map(|(at, _)| at)
    }

    /// How the client wants its bytes. Final once it has been [greeted](Self::is_greeted).
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.client.dialect
    }

    /// Whether the handshake is done.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.client.stage != Stage::Greeting
    }
}

impl Framing {
    /// Cuts out the packages and has each taken. Stops at a close, which the client has emitted.
    fn receive(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match self {
            Self::Stream(decoder) => {
                let mut rest = bytes;
                while let Some(packet) = decoder.next(&mut rest).map_err(reason_for)? {
                    client.take(now, packet, out);
                    if client.stage == Stage::Closed {
                        break;
                    }
                }
            }
            Self::Messages => {
                let limit = client.config.limits.message_bytes_max;
                for (count, packet) in packet::split(bytes, limit).enumerate() {
                    if count == limits::PACKAGES_PER_MESSAGE_MAX {
                        return Err(CloseReason::Malformed);
                    }
                    client.take(now, packet.map_err(reason_for)?, out);
                    if client.stage == Stage::Closed {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn reason_for(error: PacketError) -> CloseReason {
    match error {
        PacketError::Kind(_) | PacketError::Truncated => CloseReason::Malformed,
        PacketError::TooLarge { .. } => CloseReason::TooLarge,
    }
}

impl Client {
    fn take(&mut self, now: Time, packet: Packet<'_>, out: &mut Vec<Effect>) {
        match step(self.stage, packet.kind) {
            Step::Greet => self.greet(now, packet.body, out),
            Step::Begin => {
                self.stage = Stage::Working;
                self.beat(out);
            }
            Step::Beat => self.beat(out),
            Step::Message => self.message(now, packet.body, out),
            Step::Ignore => out.push(Effect::Count(Oddity::OutOfPlace)),
            Step::Close => self.close(CloseReason::Malformed, out),
        }
    }

    fn greet(&mut self, now: Time, body: &[u8], out: &mut Vec<Effect>) {
        let Some(hello) = Hello::parse(body) else {
            out.push(Effect::Transmit(handshake::refusal()));
            self.close(CloseReason::BadHandshake, out);
            return;
        };
        self.dialect = hello.dialect();
        self.stage = Stage::Greeted;
        self.deadline = now + self.config.limits.login_timeout;
        out.push(Effect::Transmit(self.config.pomelo.answer(&hello)));
    }

    /// Answers a sign of life at once: native clients reconnect if it is not.
    fn beat(&self, out: &mut Vec<Effect>) {
        if self.config.heartbeat.is_some() {
            out.push(Effect::Transmit(packet::HEARTBEAT));
        }
    }

    fn message(&mut self, now: Time, data: &[u8], out: &mut Vec<Effect>) {
        let (id, call) = match self.config.pomelo.decode_call(data) {
            Ok(Some(call)) => call,
            Ok(None) => return out.push(Effect::Count(Oddity::ForeignMessage)),
            // There is no id to answer to; the next message may be fine.
            Err(_) => return out.push(Effect::Count(Oddity::MalformedMessage)),
        };
        let route = call.route();
        let called = match (self.config.role, call) {
            (_, wire::Call::Unknown { route }) if route::is_attack(&route) => {
                return self.kick("attack", CloseReason::Attack, out);
            }
            (_, wire::Call::Unknown { route }) if is_code(&route) => {
                return out.push(Effect::Count(Oddity::UnknownCode));
            }
            (Role::Gate, wire::Call::QueryEntry { uid, rid }) => self.query_entry(now, &uid, &rid),
            (Role::Connector, wire::Call::Enter { username, rid }) => {
                self.enter(now, &username, &rid)
            }
            (Role::Connector, wire::Call::Send { content, target }) => {
                self.send(now, content, target)
            }
            (
                Role::Gate | Role::Connector | Role::Chat,
                wire::Call::QueryEntry { .. }
                | wire::Call::Enter { .. }
                | wire::Call::Send { .. }
                | wire::Call::Unknown { .. },
            ) => Err(Oddity::UnknownRoute),
        };
        match (called, route) {
            (Ok(call), Some(route)) => {
                out.push(Effect::Call { key: RequestKey { id, route }, call });
            }
            (Err(oddity), route) => self.refuse(id, route, oddity, out),
            (Ok(_), None) => {}
        }
    }

    fn query_entry(&mut self, now: Time, uid: &Content, rid: &Content) -> Result<Call, Oddity> {
        let (uid, room) = call::query_entry(uid, rid, &self.config.names)?;
        self.spend(now)?;
        Ok(Call::QueryEntry { uid, room })
    }

    fn enter(&mut self, now: Time, username: &Content, rid: &Content) -> Result<Call, Oddity> {
        if self.entry != Entry::Out {
            return Err(Oddity::EnteredTwice);
        }
        let (user, room) = call::enter(username, rid, &self.config.names)?;
        self.spend(now)?;
        self.entry = Entry::Entering;
        Ok(Call::Enter { user, room })
    }

    fn send(&mut self, now: Time, content: Content, target: Content) -> Result<Call, Oddity> {
        if self.entry == Entry::Out {
            return Err(Oddity::NotEntered);
        }
        if content.len() > self.config.limits.text_bytes_max {
            return Err(Oddity::TooLarge);
        }
        let target = call::target(target, &self.config.names)?;
        if self.unanswered >= self.config.limits.unanswered_max {
            return Err(Oddity::TooManyUnanswered);
        }
        self.spend(now)?;
        self.unanswered += 1;
        self.number = self.number.next();
        Ok(Call::Say { number: self.number, content, target })
    }

    fn spend(&mut self, now: Time) -> Result<(), Oddity> {
        let allowed = self.bucket.take(now, self.config.limits.calls);
        if allowed { Ok(()) } else { Err(Oddity::TooFast) }
    }

    fn refuse(&self, id: RequestId, route: Option<Route>, oddity: Oddity, out: &mut Vec<Effect>) {
        out.push(Effect::Count(oddity));
        // A gate has no `enter` that it could refuse.
        let error = route == Some(Route::Enter) && self.config.role == Role::Connector;
        self.answer(id, route, &Reply::Refused { code: oddity.code(), error }, out);
    }

    fn reply(&mut self, now: Time, request: RequestKey, reply: Reply, out: &mut Vec<Effect>) {
        let RequestKey { id, route } = request;
        let reply = match (route, reply) {
            (Route::Enter, Reply::Refused { code, .. }) => {
                self.entry = Entry::Out;
                // It waited for us, so its time to try again starts anew.
                self.deadline = now + self.config.limits.login_timeout;
                Reply::Refused { code, error: true }
            }
            (Route::Enter, reply) => {
                self.entry = Entry::In;
                reply
            }
            (Route::Send, reply) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                reply
            }
            (Route::QueryEntry, reply) => reply,
        };
        self.answer(id, Some(route), &reply, out);
    }

    fn answer(&self, id: RequestId, route: Option<Route>, reply: &Reply, out: &mut Vec<Effect>) {
        let package = self.dialect.encode_reply(id, route, reply, &self.config.pomelo);
        out.extend(package.map(Effect::Transmit));
    }

    fn kick(&mut self, reason: &str, close: CloseReason, out: &mut Vec<Effect>) {
        // Who has not been greeted does not know the protocol yet.
        if self.stage != Stage::Greeting {
            out.extend(self.dialect.encode_kick(reason).into_iter().map(Effect::Transmit));
        }
        self.close(close, out);
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<Effect>) {
        self.stage = Stage::Closed;
        out.push(Effect::Close(reason));
    }

    fn timeout(&mut self, now: Time, out: &mut Vec<Effect>) {
        if let Some((at, reason)) = self.next_timeout()
            && at <= now
        {
            self.close(reason, out);
        }
    }

    /// The first moment at which the client is too late, and for what.
    fn next_timeout(&self) -> Option<(Time, CloseReason)> {
        let limits = &self.config.limits;
        let idle = (self.heard + limits.idle_timeout, CloseReason::Idle);
        let silence = match (self.stage, self.config.heartbeat) {
            (Stage::Closed, _) => return None,
            (Stage::Greeting, _) => return Some((self.deadline, CloseReason::HandshakeTimeout)),
            (Stage::Working, Some(beat)) => (self.heard + 2 * beat, CloseReason::HeartbeatTimeout),
            (Stage::Greeted | Stage::Working, _) => idle,
        };
        // While `enter` has no answer it is not the client that is late.
        let must_enter = self.config.role == Role::Connector && self.entry == Entry::Out;
        let login = (self.deadline, CloseReason::LoginTimeout);
        Some(if must_enter && login.0 < silence.0 { login } else { silence })
    }
}

/// Whether a route that does not exist was a code, and not text.
fn is_code(route: &str) -> bool {
    route.strip_prefix('#').is_some_and(|code| code.parse::<u16>().is_ok())
}
