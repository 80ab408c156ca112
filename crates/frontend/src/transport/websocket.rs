//! WebSocket, after the handshake.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use model::limits;
use session::{CloseReason, Event, Farewell, Protocol};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{Arrival, Transport, discard};

/// Allocated for as long as the connection lives, and zeroed at each read. Requests are some 100
/// bytes; a larger message makes it grow for a while.
const READ_BUFFER_BYTES: usize = 1024;
/// Written once so much has gathered: enough for some twenty packages in one system call, and no
/// more, since the library keeps the memory.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// Most bytes gathered. Packages are fed one by one and each waits for room, so that only one
/// package larger than this could meet the limit, and there is none: its length has 24 bits.
const WRITE_BUFFER_BYTES_MAX: usize = (1 << 24) + 1024;
/// How much larger a message may be than a package: one that is just too large is for the session
/// to refuse, which knows a better reason.
const MESSAGE_OVERHEAD_BYTES: usize = 16;
/// A Close frame with the code 1000 and no text.
const CLOSE_NORMAL: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// Messages, each of one package or more, or of one frame or packet of Socket.IO.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    protocol: Protocol,
    arrived: Option<Result<Message, tungstenite::Error>>,
    end: End,
}

/// How far the close has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Neither side has begun.
    Open,
    /// The client sent a Close frame with a code, which the library answers.
    Asked,
    /// The client sent a Close frame without a code.
    AskedWithoutCode,
    /// The client's side of the connection is gone.
    Gone,
}

impl WebSocket {
    /// A WebSocket that the client has been told of. `rest` is what it sent after its handshake.
    pub(crate) async fn new(
        stream: TcpStream,
        rest: Vec<u8>,
        protocol: Protocol,
        message_bytes_max: usize,
    ) -> Self {
        let message_bytes_max = message_bytes_max + MESSAGE_OVERHEAD_BYTES;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            // Room for a whole frame is reserved as soon as its header is there.
            .max_frame_size(Some(message_bytes_max))
            .max_message_size(Some(message_bytes_max));
        let stream =
            WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
        Self { stream, protocol, arrived: None, end: End::Open }
    }

    /// Waits for the client's Close frame, and says whether it has a code; nothing if the stream
    /// ends without.
    async fn next_close(&mut self) -> Option<bool> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Close(frame)) => return Some(frame.is_some()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    async fn write_fed(&mut self) -> io::Result<()> {
        // Once the Close frames are exchanged the library has nothing to flush, and says so.
        match self.stream.flush().await {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn fail(&mut self, error: &tungstenite::Error) -> Arrival {
        Arrival::End(match error {
            tungstenite::Error::Capacity(_) => CloseReason::TooLarge,
            // Whoever means to leave sends a Close frame.
            tungstenite::Error::Io(_)
            | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.end = End::Gone;
                CloseReason::ConnectionLost
            }
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed => {
                self.end = End::Gone;
                CloseReason::ClientLeft
            }
            tungstenite::Error::Protocol(_)
            | tungstenite::Error::Utf8(_)
            | tungstenite::Error::AttackAttempt
            // What reading never says.
            | tungstenite::Error::Tls(_)
            | tungstenite::Error::WriteBufferFull(_)
            | tungstenite::Error::Url(_)
            | tungstenite::Error::Http(_)
            | tungstenite::Error::HttpFormat(_) => CloseReason::Malformed,
        })
    }
}

/// A message of one frame. The text dialects' units are valid UTF-8 as they were encoded, and need
/// not be checked for each receiver.
fn message(protocol: Protocol, unit: Bytes) -> Message {
    match protocol {
        Protocol::Pomelo => Message::Binary(unit),
        Protocol::SocketIo09 | Protocol::SocketIo1 => {
            Message::Frame(Frame::message(unit, OpCode::Data(Data::Text), true))
        }
    }
}

impl Transport for WebSocket {
    async fn ready(&mut self) {
        if self.arrived.is_none() {
            let next = self.stream.next().await;
            self.arrived = Some(next.unwrap_or(Err(tungstenite::Error::ConnectionClosed)));
        }
    }

    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        match self.arrived.take() {
            None | Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                Arrival::Nothing
            }
            // Attachments of events, which pomelo never used.
            Some(Ok(Message::Binary(_))) if self.protocol != Protocol::Pomelo => {
                take(Event::Alive);
                Arrival::Nothing
            }
            Some(Ok(Message::Binary(bytes))) => {
                take(Event::Received(&bytes));
                Arrival::Bytes(bytes.len())
            }
            Some(Ok(Message::Text(text))) => {
                take(Event::Received(text.as_bytes()));
                Arrival::Bytes(text.len())
            }
            Some(Ok(Message::Close(frame))) => {
                self.end = if frame.is_some() { End::Asked } else { End::AskedWithoutCode };
                Arrival::End(CloseReason::ClientLeft)
            }
            Some(Err(error)) => self.fail(&error),
        }
    }

    async fn feed(&mut self, unit: Bytes) -> Result<(), CloseReason> {
        let fed = self.stream.feed(message(self.protocol, unit)).await;
        fed.map_err(|_| CloseReason::ConnectionLost)
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.stream.flush().await.map_err(|_| CloseReason::ConnectionLost)
    }

    async fn close(&mut self, reason: CloseReason) -> io::Result<()> {
        match (reason.farewell(self.protocol), self.end) {
            (_, End::Gone) => return Ok(()),
            // The library has its own answer to a Close frame ready; it is not sent.
            (Farewell::Cut, End::Asked | End::AskedWithoutCode) => {}
            (Farewell::Cut, End::Open) | (_, End::Asked) => self.write_fed().await?,
            // The library would answer without a code, too; the original answers with 1000.
            // Nothing else waits in the library: what was fed is flushed before each read.
            (_, End::AskedWithoutCode) => self.stream.get_mut().write_all(&CLOSE_NORMAL).await?,
            (Farewell::Wait, End::Open) => {
                // A client that needs longer than it may is cut off.
                self.write_fed().await?;
                match timeout(limits::SOCKETIO_FAREWELL, self.next_close()).await {
                    Ok(Some(true)) => self.write_fed().await?,
                    Ok(None) => return Ok(()),
                    Ok(Some(false)) | Err(_) => {
                        self.stream.get_mut().write_all(&CLOSE_NORMAL).await?;
                    }
                }
            }
            (Farewell::Frame, End::Open) => {
                let (code, text) = (reason.code().into(), reason.text().into());
                let frame = CloseFrame { code, reason: text };
                self.stream.feed(Message::Close(Some(frame))).await.map_err(io::Error::other)?;
                self.write_fed().await?;
            }
        }
        // The client need not wait for us: after both Close frames the server ends the stream.
        self.stream.get_mut().shutdown().await?;
        discard(self.stream.get_ref()).await
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self.stream.get_ref())
    }
}
