//! What clients speak, and what each package of the binary protocol means at each stage.

use wire::pomelo::packet::Kind;

/// What a client speaks. Its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The binary protocol.
    Pomelo,
    /// Socket.IO 0.9.
    SocketIo09,
    /// Socket.IO 1.x and 2.x, over Engine.IO 3.
    SocketIo1,
}

impl Protocol {
    /// The protocol's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pomelo => "pomelo",
            Self::SocketIo09 => "socketio-0.9",
            Self::SocketIo1 => "socketio-1",
        }
    }
}

/// What carries the bytes at first. A session of [`Protocol::SocketIo1`] may move from polling to
/// a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A stream of bytes, cut anywhere.
    Tcp,
    /// Messages, each of whole packages, or of one frame or packet.
    WebSocket,
    /// HTTP requests, of which one hangs until there is something to say.
    Polling,
    /// An HTTP response without an end, beside requests that carry what the client says.
    Stream,
}

impl Transport {
    /// The transport's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
            Self::Stream => "stream",
        }
    }
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is known of it yet.
    Greeting,
    /// It was told how to speak, and has not accepted yet.
    Greeted,
    /// It may ask.
    Working,
    /// It is gone, or to be gone.
    Closed,
}

/// What a package asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To be told how to speak.
    Greet,
    /// To begin.
    Begin,
    /// A sign of life in return.
    Beat,
    /// To have its message read.
    Message,
    /// Nothing: it is out of place.
    Ignore,
    /// The end: only servers send such a package.
    Close,
}

/// What a package of the binary protocol means to a client's server.
pub(crate) const fn step(stage: Stage, kind: Kind) -> Step {
    match (stage, kind) {
        (_, Kind::Kick) => Step::Close,
        (Stage::Greeting, Kind::Handshake) => Step::Greet,
        (Stage::Greeted, Kind::HandshakeAck) => Step::Begin,
        (Stage::Working, Kind::Heartbeat) => Step::Beat,
        (Stage::Working, Kind::Data) => Step::Message,
        (
            Stage::Greeting | Stage::Greeted | Stage::Working | Stage::Closed,
            Kind::Handshake | Kind::HandshakeAck | Kind::Heartbeat | Kind::Data,
        ) => Step::Ignore,
    }
}
