//! What clients say and hear, in every dialect, as bytes and as values.
//!
//! A client *calls* one of three routes, gets one *reply* to each call that carries a request id,
//! and hears *pushes* at any time. [`Call`], [`Reply`] and [`Push`] say that without regard to the
//! dialect; the modules below turn them into bytes and back:
//!
//! - [`pomelo`]: the binary protocol, over WebSocket and raw TCP. A stream of packages (type and
//!   24-bit length); DATA packages hold a message (flag, request id, route), whose body is JSON or
//!   Pomelo's own protobuf.
//! - [`socketio`]: the two generations of Socket.IO, whose frames carry the same routes as text.
//!
//! [`body`] reads what clients put into a request, as leniently as the original server did;
//! [`route`] holds the names and bodies byte for byte.
//!
//! Nothing here does I/O, keeps time or remembers a client. Parsers never panic, and look at a
//! length before they allocate for it. Client bytes stay inside this crate (*One translator*).

pub mod body;
pub mod pomelo;
pub mod route;
pub mod socketio;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use model::{Code, Content, MessageId, Outcome, Position, ResumeKey, UserName};

pub use route::Route;

/// The number by which a client recognises the reply to a request.
///
/// 0 marks a notify: it is carried out and nothing is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The id of a call that wants no reply.
    pub const NOTIFY: Self = Self(0);

    /// Whether nothing is to be answered.
    #[must_use]
    pub const fn is_notify(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client asks. Names are as the client sent them, not yet checked by any rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Asks a gate which connector to use.
    QueryEntry {
        /// The user's name, the key of the choice in the original.
        uid: Content,
        /// The room it wants; no old client sends it.
        rid: Content,
        /// Asks for the modern fields, in dialects without a handshake to do so in.
        tangelo: Content,
    },
    /// Enters a room.
    Enter {
        /// The name to be known by.
        username: Content,
        /// The room.
        rid: Content,
        /// What a client that knows Tangelo shows that comes back: JSON, not yet read.
        resume: Content,
        /// Asks for the modern fields, in dialects without a handshake to do so in.
        tangelo: Content,
    },
    /// Says something in the room of the session. What the body says about sender and room is
    /// not even read (P5).
    Send {
        /// What to say.
        content: Content,
        /// `"*"` for everyone, or the name of one member.
        target: Content,
        /// The client's own name for the message, if it knows Tangelo.
        id: Content,
    },
    /// Asks for something that does not exist.
    Unknown {
        /// The route as the client named it, or `#` and the code that no dictionary has.
        route: String,
    },
}

impl Call {
    /// The route called, if it exists.
    #[must_use]
    pub const fn route(&self) -> Option<Route> {
        match self {
            Self::QueryEntry { .. } => Some(Route::QueryEntry),
            Self::Enter { .. } => Some(Route::Enter),
            Self::Send { .. } => Some(Route::Send),
            Self::Unknown { .. } => None,
        }
    }
}

/// What a client is told about its own request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The connector to use.
    Entry {
        /// Host name or address, as this client can reach it.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The connector to use and when, for a client that knows Tangelo.
    Slot {
        /// Host name or address, as this client can reach it.
        host: String,
        /// TCP port.
        port: u16,
        /// How long to wait before.
        after: Duration,
    },
    /// Entered; everybody now in the room, the caller included, in the room's order.
    Users(Vec<UserName>),
    /// Entered, for a client that knows Tangelo.
    Entered(Box<Entered>),
    /// Sent, for a client that knows Tangelo.
    Placed(Position),
    /// Sent.
    Done,
    /// Not done, as too many want the same: a client that knows Tangelo hears when to try again, all
    /// others what they hear of a refused `enter`.
    Busy {
        /// How long to wait before.
        retry_after: Duration,
    },
    /// Not done.
    Refused {
        /// Why. Clients of the original's time hear 500, whatever it is.
        code: Code,
        /// Adds `"error":true`, which the original page looks for after `enter`.
        error: bool,
    },
}

/// What a client that knows Tangelo is told when it has entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// What became of it.
    pub outcome: Outcome,
    /// Everybody now in the room, the caller included, in the room's order.
    pub users: Vec<UserName>,
    /// Up to where that is so.
    pub position: Position,
    /// What it may come back with.
    pub key: ResumeKey,
    /// The pushes that it missed, or that were last: a JSON array. Others may be told the same.
    pub events: Arc<str>,
}

/// Where a push stands, for clients that know Tangelo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The position of its event.
    pub position: Position,
    /// The sender's own name for it.
    pub id: Option<&'a MessageId>,
}

/// What a client hears unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push<'a> {
    /// `onAdd`: somebody entered.
    Add {
        /// Who.
        user: &'a UserName,
    },
    /// `onLeave`: somebody left.
    Leave {
        /// Who.
        user: &'a UserName,
    },
    /// `onCount`: so many are here, where comings and goings are not told one by one. Only for
    /// clients that know Tangelo.
    Count {
        /// How many.
        members: usize,
    },
    /// `onChat`: somebody said something.
    Chat {
        /// What.
        content: &'a Content,
        /// Who.
        from: &'a UserName,
        /// To whom, as the sender wrote it.
        target: &'a Content,
    },
}

impl Push<'_> {
    /// The route by which clients listen for it.
    #[must_use]
    pub const fn route(&self) -> &'static str {
        match self {
            Self::Add { .. } => route::ON_ADD,
            Self::Leave { .. } => route::ON_LEAVE,
            Self::Count { .. } => route::ON_COUNT,
            Self::Chat { .. } => route::ON_CHAT,
        }
    }
}

/// How a client wants its bytes. Receivers that share a dialect share the encoded push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// The binary protocol, over WebSocket or TCP.
    Pomelo,
    /// The same for the browser library, whose own text coder knows no characters of four bytes:
    /// they go out as two surrogates of three bytes each (CESU-8).
    PomeloCesu8,
    /// The binary protocol as Pitaya's clients speak it: every body is JSON, and a refusal is
    /// marked as one and says what is wrong.
    Pitaya,
    /// The binary protocol for clients that know Tangelo: every body is JSON, pushes say where they
    /// stand, and answers say what is wrong.
    Modern,
    /// Socket.IO 0.9, over WebSocket and polling.
    SocketIo09,
    /// Socket.IO 1.x and 2.x over Engine.IO 3, over WebSocket and polling.
    SocketIo1,
    /// Socket.IO 0.9 for clients that know Tangelo.
    ModernSocketIo09,
    /// Socket.IO 1.x and 2.x for clients that know Tangelo.
    ModernSocketIo1,
}

impl Dialect {
    /// Whether its clients know Tangelo.
    #[must_use]
    pub const fn is_modern(self) -> bool {
        match self {
            Self::Modern | Self::ModernSocketIo09 | Self::ModernSocketIo1 => true,
            Self::Pomelo
            | Self::PomeloCesu8
            | Self::Pitaya
            | Self::SocketIo09
            | Self::SocketIo1 => false,
        }
    }

    /// The dialect of a client that says, by what it asks, whether it knows Tangelo. Only those of
    /// Socket.IO do: the others have said so in their handshake.
    #[must_use]
    pub const fn with_fields(self, wanted: bool) -> Self {
        match (self, wanted) {
            (Self::SocketIo09 | Self::ModernSocketIo09, true) => Self::ModernSocketIo09,
            (Self::SocketIo09 | Self::ModernSocketIo09, false) => Self::SocketIo09,
            (Self::SocketIo1 | Self::ModernSocketIo1, true) => Self::ModernSocketIo1,
            (Self::SocketIo1 | Self::ModernSocketIo1, false) => Self::SocketIo1,
            (Self::Pomelo | Self::PomeloCesu8 | Self::Pitaya | Self::Modern, _) => self,
        }
    }

    /// Encodes a push once for all receivers of this dialect.
    ///
    /// The result is one finished unit: a package of the binary protocol, a frame of Socket.IO
    /// 0.9 (several can be [joined](socketio::v09::join)) or a packet of Engine.IO. It goes out
    /// as one WebSocket message, is written to a TCP stream, or becomes part of a polling payload.
    ///
    /// `None` means that clients of this dialect hear nothing of it: the binary protocol cannot
    /// carry content that is not text where its schema says `string`, and what the original never
    /// said is for clients that know Tangelo alone.
    /// The stamp says where the push stands, to clients that know Tangelo; the others are not told.
    #[must_use]
    pub fn encode_push(
        self,
        push: &Push<'_>,
        stamp: Option<Stamp<'_>>,
        options: &pomelo::Options,
    ) -> Option<Bytes> {
        if matches!(push, Push::Count { .. }) && !self.is_modern() {
            return None;
        }
        match self {
            Self::Pomelo => options.encode_push(push, pomelo::Encoding::Utf8),
            Self::PomeloCesu8 => options.encode_push(push, pomelo::Encoding::Cesu8),
            Self::Pitaya => pomelo::modern::encode_push(push, None),
            Self::Modern => pomelo::modern::encode_push(push, stamp),
            Self::SocketIo09 => Some(socketio::v09::encode_push(push)),
            Self::SocketIo1 => Some(socketio::v1::encode_push(push)),
            Self::ModernSocketIo09 => Some(socketio::v09::encode_modern_push(push, stamp)),
            Self::ModernSocketIo1 => Some(socketio::v1::encode_modern_push(push, stamp)),
        }
    }

    /// Encodes the reply to request `id`, which called `route`, as one unit.
    ///
    /// `None` for a notify, which is never answered.
    #[must_use]
    pub fn encode_reply(
        self,
        id: RequestId,
        route: Option<Route>,
        reply: &Reply,
        options: &pomelo::Options,
    ) -> Option<Bytes> {
        match self {
            Self::Pomelo => options.encode_reply(id, route, reply, pomelo::Encoding::Utf8),
            Self::PomeloCesu8 => options.encode_reply(id, route, reply, pomelo::Encoding::Cesu8),
            Self::Pitaya => pomelo::pitaya::encode_reply(id, reply),
            Self::Modern => pomelo::modern::encode_reply(id, reply),
            Self::SocketIo09 => socketio::v09::encode_reply(id, reply),
            Self::SocketIo1 => socketio::v1::encode_reply(id, reply),
            Self::ModernSocketIo09 => socketio::v09::encode_modern_reply(id, reply),
            Self::ModernSocketIo1 => socketio::v1::encode_modern_reply(id, reply),
        }
    }

    /// Encodes the notice that the server ends the session: one unit or two, in order. The
    /// connection is to be closed after them.
    #[must_use]
    pub fn encode_kick(self, reason: &str) -> Vec<Bytes> {
        match self {
            Self::Pomelo | Self::Pitaya | Self::Modern => {
                vec![pomelo::encode_kick(reason, pomelo::Encoding::Utf8)]
            }
            Self::PomeloCesu8 => vec![pomelo::encode_kick(reason, pomelo::Encoding::Cesu8)],
            Self::SocketIo09 | Self::ModernSocketIo09 => {
                vec![socketio::v09::KICK, socketio::v09::DISCONNECT]
            }
            Self::SocketIo1 | Self::ModernSocketIo1 => {
                vec![socketio::v1::encode_kick(reason), socketio::v1::DISCONNECT]
            }
        }
    }

    /// Whether a sender that hears its own push hears the reply to its `send` first.
    #[must_use]
    pub const fn reply_before_push(self) -> bool {
        match self {
            Self::Pomelo
            | Self::PomeloCesu8
            | Self::Pitaya
            | Self::Modern
            | Self::SocketIo1
            | Self::ModernSocketIo1 => true,
            Self::SocketIo09 | Self::ModernSocketIo09 => false,
        }
    }
}
