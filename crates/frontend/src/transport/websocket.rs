//! WebSocket, after the handshake.

use std::{
    io,
    mem::{self, MaybeUninit},
    sync::Arc,
};

use bytes::Bytes;
use model::limits;
use session::{CloseReason, Event, Farewell, Protocol};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use super::{
    Arrival, Transport,
    frames::{Frame, Frames},
    line::{Line, READ_BYTES},
};
use crate::run::{BINARY, TEXT, header};

/// How much larger a message may be than a package: one that is just too large is for the session
/// to refuse, which knows a better reason.
const MESSAGE_OVERHEAD_BYTES: usize = 16;
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const CLOSE: OpCode = OpCode::Control(Control::Close);
/// The code 1000 and no text.
const NORMAL: &[u8] = &[0x03, 0xe8];
/// What a code is answered with that no client may send.
const VIOLATION: &[u8] = b"\x03\xeaProtocol violation";

/// Messages, each of one package or more, or of one frame or packet of Socket.IO.
#[derive(Debug)]
pub(crate) struct WebSocket {
    line: Line,
    frames: Frames,
    /// What the client sent together with its handshake, until it is read.
    early: Box<[u8]>,
    protocol: Protocol,
    /// The answer to the client's last ping.
    pong: Option<Box<[u8]>>,
    /// The client is to be pinged: every WebSocket answers that at once, and no page knows of it.
    ping: bool,
    end: End,
}

/// How far the close has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Neither side has begun.
    Open,
    /// The client sent a Close frame, means this, and is to be answered so.
    Asked(CloseReason, Box<[u8]>),
    /// The client's side of the connection is gone.
    Gone,
}

impl WebSocket {
    /// A WebSocket that the client has been told of. `early` is what it sent after its handshake.
    pub(crate) fn new(
        stream: TcpStream,
        early: Vec<u8>,
        protocol: Protocol,
        message_bytes_max: usize,
    ) -> Self {
        let frames = Frames::new(message_bytes_max + MESSAGE_OVERHEAD_BYTES);
        let (line, early) = (Line::new(stream), early.into());
        Self { line, frames, early, protocol, pong: None, ping: false, end: End::Open }
    }

    /// Takes frames apart for the session.
    fn receive(&mut self, bytes: &mut [u8], take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        let Self { frames, protocol, pong, end, .. } = self;
        let mut taken = 0;
        let received = frames.receive(bytes, &mut |frame| match frame {
            // Attachments of events, which pomelo never used.
            Frame::Message { is_text: false, .. } if *protocol != Protocol::Pomelo => {
                take(Event::Alive);
            }
            Frame::Message { payload, .. } => {
                taken += payload.len();
                take(Event::Received(payload));
            }
            Frame::Ping(payload) => *pong = Some(payload.into()),
            Frame::Pong => take(Event::Answered),
            Frame::Close(payload) => *end = End::Asked(meaning(payload), answer(payload)),
        });
        match (received, &self.end) {
            (Err(reason), _) => Arrival::End(reason),
            (Ok(()), End::Asked(reason, _)) => Arrival::End(*reason),
            (Ok(()), End::Open | End::Gone) if taken > 0 => Arrival::Bytes(taken),
            (Ok(()), End::Open | End::Gone) => Arrival::Nothing,
        }
    }

    /// Waits for the client's Close frame; nothing if the stream ends without.
    async fn next_close(&mut self) -> Option<Box<[u8]>> {
        loop {
            self.ready().await;
            if let Arrival::End(_) = self.read(&mut |_| {}) {
                return match &self.end {
                    End::Asked(_, answer) => Some(answer.clone()),
                    End::Open | End::Gone => None,
                };
            }
        }
    }

    /// The payload of the Close frame that is owed, if one is; nothing at all if nobody is there.
    async fn farewell(&mut self, reason: CloseReason) -> io::Result<Option<Option<Box<[u8]>>>> {
        Ok(match (reason.farewell(self.protocol), &self.end) {
            (_, End::Gone) => None,
            (Farewell::Cut, End::Open | End::Asked(..)) => Some(None),
            (Farewell::Frame | Farewell::Wait, End::Asked(_, answer)) => Some(Some(answer.clone())),
            (Farewell::Frame, End::Open) => {
                let code = reason.code().to_be_bytes();
                Some(Some([&code, reason.text().as_bytes()].concat().into()))
            }
            (Farewell::Wait, End::Open) => {
                // A client that needs longer than it may is cut off.
                self.line.flush().await?;
                match timeout(limits::SOCKETIO_FAREWELL, self.next_close()).await {
                    Ok(None) => None,
                    Ok(Some(answer)) => Some(Some(answer)),
                    Err(_) => Some(Some(NORMAL.into())),
                }
            }
        })
    }
}

/// What a client's Close frame means.
fn meaning(payload: &[u8]) -> CloseReason {
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    CloseReason::of_client(code)
}

/// What a client's Close frame is answered with: its own code and text. The original answered one
/// without a code with 1000.
fn answer(payload: &[u8]) -> Box<[u8]> {
    match payload {
        [high, low, ..] if CloseCode::from(u16::from_be_bytes([*high, *low])).is_allowed() => {
            payload.into()
        }
        [_, _, ..] => VIOLATION.into(),
        [] | [_] => NORMAL.into(),
    }
}

impl Transport for WebSocket {
    async fn ready(&mut self) {
        if self.early.is_empty() {
            self.line.readable().await;
        }
    }

    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        if !self.early.is_empty() {
            let mut early = mem::take(&mut self.early);
            return self.receive(&mut early, take);
        }
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
        match self.line.read(&mut room) {
            // Whoever means to leave sends a Close frame.
            Ok([]) => {
                self.end = End::Gone;
                Arrival::End(CloseReason::ConnectionLost)
            }
            Ok(bytes) => self.receive(bytes, take),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrival::Nothing,
            Err(_) => {
                self.end = End::Gone;
                Arrival::End(CloseReason::ConnectionLost)
            }
        }
    }

    /// Adds a message of one frame. The text dialects' units are valid UTF-8 as they were encoded,
    /// and need not be checked for each receiver.
    async fn feed(&mut self, unit: Bytes) -> Result<(), CloseReason> {
        let opcode = match self.protocol {
            Protocol::Pomelo => BINARY,
            Protocol::SocketIo09 | Protocol::SocketIo1 => TEXT,
        };
        header(opcode, unit.len(), self.line.gathered());
        self.feed_framed(unit).await
    }

    async fn feed_framed(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        self.line.gathered().extend_from_slice(&bytes);
        self.line.write_if_full().await.map_err(|_| CloseReason::ConnectionLost)
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        if let Some(payload) = self.pong.take() {
            header(PONG, payload.len(), self.line.gathered());
            self.line.gathered().extend_from_slice(&payload);
        }
        if mem::take(&mut self.ping) {
            header(PING, 0, self.line.gathered());
        }
        self.line.flush().await.map_err(|_| CloseReason::ConnectionLost)
    }

    fn probe(&mut self) {
        self.ping = true;
    }

    fn is_unflushed(&self) -> bool {
        self.pong.is_some() || self.ping
    }

    async fn close(&mut self, reason: CloseReason, rest: Option<Bytes>) -> io::Result<()> {
        self.line.gathered().extend_from_slice(&rest.unwrap_or_default());
        let Some(frame) = self.farewell(reason).await? else { return Ok(()) };
        if let Some(payload) = frame {
            header(CLOSE, payload.len(), self.line.gathered());
            self.line.gathered().extend_from_slice(&payload);
        }
        // The client need not wait for us: after both Close frames the server ends the stream.
        self.line.end().await
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self.line.stream())
    }

    fn share(&self) -> Option<Arc<TcpStream>> {
        Some(self.line.share())
    }
}
