//! Packets of 1.x: one per WebSocket message, or several in a poll's payload.

use super::{
    super::{
        item::{Item, shorten},
        packages::without_address,
    },
    said, without_sid,
};

/// After the decimal length in a binary payload.
const LENGTH_END: u8 = 0xff;

/// What a packet says.
pub(in super::super) fn item(packet: &str) -> Item {
    let bytes = without_address(without_sid(packet).as_bytes(), "\\");
    let event = packet.strip_prefix("42").map(serde_json::from_str::<Vec<serde_json::Value>>);
    if let Some(Ok(event)) = event
        && let [serde_json::Value::String(name), serde_json::Value::String(json)] = &*event
        && name == "message"
    {
        let json = without_address(json.as_bytes(), "");
        return said(&String::from_utf8_lossy(&json), bytes);
    }
    let shown = shorten(&String::from_utf8_lossy(&bytes));
    Item::other(bytes, format!("packet {shown}"))
}

/// The body of a poll's answer.
pub(in super::super) fn payload(body: &[u8]) -> Vec<Item> {
    match packets(body) {
        Some(packets) => packets.iter().map(|packet| item(packet)).collect(),
        None => vec![Item::whole(body)],
    }
}

/// The body of an answer that opens a session, for people and to be compared.
pub(in super::super) fn shown_payload(body: &[u8]) -> String {
    packets(body).map_or_else(|| String::from_utf8_lossy(body).into_owned(), |it| it.concat())
}

fn packets(body: &[u8]) -> Option<Vec<String>> {
    let is_binary = matches!(body.first(), Some(0 | 1));
    if is_binary { binary(body) } else { text(std::str::from_utf8(body).ok()?) }
}

/// A zero for text, the length in bytes with a digit per byte, an end, the packet.
fn binary(mut body: &[u8]) -> Option<Vec<String>> {
    let mut packets = Vec::new();
    while let Some((0, rest)) = body.split_first() {
        let digits = rest.iter().position(|byte| *byte == LENGTH_END)?;
        let length = rest[..digits].iter().try_fold(0_usize, |length, digit| {
            (*digit < 10).then(|| length * 10 + usize::from(*digit))
        })?;
        let (packet, after) = rest[digits + 1..].split_at_checked(length)?;
        packets.push(String::from_utf8(packet.to_vec()).ok()?);
        body = after;
    }
    body.is_empty().then_some(packets)
}

/// The length, a colon, the packet; each byte of it is a character of its own.
fn text(mut body: &str) -> Option<Vec<String>> {
    let mut packets = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_once(':')?;
        let length: usize = length.parse().ok()?;
        let packet: Vec<char> = rest.chars().take(length).collect();
        body = &rest[packet.iter().map(|char| char.len_utf8()).sum()..];
        let bytes: Result<Vec<u8>, _> = packet.into_iter().map(u8::try_from).collect();
        packets.push(String::from_utf8(bytes.ok()?).ok()?);
    }
    Some(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_pushes_are_told_apart() {
        let answer = item(r#"42["message","{\"id\":2,\"body\":{\"code\":500}}"]"#);
        assert_eq!(answer.to_string(), r#"answer 2 {"code":500}"#);
        let push = item(r#"42["message","{\"route\":\"onKick\",\"reason\":\"kick\"}"]"#);
        assert_eq!(push.to_string(), r#"push onKick {"route":"onKick","reason":"kick"}"#);
        assert_eq!(item("40").to_string(), "packet 40");
    }

    #[test]
    fn addresses_and_session_ids_do_not_count() {
        let told = |host, port| {
            let body = format!(r#"{{\"code\":200,\"host\":\"{host}\",\"port\":{port}}}"#);
            item(&format!(r#"42["message","{{\"id\":2,\"body\":{body}}}"]"#))
        };
        assert_eq!(told("127.0.0.1", 3050), told("localhost", 23050));
        let open = |sid| item(&format!(r#"0{{"sid":"{sid}","upgrades":[]}}"#));
        assert_eq!(open("i7mEnxZIIXTbZu2jAAAA"), open("FrmtwTIdcEaqH5agAAAB"));
    }

    #[test]
    fn payloads_are_read_in_both_forms() {
        assert_eq!(payload(b"\0\x02\xff40\0\x01\xff6"), [item("40"), item("6")]);
        assert_eq!(payload("2:404:4\u{e5}\u{bc}\u{a0}".as_bytes()), [item("40"), item("4张")]);
        assert_eq!(payload(b"nonsense").len(), 1);
    }
}
