//! The machine: events in, effects out.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use model::{Time, limits};
use wire::{
    Dialect, Reply, RequestId, Route,
    pomelo::{
        Options, PacketError,
        packet::{self, Decoder},
    },
};

use crate::{
    Call, CloseReason, Config, Oddity,
    client::Client,
    dialect::{Protocol, Transport},
    socketio,
};

/// What a session hears.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The connection stands. In Socket.IO the server speaks first.
    Connected,
    /// The client sent something: on TCP any piece of its stream, on WebSocket the payload of one
    /// message, text or binary. Of Socket.IO always one frame or packet, whatever carried it.
    Received(&'a [u8]),
    /// A sign of life, and nothing more.
    Alive,
    /// The client answered what only asked whether it is there. Heartbeats are not replaced by it.
    Answered,
    /// Somebody wants to know whether the client lives. If it does, [`Effect::Alive`] says so;
    /// for how long nothing else means that it does not is for who asked to decide.
    Probe,
    /// The role answers a call. Every call is answered once, notifies too.
    Reply {
        /// The key that came with the call.
        request: RequestKey,
        /// The answer.
        reply: Reply,
    },
    /// So many calls of `send` have had their replies from somebody who knew how the client wants
    /// them, by [`RequestKey::encode`].
    Replied(usize),
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
    /// Send this to the client: one or more finished packages, one frame or one packet; one
    /// WebSocket message.
    Transmit(Bytes),
    /// Have the role carry this out, and answer it with [`Event::Reply`].
    Call {
        /// Comes back with the answer.
        key: RequestKey,
        /// What to do.
        call: Call,
    },
    /// Make the client answer something, in a way that whatever carries its bytes has. What comes
    /// of it is [`Event::Answered`] or any other sign of life.
    Probe,
    /// The client lives: the answer to [`Event::Probe`].
    Alive,
    /// The client did something odd.
    Count(Oddity),
    /// Send what was transmitted, then close the connection. Always the last effect.
    Close(CloseReason),
}

/// Which request a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    pub(crate) id: RequestId,
    pub(crate) route: Route,
}

impl RequestKey {
    /// The answer to this call in the client's dialect; nothing if it wants none. `options` are
    /// those of the session's [`Config`].
    #[must_use]
    pub fn encode(self, reply: &Reply, dialect: Dialect, options: &Options) -> Option<Bytes> {
        dialect.encode_reply(self.id, Some(self.route), reply, options)
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.route.name(), self.id)
    }
}

/// One client, from its handshake to its close.
#[derive(Debug)]
pub struct Session {
    framing: Framing,
    client: Client,
}

// Idle sessions are millions.
const _: () = assert!(size_of::<Session>() <= 192);

/// How units are cut out of what arrives.
#[derive(Debug)]
enum Framing {
    /// Packages of the binary protocol, anywhere in a stream.
    Stream(Decoder),
    /// Whole packages of the binary protocol.
    Messages,
    /// One frame of Socket.IO 0.9 at a time.
    Frames,
    /// One packet of Engine.IO at a time.
    Packets,
}

impl Session {
    /// A session whose client has just connected.
    #[must_use]
    pub fn new(now: Time, config: Arc<Config>, protocol: Protocol, transport: Transport) -> Self {
        let framing = match (protocol, transport) {
            (Protocol::Pomelo, Transport::Tcp) => {
                Framing::Stream(Decoder::new(config.limits.message_bytes_max))
            }
            (Protocol::Pomelo, Transport::WebSocket | Transport::Polling | Transport::Stream) => {
                Framing::Messages
            }
            (Protocol::SocketIo09, _) => Framing::Frames,
            (Protocol::SocketIo1, _) => Framing::Packets,
        };
        Self { framing, client: Client::new(now, config, protocol, transport) }
    }

    /// Takes one event and appends what it causes to `out`.
    ///
    /// After [`Effect::Close`] nothing more is appended, ever. What is received causes at most
    /// two effects for each package in it, and four more.
    pub fn handle(&mut self, now: Time, event: Event<'_>, out: &mut Vec<Effect>) {
        let client = &mut self.client;
        if client.is_closed() {
            return;
        }
        match event {
            Event::Connected => client.connected(out),
            Event::Received(bytes) => {
                client.heard(now);
                client.answered(out);
                let received = self.framing.receive(bytes, client, now, out);
                if let Err(reason) = received {
                    client.close(reason, out);
                }
            }
            Event::Alive => {
                client.alive(now);
                client.answered(out);
            }
            Event::Answered => client.answered(out),
            Event::Probe => client.probe(now, out),
            Event::Reply { request, reply } => client.reply(now, request, reply, out),
            Event::Replied(sends) => client.replied(sends),
            Event::Kick { reason } => client.kick(&reason, CloseReason::Kicked, out),
            Event::Close(reason) => client.end(reason, out),
            Event::Drain => client.close(CloseReason::Draining, out),
            Event::Timeout => client.timeout(now, out),
            Event::Disconnected => client.close(CloseReason::ClientLeft, out),
        }
    }

    /// When to call [`Session::handle`] with [`Event::Timeout`]; nothing if the session is closed.
    /// Later is allowed, earlier has no effect.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.client.next_timeout()
    }

    /// How the client wants its bytes. Final once the handshake is done; that of a client of
    /// Socket.IO, which has none, once it is to enter a room.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.client.dialect()
    }
}

impl Framing {
    /// Cuts out the units and has each taken. Stops at a close, which the client has emitted.
    fn receive(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        let limit = client.message_bytes_max();
        match self {
            Self::Stream(decoder) => {
                let mut rest = bytes;
                while let Some(packet) = decoder.next(&mut rest).map_err(reason_for)? {
                    client.take(now, packet, out);
                    if client.is_closed() {
                        break;
                    }
                }
            }
            Self::Messages => {
                for (count, packet) in packet::split(bytes, limit).enumerate() {
                    if count == limits::PACKAGES_PER_MESSAGE_MAX {
                        return Err(CloseReason::Malformed);
                    }
                    client.take(now, packet.map_err(reason_for)?, out);
                    if client.is_closed() {
                        break;
                    }
                }
            }
            Self::Frames | Self::Packets if bytes.len() > limit => {
                return Err(CloseReason::TooLarge);
            }
            Self::Frames => socketio::take_frame(client, now, bytes, out),
            Self::Packets => socketio::take_packet(client, now, bytes, out)?,
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
