//! Targets and answers of Socket.IO 0.9.

use bytes::Bytes;
use http::Uri;
use wire::socketio::v09;

use super::v1::parameter;

const PREFIX: &str = "/socket.io/";
/// What is on offer, best first.
const TRANSPORTS: [&str; 4] = ["websocket", "htmlfile", "xhr-polling", "jsonp-polling"];

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// Another version's handshake, or none.
    Welcome,
    /// A version that never was.
    NoVersion,
    /// A session id.
    Handshake,
    /// To carry frames.
    Carry { transport: Carrier, id: &'a str },
    /// A transport that is not on offer.
    NoTransport,
    /// The library for pages, which they bring themselves here.
    Library,
}

/// What carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    WebSocket,
    HtmlFile,
    XhrPolling,
    JsonpPolling,
}

impl<'a> Target<'a> {
    /// Nothing if the request is for another generation, or not for Socket.IO at all.
    pub(super) fn of(uri: &'a Uri) -> Option<Self> {
        let mut parts = uri.path().strip_prefix(PREFIX)?.split('/');
        let version = parts.next().filter(|version| !version.is_empty())?;
        if version == "socket.io.js" {
            return Some(Self::Library);
        }
        let (transport, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if version == "0" {
            return Some(Self::Welcome);
        }
        if version != "1" {
            return Some(Self::NoVersion);
        }
        let transport = match transport {
            "" => return Some(Self::Handshake),
            "websocket" => Carrier::WebSocket,
            "htmlfile" => Carrier::HtmlFile,
            "xhr-polling" => Carrier::XhrPolling,
            "jsonp-polling" => Carrier::JsonpPolling,
            _ => return Some(Self::NoTransport),
        };
        Some(Self::Carry { transport, id })
    }
}

/// The body of the handshake, and its type.
pub(super) fn handshake(uri: &Uri, id: &str, patience: u64) -> (&'static str, String) {
    let body = v09::handshake(id, patience, patience, &TRANSPORTS);
    match parameter(uri, "jsonp").and_then(|index| index.parse().ok()) {
        Some(index) => ("application/javascript", v09::encode_jsonp(index, &body)),
        None => ("text/plain", body),
    }
}

/// The body of a poll, and its type.
pub(super) fn poll(uri: &Uri, carrier: Carrier, frames: &[Bytes]) -> (&'static str, String) {
    let joined = v09::join(frames);
    let texts: Vec<&str> = joined.iter().filter_map(|it| str::from_utf8(it).ok()).collect();
    let payload = v09::encode_payload(&texts);
    if carrier == Carrier::JsonpPolling {
        let index = parameter(uri, "i").and_then(|index| index.parse().ok()).unwrap_or(0);
        return ("text/javascript; charset=UTF-8", v09::encode_jsonp(index, &payload));
    }
    ("text/plain; charset=UTF-8", payload)
}

/// The frames in the body of a post.
pub(super) fn frames(carrier: Carrier, body: &str, most: usize) -> Vec<Bytes> {
    let form;
    let payload = match carrier {
        Carrier::JsonpPolling => match v09::decode_form(body) {
            Some(payload) => {
                form = payload;
                &form
            }
            None => return Vec::new(),
        },
        Carrier::XhrPolling | Carrier::HtmlFile | Carrier::WebSocket => body,
    };
    let frames = v09::decode_payload(payload).take(most);
    frames.map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        for (target, expected) in [
            ("/", None),
            ("/socket.io", None),
            ("/socket.io/", None),
            ("/socket.io/?EIO=3&transport=polling", None),
            ("/socket.io/0/", Some(Target::Welcome)),
            ("/socket.io/2/", Some(Target::NoVersion)),
            ("/socket.io/1", Some(Target::Handshake)),
            ("/socket.io/1/?t=5", Some(Target::Handshake)),
            (
                "/socket.io/1/xhr-polling/abc?t=5",
                Some(Target::Carry { transport: Carrier::XhrPolling, id: "abc" }),
            ),
            ("/socket.io/1/foo/bar", Some(Target::NoTransport)),
            ("/socket.io/socket.io.js", Some(Target::Library)),
        ] {
            let uri: Uri = target.parse().unwrap();
            assert_eq!(Target::of(&uri), expected, "{target}");
        }
    }
}
