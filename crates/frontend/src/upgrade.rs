//! The opening handshake of a WebSocket, answered byte for byte as the original did.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Method,
    header::{
        CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{meters::Failure, turns};

/// What a client may give as its version: the standard's, and its drafts' from when the frames were
/// the standard's. The Android client of Pomelo speaks draft 10, which is version 8.
const VERSIONS: [&[u8]; 3] = [b"13", b"8", b"7"];
/// Under which name those drafts tell the origin of a page.
const DRAFT_ORIGIN: &str = "sec-websocket-origin";

/// What is left to say to a client that wants a WebSocket and may have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What its key becomes.
    pub(crate) key: String,
    /// The first of the sub-protocols that it offers.
    pub(crate) protocol: Option<HeaderValue>,
    /// The host by which it reached us.
    pub(crate) host: Option<String>,
}

/// Whether a request asks for a WebSocket, rightly or wrongly.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    names(headers, CONNECTION.as_str(), "upgrade") && names(headers, UPGRADE.as_str(), "websocket")
}

/// Looks at a request that asks for a WebSocket, on whatever path.
pub(crate) fn check(
    method: &Method,
    headers: &HeaderMap,
    origins: Option<&[String]>,
) -> Result<Accepted, Failure> {
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    let is_known = version.is_some_and(|version| VERSIONS.contains(&version.as_bytes()));
    let (Some(key), true, &Method::GET) = (key, is_known, method) else {
        return Err(Failure::BadUpgrade);
    };
    if !is_allowed(headers, origins) {
        return Err(Failure::Origin);
    }
    let key = derive_accept_key(key.as_bytes());
    Ok(Accepted { key, protocol: first_protocol(headers), host: host(headers) })
}

/// Whether the page that asks may speak to us. Clients that are no pages name no origin.
pub(crate) fn is_allowed(headers: &HeaderMap, origins: Option<&[String]>) -> bool {
    let origin = headers.get(ORIGIN).or_else(|| headers.get(DRAFT_ORIGIN));
    let (Some(origins), Some(origin)) = (origins, origin) else {
        return true;
    };
    origins.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
}

impl Accepted {
    /// The response. No extension is ever agreed to.
    pub(crate) fn response(&self) -> Vec<u8> {
        let mut response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: "
            .to_vec();
        response.extend_from_slice(self.key.as_bytes());
        if let Some(protocol) = &self.protocol {
            response.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            response.extend_from_slice(protocol.as_bytes());
        }
        response.extend_from_slice(b"\r\n\r\n");
        response
    }
}

/// The response to a client that may not have a WebSocket. The connection is closed after it.
pub(crate) const fn refusal(failure: Failure) -> &'static [u8] {
    match failure {
        Failure::Origin => b"HTTP/1.1 403 Forbidden\r\nContent-type: text/html\r\n\r\n",
        Failure::BadUpgrade | Failure::Garbage | Failure::Timeout | Failure::UnknownSession => {
            b"HTTP/1.1 400 Bad Request\r\nContent-type: text/html\r\n\r\n"
        }
    }
}

/// The response to a client that may have a WebSocket, but later. The connection is closed after it.
pub(crate) fn later(away: Duration) -> String {
    let seconds = turns::retry_after(away);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )
}

/// The host that a request names, without the port.
pub(crate) fn host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let authority = host.parse::<http::uri::Authority>().ok()?;
    Some(authority.host().to_owned()).filter(|host| !host.is_empty())
}

/// Whether a header lists a token, in any case.
fn names(headers: &HeaderMap, header: &str, token: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').next()?.trim();
    HeaderValue::from_str(first).ok().filter(|first| !first.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn asking_takes_two_headers() {
        let asks = |connection, upgrade| {
            is_asked(&headers(&[("connection", connection), ("upgrade", upgrade)]))
        };
        assert!(asks("Upgrade", "websocket"));
        assert!(asks("keep-alive, upgrade", "WebSocket"));
        assert!(!asks("keep-alive", "websocket"));
        assert!(!asks("Upgrade", "h2c"));
        assert!(!is_asked(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn the_response_is_the_originals() {
        let offer = ("sec-websocket-protocol", "a, b");
        let accepted = check(&Method::GET, &headers(&[KEY, VERSION, offer]), None).unwrap();
        let response = String::from_utf8(accepted.response()).unwrap();
        assert_eq!(
            response,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: a\r\n\r\n"
        );
    }

    #[test]
    fn version_key_and_method_must_be_right() {
        let old = ("sec-websocket-version", "12");
        for lines in [&[KEY][..], &[VERSION], &[KEY, old]] {
            let checked = check(&Method::GET, &headers(lines), None);
            assert_eq!(checked, Err(Failure::BadUpgrade), "{lines:?}");
        }
        let checked = check(&Method::POST, &headers(&[KEY, VERSION]), None);
        assert_eq!(checked, Err(Failure::BadUpgrade));
    }

    #[test]
    fn drafts_with_the_frames_of_today_are_served() {
        for (version, is_served) in [("6", false), ("7", true), ("8", true), ("9", false)] {
            let lines = [KEY, ("sec-websocket-version", version)];
            let checked = check(&Method::GET, &headers(&lines), None);
            assert_eq!(checked.is_ok(), is_served, "{version}");
        }
        let list = ["https://chat.example.org".to_owned()];
        let lines = [KEY, ("sec-websocket-version", "8"), (DRAFT_ORIGIN, "https://evil.org")];
        let checked = check(&Method::GET, &headers(&lines), Some(&list));
        assert_eq!(checked, Err(Failure::Origin));
    }

    #[test]
    fn pages_must_be_on_the_list_if_there_is_one() {
        let list = ["https://chat.example.org".to_owned()];
        let from = |origin| {
            let headers = headers(&[KEY, VERSION, ("origin", origin)]);
            check(&Method::GET, &headers, Some(&list)).map(|_| ())
        };
        assert_eq!(from("https://Chat.example.org"), Ok(()));
        assert_eq!(from("https://evil.example.org"), Err(Failure::Origin));
        assert_eq!(from("null"), Err(Failure::Origin));
        assert!(check(&Method::GET, &headers(&[KEY, VERSION]), Some(&list)).is_ok());
    }

    #[test]
    fn hosts_lose_their_port() {
        let host = |name| host(&headers(&[("host", name)]));
        assert_eq!(host("chat.example.org:3014").as_deref(), Some("chat.example.org"));
        assert_eq!(host("127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(host("[::1]:3014").as_deref(), Some("[::1]"));
        assert_eq!(host(""), None);
        assert_eq!(host("a b"), None);
    }
}
