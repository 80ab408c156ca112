//! One TCP connection that carries a session, as a WebSocket or bare.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use wire::pomelo::packet::{self, Decoder};

use crate::{
    connection::Unit,
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

/// How units are cut out of the stream.
enum Framing {
    /// Messages, each of one package or more.
    Packages(Frames, Masker),
    /// Messages, each of one frame or packet of Socket.IO.
    Texts(Frames, Masker),
    /// Packages one after the other.
    Stream(Decoder),
}

/// What WebSocket messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    Packages,
    Texts,
}

pub(crate) struct Socket {
    stream: TcpStream,
    framing: Framing,
    /// What the server said with its consent to the upgrade.
    early: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// The close handshake was begun by us.
    closing: bool,
    /// The code that the server closed with.
    close_code: Option<u16>,
}

/// Connects. `source` is the address to connect from: one address has only some 28,000 ports.
///
/// # Errors
///
/// [`Error::Connect`].
pub(crate) async fn dial(address: SocketAddr, source: Option<SocketAddr>) -> Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(Error::Connect)?;
    if let Some(source) = source {
        socket.bind(source).map_err(Error::Connect)?;
    }
    let stream = socket.connect(address).await.map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    Ok(stream)
}

impl Socket {
    /// A connection for packages one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`].
    pub(crate) async fn tcp(address: SocketAddr, source: Option<SocketAddr>) -> Result<Self> {
        let stream = dial(address, source).await?;
        Ok(Self::new(stream, Framing::Stream(Decoder::new(PACKAGE_BYTES_MAX))))
    }

    /// A WebSocket at this path.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Upgrade`], [`Error::Busy`].
    pub(crate) async fn websocket(
        address: SocketAddr,
        source: Option<SocketAddr>,
        path: &str,
        messages: Messages,
    ) -> Result<Self> {
        let stream = dial(address, source).await?;
        let (frames, masker) = (Frames::default(), Masker::new());
        let framing = match messages {
            Messages::Packages => Framing::Packages(frames, masker),
            Messages::Texts => Framing::Texts(frames, masker),
        };
        let mut socket = Self::new(stream, framing);
        socket.upgrade(&address.to_string(), path).await?;
        Ok(socket)
    }

    const fn new(stream: TcpStream, framing: Framing) -> Self {
        Self {
            stream,
            framing,
            early: Vec::new(),
            out: Vec::new(),
            closing: false,
            close_code: None,
        }
    }

    async fn upgrade(&mut self, host: &str, path: &str) -> Result<()> {
        let (request, mut upgrade) = Upgrade::begin(host, path);
        self.out.extend_from_slice(request.as_bytes());
        let mut bytes = [0; 1024];
        loop {
            poll_fn(|context| self.poll_flush(context)).await.map_err(Error::Connect)?;
            let length = self.stream.read(&mut bytes).await.map_err(Error::Connect)?;
            if length == 0 {
                return Err(Error::Upgrade("closed instead".to_owned()));
            }
            match upgrade.receive(&bytes[..length]) {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(rest)) => {
                    self.early = rest;
                    return Ok(());
                }
            }
        }
    }

    /// Sends a finished unit. What the socket does not take at once is sent while
    /// [`Socket::receive`] waits.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(crate) fn send(&mut self, unit: &[u8]) -> Result<(), Closed> {
        self.queue(unit);
        self.flush().map_err(|error| Closed::Broken(error.kind()))
    }

    /// Sends a finished unit in one write with what is sent next, or once [`Socket::receive`]
    /// waits.
    pub(crate) fn queue(&mut self, unit: &[u8]) {
        match &mut self.framing {
            Framing::Packages(_, masker) => masker.message(&mut self.out, unit),
            Framing::Texts(_, masker) => masker.text(&mut self.out, unit),
            Framing::Stream(_) => self.out.extend_from_slice(unit),
        }
    }

    /// Begins to close: nothing can be sent any more. Go on with [`Socket::receive`] until it
    /// says that the server has closed too.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(crate) async fn close(&mut self) -> Result<(), Closed> {
        self.closing = true;
        let broken = |error: io::Error| Closed::Broken(error.kind());
        match &mut self.framing {
            Framing::Packages(_, masker) | Framing::Texts(_, masker) => {
                masker.close(&mut self.out, &NORMAL);
            }
            Framing::Stream(_) => {
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

    /// Waits until something arrives and hands out every unit that is complete.
    ///
    /// # Errors
    ///
    /// How the connection has ended. Units that came before were handed out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped while it waits.
    pub(crate) async fn receive(
        &mut self,
        mut on_unit: impl FnMut(Unit<'_>),
    ) -> Result<(), Closed> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            return self.take_apart(&early, &mut on_unit);
        }
        poll_fn(|context| self.poll_receive(context, &mut on_unit)).await
    }

    /// Reads once, as soon as there is something to read; writes meanwhile what the socket takes.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        on_unit: &mut impl FnMut(Unit<'_>),
    ) -> Poll<Result<(), Closed>> {
        let broken = |error: io::Error| Closed::Broken(error.kind());
        // A connection that takes nothing more may still hold the reason to be read.
        let flushed = self.poll_flush(context);
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            // A read that does not fill the buffer was the last: Tokio asks for no more then.
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).map_err(broken)?;
            Poll::Ready(match buffer.filled() {
                [] => Err(self.close_code.map_or(Closed::ByServer, Closed::WithCode)),
                bytes => self.take_apart(bytes, on_unit),
            })
        });
        match (read, flushed) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(broken(error))),
            (read, _) => read,
        }
    }

    /// Writes what the socket takes, until all is written.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            ready!(self.stream.poll_write_ready(context))?;
            self.flush()?;
        }
        Poll::Ready(Ok(()))
    }

    fn take_apart(
        &mut self,
        mut bytes: &[u8],
        on_unit: &mut impl FnMut(Unit<'_>),
    ) -> Result<(), Closed> {
        let nonsense = |what: String| Closed::Nonsense(what);
        let (frames, masker, is_text) = match &mut self.framing {
            Framing::Stream(decoder) => {
                while let Some(packet) =
                    decoder.next(&mut bytes).map_err(|error| nonsense(error.to_string()))?
                {
                    on_unit(Unit::Package(packet));
                }
                return Ok(());
            }
            Framing::Packages(frames, masker) => (frames, masker, false),
            Framing::Texts(frames, masker) => (frames, masker, true),
        };
        let (out, closing) = (&mut self.out, &mut self.closing);
        let close_code = &mut self.close_code;
        let mut problem = None;
        let read = frames.receive(bytes, |frame| match frame {
            Frame::Message(message) if is_text => on_unit(Unit::Text(message)),
            Frame::Message(message) => {
                for packet in packet::split(message, PACKAGE_BYTES_MAX) {
                    match packet {
                        Ok(packet) => on_unit(Unit::Package(packet)),
                        Err(error) => problem = Some(error.to_string()),
                    }
                }
            }
            Frame::Ping(payload) => masker.pong(out, payload),
            Frame::Close(payload) => {
                *close_code = payload.first_chunk().copied().map(u16::from_be_bytes);
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
        self.flush().map_err(|error| Closed::Broken(error.kind()))
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
