//! The two generations of Socket.IO that chatofpomelo's pages spoke.
//!
//! Both carry the same request, a string that packs id, route and body ([`request`]), and answer
//! with JSON. They differ in everything around it: [`v09`] frames text with colons and batches
//! into arrays, [`v1`] sends events inside Engine.IO packets.

pub mod client;
pub mod request;
pub mod v09;
pub mod v1;

use crate::pomelo::text;

/// A field of a form as browsers post it, decoded.
fn form_field(form: &str, name: &str) -> Option<String> {
    let encoded = form.split('&').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match hex_byte(after) {
                Some(byte) => {
                    rest = &after[2..];
                    byte
                }
                None => b'%',
            },
            byte => byte,
        });
    }
    Some(text::decode(&bytes).into_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Splits text after exactly so many UTF-16 units, which is how JavaScript measures text. `None`
/// if it has fewer, or a character of two units straddles the cut.
fn split_units(text: &str, units: usize) -> Option<(&str, &str)> {
    let mut left = units;
    for (at, char) in text.char_indices() {
        if left == 0 {
            return Some(text.split_at(at));
        }
        left = left.checked_sub(char.len_utf16())?;
    }
    (left == 0).then_some((text, ""))
}
