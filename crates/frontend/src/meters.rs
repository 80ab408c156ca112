//! What is counted.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use session::{CloseReason, Oddity};

use crate::admission::Refusal;

const SESSIONS: &str = "tangelo_client_sessions";
const FRAMES: &str = "tangelo_client_frames_total";
const BYTES: &str = "tangelo_client_bytes_total";
const CLOSED: &str = "tangelo_client_sessions_closed_total";
const SLOW_READERS: &str = "tangelo_client_slow_readers_total";
const REFUSED: &str = "tangelo_client_connections_refused_total";
const FAILED: &str = "tangelo_client_handshakes_failed_total";
const ODDITIES: &str = "tangelo_client_oddities_total";
const ACCEPT_ERRORS: &str = "tangelo_client_accept_errors_total";

/// Handles to what is counted for every frame, so that no name is looked up there.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    sessions: Gauge,
}

/// What passes between clients and this process, one way.
#[derive(Debug)]
pub(crate) struct Traffic {
    frames: Counter,
    bytes: Counter,
}

impl Traffic {
    /// What is read from clients.
    fn received() -> Self {
        Self {
            frames: counter!(FRAMES, "direction" => "in"),
            bytes: counter!(BYTES, "direction" => "in"),
        }
    }

    /// What is written to clients. Whoever writes may have one of its own: all count together.
    pub(crate) fn sent() -> Self {
        Self {
            frames: counter!(FRAMES, "direction" => "out"),
            bytes: counter!(BYTES, "direction" => "out"),
        }
    }

    pub(crate) fn add(&self, frames: usize, bytes: usize) {
        self.frames.increment(frames as u64);
        self.bytes.increment(bytes as u64);
    }
}

/// Why a connection never became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It did not say in time what it speaks.
    Timeout,
    /// It speaks nothing that is known here.
    Garbage,
    /// It asked for a WebSocket in a way that cannot be answered.
    BadUpgrade,
    /// The page that asked for a WebSocket is not on the list.
    Origin,
    /// It asked for a WebSocket for a session of Socket.IO that does not exist.
    UnknownSession,
}

impl Failure {
    const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Garbage => "garbage",
            Self::BadUpgrade => "bad-upgrade",
            Self::Origin => "origin",
            Self::UnknownSession => "unknown-session",
        }
    }
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe_gauge!(SESSIONS, "Client sessions open");
        describe_counter!(FRAMES, "Pieces read from clients (in), packages written to them (out)");
        describe_counter!(BYTES, "Bytes read from clients (in) and written to them (out)");
        describe_counter!(CLOSED, "Client sessions that ended, by reason");
        describe_counter!(SLOW_READERS, "Clients closed because they read too slowly");
        describe_counter!(REFUSED, "Connections closed on arrival, by the cap that was reached");
        describe_counter!(FAILED, "Connections that never became a session, by reason");
        describe_counter!(ODDITIES, "What clients did that was ignored or refused, by kind");
        describe_counter!(ACCEPT_ERRORS, "Failures to accept a connection");
        Self { received: Traffic::received(), sent: Traffic::sent(), sessions: gauge!(SESSIONS) }
    }

    pub(crate) fn opened(&self) {
        self.sessions.increment(1.0);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.sessions.decrement(1.0);
        counter!(CLOSED, "reason" => reason.name()).increment(1);
        if reason == CloseReason::SlowReader {
            counter!(SLOW_READERS).increment(1);
        }
    }

    pub(crate) fn refused(refusal: Refusal) {
        counter!(REFUSED, "cap" => refusal.name()).increment(1);
    }

    pub(crate) fn failed(failure: Failure) {
        counter!(FAILED, "reason" => failure.name()).increment(1);
    }

    pub(crate) fn odd(oddity: Oddity) {
        counter!(ODDITIES, "kind" => oddity.name()).increment(1);
    }

    pub(crate) fn accept_failed() {
        counter!(ACCEPT_ERRORS).increment(1);
    }
}
