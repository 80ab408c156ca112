//! WebSocket, as much as a client of a chat needs.
//!
//! Frames are cut out of whatever was read, in place: `tungstenite` reads and writes their
//! headers, but brings buffers of its own for every connection, and a process that plays ten
//! thousand clients has better uses for them.

use std::{
    hash::{BuildHasher as _, RandomState},
    io::Cursor,
    time::Duration,
};

use tokio_tungstenite::tungstenite::{
    handshake::{client::generate_key, derive_accept_key},
    protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

use crate::error::{Error, Result};

/// Largest message accepted, in bytes: the largest package there is.
const MESSAGE_BYTES_MAX: u64 = 1 << 24;
/// Most that is kept of a buffer when it is empty.
const IDLE_BUFFER_BYTES_MAX: usize = 1024;
/// Largest answer to the upgrade, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The client's request to upgrade, and what the answer must hold.
pub(crate) struct Upgrade {
    accept: String,
    head: Vec<u8>,
}

impl Upgrade {
    /// The request to send to `host`, and the state that waits for its answer.
    pub(crate) fn begin(host: &str, path: &str) -> (String, Self) {
        let key = generate_key();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let accept = derive_accept_key(key.as_bytes());
        (request, Self { accept, head: Vec::new() })
    }

    /// Takes what the server said. Once its head is complete: what follows it, or what is wrong.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Option<Result<Vec<u8>>> {
        self.head.extend_from_slice(bytes);
        let end = self.head.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            let too_long = self.head.len() > HEAD_BYTES_MAX;
            return too_long.then(|| Err(Error::Upgrade("an endless head".to_owned())));
        };
        let rest = self.head.split_off(end + 4);
        let head = String::from_utf8_lossy(&self.head);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        let accepted = header("sec-websocket-accept") == Some(&self.accept);
        let seconds = header("retry-after").and_then(|seconds| seconds.parse().ok());
        Some(match (status.split(' ').nth(1), seconds) {
            (Some("101"), _) if accepted => Ok(rest),
            (Some("503"), Some(seconds)) => {
                Err(Error::Busy { retry_after: Duration::from_secs(seconds) })
            }
            _ => Err(Error::Upgrade(status)),
        })
    }
}

/// What came out of the stream.
pub(crate) enum Frame<'a> {
    /// A whole message, text or binary.
    Message(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// To be answered with the same.
    Close(&'a [u8]),
}

/// Cuts frames out of a stream.
#[derive(Default)]
pub(crate) struct Frames {
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// The beginning of a message that comes in several frames.
    message: Vec<u8>,
}

impl Frames {
    /// Takes what was read and hands out every frame that is complete.
    ///
    /// # Errors
    ///
    /// If it is no WebSocket; nothing after it can be read.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>),
    ) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = self.cut(bytes, &mut on_frame)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.cut(&partial, &mut on_frame)?;
            partial.drain(..used);
            partial.shrink_to(IDLE_BUFFER_BYTES_MAX);
            self.partial = partial;
        }
        Ok(())
    }

    fn cut(&mut self, bytes: &[u8], on_frame: &mut impl FnMut(Frame<'_>)) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let mut cursor = Cursor::new(&bytes[used..]);
            let header = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
            let Some((header, length)) = header else {
                return Ok(used);
            };
            if length > MESSAGE_BYTES_MAX || header.mask.is_some() {
                return Err("a frame that no server sends".to_owned());
            }
            let begin = used + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let end = begin + usize::try_from(length).unwrap_or(usize::MAX);
            let Some(payload) = bytes.get(begin..end) else {
                return Ok(used);
            };
            self.frame(&header, payload, on_frame)?;
            used = end;
        }
    }

    fn frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        on_frame: &mut impl FnMut(Frame<'_>),
    ) -> Result<(), String> {
        match header.opcode {
            OpCode::Data(Data::Binary | Data::Text) if header.is_final => {
                on_frame(Frame::Message(payload));
            }
            OpCode::Data(Data::Binary | Data::Text | Data::Continue) => {
                if (self.message.len() + payload.len()) as u64 > MESSAGE_BYTES_MAX {
                    return Err("an endless message".to_owned());
                }
                self.message.extend_from_slice(payload);
                if header.is_final {
                    on_frame(Frame::Message(&self.message));
                    self.message = Vec::new();
                }
            }
            OpCode::Control(Control::Ping) => on_frame(Frame::Ping(payload)),
            OpCode::Control(Control::Close) => on_frame(Frame::Close(payload)),
            OpCode::Control(Control::Pong) => {}
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err("a frame of unknown type".to_owned());
            }
        }
        Ok(())
    }
}

/// Writes frames, each masked as the protocol wants it from clients.
pub(crate) struct Masker {
    state: u64,
}

impl Masker {
    pub(crate) fn new() -> Self {
        // The standard library's hasher is seeded at random. Masks only keep old proxies from
        // taking payloads for requests, so this is random enough.
        Self { state: RandomState::new().hash_one(0) | 1 }
    }

    pub(crate) fn message(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, OpCode::Data(Data::Binary), payload);
    }

    pub(crate) fn text(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, OpCode::Data(Data::Text), payload);
    }

    pub(crate) fn pong(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, OpCode::Control(Control::Pong), payload);
    }

    pub(crate) fn close(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, OpCode::Control(Control::Close), payload);
    }

    fn frame(&mut self, out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
        // Xorshift.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let [a, b, c, d, ..] = self.state.to_le_bytes();
        let mask = [a, b, c, d];
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        // Writing into a vector cannot fail.
        let _ = header.format(payload.len() as u64, out);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = FrameHeader { opcode, is_final, ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut out).unwrap();
        out.extend_from_slice(payload);
        out
    }

    fn messages(frames: &mut Frames, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let on_frame = |frame: Frame<'_>| {
            if let Frame::Message(payload) = frame {
                seen.push(payload.to_vec());
            }
        };
        frames.receive(bytes, on_frame).unwrap();
        seen
    }

    #[test]
    fn a_stream_may_be_split_anywhere() {
        let mut stream = server_frame(OpCode::Data(Data::Binary), true, b"hello");
        stream.extend(server_frame(OpCode::Data(Data::Binary), false, b"wor"));
        stream.extend(server_frame(OpCode::Control(Control::Ping), true, b"?"));
        stream.extend(server_frame(OpCode::Data(Data::Continue), true, b"ld"));
        stream.extend(server_frame(OpCode::Data(Data::Binary), true, &[7; 70_000]));
        for at in (0..200).chain(stream.len() - 3..stream.len()) {
            let mut frames = Frames::default();
            let mut seen = messages(&mut frames, &stream[..at]);
            seen.extend(messages(&mut frames, &stream[at..]));
            assert_eq!(seen, [b"hello".to_vec(), b"world".to_vec(), vec![7; 70_000]], "{at}");
            assert!(frames.partial.is_empty());
        }
    }

    #[test]
    fn what_a_client_writes_is_masked() {
        let mut masker = Masker::new();
        let mut out = Vec::new();
        masker.message(&mut out, b"hello");
        let mut cursor = Cursor::new(&out);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!(length, 5);
        let mask = header.mask.unwrap();
        let clear: Vec<u8> = out[out.len() - 5..]
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        assert_eq!(clear, b"hello");
    }

    #[test]
    fn a_huge_frame_is_refused_before_it_is_kept() {
        let mut bytes = Vec::new();
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..Default::default() };
        header.format(MESSAGE_BYTES_MAX + 1, &mut bytes).unwrap();
        assert!(Frames::default().receive(&bytes, |_| {}).is_err());
    }

    #[test]
    fn an_upgrade_needs_the_right_key() {
        let (request, mut upgrade) = Upgrade::begin("host:1", "/");
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
        let accept = derive_accept_key(key.split("\r\n").next().unwrap().as_bytes());
        let head = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: ";
        assert!(upgrade.receive(head.as_bytes()).is_none());
        let rest = upgrade.receive(format!("{accept}\r\n\r\nrest").as_bytes());
        assert_eq!(rest.unwrap().unwrap(), b"rest");

        let (_, mut upgrade) = Upgrade::begin("host:1", "/");
        let refused = upgrade.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let refused = refused.unwrap().unwrap_err();
        assert!(matches!(&refused, Error::Upgrade(status) if status == "HTTP/1.1 400 Bad Request"));
    }
}
