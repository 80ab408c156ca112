//! Packages: the outermost layer of the binary protocol.
//!
//! ```text
//! byte 0      type: 1 HANDSHAKE  2 HANDSHAKE_ACK  3 HEARTBEAT  4 DATA  5 KICK
//! byte 1..3   body length, unsigned, big-endian
//! body
//! ```
//!
//! On TCP packages follow one another in the stream; a [`Decoder`] cuts them out, however the
//! stream was split. On WebSocket a binary message holds one package, or several ([`split`]).

use bytes::{BufMut, Bytes};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 4;
/// Longest body that the length can say.
pub const BODY_BYTES_MAX: usize = (1 << 24) - 1;
/// An idle decoder keeps no buffer larger than this.
const IDLE_BUFFER_BYTES_MAX: usize = 1024;

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The client introduces itself; the server answers.
    Handshake = 1,
    /// The client accepts the server's handshake.
    HandshakeAck = 2,
    /// A sign of life.
    Heartbeat = 3,
    /// A [message](super::message).
    Data = 4,
    /// The server ends the session.
    Kick = 5,
}

impl Kind {
    /// The kind that this type byte stands for, if one does.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Handshake,
            2 => Self::HandshakeAck,
            3 => Self::Heartbeat,
            4 => Self::Data,
            5 => Self::Kick,
            _ => return None,
        })
    }
}

/// One package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is for.
    pub kind: Kind,
    /// What it holds.
    pub body: &'a [u8],
}

/// Why bytes are no package. The connection is of no further use: nothing says where the next
/// package would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A byte that is no package type where one must stand.
    #[error("{0} is no package type")]
    Kind(u8),
    /// The header promises more than the limit.
    #[error("a package of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// Header and body, in bytes.
        length: usize,
        /// Most bytes, header included.
        limit: usize,
    },
    /// A WebSocket message that ends inside a package, or is empty.
    #[error("the message ends inside a package")]
    Truncated,
}

/// An ACK, which has no body.
pub const HANDSHAKE_ACK: Bytes = Bytes::from_static(&[2, 0, 0, 0]);
/// A heartbeat, which has no body.
pub const HEARTBEAT: Bytes = Bytes::from_static(&[3, 0, 0, 0]);

/// Encodes a package. `None` if the body is longer than [`BODY_BYTES_MAX`].
#[must_use]
pub fn encode(kind: Kind, body: &[u8]) -> Option<Bytes> {
    let mut package = begin(kind, body.len());
    package.extend_from_slice(body);
    finish(package)
}

/// Begins a package whose body the caller appends; [`finish`] fills in the length.
pub(super) fn begin(kind: Kind, body_len_hint: usize) -> Vec<u8> {
    let mut package = Vec::with_capacity(HEADER_BYTES + body_len_hint);
    package.put_slice(&[kind as u8, 0, 0, 0]);
    package
}

/// Ends a package. `None` if its body became longer than [`BODY_BYTES_MAX`].
pub(super) fn finish(mut package: Vec<u8>) -> Option<Bytes> {
    let length = package.len().checked_sub(HEADER_BYTES)?;
    let [high, digits @ ..] = u32::try_from(length).ok()?.to_be_bytes();
    if high != 0 {
        return None;
    }
    package[1..HEADER_BYTES].copy_from_slice(&digits);
    Some(package.into())
}

/// Cuts a WebSocket message into its packages.
///
/// Yields at least one item; after an error nothing more. `limit` is in bytes, header included.
pub fn split(
    message: &[u8],
    limit: usize,
) -> impl Iterator<Item = Result<Packet<'_>, PacketError>> {
    Split { rest: Some(message), limit }
}

struct Split<'a> {
    /// Nothing once the end or an error was reached.
    rest: Option<&'a [u8]>,
    limit: usize,
}

impl<'a> Iterator for Split<'a> {
    type Item = Result<Packet<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let (packet, after) = match cut(rest, self.limit) {
            Ok(Some(cut)) => cut,
            Ok(None) => return Some(Err(PacketError::Truncated)),
            Err(error) => return Some(Err(error)),
        };
        self.rest = (!after.is_empty()).then_some(after);
        Some(Ok(packet))
    }
}

/// Cuts packages out of a TCP stream that arrives in pieces of any size.
///
/// Holds the beginning of at most one package, and never room for more than arrived of it: a
/// header that promises much makes nothing grow.
#[derive(Debug)]
pub struct Decoder {
    partial: Vec<u8>,
    /// `partial` holds a package that was handed out and can go.
    handed_out: bool,
    limit: usize,
}

impl Decoder {
    /// A decoder at the start of a stream, for packages of up to `limit` bytes, header included.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { partial: Vec::new(), handed_out: false, limit }
    }

    /// Takes the next package from `input` and what came before, advancing `input` past it.
    ///
    /// Call it until it returns `None`: then `input` is used up. A package that arrived in one
    /// piece is not copied.
    ///
    /// # Errors
    ///
    /// As soon as the bytes so far can be no package within the limit. The stream cannot be
    /// decoded further.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Packet<'s>>, PacketError> {
        if self.handed_out {
            self.handed_out = false;
            self.partial.clear();
            self.partial.shrink_to(IDLE_BUFFER_BYTES_MAX);
        }
        if self.partial.is_empty() {
            if let Some((packet, rest)) = cut(input, self.limit)? {
                *input = rest;
                return Ok(Some(packet));
            }
            self.take(input, input.len());
            return Ok(None);
        }
        let missing = HEADER_BYTES.saturating_sub(self.partial.len());
        self.take(input, missing);
        let Some((_, length)) = header(&self.partial, self.limit)? else {
            return Ok(None);
        };
        self.take(input, length - self.partial.len());
        let Some((packet, _)) = cut(&self.partial, self.limit)? else {
            return Ok(None);
        };
        self.handed_out = true;
        Ok(Some(packet))
    }

    /// Whether the stream stands between two packages.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.handed_out || self.partial.is_empty()
    }

    fn take(&mut self, input: &mut &[u8], most: usize) {
        let (taken, rest) = input.split_at(most.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

/// Reads a header: the kind, and the length of the package with its header. `None` if more bytes
/// are needed.
fn header(bytes: &[u8], limit: usize) -> Result<Option<(Kind, usize)>, PacketError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let kind = Kind::from_byte(first).ok_or(PacketError::Kind(first))?;
    let Some(&[_, high, middle, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let body = u32::from_be_bytes([0, high, middle, low]) as usize;
    let length = HEADER_BYTES + body;
    if length > limit {
        return Err(PacketError::TooLarge { length, limit });
    }
    Ok(Some((kind, length)))
}

/// A whole package at the start of `bytes`, and what follows it.
fn cut(bytes: &[u8], limit: usize) -> Result<Option<(Packet<'_>, &[u8])>, PacketError> {
    let Some((kind, length)) = header(bytes, limit)? else {
        return Ok(None);
    };
    let Some((package, rest)) = bytes.split_at_checked(length) else {
        return Ok(None);
    };
    let body = &package[HEADER_BYTES..];
    Ok(Some((Packet { kind, body }, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn all(message: &[u8]) -> Vec<Result<Packet<'_>, PacketError>> {
        split(message, LIMIT).collect()
    }

    fn packet(kind: Kind, body: &[u8]) -> Packet<'_> {
        Packet { kind, body }
    }

    #[test]
    fn a_message_holds_one_package_or_more() {
        assert_eq!(all(&HEARTBEAT), [Ok(packet(Kind::Heartbeat, b""))]);
        assert_eq!(
            all(b"\x04\0\0\x02hi\x03\0\0\0"),
            [Ok(packet(Kind::Data, b"hi")), Ok(packet(Kind::Heartbeat, b""))]
        );
    }

    #[test]
    fn lies_end_a_message() {
        assert_eq!(all(b""), [Err(PacketError::Truncated)]);
        assert_eq!(all(b"\x04\0\0\x03hi"), [Err(PacketError::Truncated)]);
        assert_eq!(all(b"\x04\0"), [Err(PacketError::Truncated)]);
        assert_eq!(
            all(b"\x03\0\0\0hello"),
            [Ok(packet(Kind::Heartbeat, b"")), Err(PacketError::Kind(b'h'))]
        );
        for byte in [0, 6, 9, 255] {
            assert_eq!(all(&[byte, 0, 0, 0]), [Err(PacketError::Kind(byte))]);
        }
    }

    #[test]
    fn size_is_checked_before_anything_is_kept() {
        let too_large = PacketError::TooLarge { length: LIMIT + 1, limit: LIMIT };
        assert_eq!(all(&[4, 0, 0, 61]), [Err(too_large)]);
        let mut decoder = Decoder::new(LIMIT);
        assert_eq!(decoder.next(&mut &[4, 0, 0][..]), Ok(None));
        assert_eq!(decoder.next(&mut &[61][..]), Err(too_large));
        let mut decoder = Decoder::new(usize::MAX);
        assert_eq!(decoder.next(&mut &[4, 255, 255, 255, 1][..]), Ok(None));
        assert!(decoder.partial.capacity() < 64);
    }

    #[test]
    fn a_wrong_type_is_seen_at_once() {
        let mut decoder = Decoder::new(LIMIT);
        assert_eq!(decoder.next(&mut &b"G"[..]), Err(PacketError::Kind(b'G')));
    }

    #[test]
    fn a_stream_may_be_split_anywhere() {
        let stream = b"\x01\0\0\x02{}\x02\0\0\0\x04\0\0\x05hello\x03\0\0\0";
        for at in 0..stream.len() {
            let (head, tail) = stream.split_at(at);
            let mut decoder = Decoder::new(LIMIT);
            let mut seen = Vec::new();
            for mut input in [head, tail] {
                while let Some(packet) = decoder.next(&mut input).unwrap() {
                    seen.push((packet.kind, packet.body.to_vec()));
                }
                assert!(input.is_empty());
            }
            assert!(decoder.is_empty());
            let bodies: Vec<_> = seen.iter().map(|(_, body)| body.as_slice()).collect();
            assert_eq!(bodies, [&b"{}"[..], b"", b"hello", b""]);
        }
    }

    #[test]
    fn a_body_can_be_too_long_for_its_header() {
        assert!(encode(Kind::Data, &vec![0; BODY_BYTES_MAX]).is_some());
        assert_eq!(encode(Kind::Data, &vec![0; BODY_BYTES_MAX + 1]), None);
    }
}
