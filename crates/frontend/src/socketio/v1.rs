//! Targets and answers of Engine.IO 3.

use bytes::Bytes;
use http::Uri;
use wire::{
    pomelo::text,
    socketio::v1::{HttpError, payload},
};

/// The paths of this generation.
const PATHS: [&str; 2] = ["/socket.io/", "/socket.io"];

/// What the query of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) transport: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    /// The payload is to be text.
    pub(super) is_base64: bool,
    /// The payload is to be a script that calls back by this number.
    pub(super) jsonp: Option<u32>,
}

/// The value of a query's parameter, as it stands there.
pub(super) fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(it, _)| *it == name).map(|(_, it)| it)
}

impl<'a> Query<'a> {
    /// Nothing if the request is for another generation, or not for Socket.IO at all.
    pub(super) fn of(uri: &'a Uri) -> Option<Self> {
        PATHS.contains(&uri.path()).then(|| Self {
            transport: parameter(uri, "transport"),
            id: parameter(uri, "sid").filter(|id| !id.is_empty()),
            is_base64: parameter(uri, "b64").is_some_and(|it| !it.is_empty() && it != "0"),
            jsonp: parameter(uri, "j").map(|index| index.parse().unwrap_or(0)),
        })
    }

    /// The body of a poll, and its type.
    pub(super) fn poll(&self, packets: &[Bytes]) -> (&'static str, Bytes) {
        if let Some(index) = self.jsonp {
            return ("text/javascript; charset=UTF-8", payload::encode_jsonp(index, packets));
        }
        if self.is_base64 {
            return ("text/plain; charset=UTF-8", payload::encode_text(packets));
        }
        ("application/octet-stream", payload::encode_binary(packets))
    }

    /// The packets in the body of a post. One that is no payload has none.
    pub(super) fn packets(&self, is_binary: bool, body: &[u8], most: usize) -> Vec<Bytes> {
        let (form, text);
        let decoded = if is_binary {
            payload::decode_binary(body)
        } else {
            text = text::decode(body);
            match self.jsonp {
                Some(_) => {
                    form = payload::decode_form(&text).unwrap_or_default();
                    payload::decode_text(&form)
                }
                None => payload::decode_text(&text),
            }
        };
        let packets = decoded.unwrap_or_default().into_iter().take(most);
        packets.map(|packet| Bytes::copy_from_slice(packet.as_bytes())).collect()
    }
}

/// The response to a client that may not have the WebSocket that it asks for. The connection is
/// closed after it.
pub(crate) fn refusal_of_upgrade(error: HttpError) -> Vec<u8> {
    let body = error.body();
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let uri: Uri = "/socket.io/?EIO=3&transport=polling&t=x&b64=1&sid=abc".parse().unwrap();
        let query = Query::of(&uri).unwrap();
        assert_eq!((query.transport, query.id), (Some("polling"), Some("abc")));
        assert!(query.is_base64 && query.jsonp.is_none());
        let uri: Uri = "/socket.io/?j=7".parse().unwrap();
        let query = Query::of(&uri).unwrap();
        assert_eq!(query.jsonp, Some(7));
        assert_eq!(query.transport, None);
        let uri: Uri = "/socket.io/1/".parse().unwrap();
        assert_eq!(Query::of(&uri), None);
    }

    #[test]
    fn posts_hold_packets_in_every_form() {
        let uri = |target: &str| target.parse::<Uri>().unwrap();
        let plain = uri("/socket.io/?transport=polling");
        let plain = Query::of(&plain).unwrap();
        assert_eq!(plain.packets(false, b"1:22:40", 9), ["2", "40"]);
        assert_eq!(plain.packets(false, b"1:22:40", 1), ["2"]);
        assert_eq!(plain.packets(true, b"\0\x02\xff40", 9), ["40"]);
        assert!(plain.packets(false, b"9:2", 9).is_empty());
        let script = uri("/socket.io/?transport=polling&j=0");
        let script = Query::of(&script).unwrap();
        assert_eq!(script.packets(false, b"d=1%3A2", 9), ["2"]);
    }
}
