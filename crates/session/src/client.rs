//! What is known of one client, and what it may do.

use std::sync::Arc;

use bytes::Bytes;
use model::{Bucket, Content, Role, SendNumber, Time, limits};
use wire::{
    Dialect, Reply, RequestId, Route,
    pomelo::{
        Hello, handshake, modern,
        packet::{self, Packet},
    },
    route, socketio,
};

use crate::{
    Call, CloseReason, Config, Effect, Oddity, RequestKey, call,
    dialect::{Protocol, Stage, Step, Transport, step},
};

/// What is known of the client.
#[derive(Debug)]
pub(crate) struct Client {
    config: Arc<Config>,
    /// When the handshake must have come or, after it, a room must have been entered.
    deadline: Time,
    /// The client's last sign of life.
    heard: Time,
    bucket: Bucket,
    /// The last send.
    number: SendNumber,
    /// Sends that the role has not answered yet.
    unanswered: usize,
    stage: Stage,
    entry: Entry,
    dialect: Dialect,
    transport: Transport,
    /// The answer to its handshake, and when it is due, for a client that must not get it at once.
    held: Option<Box<(Time, Bytes)>>,
    /// It was asked for a sign of life, and has not answered yet.
    asked: bool,
    /// Somebody wants to know whether it lives.
    probed: bool,
}

/// Whether the client is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Out,
    /// It asked; sends behind that are passed on, the role keeps them in order.
    Entering,
    In,
}

/// What is to be done at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// Answer its handshake.
    Answer,
    /// Ask for a sign of life.
    Ask,
    Close(CloseReason),
}

impl Client {
    pub(crate) fn new(
        now: Time,
        config: Arc<Config>,
        protocol: Protocol,
        transport: Transport,
    ) -> Self {
        // Clients of Socket.IO are greeted by the server, before they have said anything.
        let (stage, dialect) = match protocol {
            Protocol::Pomelo => (Stage::Greeting, Dialect::Pomelo),
            Protocol::SocketIo09 => (Stage::Working, Dialect::SocketIo09),
            Protocol::SocketIo1 => (Stage::Working, Dialect::SocketIo1),
        };
        let limits = &config.limits;
        let (handshake, login) = (limits.handshake_timeout, limits.login_timeout);
        Self {
            deadline: now + if stage == Stage::Greeting { handshake } else { login },
            heard: now,
            bucket: Bucket::default(),
            number: SendNumber::default(),
            unanswered: 0,
            stage,
            entry: Entry::Out,
            dialect,
            transport,
            held: None,
            asked: false,
            probed: false,
            config,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn message_bytes_max(&self) -> usize {
        self.config.limits.message_bytes_max
    }

    /// The connection stands.
    pub(crate) fn connected(&self, out: &mut Vec<Effect>) {
        let first = match self.dialect {
            Dialect::Pomelo | Dialect::PomeloCesu8 | Dialect::Pitaya | Dialect::Modern => return,
            Dialect::SocketIo09 | Dialect::ModernSocketIo09 => socketio::v09::CONNECT,
            Dialect::SocketIo1 | Dialect::ModernSocketIo1 => socketio::v1::CONNECT,
        };
        out.push(Effect::Transmit(first));
    }

    /// Something came from the client.
    pub(crate) fn heard(&mut self, now: Time) {
        // A client of Socket.IO 0.9 is asked for signs of life, and only its answers count.
        if !self.is_asked_for_life() {
            self.heard = now;
        }
    }

    /// The client says that it lives. Unasked that changes nothing, as in the original: it is asked
    /// when it would have been.
    pub(crate) fn beaten(&mut self, now: Time) {
        if self.asked {
            self.heard = now;
            self.asked = false;
        }
    }

    /// A sign of life without a meaning came from the client.
    pub(crate) fn alive(&mut self, now: Time) {
        self.heard(now);
    }

    /// Somebody wants to know whether the client lives.
    ///
    /// Over raw TCP no client answers anything at once, and one that beats as it should lives as
    /// far as anybody can tell.
    pub(crate) fn probe(&mut self, now: Time, out: &mut Vec<Effect>) {
        let in_time = self.config.heartbeat.unwrap_or(self.config.limits.idle_timeout);
        if self.transport != Transport::Tcp {
            self.probed = true;
            out.push(Effect::Probe);
        } else if now <= self.heard + in_time + limits::PROBE_BEAT_SLACK {
            out.push(Effect::Alive);
        } else {
            self.probed = true;
        }
    }

    /// Something came from the client, whatever it means.
    pub(crate) fn answered(&mut self, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.probed) {
            out.push(Effect::Alive);
        }
    }

    /// Whether it is the server that begins with heartbeats.
    fn is_asked_for_life(&self) -> bool {
        self.is_socketio09() && self.transport != Transport::Polling
    }

    /// Takes one package of the binary protocol.
    pub(crate) fn take(&mut self, now: Time, packet: Packet<'_>, out: &mut Vec<Effect>) {
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
        let answer = self.config.pomelo.answer(&hello);
        if hello.misses_quick_answers() {
            self.held = Some(Box::new((now + limits::UNITY_HANDSHAKE_DELAY, answer)));
        } else {
            out.push(Effect::Transmit(answer));
        }
    }

    /// Answers a sign of life at once: native clients reconnect if it is not.
    fn beat(&self, out: &mut Vec<Effect>) {
        if self.config.heartbeat.is_some() {
            out.push(Effect::Transmit(packet::HEARTBEAT));
        }
    }

    fn message(&mut self, now: Time, data: &[u8], out: &mut Vec<Effect>) {
        match self.config.pomelo.decode_call(data) {
            Ok(Some((id, call))) => self.call(now, id, call, out),
            Ok(None) => out.push(Effect::Count(Oddity::ForeignMessage)),
            // There is no id to answer to; the next message may be fine.
            Err(_) => out.push(Effect::Count(Oddity::MalformedMessage)),
        }
    }

    /// Has a call carried out, or refuses it.
    pub(crate) fn call(
        &mut self,
        now: Time,
        id: RequestId,
        call: wire::Call,
        out: &mut Vec<Effect>,
    ) {
        let route = call.route();
        let called = match (self.config.role, call) {
            // The oldest original did not know of such attacks.
            (_, wire::Call::Unknown { route })
                if route::is_attack(&route) && !self.is_socketio09() =>
            {
                return self.kick("attack", CloseReason::Attack, out);
            }
            (_, wire::Call::Unknown { route }) if is_code(&route) => {
                return out.push(Effect::Count(Oddity::UnknownCode));
            }
            (Role::Gate, wire::Call::QueryEntry { uid, rid, tangelo }) => {
                self.dialect = self.dialect.with_fields(modern::is_wanted(&tangelo));
                self.query_entry(now, &uid, &rid)
            }
            (Role::Connector, wire::Call::Enter { username, rid, resume, tangelo }) => {
                if self.entry == Entry::Out {
                    self.dialect = self.dialect.with_fields(modern::is_wanted(&tangelo));
                }
                self.enter(now, &username, &rid, &resume)
            }
            (Role::Connector, wire::Call::Send { content, target, id }) => {
                self.send(now, content, target, &id)
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

    fn is_socketio09(&self) -> bool {
        matches!(self.dialect, Dialect::SocketIo09 | Dialect::ModernSocketIo09)
    }

    fn is_socketio(&self) -> bool {
        self.is_socketio09()
            || matches!(self.dialect, Dialect::SocketIo1 | Dialect::ModernSocketIo1)
    }

    fn enter(
        &mut self,
        now: Time,
        username: &Content,
        rid: &Content,
        resume: &Content,
    ) -> Result<Call, Oddity> {
        if self.entry != Entry::Out {
            return Err(Oddity::EnteredTwice);
        }
        let (user, room) = call::enter(username, rid, &self.config.names)?;
        let resume = if self.dialect.is_modern() { call::resume(resume)? } else { None };
        self.spend(now)?;
        self.entry = Entry::Entering;
        Ok(Call::Enter { user, room, resume })
    }

    fn send(
        &mut self,
        now: Time,
        content: Content,
        target: Content,
        id: &Content,
    ) -> Result<Call, Oddity> {
        if self.entry == Entry::Out {
            return Err(Oddity::NotEntered);
        }
        if content.len() > self.config.limits.text_bytes_max {
            return Err(Oddity::TooLarge);
        }
        let target = call::target(target, &self.config.names)?;
        let id = if self.dialect.is_modern() { call::message_id(id)? } else { None };
        if self.unanswered >= self.config.limits.unanswered_max {
            return Err(Oddity::TooManyUnanswered);
        }
        self.spend(now)?;
        self.unanswered += 1;
        self.number = self.number.next();
        Ok(Call::Say { number: self.number, content, target, id })
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

    pub(crate) fn reply(
        &mut self,
        now: Time,
        request: RequestKey,
        reply: Reply,
        out: &mut Vec<Effect>,
    ) {
        let RequestKey { id, route } = request;
        let reply = match (route, reply) {
            (Route::Enter, Reply::Refused { code, .. }) => {
                self.stay_out(now);
                Reply::Refused { code, error: true }
            }
            (Route::Enter, Reply::Busy { retry_after }) => {
                self.stay_out(now + retry_after);
                Reply::Busy { retry_after }
            }
            (Route::Enter, reply) => {
                self.entry = Entry::In;
                reply
            }
            (Route::Send, reply) => {
                self.replied(1);
                reply
            }
            (Route::QueryEntry, reply) => reply,
        };
        self.answer(id, Some(route), &reply, out);
    }

    /// So many calls of `send` have had their replies.
    pub(crate) const fn replied(&mut self, sends: usize) {
        self.unanswered = self.unanswered.saturating_sub(sends);
    }

    /// It waited for us, so its time to try again starts anew, `then`.
    fn stay_out(&mut self, then: Time) {
        self.entry = Entry::Out;
        self.deadline = then + self.config.limits.login_timeout;
    }

    fn answer(&self, id: RequestId, route: Option<Route>, reply: &Reply, out: &mut Vec<Effect>) {
        let package = self.dialect.encode_reply(id, route, reply, &self.config.pomelo);
        out.extend(package.map(Effect::Transmit));
    }

    pub(crate) fn kick(&mut self, reason: &str, close: CloseReason, out: &mut Vec<Effect>) {
        // Who has not been greeted does not know the protocol yet.
        if self.stage != Stage::Greeting {
            out.extend(self.dialect.encode_kick(reason).into_iter().map(Effect::Transmit));
        }
        self.close(close, out);
    }

    /// Ends the session for a reason of ours.
    pub(crate) fn end(&mut self, reason: CloseReason, out: &mut Vec<Effect>) {
        // Other clients hear it by the code of the close, which Socket.IO has not.
        let is_untold = reason == CloseReason::Superseded && self.is_socketio();
        let word = if is_untold { Some("superseded") } else { reason.kick() };
        match word {
            Some(word) => self.kick(word, reason, out),
            None => self.close(reason, out),
        }
    }

    pub(crate) fn close(&mut self, reason: CloseReason, out: &mut Vec<Effect>) {
        self.stage = Stage::Closed;
        out.push(Effect::Close(reason));
    }

    pub(crate) fn timeout(&mut self, now: Time, out: &mut Vec<Effect>) {
        match self.next_alarm() {
            Some((at, Alarm::Close(reason))) if at <= now => self.close(reason, out),
            Some((at, Alarm::Ask)) if at <= now => {
                self.asked = true;
                out.push(Effect::Transmit(socketio::v09::HEARTBEAT));
            }
            Some((at, Alarm::Answer)) if at <= now => {
                out.extend(self.held.take().map(|held| Effect::Transmit(held.1)));
            }
            Some(_) | None => {}
        }
    }

    /// The first moment at which something is to be done.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.next_alarm().map(|(at, _)| at)
    }

    fn next_alarm(&self) -> Option<(Time, Alarm)> {
        let silence = match self.stage {
            Stage::Closed => return None,
            Stage::Greeting => {
                return Some((self.deadline, Alarm::Close(CloseReason::HandshakeTimeout)));
            }
            Stage::Greeted if let Some(held) = &self.held => return Some((held.0, Alarm::Answer)),
            Stage::Greeted => self.idle(),
            Stage::Working => self.silence(),
        };
        // While `enter` has no answer it is not the client that is late.
        let must_enter = self.config.role == Role::Connector && self.entry == Entry::Out;
        let login = (self.deadline, Alarm::Close(CloseReason::LoginTimeout));
        Some(if must_enter && login.0 < silence.0 { login } else { silence })
    }

    fn idle(&self) -> (Time, Alarm) {
        (self.heard + self.config.limits.idle_timeout, Alarm::Close(CloseReason::Idle))
    }

    /// When a client that says nothing is asked whether it lives, or given up.
    fn silence(&self) -> (Time, Alarm) {
        let beats = &self.config.socketio;
        let gone = Alarm::Close(CloseReason::HeartbeatTimeout);
        match (self.dialect, self.config.heartbeat) {
            (
                Dialect::Pomelo | Dialect::PomeloCesu8 | Dialect::Pitaya | Dialect::Modern,
                Some(beat),
            ) => (self.heard + 2 * beat, gone),
            (Dialect::Pomelo | Dialect::PomeloCesu8 | Dialect::Pitaya | Dialect::Modern, None) => {
                self.idle()
            }
            // A poll hangs so long; after it the next must come.
            _ if self.is_socketio09() && !self.is_asked_for_life() => {
                (self.heard + beats.poll + beats.patience, gone)
            }
            _ if self.is_socketio09() && !self.asked => (self.heard + beats.interval, Alarm::Ask),
            (
                Dialect::SocketIo09
                | Dialect::SocketIo1
                | Dialect::ModernSocketIo09
                | Dialect::ModernSocketIo1,
                _,
            ) => (self.heard + beats.interval + beats.patience, gone),
        }
    }
}

/// Whether a route that does not exist was a code, and not text.
fn is_code(route: &str) -> bool {
    route.strip_prefix('#').is_some_and(|code| code.parse::<u16>().is_ok())
}
