//! What a client speaks, and what carries it.

use std::fmt;

use wire::Dialect;

/// What a client speaks, and what carries it: what the clients of three generations did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// The binary protocol, one package per WebSocket message.
    #[default]
    WebSocket,
    /// The binary protocol, packages one after the other.
    Tcp,
    /// The binary protocol as the browser library speaks it over WebSocket: it says that it is
    /// one, and characters beyond the BMP travel as two surrogates.
    Browser,
    /// Socket.IO 0.9 over WebSocket.
    SocketIo09WebSocket,
    /// Socket.IO 0.9 by requests of a page.
    SocketIo09Xhr,
    /// Socket.IO 0.9 by scripts and forms.
    SocketIo09Jsonp,
    /// Socket.IO 0.9 by a page without an end, and requests.
    SocketIo09HtmlFile,
    /// Socket.IO 1.x over WebSocket from the beginning.
    SocketIo1WebSocket,
    /// Socket.IO 1.x by requests, with binary payloads both ways.
    SocketIo1Polling,
    /// Socket.IO 1.x by requests, with payloads of text both ways.
    SocketIo1PollingText,
    /// Socket.IO 1.x as its page does it: by requests at first, and by WebSocket once one was
    /// tried.
    SocketIo1Upgrade,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::WebSocket,
        Self::Tcp,
        Self::Browser,
        Self::SocketIo09WebSocket,
        Self::SocketIo09Xhr,
        Self::SocketIo09Jsonp,
        Self::SocketIo09HtmlFile,
        Self::SocketIo1WebSocket,
        Self::SocketIo1Polling,
        Self::SocketIo1PollingText,
        Self::SocketIo1Upgrade,
    ];

    /// A short name, such as `sio09-ws`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "pomelo-ws",
            Self::Tcp => "pomelo-tcp",
            Self::Browser => "pomelo-browser",
            Self::SocketIo09WebSocket => "sio09-ws",
            Self::SocketIo09Xhr => "sio09-xhr",
            Self::SocketIo09Jsonp => "sio09-jsonp",
            Self::SocketIo09HtmlFile => "sio09-htmlfile",
            Self::SocketIo1WebSocket => "sio1-ws",
            Self::SocketIo1Polling => "sio1-polling",
            Self::SocketIo1PollingText => "sio1-polling-text",
            Self::SocketIo1Upgrade => "sio1-upgrade",
        }
    }

    /// What its clients speak.
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::WebSocket | Self::Tcp => Dialect::Pomelo,
            Self::Browser => Dialect::PomeloCesu8,
            Self::SocketIo09WebSocket
            | Self::SocketIo09Xhr
            | Self::SocketIo09Jsonp
            | Self::SocketIo09HtmlFile => Dialect::SocketIo09,
            Self::SocketIo1WebSocket
            | Self::SocketIo1Polling
            | Self::SocketIo1PollingText
            | Self::SocketIo1Upgrade => Dialect::SocketIo1,
        }
    }

    /// Sockets that one client has open at once, at most.
    #[must_use]
    pub const fn sockets(self) -> u32 {
        match self {
            Self::WebSocket
            | Self::Tcp
            | Self::Browser
            | Self::SocketIo09WebSocket
            | Self::SocketIo1WebSocket => 1,
            // One that waits, one that brings.
            Self::SocketIo09Xhr
            | Self::SocketIo09Jsonp
            | Self::SocketIo09HtmlFile
            | Self::SocketIo1Polling
            | Self::SocketIo1PollingText => 2,
            // And the one that is tried.
            Self::SocketIo1Upgrade => 3,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
