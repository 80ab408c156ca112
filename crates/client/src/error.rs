//! What can go wrong, sorted by what a caller can do about it.

use std::{fmt, io, time::Duration};

use model::Code;
use wire::pomelo::client::{AnswerError, IncomingError, RequestError};

/// The outcome of what a client does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The server closed it, without a word.
    ByServer,
    /// The server closed its WebSocket with this code.
    WithCode(u16),
    /// The server said why.
    Kicked(String),
    /// The connection broke.
    Broken(io::ErrorKind),
    /// Nothing was heard for longer than heartbeats allow.
    Silent,
    /// The server sent what no server sends.
    Nonsense(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByServer => f.write_str("the server closed the connection"),
            Self::WithCode(code) => write!(f, "the server closed the connection with code {code}"),
            Self::Kicked(reason) => write!(f, "kicked: {reason}"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
            Self::Silent => f.write_str("the server fell silent"),
            Self::Nonsense(what) => write!(f, "the server sent nonsense: {what}"),
        }
    }
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection to be had; another server may do.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The server speaks HTTP, but not WebSocket.
    #[error("the server does not upgrade to WebSocket: {0}")]
    Upgrade(String),
    /// The server has too many clients coming at once.
    #[error("the server lets nobody in for the next {:.1} s", retry_after.as_secs_f32())]
    Busy {
        /// How long to wait before trying again.
        retry_after: Duration,
    },
    /// The server speaks HTTP, but does not open a session of Socket.IO.
    #[error("the server opens no session: {0}")]
    Http(String),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] AnswerError),
    /// The server did not carry the request out. The connection is good.
    #[error("refused with code {code}")]
    Refused {
        /// The code: 500, unless the server knows better.
        code: u64,
        /// How long to wait before trying again, if a modern server says so.
        retry_after: Option<Duration>,
    },
    /// The server does not speak the modern fields. The connection is good.
    #[error("the server does not speak the modern fields")]
    NotModern,
    /// The request cannot be put into bytes.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The answer cannot be read. The connection is good.
    #[error(transparent)]
    Unreadable(#[from] IncomingError),
    /// The answer does not say what it should. The connection is good.
    #[error("an unexpected answer: {0}")]
    Unexpected(String),
    /// The connection has ended. What was not answered may or may not have been carried out.
    #[error("{0}")]
    Closed(Closed),
}

impl Error {
    /// Whether the connection is of no further use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::NotModern
            | Self::Request(_)
            | Self::Unreadable(_)
            | Self::Unexpected(_) => false,
            Self::Connect(_)
            | Self::Upgrade(_)
            | Self::Busy { .. }
            | Self::Http(_)
            | Self::Handshake(_)
            | Self::Closed(_) => true,
        }
    }

    /// What a refusal means, if a modern server has said it.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        let (code, _) = self.refusal()?;
        u16::try_from(code).ok().and_then(Code::from_number)
    }

    /// How long the server asks to wait before trying again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match (self, self.refusal()) {
            (Self::Busy { retry_after }, _) => Some(*retry_after),
            (_, Some((_, retry_after))) => retry_after,
            (_, None) => None,
        }
    }

    const fn refusal(&self) -> Option<(u64, Option<Duration>)> {
        match self {
            Self::Refused { code, retry_after } => Some((*code, *retry_after)),
            Self::Connect(_)
            | Self::Upgrade(_)
            | Self::Busy { .. }
            | Self::Http(_)
            | Self::Handshake(_)
            | Self::NotModern
            | Self::Request(_)
            | Self::Unreadable(_)
            | Self::Unexpected(_)
            | Self::Closed(_) => None,
        }
    }
}
