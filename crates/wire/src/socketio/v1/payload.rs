//! Payloads: several packets in the body of one HTTP request or response.
//!
//! The *binary* form puts before each packet a byte 0 (text) or 1 (binary), its length in bytes as
//! decimal digits of values 0 to 9, and a byte 255. The *text* form puts `<length>:` before each
//! packet, and encodes twice: each byte of the packet's UTF-8 becomes a character, the length
//! counts those, and HTTP encodes them as UTF-8 again.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::{form_field, split_units};
use crate::body::{self, Sink};

/// A length of more digits than this is a lie.
const LENGTH_DIGITS_MAX: usize = 9;

/// Not a payload. The original dropped it silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no payload of Engine.IO")]
pub struct PayloadError;

/// The binary form.
#[must_use]
pub fn encode_binary(packets: &[Bytes]) -> Bytes {
    let length: usize = packets.iter().map(|packet| packet.len() + 9).sum();
    let mut payload = Vec::with_capacity(length);
    for packet in packets {
        payload.push(0);
        let digits_from = payload.len();
        body::write_number(&mut payload, packet.len() as u64);
        for digit in &mut payload[digits_from..] {
            *digit -= b'0';
        }
        payload.push(255);
        payload.extend_from_slice(packet);
    }
    payload.into()
}

/// The text form, for clients that ask with `b64=1`.
#[must_use]
pub fn encode_text(packets: &[Bytes]) -> Bytes {
    let length: usize = packets.iter().map(|packet| packet.len() + packet.len() / 4 + 8).sum();
    let mut payload = Vec::with_capacity(length);
    for packet in packets {
        body::write_number(&mut payload, packet.len() as u64);
        payload.text(":");
        for &byte in packet {
            if byte < 0x80 {
                payload.push(byte);
            } else {
                payload.extend_from_slice(&[0xc0 | (byte >> 6), 0x80 | (byte & 0x3f)]);
            }
        }
    }
    payload.into()
}

/// The script that carries a text payload to a page by JSONP.
#[must_use]
pub fn encode_jsonp(index: u32, packets: &[Bytes]) -> Bytes {
    let payload = encode_text(packets);
    let payload = String::from_utf8_lossy(&payload);
    let mut script = Vec::with_capacity(payload.len() + payload.len() / 4 + 24);
    script.text("___eio[");
    body::write_number(&mut script, index.into());
    script.text("](");
    // Text of this form has no character past 255, so none that ends a line in script only.
    body::write_string(&mut script, &payload);
    script.text(");");
    script.into()
}

/// Cuts a binary payload into the texts of its packets. Binary packets, which pomelo never used,
/// are left out.
///
/// # Errors
///
/// If a length is wrong or missing.
pub fn decode_binary(payload: &[u8]) -> Result<Vec<Cow<'_, str>>, PayloadError> {
    let mut packets = Vec::new();
    let mut rest = payload;
    while let Some((&kind, after)) = rest.split_first() {
        let digits = after.iter().take(LENGTH_DIGITS_MAX + 1).take_while(|byte| **byte != 255);
        let mut length = 0;
        let mut count = 0;
        for &digit in digits {
            if digit > 9 {
                return Err(PayloadError);
            }
            length = length * 10 + usize::from(digit);
            count += 1;
        }
        if count == 0 || count > LENGTH_DIGITS_MAX || after.get(count) != Some(&255) {
            return Err(PayloadError);
        }
        let (packet, after) = after[count + 1..].split_at_checked(length).ok_or(PayloadError)?;
        match kind {
            0 => packets.push(String::from_utf8_lossy(packet)),
            1 => {}
            _ => return Err(PayloadError),
        }
        rest = after;
    }
    Ok(packets)
}

/// Cuts a text payload into its packets. Packets of base64, which pomelo never used, are left out.
///
/// Text that was encoded only once, by clients that know no better, is taken as it is.
///
/// # Errors
///
/// If a length is wrong or missing.
pub fn decode_text(payload: &str) -> Result<Vec<Cow<'_, str>>, PayloadError> {
    let mut packets = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (length, after) = rest.split_once(':').ok_or(PayloadError)?;
        if length.is_empty()
            || length.len() > LENGTH_DIGITS_MAX
            || !length.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(PayloadError);
        }
        let length = length.parse().map_err(|_| PayloadError)?;
        let (packet, after) = split_units(after, length).ok_or(PayloadError)?;
        if !packet.starts_with('b') {
            packets.push(decode_twice(packet));
        }
        rest = after;
    }
    Ok(packets)
}

/// The text payload in the body of a JSONP post: a form whose field `d` has the payload, with
/// line ends written as `\n` and what looked like one before as `\\n`.
///
/// # Errors
///
/// If it is no form of that kind.
pub fn decode_form(form: &str) -> Result<String, PayloadError> {
    let field = form_field(form, "d").ok_or(PayloadError)?;
    let mut payload = String::with_capacity(field.len());
    let mut rest = field.as_str();
    while let Some(at) = rest.find("\\n") {
        let (before, after) = rest.split_at(at);
        match before.strip_suffix('\\') {
            Some(before) => {
                payload.push_str(before);
                payload.push_str("\\n");
            }
            None => {
                payload.push_str(before);
                payload.push('\n');
            }
        }
        rest = &after[2..];
    }
    payload.push_str(rest);
    Ok(payload)
}

/// Turns characters that are bytes back into the text whose UTF-8 they are.
fn decode_twice(packet: &str) -> Cow<'_, str> {
    if packet.is_ascii() {
        return Cow::Borrowed(packet);
    }
    let mut bytes = Vec::with_capacity(packet.len());
    for char in packet.chars() {
        match u8::try_from(u32::from(char)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => return Cow::Borrowed(packet),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn the_binary_form_counts_bytes_in_digits() {
        let payload = encode_binary(&packets(&["40", "4 and 张"]));
        assert_eq!(payload, b"\0\x02\xff40\0\x09\xff4 and \xe5\xbc\xa0"[..]);
        assert_eq!(decode_binary(&payload).unwrap(), ["40", "4 and 张"]);
        let long = encode_binary(&[Bytes::from(vec![b'4'; 120])]);
        assert_eq!(long[..5], [0, 1, 2, 0, 255]);
    }

    #[test]
    fn the_text_form_encodes_twice() {
        let payload = encode_text(&packets(&["40", "4张"]));
        assert_eq!(payload, "2:404:4å¼\u{a0}".as_bytes());
        let text = str::from_utf8(&payload).unwrap();
        assert_eq!(decode_text(text).unwrap(), ["40", "4张"]);
        // A client that encodes once counts characters.
        assert_eq!(decode_text("2:4张").unwrap(), ["4张"]);
        assert_eq!(decode_text("3:4😀").unwrap(), ["4😀"]);
    }

    #[test]
    fn binary_packets_are_left_out() {
        assert_eq!(decode_binary(b"\x01\x02\xff\x04x\0\x01\xff2").unwrap(), ["2"]);
        assert_eq!(decode_text("4:b4eA1:2").unwrap(), ["2"]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for payload in [
            &b"\0"[..],
            b"\0\xff",
            b"\0\x02",
            b"\0\x02\xff4",
            b"\0\x0a\xff4",
            b"\x02\x01\xff4",
            b"\0\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff",
        ] {
            assert_eq!(decode_binary(payload), Err(PayloadError));
        }
        for payload in ["x", ":", "1:", "2:4", "-1:4", "+1:4", "9999999999:4", "1:😀"] {
            assert_eq!(decode_text(payload), Err(PayloadError), "{payload}");
        }
        assert_eq!(decode_text("").unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn jsonp_carries_the_text_form() {
        let script = encode_jsonp(0, &packets(&["42[\"x\"]", "4é"]));
        let expected = "___eio[0](\"7:42[\\\"x\\\"]3:4\u{c3}\u{a9}\");";
        assert_eq!(script, expected.as_bytes());
        assert_eq!(decode_form("d=3%3A4%5Cnx").unwrap(), "3:4\nx");
        assert_eq!(decode_form("d=4%3A4%5C%5Cnx").unwrap(), "4:4\\nx");
        assert_eq!(decode_form("e=1"), Err(PayloadError));
    }
}
