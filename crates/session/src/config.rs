//! What all sessions of a frontend share.

use std::{sync::Arc, time::Duration};

use model::{NameRule, Rate, Role, limits};
use wire::pomelo::Options;

/// What all sessions of a frontend share.
#[derive(Debug)]
pub struct Config {
    /// Gate or connector: which routes exist.
    pub role: Role,
    /// How to speak the binary protocol. Tells clients of `heartbeat`, or of none.
    pub pomelo: Arc<Options>,
    /// How often a client is to give a sign of life; it is closed after twice as long. Without
    /// it heartbeats are not answered either, as at the original's gate.
    pub heartbeat: Option<Duration>,
    /// The heartbeats of Socket.IO, which has them at gates too.
    pub socketio: SocketIoBeats,
    /// Which names clients may take.
    pub names: NameRule,
    /// What a client may cost.
    pub limits: Limits,
}

impl Config {
    /// The sessions of the original's gate, with our limits.
    #[must_use]
    pub fn gate() -> Self {
        Self {
            role: Role::Gate,
            pomelo: Arc::new(Options::chat_gate()),
            heartbeat: None,
            socketio: SocketIoBeats::default(),
            names: NameRule::default(),
            limits: Limits::default(),
        }
    }

    /// The sessions of the original's connectors, with our limits.
    #[must_use]
    pub fn connector() -> Self {
        Self {
            role: Role::Connector,
            pomelo: Arc::new(Options::chat_connector()),
            heartbeat: Some(limits::POMELO_HEARTBEAT),
            ..Self::gate()
        }
    }
}

/// How often clients of Socket.IO give signs of life, and how long they may take. The defaults are
/// the original's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketIoBeats {
    /// From one sign of life to the next: of generation 0.9 the server asks for it, later ones
    /// send it by themselves.
    pub interval: Duration,
    /// How long after that it may stay out.
    pub patience: Duration,
    /// How long a poll of generation 0.9 hangs when there is nothing to say.
    pub poll: Duration,
}

impl Default for SocketIoBeats {
    fn default() -> Self {
        Self {
            interval: limits::SOCKETIO_HEARTBEAT,
            patience: limits::SOCKETIO_PATIENCE,
            poll: limits::SOCKETIO_POLL,
        }
    }
}

/// What one client may cost, and how long it may take. The defaults are those of
/// [`model::limits`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time to the handshake.
    pub handshake_timeout: Duration,
    /// Time from the handshake to a successful `enter`, at a connector.
    pub login_timeout: Duration,
    /// Longest silence, where there is no heartbeat.
    pub idle_timeout: Duration,
    /// Largest package, in bytes, header included.
    pub message_bytes_max: usize,
    /// Largest content of a `send`, in bytes.
    pub text_bytes_max: usize,
    /// Calls that reach the role.
    pub calls: Rate,
    /// Sends that the role has not answered yet.
    pub unanswered_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            login_timeout: limits::LOGIN_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            text_bytes_max: limits::TEXT_BYTES_MAX,
            calls: Rate {
                per_second: limits::SESSION_SENDS_PER_SECOND,
                burst: limits::SESSION_SENDS_BURST,
            },
            unanswered_max: limits::SESSION_UNACKED_MAX,
        }
    }
}
