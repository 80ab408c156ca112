//! The client's side of both generations: what a server says, as values, and the wrappings that
//! only a page would take off.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{v1::Packet, v09};
use crate::{RequestId, body::write_string, route};

/// A sign of life of a client of Engine.IO.
pub const PING: Bytes = Bytes::from_static(b"2");
/// Tries a WebSocket; the answer is [`PONG_PROBE`](super::v1::PONG_PROBE).
pub const PROBE: Bytes = Bytes::from_static(b"2probe");
/// Moves the session to the WebSocket that was tried.
pub const UPGRADE: Bytes = Bytes::from_static(b"5");

/// Largest beginning of a script in an HTML file stream that is kept, in bytes.
const SCRIPT_BYTES_MAX: usize = 1 << 24;

/// How a session begins: what the handshake of 0.9 says, and the first packet of Engine.IO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The session's id.
    pub session: String,
    /// How often the client pings. Never in 0.9, where it is the server that asks.
    pub interval: Option<Duration>,
    /// How long the other side may stay silent beyond that.
    pub patience: Duration,
    /// Whether a WebSocket may take over.
    pub has_upgrade: bool,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The session is open. Only Engine.IO says so.
    Opened(Opening),
    /// Requests can be sent.
    Connected,
    /// The answer to a request.
    Answer {
        /// The request's.
        id: RequestId,
        /// Its body.
        body: Value,
    },
    /// Something to hear.
    Push {
        /// What it is.
        route: String,
        /// Its body.
        body: Value,
    },
    /// It ends the session for this reason, empty if it gives none.
    Kick(String),
    /// The session is over.
    End,
}

impl Opening {
    /// Reads the body of the handshake of 0.9.
    #[must_use]
    pub fn from_handshake(body: &str) -> Option<Self> {
        let mut parts = body.split(':');
        let session = parts.next().filter(|id| !id.is_empty())?.to_owned();
        let patience = Duration::from_secs(parts.next()?.parse().ok()?);
        let _ = parts.next()?;
        let has_upgrade = parts.next()?.split(',').any(|transport| transport == "websocket");
        Some(Self { session, interval: None, patience, has_upgrade })
    }

    fn from_open(json: &str) -> Option<Self> {
        let open: Value = serde_json::from_str(json).ok()?;
        let millis = |name| open.get(name).and_then(Value::as_u64).map(Duration::from_millis);
        let upgrades = open.get("upgrades").and_then(Value::as_array);
        Some(Self {
            session: open.get("sid")?.as_str()?.to_owned(),
            interval: Some(millis("pingInterval")?),
            patience: millis("pingTimeout")?,
            has_upgrade: upgrades.into_iter().flatten().any(|it| it == "websocket"),
        })
    }
}

/// Reads a frame of 0.9. What no client needs to know is left out.
#[must_use]
pub fn read_frame(frame: &str) -> Vec<Said> {
    match v09::Frame::decode(frame) {
        v09::Frame::Connect => vec![Said::Connected],
        v09::Frame::Disconnect => vec![Said::End],
        v09::Frame::Message { .. } => {
            let elements = v09::decode_elements(frame).unwrap_or_default();
            let objects = elements.iter().filter_map(|json| serde_json::from_str(json).ok());
            objects.filter_map(|object| said(object, false)).collect()
        }
        // The first parts of this frame say that the session does not exist.
        v09::Frame::Other if frame.as_bytes() == v09::UNKNOWN_SESSION => vec![Said::End],
        v09::Frame::Heartbeat | v09::Frame::Other => Vec::new(),
    }
}

/// Reads a packet of Engine.IO. What no client needs to know is left out.
#[must_use]
pub fn read_packet(packet: &str) -> Option<Said> {
    match Packet::decode(packet).ok()? {
        Packet::Open(json) => Opening::from_open(json).map(Said::Opened),
        Packet::Connect { namespace: "/" } => Some(Said::Connected),
        Packet::Message(content) => said(serde_json::from_str(content.as_text()?).ok()?, true),
        Packet::Disconnect | Packet::Close => Some(Said::End),
        Packet::Ping { .. }
        | Packet::Pong
        | Packet::Upgrade
        | Packet::Noop
        | Packet::Connect { .. }
        | Packet::Error(_)
        | Packet::Other => None,
    }
}

/// An answer or a push. In 0.9 the pushed object is the push; later it is a member of it.
fn said(mut object: Map<String, Value>, is_nested: bool) -> Option<Said> {
    if let Some(id) = object.get("id").and_then(Value::as_u64) {
        let body = object.remove("body").unwrap_or_default();
        return Some(Said::Answer { id: RequestId(id), body });
    }
    let route = object.get("route")?.as_str()?.to_owned();
    if route == route::ON_KICK {
        let reason = object.get("reason").and_then(Value::as_str).unwrap_or_default();
        return Some(Said::Kick(reason.to_owned()));
    }
    let body = if is_nested { object.remove("body")? } else { Value::Object(object) };
    Some(Said::Push { route, body })
}

/// The payload in a script that calls back, of either generation.
#[must_use]
pub fn read_jsonp(script: &str) -> Option<String> {
    let (_, argument) = script.split_once("](")?;
    serde_json::from_str(argument.strip_suffix(");")?).ok()
}

/// The form that a page of 0.9 posts by JSONP: a field `d` with the payload as a JSON string.
#[must_use]
pub fn write_form(payload: &str) -> String {
    let mut json = Vec::with_capacity(payload.len() + 16);
    write_string(&mut json, payload);
    let mut form = String::with_capacity(json.len() + json.len() / 2);
    form.push_str("d=");
    for byte in json {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            form.push(char::from(byte));
        } else {
            form.push('%');
            for digit in [byte >> 4, byte & 0x0f] {
                form.extend(char::from_digit(digit.into(), 16).map(|it| it.to_ascii_uppercase()));
            }
        }
    }
    form
}

/// Cuts the frames out of what has come of an HTML file stream; leaves a script that is not whole
/// yet. False if it can become no script any more.
#[must_use]
pub fn cut_html_file(stream: &mut Vec<u8>, mut on_frame: impl FnMut(&str)) -> bool {
    const BEGIN: &[u8] = b"<script>_(";
    const END: &[u8] = b");</script>";
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|it| it == what);
    let mut used = 0;
    while let Some(begin) = find(&stream[used..], BEGIN) {
        let inside = used + begin + BEGIN.len();
        // A frame holds no such end: whatever begins like a tag is escaped in it.
        let Some(length) = find(&stream[inside..], END) else { break };
        if let Ok(frame) = serde_json::from_slice::<String>(&stream[inside..inside + length]) {
            on_frame(&frame);
        }
        used = inside + length + END.len();
    }
    stream.drain(..used);
    stream.len() <= SCRIPT_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use model::{Content, NameRule, UserName};
    use serde_json::json;

    use super::*;
    use crate::{Push, Reply, socketio::v1};

    fn text(bytes: &[u8]) -> &str {
        str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_both_generations_of_servers_write_is_read() {
        let alice = UserName::parse("张三", &NameRule::default()).unwrap();
        let (content, target) = (Content::Text("你好 😀 \"<b>".into()), Content::Text("*".into()));
        let push = Push::Chat { content: &content, from: &alice, target: &target };
        let flat = json!({"route":"onChat","msg":"你好 😀 \"<b>","from":"张三","target":"*"});
        let heard = Said::Push { route: "onChat".to_owned(), body: flat };
        let answer = Said::Answer { id: RequestId(7), body: json!({"code":500}) };
        let refused = Reply::Refused { code: model::Code::Absent, error: false };

        let frames = [v09::encode_push(&push), v09::encode_reply(RequestId(7), &refused).unwrap()];
        let joined = v09::join(&frames);
        assert_eq!(read_frame(text(&joined[0])), [heard.clone(), answer.clone()]);
        assert_eq!(read_frame(text(&v09::CONNECT)), [Said::Connected]);
        assert_eq!(read_frame(text(&v09::KICK)), [Said::Kick(String::new())]);
        for end in [v09::DISCONNECT, v09::UNKNOWN_SESSION] {
            assert_eq!(read_frame(text(&end)), [Said::End]);
        }
        assert!(read_frame(text(&v09::NOOP)).is_empty());

        assert_eq!(read_packet(text(&v1::encode_push(&push))), Some(heard));
        let packet = v1::encode_reply(RequestId(7), &refused).unwrap();
        assert_eq!(read_packet(text(&packet)), Some(answer));
        assert_eq!(read_packet(text(&v1::CONNECT)), Some(Said::Connected));
        assert_eq!(read_packet(text(&v1::encode_kick("go"))), Some(Said::Kick("go".to_owned())));
        assert_eq!(read_packet(text(&v1::NOOP)), None);
    }

    #[test]
    fn openings_are_read() {
        let patience = Duration::from_secs(60);
        let body = v09::handshake("abc", 60, 60, &["websocket", "xhr-polling"]);
        let opening =
            Opening { session: "abc".to_owned(), interval: None, patience, has_upgrade: true };
        assert_eq!(Opening::from_handshake(&body), Some(opening.clone()));
        let interval = Some(Duration::from_secs(25));
        let opened = Said::Opened(Opening { interval, ..opening });
        let packet = v1::open("abc", &["websocket"], 25_000, 60_000);
        assert_eq!(read_packet(text(&packet)), Some(opened));
        assert_eq!(Opening::from_handshake("not a handshake"), None);
        assert_eq!(read_packet("0{}"), None);
    }

    #[test]
    fn wrappings_come_off_again() {
        let payload = "3:::{\"a\":\"张 </script>\u{2028}\"}";
        let script = v09::encode_jsonp(7, payload);
        assert_eq!(read_jsonp(&script).as_deref(), Some(payload));
        let form = write_form("3:::\0\u{1b}张 😀+&=%");
        assert_eq!(v09::decode_form(&form).as_deref(), Some("3:::\0\u{1b}张 😀+&=%"));
    }

    #[test]
    fn a_stream_of_scripts_may_be_cut_anywhere() {
        let frames = ["1::", "3:::[{\"msg\":\"</script>张);\"}]"];
        let mut page = v09::HTML_FILE_HEAD.as_bytes().to_vec();
        for frame in frames {
            page.extend(v09::encode_html_file(frame).bytes());
        }
        for at in 0..page.len() {
            let (mut seen, mut stream) = (Vec::new(), Vec::new());
            for piece in [&page[..at], &page[at..]] {
                stream.extend_from_slice(piece);
                assert!(cut_html_file(&mut stream, |frame| seen.push(frame.to_owned())));
            }
            assert_eq!(seen, frames, "{at}");
            assert!(stream.is_empty());
        }
    }
}
