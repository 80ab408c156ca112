//! A socket that carries packages, over WebSocket or bare.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::{TcpSocket, TcpStream};
use wire::pomelo::packet::{self, Decoder, Packet};

use crate::{
    error::{Closed, Error, Result},
    websocket::{Frame, Frames, Masker, Upgrade},
};

/// Largest package accepted, in bytes: the largest there is.
const PACKAGE_BYTES_MAX: usize = (1 << 24) + 3;
/// How much is read at once. Shared by all connections of a thread, so it may be large.
const READ_BYTES: usize = 64 * 1024;
/// Most that is kept of an outgoing buffer when it is empty.
const IDLE_BUFFER_BYTES_MAX: usize = 4096;
/// Normal closure, as a WebSocket close code.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

thread_local! {
    /// What was just read, until it has been taken apart: never kept across a wait.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What carries the packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One package per binary message.
    #[default]
    WebSocket,
    /// Packages one after the other.
    Tcp,
}

enum Framing {
    WebSocket { frames: Frames, masker: Masker },
    Tcp { decoder: Decoder },
}

/// A socket that carries packages. No handshake, no heartbeat, no meaning.
pub struct Connection {
    stream: TcpStream,
    framing: Framing,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// The close handshake was begun by us.
    closing: bool,
}

impl Connection {
    /// Connects, and upgrades if the transport is WebSocket. `source` is the address to connect
    /// from: one address has only some 28,000 ports.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Upgrade`].
    pub async fn connect(
        address: SocketAddr,
        transport: Transport,
        source: Option<IpAddr>,
    ) -> Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(Error::Connect)?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0)).map_err(Error::Connect)?;
        }
        let stream = socket.connect(address).await.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        let framing = match transport {
            Transport::WebSocket => {
                Framing::WebSocket { frames: Frames::default(), masker: Masker::new() }
            }
            Transport::Tcp => Framing::Tcp { decoder: Decoder::new(PACKAGE_BYTES_MAX) },
        };
        let mut connection = Self { stream, framing, out: Vec::new(), closing: false };
        if transport == Transport::WebSocket {
            connection.upgrade(&address.to_string()).await?;
        }
        Ok(connection)
    }

    async fn upgrade(&mut self, host: &str) -> Result<()> {
        let (request, mut upgrade) = Upgrade::begin(host, "/");
        self.out.extend_from_slice(request.as_bytes());
        let mut bytes = [0; 1024];
        loop {
            self.flush().map_err(Error::Connect)?;
            self.stream.readable().await.map_err(Error::Connect)?;
            let length = match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(Error::Upgrade("closed instead".to_owned())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(Error::Connect(error)),
            };
            match upgrade.receive(&bytes[..length]) {
                None => {}
                Some(Err(what)) => return Err(Error::Upgrade(what)),
                // The server does not speak first.
                Some(Ok(rest)) if rest.is_empty() => return Ok(()),
                Some(Ok(_)) => return Err(Error::Upgrade("it speaks first".to_owned())),
            }
        }
    }

    /// Where this end is.
    ///
    /// # Errors
    ///
    /// If the socket does not know.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends a finished package. What the socket does not take at once is sent while
    /// [`Connection::receive`] waits.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub fn send(&mut self, package: &[u8]) -> Result<(), Closed> {
        match &mut self.framing {
            Framing::WebSocket { masker, .. } => masker.message(&mut self.out, package),
            Framing::Tcp { .. } => self.out.extend_from_slice(package),
        }
        self.flush().map_err(|error| Closed::Broken(error.kind()))
    }

    /// Begins to close: nothing can be sent any more. Go on with [`Connection::receive`] until it
    /// says that the server has closed too.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub async fn close(&mut self) -> Result<(), Closed> {
        self.closing = true;
        let broken = |error: io::Error| Closed::Broken(error.kind());
        match &mut self.framing {
            Framing::WebSocket { masker, .. } => masker.close(&mut self.out, &NORMAL),
            Framing::Tcp { .. } => {
                while !self.out.is_empty() {
                    self.stream.writable().await.map_err(broken)?;
                    self.flush().map_err(broken)?;
                }
                let mut stream = &mut self.stream;
                tokio::io::AsyncWriteExt::shutdown(&mut stream).await.map_err(broken)?;
            }
        }
        self.flush().map_err(broken)
    }

    /// Waits until something arrives and hands out every package that is complete.
    ///
    /// # Errors
    ///
    /// How the connection has ended. Packages that came before were handed out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped while it waits.
    pub async fn receive(&mut self, mut on_packet: impl FnMut(Packet<'_>)) -> Result<(), Closed> {
        loop {
            let waits = if self.out.is_empty() {
                self.stream.readable().await
            } else {
                self.either().await
            };
            waits.map_err(|error| Closed::Broken(error.kind()))?;
            let broken = |error: io::Error| Closed::Broken(error.kind());
            // A connection that takes nothing more may still hold the reason to be read.
            let flushed = self.flush().map_err(broken);
            let got = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
                Ok(0) => Err(Closed::ByServer),
                Ok(length) => self.take_apart(&scratch[..length], &mut on_packet).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(broken(error)),
            });
            if got? {
                return Ok(());
            }
            flushed?;
        }
    }

    /// Waits until the socket can be read or written.
    async fn either(&self) -> io::Result<()> {
        tokio::select! {
            ready = self.stream.readable() => ready,
            ready = self.stream.writable() => ready,
        }
    }

    fn take_apart(
        &mut self,
        mut bytes: &[u8],
        on_packet: &mut impl FnMut(Packet<'_>),
    ) -> Result<(), Closed> {
        let nonsense = |what: String| Closed::Nonsense(what);
        match &mut self.framing {
            Framing::Tcp { decoder } => {
                while let Some(packet) =
                    decoder.next(&mut bytes).map_err(|error| nonsense(error.to_string()))?
                {
                    on_packet(packet);
                }
            }
            Framing::WebSocket { frames, masker } => {
                let (out, closing) = (&mut self.out, &mut self.closing);
                let mut problem = None;
                let read = frames.receive(bytes, |frame| match frame {
                    Frame::Message(message) => {
                        for packet in packet::split(message, PACKAGE_BYTES_MAX) {
                            match packet {
                                Ok(packet) => on_packet(packet),
                                Err(error) => problem = Some(error.to_string()),
                            }
                        }
                    }
                    Frame::Ping(payload) => masker.pong(out, payload),
                    Frame::Close(payload) => {
                        // The server ends the TCP connection once it has its answer.
                        if !*closing {
                            masker.close(out, payload.get(..2).unwrap_or_default());
                        }
                        *closing = true;
                    }
                });
                read.map_err(nonsense)?;
                if let Some(problem) = problem {
                    return Err(nonsense(problem));
                }
                self.flush().map_err(|error| Closed::Broken(error.kind()))?;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes now.
    fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.try_write(&self.out[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..written);
        if self.out.is_empty() {
            self.out.shrink_to(IDLE_BUFFER_BYTES_MAX);
        }
        Ok(())
    }
}
