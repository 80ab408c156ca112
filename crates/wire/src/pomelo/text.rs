//! Text as old clients encode it.
//!
//! The browser library knows only characters of one to three bytes. A character beyond the Basic
//! Multilingual Plane it writes as two surrogates of three bytes each (CESU-8), and that is also
//! the only form in which it reads one. From anybody both forms are accepted; bytes that are
//! neither become U+FFFD, one for each piece that cannot be read, and never fail a message.

use std::borrow::Cow;

use crate::body::Sink;

/// How text leaves for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// As the rest of the world has it.
    Utf8,
    /// Characters beyond the BMP as two surrogates.
    Cesu8,
}

impl Encoding {
    /// Bytes that `text` takes in this encoding.
    #[must_use]
    pub fn len(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            // A character beyond the BMP begins with a byte past 0xef, and grows from 4 to 6.
            Self::Cesu8 => text.len() + 2 * text.bytes().filter(|&byte| byte >= 0xf0).count(),
        }
    }

    /// Appends `text` to `out`.
    pub fn append(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::Cesu8 if self.len(text) > text.len() => append_cesu8(out, text),
            Self::Utf8 | Self::Cesu8 => out.extend_from_slice(text.as_bytes()),
        }
    }
}

/// Writes text in an encoding.
pub struct Encoder<'a> {
    /// Where it goes.
    pub out: &'a mut Vec<u8>,
    /// How.
    pub encoding: Encoding,
}

impl Sink for Encoder<'_> {
    fn text(&mut self, text: &str) {
        self.encoding.append(self.out, text);
    }
}

/// Reads text in either encoding.
#[must_use]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(decode_leniently(bytes)),
    }
}

fn decode_leniently(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(chunk) = rest.utf8_chunks().next() {
        text.push_str(chunk.valid());
        rest = &rest[chunk.valid().len()..];
        if let Some((char, after)) = surrogate_pair(rest) {
            text.push(char);
            rest = after;
        } else if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[chunk.invalid().len()..];
        }
    }
    text
}

/// A character that begins `bytes` as two surrogates, and what follows it.
fn surrogate_pair(bytes: &[u8]) -> Option<(char, &[u8])> {
    let (&pair, rest) = bytes.split_first_chunk()?;
    let [
        0xed,
        high @ 0xa0..=0xaf,
        high_low @ 0x80..=0xbf,
        0xed,
        low @ 0xb0..=0xbf,
        low_low @ 0x80..=0xbf,
    ] = pair
    else {
        return None;
    };
    let bits = |byte: u8, mask: u8| u32::from(byte & mask);
    let high = (bits(high, 0x0f) << 6) | bits(high_low, 0x3f);
    let low = (bits(low, 0x0f) << 6) | bits(low_low, 0x3f);
    let char = char::from_u32(0x1_0000 + ((high << 10) | low))?;
    Some((char, rest))
}

fn append_cesu8(out: &mut Vec<u8>, text: &str) {
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte < 0xf0 {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain_from..at]);
        let mut units = [0; 2];
        if let Some(char) = text[at..].chars().next() {
            for unit in char.encode_utf16(&mut units) {
                let [high, low] = unit.to_be_bytes();
                let middle = ((high & 0x0f) << 2) | (low >> 6);
                out.extend_from_slice(&[0xe0 | (high >> 4), 0x80 | middle, 0x80 | (low & 0x3f)]);
            }
        }
        plain_from = at + 4;
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMILE_CESU8: &[u8] = b"\xed\xa0\xbd\xed\xb8\x80";

    fn cesu8(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Encoding::Cesu8.append(&mut out, text);
        assert_eq!(out.len(), Encoding::Cesu8.len(text));
        out
    }

    #[test]
    fn surrogates_become_the_character_and_back() {
        assert_eq!(decode(SMILE_CESU8), "😀");
        assert_eq!(cesu8("😀"), SMILE_CESU8);
        for text in ["", "plain", "张三 é", "a😀b😀😀c", "\u{10ffff}\u{10000}"] {
            assert_eq!(decode(&cesu8(text)), text);
        }
    }

    #[test]
    fn true_utf8_is_not_touched() {
        assert!(matches!(decode("张三 😀".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn what_cannot_be_read_is_replaced() {
        assert_eq!(decode(b"a\xffb"), "a\u{fffd}b");
        // Half a pair, and a pair the wrong way round: each byte by itself, as Node has it.
        assert_eq!(decode(b"\xed\xa0\xbdx"), "\u{fffd}\u{fffd}\u{fffd}x");
        assert_eq!(decode(b"\xed\xb8\x80\xed\xa0\xbd"), "\u{fffd}".repeat(6));
        assert_eq!(decode(b"\xf0\x9f\x98"), "\u{fffd}");
        let mixed = [b"\xc3(".as_slice(), SMILE_CESU8, b"\xe4\xbd"].concat();
        assert_eq!(decode(&mixed), "\u{fffd}(😀\u{fffd}");
    }
}
