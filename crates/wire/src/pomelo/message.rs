//! Messages: what a DATA package holds.
//!
//! ```text
//! byte 0   flag: bits 1..3 type (0 request, 1 notify, 2 response, 3 push), bit 0 route compressed
//! id       request and response only: unsigned LEB128
//! route    request, notify, push: 2 bytes of code if compressed, else 1 byte length and UTF-8
//! body     the rest
//! ```
//!
//! The other bits of the flag are never set in what leaves, but for clients of
//! [Pitaya](super::pitaya): a native client takes the whole upper part for the type.

use std::borrow::Cow;

use super::text;
use crate::RequestId;

const COMPRESSED: u8 = 1;
/// The body is compressed: Pitaya's, and only from clients.
const BODY_COMPRESSED: u8 = 0x10;
/// The response is a refusal: Pitaya's, and only to its clients.
const ERROR: u8 = 0x20;

/// A route as a message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteName<'a> {
    /// By its number in the dictionary that both sides have.
    Code(u16),
    /// In full.
    Text(Cow<'a, str>),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A client wants something done and answered.
    Request {
        /// Comes back with the response. Not 0: that would be a notify.
        id: RequestId,
        /// What it wants.
        route: RouteName<'a>,
        /// JSON or protobuf.
        body: &'a [u8],
    },
    /// A client wants something done, without an answer.
    Notify {
        /// What it wants.
        route: RouteName<'a>,
        /// JSON or protobuf.
        body: &'a [u8],
    },
    /// The answer to a request.
    Response {
        /// The request's.
        id: RequestId,
        /// JSON or protobuf.
        body: &'a [u8],
    },
    /// Something a client hears unasked.
    Push {
        /// What it is.
        route: RouteName<'a>,
        /// JSON or protobuf.
        body: &'a [u8],
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The body ends inside the flag, the id or the route's length or code.
    #[error("the message ends too early")]
    Truncated,
    /// The id needs more than 64 bits.
    #[error("the request id is too large")]
    Id,
    /// A type that nobody defined. The original ignores such a message.
    #[error("{0} is no message type")]
    Kind(u8),
    /// A route of more than 255 bytes cannot be written.
    #[error("the route is too long")]
    Route,
}

impl<'a> Message<'a> {
    /// Reads the body of a DATA package, from a client or from a server.
    ///
    /// A request with id 0 is read as a notify. A route that claims to be longer than the message
    /// is cut to what is there, with no body after it.
    ///
    /// # Errors
    ///
    /// If it is no message; the package after it can be read all the same.
    pub fn decode(data: &'a [u8]) -> Result<Self, MessageError> {
        let (&flag, rest) = data.split_first().ok_or(MessageError::Truncated)?;
        let compressed = flag & COMPRESSED != 0;
        match (flag >> 1) & 0b111 {
            0 => {
                let (id, rest) = decode_id(rest)?;
                let (route, body) = decode_route(rest, compressed)?;
                Ok(if id.is_notify() {
                    Self::Notify { route, body }
                } else {
                    Self::Request { id, route, body }
                })
            }
            1 => {
                let (route, body) = decode_route(rest, compressed)?;
                Ok(Self::Notify { route, body })
            }
            2 => {
                let (id, body) = decode_id(rest)?;
                Ok(Self::Response { id, body })
            }
            3 => {
                let (route, body) = decode_route(rest, compressed)?;
                Ok(Self::Push { route, body })
            }
            other => Err(MessageError::Kind(other)),
        }
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    ///
    /// If the route is too long; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let (kind, id, route, body) = match self {
            Self::Request { id, route, body } => (0, Some(*id), Some(route), *body),
            Self::Notify { route, body } => (1, None, Some(route), *body),
            Self::Response { id, body } => (2, Some(*id), None, *body),
            Self::Push { route, body } => (3, None, Some(route), *body),
        };
        if let Some(RouteName::Text(text)) = route
            && text.len() > usize::from(u8::MAX)
        {
            return Err(MessageError::Route);
        }
        match (kind, id) {
            (2, Some(id)) => response_head(out, id),
            (kind, id) => {
                let compressed = matches!(route, Some(RouteName::Code(_)));
                out.push((kind << 1) | u8::from(compressed));
                if let Some(id) = id {
                    encode_id(out, id);
                }
            }
        }
        match route {
            Some(RouteName::Code(code)) => out.extend_from_slice(&code.to_be_bytes()),
            Some(RouteName::Text(text)) => {
                out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(text.as_bytes());
            }
            None => {}
        }
        out.extend_from_slice(body);
        Ok(())
    }
}

/// Appends what stands before a response's body.
pub(super) fn response_head(out: &mut Vec<u8>, id: RequestId) {
    out.push(2 << 1);
    encode_id(out, id);
}

/// The same for a response that is marked as a refusal, for clients that know the mark.
pub(super) fn error_head(out: &mut Vec<u8>, id: RequestId) {
    out.push((2 << 1) | ERROR);
    encode_id(out, id);
}

/// Whether the flag of a message says that its body is compressed.
pub(super) fn is_compressed(data: &[u8]) -> bool {
    data.first().is_some_and(|flag| flag & BODY_COMPRESSED != 0)
}

/// Appends unsigned LEB128: seven bits a byte, the lowest first, the high bit says "more".
pub(super) fn encode_leb128(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).unwrap_or_default());
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

/// Reads unsigned LEB128 of up to ten bytes, minimal or not.
pub(super) fn decode_leb128(bytes: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate() {
        let group = u64::from(byte & 0x7f);
        let shift = 7 * at;
        if shift > 63 || (shift == 63 && group > 1) {
            return Err(MessageError::Id);
        }
        value |= group << shift;
        if byte < 0x80 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(MessageError::Truncated)
}

fn encode_id(out: &mut Vec<u8>, id: RequestId) {
    encode_leb128(out, id.0);
}

fn decode_id(bytes: &[u8]) -> Result<(RequestId, &[u8]), MessageError> {
    let (id, rest) = decode_leb128(bytes)?;
    Ok((RequestId(id), rest))
}

fn decode_route(bytes: &[u8], compressed: bool) -> Result<(RouteName<'_>, &[u8]), MessageError> {
    if compressed {
        let (code, body) = bytes.split_first_chunk().ok_or(MessageError::Truncated)?;
        return Ok((RouteName::Code(u16::from_be_bytes(*code)), body));
    }
    let (&length, rest) = bytes.split_first().ok_or(MessageError::Truncated)?;
    let (route, body) = rest.split_at(usize::from(length).min(rest.len()));
    Ok((RouteName::Text(text::decode(route)), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> RouteName<'_> {
        RouteName::Text(text.into())
    }

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn each_kind_comes_back() {
        let id = RequestId(300);
        for message in [
            Message::Request { id, route: RouteName::Code(2), body: b"{}" },
            Message::Request { id, route: text("a.b.c"), body: b"" },
            Message::Notify { route: text(""), body: b"x" },
            Message::Response { id, body: b"{}" },
            Message::Push { route: text("onAdd"), body: b"{}" },
        ] {
            assert_eq!(Message::decode(&encoded(&message)), Ok(message));
        }
    }

    #[test]
    fn ids_are_echoed_minimally_up_to_64_bits() {
        for (id, bytes) in [
            (0_u64, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_384, &[0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            encode_leb128(&mut out, id);
            assert_eq!(out, bytes);
            assert_eq!(decode_leb128(bytes), Ok((id, &[][..])));
        }
        assert_eq!(decode_leb128(&[0x81, 0x80, 0x80, 0]), Ok((1, &[][..])));
        assert_eq!(
            decode_leb128(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(MessageError::Id)
        );
        assert_eq!(decode_leb128(&[0x80; 11]), Err(MessageError::Id));
    }

    #[test]
    fn a_request_with_id_0_is_a_notify() {
        let message = Message::decode(b"\0\0\x01ax").unwrap();
        let route = text("a");
        assert_eq!(message, Message::Notify { route, body: b"x" });
    }

    #[test]
    fn what_ends_early_is_told_from_what_is_cut() {
        for early in [&b""[..], b"\0", b"\0\xff\xff", b"\0\x01", b"\x01\x01\0", b"\x04"] {
            assert_eq!(Message::decode(early), Err(MessageError::Truncated));
        }
        let cut = Message::decode(b"\0\x01\xc8chat.x{}").unwrap();
        let (id, route) = (RequestId(1), text("chat.x{}"));
        assert_eq!(cut, Message::Request { id, route, body: b"" });
    }

    #[test]
    fn high_bits_of_the_flag_are_ignored() {
        let message = Message::decode(b"\xf0\x05\x01a{}").unwrap();
        let (id, route) = (RequestId(5), text("a"));
        assert_eq!(message, Message::Request { id, route, body: b"{}" });
        for kind in 4..=7 {
            let decoded = Message::decode(&[kind << 1, 1, 2, 3]).map(drop);
            assert_eq!(decoded, Err(MessageError::Kind(kind)));
        }
    }

    #[test]
    fn a_route_of_256_bytes_is_refused() {
        let long = "x".repeat(256);
        let push = Message::Push { route: text(&long), body: b"" };
        let mut out = Vec::new();
        assert_eq!(push.encode(&mut out), Err(MessageError::Route));
        assert!(out.is_empty());
    }
}
