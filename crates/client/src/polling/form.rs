//! Targets and bodies of the requests that carry a session.

use bytes::Bytes;
use wire::socketio::{
    client::{Opening, Said, read_jsonp, read_packet, write_form},
    v1::{self, payload},
    v09,
};

use crate::{
    connection::Unit,
    error::{Closed, Result},
    http::Ask,
};

/// By which number scripts call back. A page without other sockets has the first.
const SCRIPT: &str = "0";
const TEXT: &str = "text/plain;charset=UTF-8";
const BINARY: &str = "application/octet-stream";
const FORM: &str = "application/x-www-form-urlencoded";

/// Which requests carry a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Socket.IO 0.9: plain ones.
    Xhr,
    /// Socket.IO 0.9: scripts and forms.
    Jsonp,
    /// Socket.IO 0.9: a page without an end, and plain ones beside it.
    HtmlFile,
    /// Engine.IO: binary payloads both ways.
    Binary,
    /// Engine.IO: payloads of text both ways.
    Text,
    /// Engine.IO: what a page does, which gets binary payloads and posts text; until it moves to
    /// a WebSocket.
    Upgrade,
}

/// How one client's requests look.
pub(super) struct Form {
    kind: Kind,
    session: String,
    /// Tells requests apart, so that nothing between takes two for the same.
    count: u64,
}

impl Form {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, session: String::new(), count: 0 }
    }

    /// Whether what the server says comes by a page without an end.
    pub(super) fn is_page(&self) -> bool {
        self.kind == Kind::HtmlFile
    }

    fn is_first_generation(&self) -> bool {
        match self.kind {
            Kind::Xhr | Kind::Jsonp | Kind::HtmlFile => true,
            Kind::Binary | Kind::Text | Kind::Upgrade => false,
        }
    }

    /// The request that opens the session.
    pub(super) fn handshake(&mut self) -> Ask {
        let target = match self.kind {
            Kind::Jsonp => format!("/socket.io/1/?t={}&jsonp={SCRIPT}", self.next()),
            Kind::Xhr | Kind::HtmlFile => format!("/socket.io/1/?t={}", self.next()),
            Kind::Binary | Kind::Text | Kind::Upgrade => self.target(),
        };
        Ask { target, post: None }
    }

    /// Reads the answer to [`Form::handshake`]: how the session begins, and what else was said.
    pub(super) fn opened(&mut self, body: &[u8]) -> Option<(Opening, Vec<Bytes>)> {
        let (opening, early) = if self.is_first_generation() {
            let text = self.text(body)?;
            (Opening::from_handshake(&text)?, Vec::new())
        } else {
            let mut packets = Vec::new();
            let keep = |unit: Unit<'_>| {
                if let Unit::Text(packet) = unit {
                    packets.push(Bytes::copy_from_slice(packet));
                }
            };
            self.polled(body, keep).ok()?;
            let first = packets.first().and_then(|it| read_packet(str::from_utf8(it).ok()?));
            let Some(Said::Opened(opening)) = first else { return None };
            (opening, packets)
        };
        self.session.clone_from(&opening.session);
        Some((opening, early))
    }

    /// The request that waits for what the server says.
    pub(super) fn poll(&mut self) -> Ask {
        Ask { target: self.target(), post: None }
    }

    /// Takes apart what a poll was answered.
    pub(super) fn polled(
        &self,
        body: &[u8],
        mut on_unit: impl FnMut(Unit<'_>),
    ) -> Result<(), Closed> {
        let nonsense = |_| Closed::Nonsense("a payload that cannot be read".to_owned());
        let mut hand_out = |unit: &str| on_unit(Unit::Text(unit.as_bytes()));
        if self.is_first_generation() {
            let text = self.text(body);
            let text = text.ok_or_else(|| Closed::Nonsense("a script of another kind".to_owned()));
            v09::decode_payload(&text?).for_each(hand_out);
            return Ok(());
        }
        if self.kind == Kind::Text {
            let text = String::from_utf8_lossy(body);
            let packets = payload::decode_text(&text).map_err(nonsense)?;
            packets.iter().for_each(|packet| hand_out(packet));
        } else {
            let packets = payload::decode_binary(body).map_err(nonsense)?;
            packets.iter().for_each(|packet| hand_out(packet));
        }
        Ok(())
    }

    /// The request that brings these units.
    pub(super) fn post(&mut self, units: &[Bytes]) -> Ask {
        let post = match self.kind {
            Kind::Binary => (BINARY, payload::encode_binary(units)),
            Kind::Text | Kind::Upgrade => (TEXT, payload::encode_text(units)),
            Kind::Jsonp => (FORM, write_form(&frames(units)).into()),
            Kind::Xhr | Kind::HtmlFile => (TEXT, frames(units).into()),
        };
        Ask { target: self.target(), post: Some(post) }
    }

    /// What a client says last.
    pub(super) fn farewell(&self) -> Vec<Bytes> {
        if self.is_first_generation() {
            vec![v09::DISCONNECT]
        } else {
            vec![v1::DISCONNECT, v1::CLOSE]
        }
    }

    /// Where the WebSocket is that the session may move to.
    pub(super) fn upgrade_target(&self) -> String {
        format!("/socket.io/?EIO=3&transport=websocket&sid={}", self.session)
    }

    fn text(&self, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        if self.kind == Kind::Jsonp { read_jsonp(&text) } else { Some(text.into_owned()) }
    }

    fn target(&mut self) -> String {
        let (count, session) = (self.next(), &self.session);
        let old = |carrier| format!("/socket.io/1/{carrier}/{session}?t={count}");
        let text = if self.kind == Kind::Text { "&b64=1" } else { "" };
        let id = if session.is_empty() { "" } else { "&sid=" };
        match self.kind {
            Kind::Xhr => old("xhr-polling"),
            Kind::Jsonp => format!("{}&i={SCRIPT}", old("jsonp-polling")),
            Kind::HtmlFile => old("htmlfile"),
            Kind::Binary | Kind::Text | Kind::Upgrade => {
                format!("/socket.io/?EIO=3&transport=polling&t={count}{text}{id}{session}")
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// The payload of these frames.
fn frames(units: &[Bytes]) -> String {
    let frames: Vec<_> = units.iter().filter_map(|it| str::from_utf8(it).ok()).collect();
    v09::encode_payload(&frames)
}
