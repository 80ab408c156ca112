//! What carries a session, whichever way: units in, units out.

use std::{net::SocketAddr, time::Duration};

use wire::{
    pomelo::Packet,
    socketio::{client::Opening, v09},
};

use crate::{
    error::{Closed, Error, Result},
    http::{Ask, Http},
    polling::{Kind, Polling},
    socket::{Messages, Socket},
    transport::Transport,
};

/// What a server says at once, borrowed from what was read.
#[derive(Clone, Copy, Debug)]
pub enum Unit<'a> {
    /// A package of the binary protocol.
    Package(Packet<'a>),
    /// A frame of Socket.IO 0.9, or a packet of Engine.IO.
    Text(&'a [u8]),
}

/// What carries a session. Units have no meaning here but for one: who is asked whether it lives,
/// by a server of Socket.IO 0.9, says so.
pub struct Connection {
    carrier: Carrier,
    transport: Transport,
    /// How long the server may stay silent, if that was said before the first unit.
    patience: Option<Duration>,
}

enum Carrier {
    Socket(Socket),
    Polling(Box<Polling>),
}

impl Connection {
    /// Connects, as far as the transport goes: a WebSocket is upgraded, a session of Socket.IO 0.9
    /// has its id, a session that is carried by requests is open. `source` is the address to
    /// connect from: one address has only some 28,000 ports.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Upgrade`], [`Error::Busy`], [`Error::Http`].
    pub async fn connect(
        address: SocketAddr,
        transport: Transport,
        source: Option<SocketAddr>,
    ) -> Result<Self> {
        let kind = match transport {
            Transport::Tcp => {
                let socket = Socket::tcp(address, source).await?;
                return Ok(Self::of_socket(socket, transport, None));
            }
            Transport::WebSocket | Transport::Browser => {
                let socket = Socket::websocket(address, source, "/", Messages::Packages).await?;
                return Ok(Self::of_socket(socket, transport, None));
            }
            Transport::SocketIo1WebSocket => {
                let target = "/socket.io/?EIO=3&transport=websocket";
                let socket = Socket::websocket(address, source, target, Messages::Texts).await?;
                return Ok(Self::of_socket(socket, transport, None));
            }
            Transport::SocketIo09WebSocket => {
                let opening = shake_hands(address, source).await?;
                let target = format!("/socket.io/1/websocket/{}", opening.session);
                let socket = Socket::websocket(address, source, &target, Messages::Texts).await?;
                return Ok(Self::of_socket(socket, transport, Some(opening.patience)));
            }
            Transport::SocketIo09Xhr => Kind::Xhr,
            Transport::SocketIo09Jsonp => Kind::Jsonp,
            Transport::SocketIo09HtmlFile => Kind::HtmlFile,
            Transport::SocketIo1Polling => Kind::Binary,
            Transport::SocketIo1PollingText => Kind::Text,
            Transport::SocketIo1Upgrade => Kind::Upgrade,
        };
        let (polling, opening) = Polling::open(address, kind, source).await?;
        let carrier = Carrier::Polling(Box::new(polling));
        Ok(Self { carrier, transport, patience: Some(opening.patience) })
    }

    const fn of_socket(socket: Socket, transport: Transport, patience: Option<Duration>) -> Self {
        Self { carrier: Carrier::Socket(socket), transport, patience }
    }

    /// What it is.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether it is carried by requests, at this moment.
    #[must_use]
    pub const fn is_polling(&self) -> bool {
        matches!(self.carrier, Carrier::Polling(_))
    }

    pub(crate) const fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Sends a finished unit. What the socket does not take at once, and whatever is carried by
    /// requests, leaves while [`Connection::receive`] waits.
    ///
    /// # Errors
    ///
    /// If the connection is broken, or too much waits to leave by requests.
    pub fn send(&mut self, unit: &[u8]) -> Result<(), Closed> {
        match &mut self.carrier {
            Carrier::Socket(socket) => socket.send(unit),
            Carrier::Polling(polling) => polling.send(unit),
        }
    }

    /// Sends a finished unit together with what is sent next, or once [`Connection::receive`] waits:
    /// one write and one packet less.
    ///
    /// # Errors
    ///
    /// If too much waits to leave by requests.
    pub(crate) fn queue(&mut self, unit: &[u8]) -> Result<(), Closed> {
        match &mut self.carrier {
            Carrier::Socket(socket) => {
                socket.queue(unit);
                Ok(())
            }
            Carrier::Polling(polling) => polling.send(unit),
        }
    }

    /// Begins to close: nothing can be sent any more. Go on with [`Connection::receive`] until it
    /// says that the server has closed too.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub async fn close(&mut self) -> Result<(), Closed> {
        match &mut self.carrier {
            Carrier::Socket(socket) => socket.close().await,
            Carrier::Polling(polling) => polling.close().await,
        }
    }

    /// Waits until something arrives and hands out every unit that is complete; perhaps none.
    ///
    /// # Errors
    ///
    /// How the connection has ended. Units that came before were handed out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped while it waits.
    pub async fn receive(&mut self, mut on_unit: impl FnMut(Unit<'_>)) -> Result<(), Closed> {
        let mut is_asked = false;
        let on_unit = |unit: Unit<'_>| {
            is_asked |= matches!(unit, Unit::Text(text) if text == v09::HEARTBEAT);
            on_unit(unit);
        };
        match &mut self.carrier {
            Carrier::Socket(socket) => socket.receive(on_unit).await?,
            Carrier::Polling(polling) => {
                polling.receive(on_unit).await?;
                if let Some(socket) = polling.take_moved() {
                    self.carrier = Carrier::Socket(socket);
                }
            }
        }
        if is_asked { self.send(&v09::HEARTBEAT) } else { Ok(()) }
    }
}

/// Gets a session id of Socket.IO 0.9.
async fn shake_hands(address: SocketAddr, source: Option<SocketAddr>) -> Result<Opening> {
    let ask = Ask { target: "/socket.io/1/?t=0".to_owned(), post: None };
    let answer = Http::new(address, source).ask(ask).await?;
    let body = String::from_utf8_lossy(&answer.body);
    let opening = answer.is_ok.then(|| Opening::from_handshake(&body)).flatten();
    opening.ok_or_else(|| Error::Http(body.into_owned()))
}
