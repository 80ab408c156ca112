//! Reads a transcript.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{
    exchange::{Headers, Reply, Request},
    script,
};

/// Everything that was recorded of one scenario.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The scenario, such as `ws-send-all`.
    pub name: String,
    pub(super) lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Which connection.
    pub(super) connection: String,
    /// Since the scenario began.
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    WebSocket,
    /// Every request is a connection of its own; this only says to which port.
    Http,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closer {
    Server,
    Client,
    /// The client, by a WebSocket's Close frame with this code.
    ClientFrame(Option<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The client connects.
    Open { transport: Transport, port: u16, path: String, headers: Headers },
    /// The client gets a session of which only the id is in the recording.
    Handshake { port: u16, sid: String },
    /// The client sends.
    Send(Payload),
    /// The server sends.
    Receive(Payload),
    /// The client asks by HTTP.
    Request(Request),
    /// The server answers the request in line `to`, or (without a reply) hangs up.
    Answer { to: usize, reply: Option<Reply> },
    /// The server's FIN.
    Fin,
    Closed {
        by: Closer,
        /// Of a WebSocket.
        code: Option<u16>,
    },
    /// A WebSocket's Close frame, as the proxy saw it.
    CloseFrame { by_client: bool, code: Option<u16> },
    /// The recorder waited for the answer to this request in vain.
    NoResponse(i64),
    /// The recorder saw that the connection was still open.
    StillOpen,
    /// What the server sent is not in the transcript; this is the request it answered.
    Withheld(i64),
    /// A remark that cannot be replayed.
    Remark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

impl Transcript {
    /// Reads one file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or says what is not understood.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.file_stem().and_then(|name| name.to_str()).context("no name")?;
        let text = fs::read_to_string(file)?;
        let lines = text.lines().map(Line::parse).collect::<anyhow::Result<Vec<_>>>();
        let lines = lines.with_context(|| file.display().to_string())?;
        Ok(Self { name: name.to_owned(), lines: script::prepare(lines) })
    }

    /// Whether it holds anything that a client sent, and not only what came of it.
    #[must_use]
    pub fn can_be_played(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.what, What::Send(_) | What::Request(_)))
    }

    /// The rooms that its clients enter, as far as they are named by text. Transcripts that share
    /// one cannot be played at the same time.
    #[must_use]
    pub fn rooms(&self) -> BTreeSet<String> {
        let sent = self.lines.iter().filter_map(|line| {
            if let What::Send(payload) = &line.what {
                Some(payload)
            } else if let What::Request(request) = &line.what {
                Some(&request.body)
            } else {
                None
            }
        });
        sent.flat_map(|payload| {
            let text = String::from_utf8_lossy(payload.bytes()).replace('\\', "");
            let after = text.split(r#""rid":""#).skip(1);
            let rooms = after.filter_map(|rest| rest.split('"').next().map(str::to_owned));
            rooms.collect::<Vec<_>>()
        })
        .collect()
    }

    /// Whether it has pauses that cannot be shortened.
    #[must_use]
    pub fn is_long(&self) -> bool {
        let pauses = self.lines.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at));
        pauses.filter(|pause| *pause >= super::play::LONG_PAUSE).sum::<Duration>()
            > Duration::from_secs(20)
    }
}

impl Line {
    pub(super) fn parse(line: &str) -> anyhow::Result<Self> {
        let line: Value = serde_json::from_str(line)?;
        let text = |member: &str| line.get(member).and_then(Value::as_str);
        Ok(Self {
            connection: text("conn").context("no connection")?.to_owned(),
            at: Duration::from_millis(line["t_ms"].as_u64().context("no time")?),
            what: What::parse(&line)?,
        })
    }
}

impl What {
    /// Whether the client begins something with it.
    pub(super) fn is_by_client(&self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::Handshake { .. } | Self::Send(_) | Self::Request(_)
        )
    }

    fn parse(line: &Value) -> anyhow::Result<Self> {
        let text = |member: &str| line.get(member).and_then(Value::as_str);
        let by_client = text("dir") == Some("c2s");
        if let Some(http) = text("http") {
            return Self::http(line, http, by_client);
        }
        let payload = Payload::parse(line)?;
        if let Some(payload) = payload.as_ref().filter(|_| line.get("event").is_none()) {
            let payload = payload.clone();
            return Ok(if by_client { Self::Send(payload) } else { Self::Receive(payload) });
        }
        if line.get("redacted").is_some() {
            let note = text("note").unwrap_or_default();
            let id = note.strip_prefix("DATA response id=").and_then(|id| id.split(' ').next());
            return Ok(Self::Withheld(id.context("what is withheld?")?.parse()?));
        }
        let code = line.get("code").and_then(Value::as_u64).map(u16::try_from).transpose()?;
        Ok(match text("event").context("neither payload nor event")? {
            "open" => Self::open(text("to").context("open to where?")?)?,
            "fin" if !by_client => Self::Fin,
            "close" => {
                let by_client = text("by") == Some("client");
                Self::Closed { by: if by_client { Closer::Client } else { Closer::Server }, code }
            }
            "ws-close-frame" => {
                let bytes = payload.as_ref().map_or(&[][..], Payload::bytes);
                let code = bytes.first_chunk().map(|code| u16::from_be_bytes(*code));
                Self::CloseFrame { by_client, code }
            }
            "error" => Self::Answer { to: 0, reply: None },
            "no-response" => Self::NoResponse(line["id"].as_i64().context("no id")?),
            "still-open" => Self::StillOpen,
            _ => Self::Remark,
        })
    }

    fn open(to: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = to.split_once("://").context("no scheme")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (_, port) = address.split_once(':').context("no port")?;
        let transport = match scheme {
            "ws" => Transport::WebSocket,
            "tcp" => Transport::Tcp,
            "http" => Transport::Http,
            _ => bail!("scheme {scheme}"),
        };
        let (port, path) = (port.parse()?, format!("/{path}"));
        Ok(Self::Open { transport, port, path, headers: Headers::default() })
    }

    /// What the line does not tell (the port, and which request is answered) the script finds out.
    fn http(line: &Value, http: &str, is_request: bool) -> anyhow::Result<Self> {
        let headers = line.get("headers").map(Headers::parse);
        let body = Payload::parse(line)?.unwrap_or(Payload::Bytes(Vec::new()));
        if is_request {
            let (method, target) = http.split_once(' ').context("no target")?;
            let headers = headers.unwrap_or_default();
            let request = Request::new(method, target, headers, body);
            return Ok(Self::Request(request));
        }
        let (status, rest) = http.split_once(' ').unwrap_or((http, ""));
        // Of some answers only the type was recorded, and stands in the place of the reason.
        let of_type = || Headers::one("content-type", rest);
        let only_type = headers.is_none();
        let headers = headers.unwrap_or_else(of_type);
        let body = body.bytes().to_vec();
        let reply = Reply { status: status.parse()?, headers, body, only_type };
        Ok(Self::Answer { to: 0, reply: Some(reply) })
    }
}

impl Payload {
    fn parse(line: &Value) -> anyhow::Result<Option<Self>> {
        if let Some(hex) = line.get("hex").and_then(Value::as_str) {
            let digits = hex.as_bytes().chunks(2);
            let byte = |pair: &[u8]| {
                let pair = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(pair, 16).ok()
            };
            let bytes: Option<Vec<u8>> = digits.map(byte).collect();
            return Ok(Some(Self::Bytes(bytes.context("no hex")?)));
        }
        let text = line.get("text").and_then(Value::as_str);
        Ok(text.map(|text| Self::Text(text.to_owned())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The same with the text in it changed, if it is text.
    pub(super) fn map(&self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Text(text) => Self::Text(change(text)),
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(line: &str) -> What {
        Line::parse(line).unwrap().what
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let open =
            r#"{"dir":"c2s","conn":"a","t_ms":2,"event":"open","to":"ws://127.0.0.1:3014/x?y"}"#;
        let (path, headers) = ("/x?y".to_owned(), Headers::default());
        let transport = Transport::WebSocket;
        assert_eq!(what(open), What::Open { transport, port: 3014, path, headers });
        let sent = r#"{"dir":"c2s","conn":"a","t_ms":3,"hex":"0200ff","note":"ACK"}"#;
        assert_eq!(what(sent), What::Send(Payload::Bytes(vec![2, 0, 255])));
        let heard = r#"{"dir":"s2c","conn":"a","t_ms":3,"text":"HTTP/1.1 101 x\r\n\r\n"}"#;
        let text = "HTTP/1.1 101 x\r\n\r\n".to_owned();
        assert_eq!(what(heard), What::Receive(Payload::Text(text)));
        let close = r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"close","code":1000,"reason":"","by":"client"}"#;
        assert_eq!(what(close), What::Closed { by: Closer::Client, code: Some(1000) });
        let frame = r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"ws-close-frame","hex":"03e8"}"#;
        assert_eq!(what(frame), What::CloseFrame { by_client: false, code: Some(1000) });
        let silent =
            r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"no-response","id":7,"after_ms":5}"#;
        assert_eq!(what(silent), What::NoResponse(7));
        let withheld = r#"{"dir":"s2c","conn":"a","t_ms":3,"redacted":"x","note":"DATA response id=1 body={}"}"#;
        assert_eq!(what(withheld), What::Withheld(1));
        assert!(Line::parse(r#"{"dir":"s2c","conn":"a","t_ms":3}"#).is_err());
    }

    #[test]
    fn http_is_read_with_headers_or_without() {
        let asked = r#"{"dir":"c2s","conn":"a","t_ms":3,"http":"POST /x?y","headers":{"Origin":"o"},"text":"b"}"#;
        let What::Request(request) = what(asked) else { panic!() };
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/x?y"));
        assert_eq!(request.headers.get("origin"), Some("o"));
        assert_eq!(request.body.bytes(), b"b");
        let told = r#"{"dir":"s2c","conn":"a","t_ms":3,"http":"200 text/plain","text":"b"}"#;
        let What::Answer { reply: Some(reply), .. } = what(told) else { panic!() };
        assert!(reply.only_type);
        assert_eq!((reply.status, reply.headers.get("content-type")), (200, Some("text/plain")));
        let hung = r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"error","error":"socket hang up"}"#;
        assert_eq!(what(hung), What::Answer { to: 0, reply: None });
    }
}
