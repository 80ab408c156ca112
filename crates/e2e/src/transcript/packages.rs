//! Reads packages of the binary protocol.
//!
//! By itself, not with our own codec: a mistake there must not hide itself.

use super::item::{Item, shorten};

const HEADER: usize = 4;
const DATA: u8 = 4;
const RESPONSE: u8 = 2;
const PUSH: u8 = 3;

/// Takes a message or a stream apart.
pub(super) fn items(bytes: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = bytes;
    while let Some(&[kind, high, middle, low]) = rest.first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some((body, after)) = rest[HEADER..].split_at_checked(length) else {
            break;
        };
        items.push(item(kind, body));
        rest = after;
    }
    if !rest.is_empty() {
        items.push(Item::whole(rest));
    }
    items
}

fn item(kind: u8, body: &[u8]) -> Item {
    let message = if kind == DATA { body.first().map(|flag| (flag >> 1) & 7) } else { None };
    let is_response = message == Some(RESPONSE);
    let body = if is_response { without_address(body, "") } else { body.to_vec() };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    bytes.extend_from_slice(&body);
    let text = |bytes: &[u8]| shorten(&readable(bytes));
    if is_response && let Some((id, rest)) = leb128(&body[1..]) {
        return Item::answer(i64::try_from(id).unwrap_or(i64::MAX), bytes, &text(rest));
    }
    if message == Some(PUSH) {
        let length = usize::from(*body.get(1).unwrap_or(&0));
        let route = body.get(2..2 + length).unwrap_or_default();
        let rest = body.get(2 + length..).unwrap_or_default();
        let told = chat(rest).unwrap_or_else(|| text(rest));
        return Item::push(bytes, format!("push {} {told}", text(route)));
    }
    let shown = match kind {
        1 => format!("handshake {}", text(&body)),
        3 => "heartbeat".to_owned(),
        5 => format!("kick {}", text(&body)),
        6.. => return Item::whole(&bytes),
        0 | 2 | DATA => format!("package {kind} {}", text(&body)),
    };
    Item::other(bytes, shown)
}

/// Replaces host and port in a gate's answer: ours are others than the original's. `escape`
/// stands before every quotation mark.
pub(super) fn without_address(body: &[u8], escape: &str) -> Vec<u8> {
    let host_before = r#"{"code":200,"host":""#.replace('"', &format!("{escape}\""));
    let port_before = r#"","port":"#.replace('"', &format!("{escape}\""));
    let (host_before, port_before) = (host_before.as_bytes(), port_before.as_bytes());
    let find = |what: &[u8]| body.windows(what.len()).position(|window| window == what);
    let (Some(host), Some(port)) = (find(host_before), find(port_before)) else {
        return body.to_vec();
    };
    let port = port + port_before.len();
    let digits = body[port..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut replaced = body[..host + host_before.len()].to_vec();
    replaced.extend_from_slice(b"H");
    replaced.extend_from_slice(port_before);
    replaced.extend_from_slice(if digits > 0 { b"1" } else { b"" });
    replaced.extend_from_slice(&body[port + digits..]);
    replaced
}

fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Text as it is; what is none, as `\xff`.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text
}

/// The three strings of an `onChat`.
fn chat(mut body: &[u8]) -> Option<String> {
    let mut fields = Vec::new();
    for tag in [0x0a, 0x12, 0x1a] {
        let rest = body.strip_prefix(&[tag])?;
        let (length, rest) = leb128(rest)?;
        let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        fields.push(readable(text));
        body = rest;
    }
    let [text, from, target] = <[String; 3]>::try_from(fields).ok()?;
    Some(format!("\"{text}\" from \"{from}\" to \"{target}\""))
}
