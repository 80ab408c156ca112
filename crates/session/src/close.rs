//! Why sessions end, and how clients are told.

use crate::Protocol;

/// Why a session ended: for the client, the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    // What the client did, in the original's words: code 1000, no text.
    /// It closed the connection.
    ClientLeft,
    /// It closed the connection and said that it goes away, and may come back: a page that is loaded
    /// again.
    WentAway,
    /// Its handshake was unusable; it was told so.
    BadHandshake,
    /// It sent what is no package.
    Malformed,
    /// It called a handler's constructor; it was kicked.
    Attack,
    /// It was kicked, with a reason of its own.
    Kicked,
    /// Nothing came from it for two heartbeats.
    HeartbeatTimeout,

    // What the client did, where the original had no limit.
    /// The connection broke.
    ConnectionLost,
    /// It sent more than the limit in one package or message.
    TooLarge,
    /// It did not finish its handshake in time.
    HandshakeTimeout,
    /// It did not enter a room in time.
    LoginTimeout,
    /// Nothing came from it for long, at a server without heartbeats.
    Idle,
    /// It reads more slowly than its room speaks.
    SlowReader,

    // What we did.
    /// It missed events of its room that cannot be made good.
    Expelled,
    /// Its client came back as another session.
    Superseded,
    /// Another session has its name now; it was told so.
    Replaced,
    /// This node was taken for dead, and its members have left their rooms.
    NodeLost,
    /// This node ends.
    Draining,
}

impl CloseReason {
    /// All reasons, in order.
    pub const ALL: [Self; 18] = [
        Self::ClientLeft,
        Self::WentAway,
        Self::BadHandshake,
        Self::Malformed,
        Self::Attack,
        Self::Kicked,
        Self::HeartbeatTimeout,
        Self::ConnectionLost,
        Self::TooLarge,
        Self::HandshakeTimeout,
        Self::LoginTimeout,
        Self::Idle,
        Self::SlowReader,
        Self::Expelled,
        Self::Superseded,
        Self::Replaced,
        Self::NodeLost,
        Self::Draining,
    ];

    /// The reason's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientLeft => "client-left",
            Self::WentAway => "went-away",
            Self::BadHandshake => "bad-handshake",
            Self::Malformed => "malformed",
            Self::Attack => "attack",
            Self::Kicked => "kicked",
            Self::HeartbeatTimeout => "heartbeat-timeout",
            Self::ConnectionLost => "connection-lost",
            Self::TooLarge => "too-large",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::LoginTimeout => "login-timeout",
            Self::Idle => "idle",
            Self::SlowReader => "slow-reader",
            Self::Expelled => "expelled",
            Self::Superseded => "superseded",
            Self::Replaced => "replaced",
            Self::NodeLost => "node-lost",
            Self::Draining => "draining",
        }
    }

    /// The status code of the WebSocket Close frame.
    ///
    /// 1000 wherever the original closes too: its clients may look at it.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientLeft
            | Self::WentAway
            | Self::BadHandshake
            | Self::Malformed
            | Self::Attack
            | Self::Kicked
            | Self::HeartbeatTimeout
            | Self::ConnectionLost => 1000,
            Self::HandshakeTimeout | Self::LoginTimeout | Self::Idle => 1008,
            Self::TooLarge => 1009,
            Self::SlowReader => 1013,
            Self::Draining => 1001,
            Self::Expelled | Self::NodeLost => 1012,
            Self::Superseded | Self::Replaced => 4409,
        }
    }

    /// What a client means that closes its WebSocket with this code.
    #[must_use]
    pub const fn of_client(code: Option<u16>) -> Self {
        match code {
            // What browsers say for a page that goes, and what scripts may say.
            Some(1001 | 4001) => Self::WentAway,
            Some(_) | None => Self::ClientLeft,
        }
    }

    /// The text of the WebSocket Close frame, for whoever reads it; under 100 bytes. Empty where
    /// the original closes too.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ClientLeft
            | Self::WentAway
            | Self::BadHandshake
            | Self::Malformed
            | Self::Attack
            | Self::Kicked
            | Self::HeartbeatTimeout
            | Self::ConnectionLost => "",
            Self::TooLarge => "the message is too large",
            Self::HandshakeTimeout => "no handshake in time",
            Self::LoginTimeout => "no room entered in time",
            Self::Idle => "nothing heard for too long",
            Self::SlowReader => "reading too slowly",
            Self::Expelled => "events of the room were missed; enter again",
            Self::Superseded => "this membership goes on in another connection",
            Self::Replaced => "another connection has this name now",
            Self::NodeLost => "the server lost its place; enter again",
            Self::Draining => "the server goes away; enter through another",
        }
    }

    /// What the client is kicked with, where the reason is one to kick it for and no other is
    /// given: clients of the original know no other word for it.
    #[must_use]
    pub const fn kick(self) -> Option<&'static str> {
        match self {
            Self::Replaced => Some("replaced"),
            Self::ClientLeft
            | Self::WentAway
            | Self::BadHandshake
            | Self::Malformed
            | Self::Attack
            | Self::Kicked
            | Self::HeartbeatTimeout
            | Self::ConnectionLost
            | Self::TooLarge
            | Self::HandshakeTimeout
            | Self::LoginTimeout
            | Self::Idle
            | Self::SlowReader
            | Self::Expelled
            | Self::Superseded
            | Self::NodeLost
            | Self::Draining => None,
        }
    }

    /// How a WebSocket of this protocol is closed.
    #[must_use]
    pub const fn farewell(self, protocol: Protocol) -> Farewell {
        match (protocol, self) {
            (Protocol::Pomelo, _) => Farewell::Frame,
            (Protocol::SocketIo09, _) => Farewell::Cut,
            (
                Protocol::SocketIo1,
                Self::ClientLeft
                | Self::WentAway
                | Self::Attack
                | Self::Kicked
                | Self::Superseded
                | Self::Replaced,
            ) => Farewell::Wait,
            (Protocol::SocketIo1, _) => Farewell::Frame,
        }
    }

    /// Whether the client may not have meant to leave: one that knows Tangelo stays in its room for
    /// a while, and may come back.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        match self {
            Self::WentAway
            | Self::HeartbeatTimeout
            | Self::ConnectionLost
            | Self::Idle
            | Self::SlowReader
            | Self::Draining => true,
            Self::ClientLeft
            | Self::BadHandshake
            | Self::Malformed
            | Self::Attack
            | Self::Kicked
            | Self::TooLarge
            | Self::HandshakeTimeout
            | Self::LoginTimeout
            | Self::Expelled
            | Self::Superseded
            | Self::Replaced
            | Self::NodeLost => false,
        }
    }

    /// Whether the client may come back at once and expect to fare better.
    #[must_use]
    pub const fn may_reconnect(self) -> bool {
        match self {
            Self::BadHandshake
            | Self::Malformed
            | Self::Attack
            | Self::Kicked
            | Self::Superseded
            | Self::Replaced
            | Self::TooLarge
            | Self::LoginTimeout => false,
            Self::ClientLeft
            | Self::WentAway
            | Self::HeartbeatTimeout
            | Self::ConnectionLost
            | Self::HandshakeTimeout
            | Self::Idle
            | Self::SlowReader
            | Self::Expelled
            | Self::NodeLost
            | Self::Draining => true,
        }
    }
}

/// How the server's side of a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// With a Close frame.
    Frame,
    /// With the end of the stream and no Close frame: how Socket.IO 0.9 always did it.
    Cut,
    /// By waiting for the client, who knows and closes by itself; with a Close frame if it does not.
    Wait,
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_away_may_come_back_and_who_leaves_does_not() {
        for code in [1001, 4001] {
            assert!(CloseReason::of_client(Some(code)).is_loss());
        }
        for code in [None, Some(1000), Some(1005), Some(4000), Some(4409)] {
            assert_eq!(CloseReason::of_client(code), CloseReason::ClientLeft);
        }
        assert!(!CloseReason::ClientLeft.is_loss());
    }

    #[test]
    fn close_frames_are_small_and_names_differ() {
        let mut names: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
        names.dedup();
        assert_eq!(names.len(), CloseReason::ALL.len());
        assert!(CloseReason::ALL.is_sorted());
        for reason in CloseReason::ALL {
            assert!(reason.text().len() < 100);
            assert_eq!(reason.code() == 1000, reason.text().is_empty(), "{reason}");
        }
    }
}
