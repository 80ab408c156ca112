//! Reads what a server of Socket.IO says, of both generations.
//!
//! By itself, not with our own codec: a mistake there must not hide itself.

pub(super) mod v09;
pub(super) mod v1;

use super::{compare::Difference, item::Item};

/// Before a session id in the first packet of the newer generation.
const SID_BEFORE: &str = r#""sid":""#;
/// The same inside of a script's string.
const SID_IN_SCRIPT_BEFORE: &str = r#"\"sid\":\""#;
/// Before one in its cookie.
const COOKIE_BEFORE: &str = "io=";
/// What stands for every session id.
const SID: &str = "SID";

fn is_sid(text: &str) -> bool {
    let is_its = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() == 20 && text.bytes().all(is_its)
}

/// The session id in the target of a request.
pub(super) fn sid_in_target(target: &str) -> Option<&str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let in_query = query.split('&').find_map(|pair| pair.strip_prefix("sid="));
    let in_path = || path.strip_prefix("/socket.io/1/")?.split('/').nth(1);
    in_query.or_else(in_path).filter(|sid| is_sid(sid))
}

/// The session id that a server gives out in answer to a request.
pub(super) fn sid_in_answer(target: &str, body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let sid = if target.starts_with("/socket.io/1/") {
        let rest = body.split_once("(\"").map_or(&*body, |(_, rest)| rest);
        rest.split(':').next()
    } else {
        body.split_once(SID_BEFORE).and_then(|(_, rest)| rest.split('"').next())
    };
    sid.filter(|sid| is_sid(sid)).map(str::to_owned)
}

/// Whether a client that sends this leaves, in either generation.
pub(super) fn leaves(text: &str) -> bool {
    ["0::", "41", "1"].contains(&text)
}

/// Whether a difference is about what a server says to a client that leaves.
pub(super) fn answers_leaving(difference: &Difference) -> bool {
    let what = &difference.what;
    what.contains("\"0::\"") || what.contains("client namespace disconnect")
}

/// A server's text with the session id taken out.
pub(super) fn without_sid(text: &str) -> String {
    let after = |before: &str| text.find(before).map(|at| at + before.len());
    let at = after(SID_BEFORE)
        .or_else(|| after(SID_IN_SCRIPT_BEFORE))
        .or_else(|| text.starts_with(COOKIE_BEFORE).then_some(COOKIE_BEFORE.len()))
        .or_else(|| text.starts_with("io.j[").then(|| after("(\"")).flatten())
        .unwrap_or(0);
    let rest = &text[at..];
    let length = rest.find(['"', '\\', ';', ':']).unwrap_or(rest.len());
    if is_sid(&rest[..length]) {
        format!("{}{SID}{}", &text[..at], &rest[length..])
    } else {
        text.to_owned()
    }
}

/// What a server of either generation says in JSON: an answer, or a push. `bytes`: as it is
/// compared.
fn said(json: &str, bytes: Vec<u8>) -> Item {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    if let Some(id) = value.get("id").and_then(serde_json::Value::as_i64) {
        let body = json.strip_prefix(&format!("{{\"id\":{id},\"body\":"));
        let body = body.and_then(|body| body.strip_suffix('}'));
        return Item::answer(id, bytes, &super::item::shorten(body.unwrap_or(json)));
    }
    let shown = super::item::shorten(json);
    match value.get("route").and_then(serde_json::Value::as_str) {
        Some(route) => Item::push(bytes, format!("push {route} {shown}")),
        None => Item::other(bytes, format!("message {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IT: &str = "i7mEnxZIIXTbZu2jAAAA";

    #[test]
    fn session_ids_are_found() {
        let old = format!("/socket.io/1/xhr-polling/{IT}?t=1");
        assert_eq!(sid_in_target(&old), Some(IT));
        let new = format!("/socket.io/?EIO=3&transport=polling&sid={IT}");
        assert_eq!(sid_in_target(&new), Some(IT));
        assert_eq!(sid_in_target("/socket.io/1/websocket/nosuchsid"), None);
        assert_eq!(sid_in_target("/socket.io/1/?t=1"), None);
        let told = format!("io.j[0](\"{IT}:60:60:websocket\");");
        assert_eq!(sid_in_answer("/socket.io/1/?jsonp=0", told.as_bytes()).unwrap(), IT);
        let told = format!("97:0{{\"sid\":\"{IT}\",\"upgrades\":[]}}");
        assert_eq!(sid_in_answer("/socket.io/?EIO=3", told.as_bytes()).unwrap(), IT);
    }

    #[test]
    fn session_ids_do_not_count() {
        assert_eq!(without_sid(&format!("{IT}:60:60:websocket")), "SID:60:60:websocket");
        assert_eq!(without_sid(&format!("io.j[0](\"{IT}:60\");")), "io.j[0](\"SID:60\");");
        assert_eq!(without_sid(&format!("io={IT}; Path=/")), "io=SID; Path=/");
        assert_eq!(without_sid(&format!("0{{\"sid\":\"{IT}\"}}")), "0{\"sid\":\"SID\"}");
        // One that no original would have given out does.
        assert_eq!(without_sid("short:60:60"), "short:60:60");
    }
}
