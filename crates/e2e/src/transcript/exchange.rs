//! HTTP, one request per connection.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::record::Payload;

/// Names in lower case, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(super) fn one(name: &str, value: &str) -> Self {
        Self(vec![(name.to_owned(), value.to_owned())])
    }

    pub(super) fn all<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Reads the recorder's object. A header that came several times is an array.
    pub(super) fn parse(value: &Value) -> Self {
        let mut headers = Vec::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values.iter().filter_map(Value::as_str) {
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        Self(headers)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let header = self.0.iter().find(|(its, _)| its == name);
        header.map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Headers,
    pub(super) body: Payload,
    /// Where the original listened.
    pub(super) port: u16,
    /// Its line.
    pub(super) line: usize,
    /// It waits for whatever the server has to say.
    pub(super) is_poll: bool,
    /// Of the answer only the type was recorded, of all headers.
    pub(super) only_type: bool,
    /// The session id that the original gave out in answer.
    pub(super) sid: Option<String>,
}

impl Request {
    /// A request of which nothing more is known yet.
    pub(super) fn new(method: &str, target: &str, headers: Headers, body: Payload) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body,
            port: 0,
            line: 0,
            is_poll: false,
            only_type: false,
            sid: None,
        }
    }

    /// Its bytes, with `change` applied to all text that may hold a session id.
    pub(super) fn encode(&self, host: SocketAddr, change: impl Fn(&str) -> String) -> Vec<u8> {
        let body = self.body.map(&change);
        let target = change(&self.target);
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", self.method);
        for (name, value) in self.headers.iter() {
            head.push_str(&format!("{name}: {}\r\n", change(value)));
        }
        if self.method == "POST" {
            if self.headers.get("content-type").is_none() {
                head.push_str("content-type: text/plain;charset=UTF-8\r\n");
            }
            head.push_str(&format!("content-length: {}\r\n", body.bytes().len()));
        }
        head.push_str("connection: close\r\n\r\n");
        [head.as_bytes(), body.bytes()].concat()
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    /// The recorder kept none of its headers but the type.
    pub(super) only_type: bool,
}

impl Reply {
    /// Reads an answer; nothing if it is none, or not all of it.
    fn parse(bytes: &[u8], has_body: bool) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let end = bytes.windows(END.len()).position(|window| window == END)?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().into()));
        let headers = Headers(headers.collect());
        let rest = &bytes[end + END.len()..];
        let body = match headers.get("content-length") {
            _ if !has_body => Vec::new(),
            Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
            None if headers.get("transfer-encoding") == Some("chunked") => unchunk(rest)?,
            None => rest.to_vec(),
        };
        Some(Self { status, headers, body, only_type: false })
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Asks, and waits for the answer: nothing if the server hangs up instead.
pub(super) async fn ask(address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    stream.write_all(request).await.ok()?;
    let mut bytes = Vec::new();
    // A server that resets the connection may have answered before.
    drop(stream.read_to_end(&mut bytes).await);
    Reply::parse(&bytes, !request.starts_with(b"HEAD "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_however_their_end_is_told() {
        let body = |bytes: &str, has_body| {
            Reply::parse(bytes.as_bytes(), has_body).map(|reply| reply.body)
        };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(body(length, true).unwrap(), b"ok");
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", true), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false).unwrap(), b"");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(body(chunked, true).unwrap(), b"ok");
        assert_eq!(body("HTTP/1.1 400 Bad\r\n\r\nok", true).unwrap(), b"ok");
        assert_eq!(body("", true), None);
    }
}
