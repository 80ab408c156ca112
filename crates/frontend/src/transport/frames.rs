//! The frames that a WebSocket client sends.
//!
//! They are cut out of whatever was read, in place, so that an idle connection has no buffer: the
//! library's own stream keeps one for each, and would have to be asked for every write.

use std::io::Cursor;

use session::CloseReason;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// A control frame holds at most so much.
const CONTROL_BYTES_MAX: usize = 125;

/// What came out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A whole message.
    Message { is_text: bool, payload: &'a [u8] },
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// An answer that nobody waits for.
    Pong,
    /// The last: its code and text, or nothing.
    Close(&'a [u8]),
}

/// Cuts frames out of a stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// The message that comes in several frames, and whether it is text.
    message: Option<Box<(bool, Vec<u8>)>>,
    message_bytes_max: usize,
    is_closed: bool,
}

/// The first bytes of a frame.
struct Header {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Where the payload begins and ends.
    payload: std::ops::Range<usize>,
}

impl Frames {
    pub(super) const fn new(message_bytes_max: usize) -> Self {
        Self { partial: Vec::new(), message: None, message_bytes_max, is_closed: false }
    }

    /// Takes what was read, and hands out every frame that is complete. Nothing comes after a
    /// Close frame.
    ///
    /// # Errors
    ///
    /// If it is no WebSocket, or too large; nothing after it can be read.
    pub(super) fn receive(
        &mut self,
        bytes: &mut [u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), CloseReason> {
        if self.partial.is_empty() {
            let used = self.cut(bytes, on_frame)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.cut(&mut partial, on_frame)?;
            if used < partial.len() {
                partial.drain(..used);
                self.partial = partial;
            }
        }
        Ok(())
    }

    fn cut(
        &mut self,
        bytes: &mut [u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) -> Result<usize, CloseReason> {
        let mut used = 0;
        while !self.is_closed {
            let Some(header) = self.header(&bytes[used..])? else { return Ok(used) };
            let end = used + header.payload.end;
            let Some(payload) = bytes.get_mut(used + header.payload.start..end) else {
                return Ok(used);
            };
            unmask(payload, header.mask);
            self.frame(&header, payload, on_frame)?;
            used = end;
        }
        Ok(bytes.len())
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, CloseReason> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::Malformed)?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
        // No extension is ever agreed to that would give the reserved bits a meaning, and clients
        // must mask.
        let (Some(mask), false) = (mask, rsv1 || rsv2 || rsv3) else {
            return Err(CloseReason::Malformed);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Checked before anything is kept for it.
        if length > self.message_bytes_max {
            return Err(CloseReason::TooLarge);
        }
        if matches!(opcode, OpCode::Control(_)) && (length > CONTROL_BYTES_MAX || !is_final) {
            return Err(CloseReason::Malformed);
        }
        let begin = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        Ok(Some(Header { opcode, is_final, mask, payload: begin..begin + length }))
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), CloseReason> {
        match (header.opcode, self.message.as_deref_mut()) {
            (OpCode::Data(Data::Continue), Some((_, message))) => {
                if message.len() + payload.len() > self.message_bytes_max {
                    return Err(CloseReason::TooLarge);
                }
                message.extend_from_slice(payload);
                if header.is_final
                    && let Some(message) = self.message.take()
                {
                    deliver(message.0, &message.1, on_frame)?;
                }
            }
            (OpCode::Data(kind @ (Data::Text | Data::Binary)), None) => {
                let is_text = kind == Data::Text;
                if header.is_final {
                    deliver(is_text, payload, on_frame)?;
                } else {
                    self.message = Some(Box::new((is_text, payload.to_vec())));
                }
            }
            (OpCode::Control(Control::Close), _) => {
                // A code has two bytes, and a text behind it may be read.
                if payload.len() == 1
                    || payload.get(2..).is_some_and(|text| str::from_utf8(text).is_err())
                {
                    return Err(CloseReason::Malformed);
                }
                self.is_closed = true;
                on_frame(Frame::Close(payload));
            }
            (OpCode::Control(Control::Ping), _) => on_frame(Frame::Ping(payload)),
            (OpCode::Control(Control::Pong), _) => on_frame(Frame::Pong),
            // One within another, or none that goes on.
            (OpCode::Data(_) | OpCode::Control(Control::Reserved(_)), _) => {
                return Err(CloseReason::Malformed);
            }
        }
        Ok(())
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn deliver(
    is_text: bool,
    payload: &[u8],
    on_frame: &mut dyn FnMut(Frame<'_>),
) -> Result<(), CloseReason> {
    if is_text && str::from_utf8(payload).is_err() {
        return Err(CloseReason::Malformed);
    }
    on_frame(Frame::Message { is_text, payload });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 70_000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::run::header(crate::run::BINARY, payload.len(), &mut out);
        out[0] = first;
        out[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn read(frames: &mut Frames, bytes: &[u8], seen: &mut Vec<String>) -> Result<(), CloseReason> {
        frames.receive(&mut bytes.to_vec(), &mut |frame| {
            seen.push(match frame {
                Frame::Message { is_text, payload } => format!("{is_text} {}", payload.len()),
                other @ (Frame::Ping(_) | Frame::Pong | Frame::Close(_)) => format!("{other:?}"),
            });
        })
    }

    #[test]
    fn a_stream_may_be_split_anywhere() {
        let mut stream = frame(0x82, b"hello");
        stream.extend(frame(0x01, "w\u{f6}".as_bytes().get(..2).unwrap()));
        stream.extend(frame(0x89, b"?"));
        stream.extend(frame(0x80, "\u{f6}rld".as_bytes().get(1..).unwrap()));
        stream.extend(frame(0x82, &[7; LIMIT]));
        stream.extend(frame(0x88, b"\x03\xe8bye"));
        let ends = stream.len() - 20..stream.len();
        for at in (0..200).chain(ends) {
            let (mut frames, mut seen) = (Frames::new(LIMIT), Vec::new());
            read(&mut frames, &stream[..at], &mut seen).unwrap();
            read(&mut frames, &stream[at..], &mut seen).unwrap();
            let ping = format!("{:?}", Frame::Ping(b"?"));
            let close = format!("{:?}", Frame::Close(b"\x03\xe8bye"));
            assert_eq!(seen, ["false 5", &ping, "true 6", "false 70000", &close], "{at}");
            assert_eq!(frames.partial.capacity(), 0);
        }
    }

    #[test]
    fn nonsense_is_refused_and_too_much_is_not_kept() {
        let mut unmasked = frame(0x82, b"a");
        unmasked[1] &= 0x7f;
        for (bytes, reason) in [
            (unmasked, CloseReason::Malformed),
            (frame(0xc2, b"a"), CloseReason::Malformed),
            (frame(0x83, b"a"), CloseReason::Malformed),
            (frame(0x8b, b"a"), CloseReason::Malformed),
            (frame(0x80, b"a"), CloseReason::Malformed),
            (frame(0x09, b"a"), CloseReason::Malformed),
            (frame(0x89, &[0; 126]), CloseReason::Malformed),
            (frame(0x88, b"a"), CloseReason::Malformed),
            (frame(0x88, b"\x03\xe8\xff"), CloseReason::Malformed),
            (frame(0x81, b"\xff"), CloseReason::Malformed),
            ([frame(0x02, b"a"), frame(0x82, b"a")].concat(), CloseReason::Malformed),
            (frame(0x82, &[0; LIMIT + 1])[..14].to_vec(), CloseReason::TooLarge),
            ([frame(0x02, &[0; LIMIT]), frame(0x80, b"a")].concat(), CloseReason::TooLarge),
        ] {
            let read = read(&mut Frames::new(LIMIT), &bytes, &mut Vec::new());
            assert_eq!(read, Err(reason), "{:?}", &bytes[..bytes.len().min(8)]);
        }
    }
}
