//! Socket.IO 0.9: frames of text, `type ':' [id ['+']] ':' [endpoint] [':' data]`.
//!
//! The server speaks in arrays, `3:::[…]`, each element a reply `{"id":…,"body":…}` or a pushed
//! object. [`encode_reply`] and [`encode_push`] make arrays of one; [`join`] makes one array of
//! those that leave together, as the original's flush every 20 ms did.

use std::borrow::Cow;

use bytes::Bytes;

use super::{form_field, request::Request, split_units};
use crate::{
    Call, Push, Reply, RequestId, Stamp,
    body::{self, Escaped, Sink},
    pomelo::modern,
};

/// The server's first frame.
pub const CONNECT: Bytes = Bytes::from_static(b"1::");
/// A sign of life. The server begins; the client answers the same.
pub const HEARTBEAT: Bytes = Bytes::from_static(b"2::");
/// The end, from either side; answered the same.
pub const DISCONNECT: Bytes = Bytes::from_static(b"0::");
/// Nothing: what a poll returns after a while without anything.
pub const NOOP: Bytes = Bytes::from_static(b"8::");
/// The answer to a session id that is not known.
pub const UNKNOWN_SESSION: Bytes = Bytes::from_static(b"7:::1+0");
/// The notice before [`DISCONNECT`]. This generation gives no reason.
pub const KICK: Bytes = Bytes::from_static(br#"3:::{"route":"onKick"}"#);
/// What an HTML file stream begins with, padded so that browsers of the time begin to read.
pub const HTML_FILE_HEAD: &str = concat!(
    "<html><body>",
    "<script>var _ = function (msg) { parent.s._(msg, document); };</script>",
    "                                                                                ",
    "                                                                                ",
    "             ",
);

const MESSAGE: &str = "3:::";
const ARRAY: &str = "3:::[";
const DELIMITER: char = '\u{fffd}';

/// What a client's frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// It leaves.
    Disconnect,
    /// It says that it is there; the server answers [`CONNECT`].
    Connect,
    /// It lives.
    Heartbeat,
    /// It sends a request string.
    Message {
        /// To be read by [`decode_call`].
        text: &'a str,
        /// To be answered with an [`acknowledgement`] at once.
        ack: Option<&'a str>,
    },
    /// Something that pomelo never used, or no frame at all. The original ignored it.
    Other,
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    #[must_use]
    pub fn decode(frame: &'a str) -> Self {
        let mut parts = frame.splitn(4, ':');
        let (kind, id) = (parts.next().unwrap_or_default(), parts.next());
        let (endpoint, data) = (parts.next(), parts.next().unwrap_or_default());
        let (Some(id), Some(endpoint)) = (id, endpoint) else {
            return Self::Other;
        };
        match kind {
            // A heartbeat belongs to the connection, whatever endpoint it names.
            "2" => Self::Heartbeat,
            _ if !endpoint.is_empty() => Self::Other,
            "0" => Self::Disconnect,
            "1" => Self::Connect,
            "3" => {
                let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
                Self::Message { text: data, ack: is_id.then_some(id) }
            }
            _ => Self::Other,
        }
    }
}

/// Reads the text of a message. `None` if it is too short to be a request; the original ignored it.
///
/// This generation does not spread arrays over a handler's arguments.
#[must_use]
pub fn decode_call(text: &str) -> Option<(RequestId, Call)> {
    let request = Request::decode(text)?;
    Some(request.call(request.json))
}

/// The frame that acknowledges a message. Only that it arrived, not what came of it.
#[must_use]
pub fn acknowledgement(id: &str) -> Bytes {
    format!("6:::{id}").into()
}

/// Encodes a push as a frame with an array of one.
#[must_use]
pub fn encode_push(push: &Push<'_>) -> Bytes {
    array(push.json_len_hint(), |frame| push.write_json(frame))
}

/// The same for a client that knows Tangelo, with where it stands.
#[must_use]
pub fn encode_modern_push(push: &Push<'_>, stamp: Option<Stamp<'_>>) -> Bytes {
    array(64 + push.json_len_hint(), |frame| modern::write_push(frame, push, stamp))
}

/// Encodes a reply as a frame with an array of one. `None` for a notify.
#[must_use]
pub fn encode_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    answer(id, reply, |frame| reply.write_json(frame))
}

/// The same for a client that knows Tangelo.
#[must_use]
pub fn encode_modern_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    answer(id, reply, |frame| modern::write_reply(frame, reply))
}

fn answer(id: RequestId, reply: &Reply, write: impl FnOnce(&mut Vec<u8>)) -> Option<Bytes> {
    if id.is_notify() {
        return None;
    }
    Some(array(reply.json_len_hint() + 28, |frame| {
        frame.text("{\"id\":");
        body::write_number(frame, id.0);
        frame.text(",\"body\":");
        write(frame);
        frame.text("}");
    }))
}

fn array(len_hint: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::with_capacity(ARRAY.len() + len_hint + 1);
    frame.text(ARRAY);
    write(&mut frame);
    frame.text("]");
    frame.into()
}

/// Joins neighbouring arrays among `frames` into one, in order; other frames stay by themselves.
#[must_use]
pub fn join(frames: &[Bytes]) -> Vec<Bytes> {
    let mut joined = Vec::new();
    for run in frames.chunk_by(|a, b| elements(a).is_some() && elements(b).is_some()) {
        if let [single] = run {
            joined.push(single.clone());
            continue;
        }
        let length: usize = run.iter().map(Bytes::len).sum();
        let mut frame = Vec::with_capacity(length);
        frame.text(ARRAY);
        for (at, array) in run.iter().filter_map(elements).enumerate() {
            if at > 0 {
                frame.text(",");
            }
            frame.extend_from_slice(array);
        }
        frame.text("]");
        joined.push(frame.into());
    }
    joined
}

/// What stands between the brackets of a frame that is a non-empty array.
fn elements(frame: &Bytes) -> Option<&[u8]> {
    let inner = frame.strip_prefix(ARRAY.as_bytes())?.strip_suffix(b"]")?;
    (!inner.is_empty()).then_some(inner)
}

/// The body of the HTTP handshake: session id, heartbeat and close timeouts in seconds, and the
/// transports on offer, best first.
#[must_use]
pub fn handshake(session: &str, heartbeat: u64, close: u64, transports: &[&str]) -> String {
    format!("{session}:{heartbeat}:{close}:{}", transports.join(","))
}

/// The body of a poll: one frame as it is, several each preceded by its length.
#[must_use]
pub fn encode_payload(frames: &[&str]) -> String {
    if let [single] = frames {
        return (*single).to_owned();
    }
    let length: usize = frames.iter().map(|frame| frame.len() + 12).sum();
    let mut payload = String::with_capacity(length);
    for frame in frames {
        payload.push(DELIMITER);
        payload.push_str(&frame.encode_utf16().count().to_string());
        payload.push(DELIMITER);
        payload.push_str(frame);
    }
    payload
}

/// Cuts the body of a post into its frames. A length that is no number or too large ends it.
pub fn decode_payload(payload: &str) -> impl Iterator<Item = &str> {
    let mut rest = payload;
    let is_single = !payload.starts_with(DELIMITER);
    std::iter::from_fn(move || {
        if is_single {
            return (!rest.is_empty()).then(|| std::mem::take(&mut rest));
        }
        let (length, frame) = rest.strip_prefix(DELIMITER)?.split_once(DELIMITER)?;
        let (frame, after) = split_units(frame, length.parse().ok()?)?;
        rest = after;
        Some(frame)
    })
}

/// The script that carries a payload to a page by JSONP.
#[must_use]
pub fn encode_jsonp(index: u32, payload: &str) -> String {
    let mut script = Vec::with_capacity(payload.len() + payload.len() / 8 + 24);
    script.text("io.j[");
    body::write_number(&mut script, index.into());
    script.text("](");
    write_script_string(&mut script, payload);
    script.text(");");
    String::from_utf8(script).unwrap_or_default()
}

/// The script that carries a frame to a page through an HTML file stream.
#[must_use]
pub fn encode_html_file(frame: &str) -> String {
    let mut script = Vec::with_capacity(frame.len() + frame.len() / 8 + 28);
    script.text("<script>_(");
    write_script_string(&mut script, frame);
    script.text(");</script>");
    String::from_utf8(script).unwrap_or_default()
}

/// The payload in the body of a JSONP post: a form whose field `d` is a JSON string. `None` if it
/// is something else.
#[must_use]
pub fn decode_form(form: &str) -> Option<String> {
    let field = form_field(form, "d")?;
    serde_json::from_str(&field).ok()
}

/// Writes a string that is safe as JSON, as script and inside of HTML.
fn write_script_string(out: &mut Vec<u8>, text: &str) {
    struct Script<'a>(&'a mut Vec<u8>);
    impl Sink for Script<'_> {
        fn text(&mut self, text: &str) {
            let mut clean_from = 0;
            for (at, char) in text.match_indices(['<', '\u{2028}', '\u{2029}']) {
                self.0.text(&text[clean_from..at]);
                self.0.text(match char {
                    "<" => "\\u003c",
                    "\u{2028}" => "\\u2028",
                    _ => "\\u2029",
                });
                clean_from = at + char.len();
            }
            self.0.text(&text[clean_from..]);
        }
    }
    out.text("\"");
    Escaped(&mut Script(out)).text(text);
    out.text("\"");
}

/// Encodes a request as a client's message frame, or a notify. `None` if it does not fit.
#[must_use]
pub fn encode_request(request: &Request<'_>) -> Option<Bytes> {
    let mut frame =
        Vec::with_capacity(MESSAGE.len() + 10 + request.route.len() + request.json.len());
    frame.text(MESSAGE);
    request.encode(&mut frame)?;
    Some(frame.into())
}

/// What a server's message frame holds: the JSON texts of replies and pushes, in order.
///
/// A bare object counts as an array of one. `None` if it is neither.
#[must_use]
pub fn decode_elements(frame: &str) -> Option<Vec<Cow<'_, str>>> {
    let json = frame.strip_prefix(MESSAGE)?;
    if !body::depth_is_within(json, model::limits::JSON_DEPTH_MAX) {
        return None;
    }
    if json.starts_with('[') {
        let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).ok()?;
        return Some(elements.into_iter().map(|it| Cow::Borrowed(it.get())).collect());
    }
    let object: &serde_json::value::RawValue = serde_json::from_str(json).ok()?;
    Some(vec![Cow::Borrowed(object.get())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Content, UserName};

    fn texts(frames: &[Bytes]) -> Vec<&str> {
        frames.iter().map(|frame| str::from_utf8(frame).unwrap()).collect()
    }

    #[test]
    fn frames_are_told_apart_as_the_original_did() {
        let message = |text, ack| Frame::Message { text, ack };
        for (frame, expected) in [
            ("0::", Frame::Disconnect),
            ("0", Frame::Other),
            ("0::/nsp", Frame::Other),
            ("1::", Frame::Connect),
            ("1::/nsp", Frame::Other),
            ("2::", Frame::Heartbeat),
            ("3:::a:b::c", message("a:b::c", None)),
            ("3:::", message("", None)),
            ("3:1::x", message("x", Some("1"))),
            ("3:1+::x", message("x", None)),
            ("3::/nsp:x", Frame::Other),
            ("4:::{}", Frame::Other),
            ("5:::{\"name\":\"message\",\"args\":[\"x\"]}", Frame::Other),
            ("6:::1+[]", Frame::Other),
            ("7:::x", Frame::Other),
            ("8::", Frame::Other),
            ("9::", Frame::Other),
            ("hello", Frame::Other),
            ("", Frame::Other),
        ] {
            assert_eq!(Frame::decode(frame), expected, "{frame}");
        }
        assert_eq!(acknowledgement("1"), "6:::1");
    }

    #[test]
    fn arrays_are_not_spread_over_arguments() {
        let call = decode_call("\0\0\0\u{1}\u{1c}connector.entryHandler.enter[{\"rid\":\"r\"}]");
        let missing = Content::Missing;
        let enter = Call::Enter {
            username: missing.clone(),
            rid: missing.clone(),
            resume: missing.clone(),
            tangelo: missing,
        };
        assert_eq!(call, Some((RequestId(1), enter)));
    }

    #[test]
    fn what_leaves_together_is_one_array() {
        let user = UserName::from_peer("bob").unwrap();
        let push = encode_push(&Push::Add { user: &user });
        let reply = encode_reply(RequestId(9), &Reply::Done).unwrap();
        let frames = [push.clone(), reply, HEARTBEAT, KICK, push.clone(), DISCONNECT];
        assert_eq!(
            texts(&join(&frames)),
            [
                r#"3:::[{"route":"onAdd","user":"bob"},{"id":9,"body":{}}]"#,
                "2::",
                r#"3:::{"route":"onKick"}"#,
                r#"3:::[{"route":"onAdd","user":"bob"}]"#,
                "0::",
            ]
        );
        assert_eq!(join(&[]), Vec::<Bytes>::new());
        assert_eq!(encode_reply(RequestId::NOTIFY, &Reply::Done), None);
    }

    #[test]
    fn payloads_count_utf16_units() {
        assert_eq!(encode_payload(&["1::"]), "1::");
        let several = encode_payload(&["3:::😀", "2::"]);
        assert_eq!(several, "\u{fffd}6\u{fffd}3:::😀\u{fffd}3\u{fffd}2::");
        assert_eq!(decode_payload(&several).collect::<Vec<_>>(), ["3:::😀", "2::"]);
        assert_eq!(decode_payload("1::").collect::<Vec<_>>(), ["1::"]);
        assert_eq!(decode_payload("").count(), 0);
    }

    #[test]
    fn a_wrong_length_ends_a_payload() {
        for payload in [
            "\u{fffd}9\u{fffd}2::",
            "\u{fffd}x\u{fffd}2::",
            "\u{fffd}-1\u{fffd}2::",
            "\u{fffd}",
            "\u{fffd}1\u{fffd}😀",
        ] {
            assert_eq!(decode_payload(payload).count(), 0, "{payload}");
        }
        let once = decode_payload("\u{fffd}3\u{fffd}2::\u{fffd}9\u{fffd}2::");
        assert_eq!(once.collect::<Vec<_>>(), ["2::"]);
    }

    #[test]
    fn scripts_have_the_originals_form_and_cannot_be_left() {
        assert_eq!(encode_jsonp(0, "1::"), r#"io.j[0]("1::");"#);
        let jsonp = encode_jsonp(3, "</script>\u{2028}\"");
        assert_eq!(jsonp, r#"io.j[3]("\u003c/script>\u2028\"");"#);
        assert_eq!(encode_html_file("1::"), r#"<script>_("1::");</script>"#);
        assert_eq!(HTML_FILE_HEAD.len() - HTML_FILE_HEAD.trim_end().len(), 173);
    }

    #[test]
    fn a_form_holds_a_json_string() {
        let form = "d=%223%3A%3A%3A%5Cu0000+%5C%22%7D%E5%BC%A0%22";
        assert_eq!(decode_form(form).as_deref(), Some("3:::\0 \"}张"));
        assert_eq!(decode_form("x=1&d=%22a%22").as_deref(), Some("a"));
        for wrong in ["", "d=", "d=a", "e=%22a%22", "d=%22a", "d=%"] {
            assert_eq!(decode_form(wrong), None);
        }
    }

    #[test]
    fn the_handshake_offers_transports() {
        let body = handshake("lukv", 60, 60, &["websocket", "xhr-polling"]);
        assert_eq!(body, "lukv:60:60:websocket,xhr-polling");
    }

    #[test]
    fn a_server_frame_is_an_array_or_one_object() {
        let elements = decode_elements(r#"3:::[{"id":2,"body":{}},{"route":"onAdd"}]"#);
        assert_eq!(elements.unwrap(), [r#"{"id":2,"body":{}}"#, r#"{"route":"onAdd"}"#]);
        assert_eq!(decode_elements("3:::{}").unwrap(), ["{}"]);
        assert_eq!(decode_elements("2::"), None);
        assert_eq!(decode_elements("3:::nonsense"), None);
    }
}
