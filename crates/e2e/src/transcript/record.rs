//! Reads a transcript.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Value;

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The client connects.
    Open { websocket: bool, port: u16, path: String },
    /// The client sends.
    Send(Payload),
    /// The server sends.
    Receive(Payload),
    /// The server's FIN.
    Fin,
    Closed {
        by_client: bool,
        /// Of a WebSocket.
        code: Option<u16>,
    },
    /// The recorder waited for the answer to this request in vain.
    NoResponse(u64),
    /// The recorder saw that the connection was still open.
    StillOpen,
    /// What the server sent is not in the transcript; this is the request it answered.
    Withheld(u64),
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
        Ok(Self { name: name.to_owned(), lines })
    }

    /// Whether it holds anything that a client sent, and not only what came of it.
    #[must_use]
    pub fn can_be_played(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.what, What::Send(_)))
    }
}

impl Line {
    fn parse(line: &str) -> anyhow::Result<Self> {
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
    fn parse(line: &Value) -> anyhow::Result<Self> {
        let text = |member: &str| line.get(member).and_then(Value::as_str);
        if let Some(payload) = Payload::parse(line)? {
            return match text("dir") {
                Some("c2s") => Ok(Self::Send(payload)),
                Some("s2c") => Ok(Self::Receive(payload)),
                direction => bail!("direction {direction:?}"),
            };
        }
        if line.get("redacted").is_some() {
            let note = text("note").unwrap_or_default();
            let id = note.strip_prefix("DATA response id=").and_then(|id| id.split(' ').next());
            return Ok(Self::Withheld(id.context("what is withheld?")?.parse()?));
        }
        Ok(match text("event").context("neither payload nor event")? {
            "open" => Self::open(text("to").context("open to where?")?)?,
            "fin" => Self::Fin,
            "close" => Self::Closed {
                by_client: text("by") == Some("client"),
                code: line.get("code").and_then(Value::as_u64).map(u16::try_from).transpose()?,
            },
            "no-response" => Self::NoResponse(line["id"].as_u64().context("no id")?),
            "still-open" => Self::StillOpen,
            _ => Self::Remark,
        })
    }

    fn open(to: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = to.split_once("://").context("no scheme")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (_, port) = address.split_once(':').context("no port")?;
        let websocket = match scheme {
            "ws" => true,
            "tcp" => false,
            _ => bail!("scheme {scheme}"),
        };
        Ok(Self::Open { websocket, port: port.parse()?, path: format!("/{path}") })
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
        let path = "/x?y".to_owned();
        assert_eq!(what(open), What::Open { websocket: true, port: 3014, path });
        let sent = r#"{"dir":"c2s","conn":"a","t_ms":3,"hex":"0200ff","note":"ACK"}"#;
        assert_eq!(what(sent), What::Send(Payload::Bytes(vec![2, 0, 255])));
        let heard = r#"{"dir":"s2c","conn":"a","t_ms":3,"text":"HTTP/1.1 101 x\r\n\r\n"}"#;
        let text = "HTTP/1.1 101 x\r\n\r\n".to_owned();
        assert_eq!(what(heard), What::Receive(Payload::Text(text)));
        let close = r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"close","code":1000,"reason":"","by":"client"}"#;
        assert_eq!(what(close), What::Closed { by_client: true, code: Some(1000) });
        let silent =
            r#"{"dir":"s2c","conn":"a","t_ms":3,"event":"no-response","id":7,"after_ms":5}"#;
        assert_eq!(what(silent), What::NoResponse(7));
        let withheld = r#"{"dir":"s2c","conn":"a","t_ms":3,"redacted":"x","note":"DATA response id=1 body={}"}"#;
        assert_eq!(what(withheld), What::Withheld(1));
        assert!(Line::parse(r#"{"dir":"s2c","conn":"a","t_ms":3}"#).is_err());
    }
}
