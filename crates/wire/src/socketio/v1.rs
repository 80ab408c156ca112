//! Socket.IO 1.x and 2.x: events inside packets of Engine.IO 3.
//!
//! An Engine.IO packet is text whose first character is its type. Type `4` carries Socket.IO,
//! again a type, then data. Requests are the event `42["message","<request string>"]`; replies
//! and pushes are the same event, with JSON in the string. On WebSocket a packet is a text
//! message; on polling several make a [`payload`].

pub mod payload;

use bytes::Bytes;
use model::{Content, limits};

use super::request::Request;
use crate::{
    Call, Push, Reply, RequestId, Stamp,
    body::{self, Escaped, Sink},
    pomelo::modern,
    route,
};

/// Socket.IO: connected. The server's second packet.
pub const CONNECT: Bytes = Bytes::from_static(b"40");
/// Socket.IO: the end, from either side.
pub const DISCONNECT: Bytes = Bytes::from_static(b"41");
/// Engine.IO: the end.
pub const CLOSE: Bytes = Bytes::from_static(b"1");
/// The answer to a client's ping.
pub const PONG: Bytes = Bytes::from_static(b"3");
/// The answer to the ping that tries a WebSocket before the upgrade.
pub const PONG_PROBE: Bytes = Bytes::from_static(b"3probe");
/// Releases a waiting poll when the session moves to WebSocket.
pub const NOOP: Bytes = Bytes::from_static(b"6");

const EVENT: &str = "42[\"message\",\"";
const EVENT_END: &str = "\"]";

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The server's first; a client has no business with it.
    Open(&'a str),
    /// The connection ends.
    Close,
    /// A sign of life, to be answered with [`PONG`], or with [`PONG_PROBE`] if it is a probe.
    Ping {
        /// Tries whether a WebSocket works.
        is_probe: bool,
    },
    /// The answer to a ping.
    Pong,
    /// Moves the session to this WebSocket.
    Upgrade,
    /// Nothing.
    Noop,
    /// Socket.IO: connects to a namespace. Only the default one exists, and it is connected
    /// already; others get [`invalid_namespace`].
    Connect {
        /// `/` is the default.
        namespace: &'a str,
    },
    /// Socket.IO: leaves.
    Disconnect,
    /// Socket.IO: the event `message` with a string: a request from a client (see
    /// [`decode_call`]), JSON from a server.
    Message(Content),
    /// Socket.IO: an error. The original kicked the client that sent one.
    Error(&'a str),
    /// Socket.IO that pomelo never used, or that cannot be read. The original ignored it.
    Other,
}

/// Not a packet of Engine.IO, or one of Socket.IO without a type. The original closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no packet of Engine.IO")]
pub struct PacketError;

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// If it is none; the original closed the connection.
    pub fn decode(packet: &'a str) -> Result<Self, PacketError> {
        let (kind, data) = packet.split_at_checked(1).ok_or(PacketError)?;
        Ok(match kind {
            "0" => Self::Open(data),
            "1" => Self::Close,
            "2" => Self::Ping { is_probe: data == "probe" },
            "3" => Self::Pong,
            "4" if data.is_empty() => return Err(PacketError),
            "4" => Self::decode_socket_io(data),
            "5" => Self::Upgrade,
            "6" => Self::Noop,
            _ => return Err(PacketError),
        })
    }

    fn decode_socket_io(packet: &'a str) -> Self {
        let Some((kind, rest)) = packet.split_at_checked(1) else {
            return Self::Other;
        };
        let (namespace, rest) = split_namespace(rest);
        if kind == "0" {
            return Self::Connect { namespace };
        }
        if namespace != "/" {
            return Self::Other;
        }
        match kind {
            "1" => Self::Disconnect,
            "2" => {
                // The id of an acknowledgement that nobody here would give.
                let json = rest.trim_start_matches(|char: char| char.is_ascii_digit());
                message_of(json).map_or(Self::Other, Self::Message)
            }
            "4" => Self::Error(rest),
            _ => Self::Other,
        }
    }
}

/// A namespace stands first, starts with a slash and ends with a comma.
fn split_namespace(rest: &str) -> (&str, &str) {
    if !rest.starts_with('/') {
        return ("/", rest);
    }
    rest.split_once(',').unwrap_or((rest, ""))
}

/// The string of `["message","…"]`. Further arguments are ignored.
fn message_of(json: &str) -> Option<Content> {
    if !body::depth_is_within(json, limits::JSON_DEPTH_MAX) {
        return None;
    }
    let (name, argument) = body::first_two(json)?;
    let is_message = name == "\"message\"" || serde_json::from_str(name).is_ok_and(is_message);
    let content = body::content_of(argument);
    (is_message && content.as_text().is_some()).then_some(content)
}

fn is_message(name: String) -> bool {
    name == "message"
}

/// Reads the string of a client's message. `None` if it is too short to be a request; the
/// original ignored it.
#[must_use]
pub fn decode_call(text: &str) -> Option<(RequestId, Call)> {
    let request = Request::decode(text)?;
    Some(request.call(body::first_argument(request.json)))
}

/// The server's first packet. Times are in milliseconds.
#[must_use]
pub fn open(session: &str, upgrades: &[&str], ping_interval: u64, ping_timeout: u64) -> Bytes {
    let mut packet = Vec::with_capacity(128);
    packet.text("0{\"sid\":");
    body::write_string(&mut packet, session);
    packet.text(",\"upgrades\":[");
    for (at, upgrade) in upgrades.iter().enumerate() {
        if at > 0 {
            packet.text(",");
        }
        body::write_string(&mut packet, upgrade);
    }
    packet.text("],\"pingInterval\":");
    body::write_number(&mut packet, ping_interval);
    packet.text(",\"pingTimeout\":");
    body::write_number(&mut packet, ping_timeout);
    packet.text("}");
    packet.into()
}

/// The reason in a client's error packet: its text, or its JSON as it stands.
#[must_use]
pub fn error_reason(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

/// Refuses a namespace other than the default.
#[must_use]
pub fn invalid_namespace(namespace: &str) -> Bytes {
    format!("44{namespace},\"Invalid namespace\"").into()
}

/// Encodes a push.
#[must_use]
pub fn encode_push(push: &Push<'_>) -> Bytes {
    pushed(push, |json| push.write_json(json))
}

/// The same for a client that knows Tangelo, with where it stands.
#[must_use]
pub fn encode_modern_push(push: &Push<'_>, stamp: Option<Stamp<'_>>) -> Bytes {
    pushed(push, |json| modern::write_push(json, push, stamp))
}

/// Encodes a reply. `None` for a notify.
#[must_use]
pub fn encode_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    answer(id, reply, |json| reply.write_json(json))
}

/// The same for a client that knows Tangelo.
#[must_use]
pub fn encode_modern_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    answer(id, reply, |json| modern::write_reply(json, reply))
}

fn pushed(push: &Push<'_>, write: impl FnOnce(&mut Escaped<'_, Vec<u8>>)) -> Bytes {
    event(32 + push.json_len_hint(), |json| {
        json.text("{\"route\":\"");
        json.text(push.route());
        json.text("\",\"body\":");
        write(json);
        json.text("}");
    })
}

fn answer(
    id: RequestId,
    reply: &Reply,
    write: impl FnOnce(&mut Escaped<'_, Vec<u8>>),
) -> Option<Bytes> {
    if id.is_notify() {
        return None;
    }
    Some(event(32 + reply.json_len_hint(), |json| {
        json.text("{\"id\":");
        write_id(json, id);
        json.text(",\"body\":");
        write(json);
        json.text("}");
    }))
}

/// Encodes the notice that the server ends the session; [`DISCONNECT`] follows it.
#[must_use]
pub fn encode_kick(reason: &str) -> Bytes {
    event(32 + reason.len(), |json| {
        json.text("{\"route\":\"");
        json.text(route::ON_KICK);
        json.text("\",\"reason\":");
        body::write_string(json, reason);
        json.text("}");
    })
}

/// The original's ids were signed numbers of 32 bits.
fn write_id(out: &mut impl Sink, id: RequestId) {
    let signed = u32::try_from(id.0).map_or(i64::MAX, |id| i64::from(id.cast_signed()));
    if signed < 0 {
        out.text("-");
    }
    body::write_number(out, signed.unsigned_abs());
}

/// The event that carries JSON text: JSON within JSON, so all its quotes are escaped.
fn event(len_hint: usize, write: impl FnOnce(&mut Escaped<'_, Vec<u8>>)) -> Bytes {
    // A quote becomes two bytes; there are a dozen, more for each name of a list.
    let len_hint = EVENT.len() + len_hint + len_hint / 2 + EVENT_END.len();
    let mut packet = Vec::with_capacity(len_hint);
    packet.text(EVENT);
    write(&mut Escaped(&mut packet));
    packet.text(EVENT_END);
    packet.into()
}

/// Encodes a request as a client's packet, or a notify. `None` if it does not fit.
#[must_use]
pub fn encode_request(request: &Request<'_>) -> Option<Bytes> {
    let mut fits = None;
    let packet = event(64 + request.json.len(), |string| fits = request.encode(string));
    fits.map(|()| packet)
}

/// Why the HTTP side refuses a request, with status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// `transport` is missing or unknown.
    UnknownTransport,
    /// No session has this id.
    UnknownSession,
    /// A handshake that is no GET.
    BadHandshakeMethod,
    /// A transport that does not fit the session.
    BadRequest,
}

impl HttpError {
    /// The body of the answer, JSON.
    #[must_use]
    pub const fn body(self) -> &'static str {
        match self {
            Self::UnknownTransport => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::UnknownSession => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::UserName;

    fn message(text: &str) -> Packet<'_> {
        Packet::Message(Content::Text(text.into()))
    }

    #[test]
    fn packets_are_told_apart_as_the_original_did() {
        for (packet, expected) in [
            ("1", Packet::Close),
            ("2", Packet::Ping { is_probe: false }),
            ("2hello", Packet::Ping { is_probe: false }),
            ("2probe", Packet::Ping { is_probe: true }),
            ("3", Packet::Pong),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            ("40", Packet::Connect { namespace: "/" }),
            ("40/chat", Packet::Connect { namespace: "/chat" }),
            ("40/chat,", Packet::Connect { namespace: "/chat" }),
            ("41", Packet::Disconnect),
            ("41/chat", Packet::Other),
            (r#"42["message","x"]"#, message("x")),
            (r#"42["message","x","extra"]"#, message("x")),
            (r#"427["message","x"]"#, message("x")),
            (r#"42/,["message","x"]"#, message("x")),
            (r#"42["message","\ud83d\ude00\ud83d"]"#, message("😀\u{fffd}")),
            (r#"42/chat,["message","x"]"#, Packet::Other),
            (r#"42["other","x"]"#, Packet::Other),
            (r#"42["message",5]"#, Packet::Other),
            (r#"42["message"]"#, Packet::Other),
            ("42[]", Packet::Other),
            (r#"42{"a":1}"#, Packet::Other),
            ("42not json", Packet::Other),
            ("430[]", Packet::Other),
            (r#"44"x""#, Packet::Error("\"x\"")),
            (r#"451-["message",{"_placeholder":true,"num":0}]"#, Packet::Other),
            ("49", Packet::Other),
        ] {
            assert_eq!(Packet::decode(packet), Ok(expected), "{packet}");
        }
        for garbage in ["", "4", "9", "x", "张"] {
            assert_eq!(Packet::decode(garbage), Err(PacketError), "{garbage}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!(r#"42["message",{}1{}]"#, "[".repeat(99), "]".repeat(99));
        assert_eq!(Packet::decode(&deep), Ok(Packet::Other));
    }

    #[test]
    fn large_ids_come_back_as_negative_numbers() {
        let reply = |id| encode_reply(RequestId(id), &Reply::Done);
        let negative = r#"42["message","{\"id\":-2139062144,\"body\":{}}"]"#;
        assert_eq!(reply(0x8080_8080).unwrap(), negative);
        let positive = r#"42["message","{\"id\":2147483647,\"body\":{}}"]"#;
        assert_eq!(reply(0x7fff_ffff).unwrap(), positive);
        assert_eq!(reply(0), None);
    }

    #[test]
    fn text_is_escaped_once_for_each_json_around_it() {
        let (from, target) = (UserName::from_peer("a").unwrap(), Content::Missing);
        let content = Content::Text("\"\n".into());
        let push = Push::Chat { content: &content, from: &from, target: &target };
        let inner = r#"{\"route\":\"onChat\",\"msg\":\"\\\"\\n\",\"from\":\"a\"}"#;
        let packet = format!(r#"42["message","{{\"route\":\"onChat\",\"body\":{inner}}}"]"#);
        assert_eq!(encode_push(&push), packet);
    }

    #[test]
    fn the_server_opens_and_refuses_namespaces() {
        let opened = open("abc", &["websocket"], 25_000, 60_000);
        let expected = concat!(
            r#"0{"sid":"abc","upgrades":["websocket"],"#,
            r#""pingInterval":25000,"pingTimeout":60000}"#
        );
        assert_eq!(opened, expected);
        assert_eq!(invalid_namespace("/chat"), "44/chat,\"Invalid namespace\"");
    }
}
