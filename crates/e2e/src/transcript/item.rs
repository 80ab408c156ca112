//! What a server sent, piece by piece, and made comparable.

use std::fmt;

use super::{
    exchange::{Reply, Request},
    packages,
    record::Payload,
    socketio::{self, v1, v09},
};

/// How much of a text is shown.
const SHOWN_MAX: usize = 120;

/// What is in order among itself, and in no promised order with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Push,
    /// Answers and whatever else comes over a connection.
    Other,
    /// Answers to HTTP requests, each on a connection of its own: in no order at all.
    Http,
}

/// One thing that the server said.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) lane: Lane,
    /// The request that it answers: its id, or its line for HTTP.
    pub(super) answers: Option<i64>,
    /// With what is never the same taken out: addresses and session ids.
    bytes: Vec<u8>,
    /// For people.
    shown: String,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Item {
    pub(super) fn push(bytes: Vec<u8>, shown: String) -> Self {
        Self { lane: Lane::Push, answers: None, bytes, shown }
    }

    pub(super) fn answer(id: i64, bytes: Vec<u8>, body: &str) -> Self {
        Self { lane: Lane::Other, answers: Some(id), bytes, shown: format!("answer {id} {body}") }
    }

    pub(super) fn other(bytes: Vec<u8>, shown: String) -> Self {
        Self { lane: Lane::Other, answers: None, bytes, shown }
    }

    /// An answer by HTTP. Which poll gets it is a matter of time.
    fn http(request: &Request, text: String) -> Self {
        let line = i64::try_from(request.line).ok();
        let answers = line.filter(|_| !request.is_poll);
        Self { lane: Lane::Http, answers, bytes: text.clone().into_bytes(), shown: text }
    }

    /// What is in no known form. Of an HTTP answer to what was never answered, the status is
    /// enough for people.
    pub(super) fn whole(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let shown = match text.split_once("\r\n") {
            Some((status, _)) if status.starts_with("HTTP/") && !status.contains(" 101 ") => {
                format!("{status:?}")
            }
            Some(_) | None => format!("{text:?}"),
        };
        Self::other(bytes.to_vec(), shown)
    }

    pub(super) fn is_http_answer(&self) -> bool {
        self.lane == Lane::Http && self.answers.is_some()
    }

    /// Whether it says how polls are answered. That counts once, however many there were.
    pub(super) fn is_of_polls(&self) -> bool {
        self.lane == Lane::Http && self.answers.is_none()
    }

    /// Whether something stands in its place: another answer to the same request. Nothing need
    /// stand in the place of what is no answer.
    pub(super) fn is_replaced_in(&self, actual: &[Self]) -> bool {
        let is_it = |item: &Self| item.answers == self.answers && item.lane == self.lane;
        self.answers.is_none() || actual.iter().any(is_it)
    }
}

/// Cuts what is long.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// How to take apart what a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    #[default]
    Packages,
    /// Not at all.
    Whole,
    V09,
    V1,
}

impl Framing {
    /// By the target of the first request.
    pub(super) fn of(target: &str) -> Self {
        if target.starts_with("/socket.io/1/") {
            Self::V09
        } else if target.starts_with("/socket.io/") {
            Self::V1
        } else {
            Self::Packages
        }
    }

    /// Takes a message or a stream apart.
    pub(super) fn items(self, message: &Payload) -> Vec<Item> {
        match (self, message) {
            (Self::Packages, Payload::Bytes(bytes)) => packages::items(bytes),
            (Self::V09, Payload::Text(text)) => v09::items(text),
            (Self::V1, Payload::Text(text)) => vec![v1::item(text)],
            (Self::Whole, message) => vec![Item::whole(message.bytes())],
            // A text where bytes belong, or bytes where text does.
            (_, Payload::Text(text)) => vec![Item::whole(format!("as text: {text}").as_bytes())],
            (_, Payload::Bytes(bytes)) => vec![Item::whole(&[b"as bytes: ", &**bytes].concat())],
        }
    }

    /// Takes an HTTP answer apart. A poll's is as much as there was at the time; that it was
    /// answered and how counts once.
    pub(super) fn reply_items(self, request: &Request, reply: Option<&Reply>) -> Vec<Item> {
        let asked = if request.is_poll {
            "a poll".to_owned()
        } else {
            format!("{} {}", request.method, target(request))
        };
        let Some(reply) = reply else {
            return vec![Item::http(request, format!("hang-up after {asked}"))];
        };
        let headers = headers(reply, request.only_type);
        if request.is_poll && reply.status == 200 {
            let head = Item::http(request, format!("200 to {asked}:{headers}"));
            let frames = match self {
                Self::V09 => v09::payload(&reply.body),
                Self::V1 => v1::payload(&reply.body),
                Self::Packages | Self::Whole => vec![Item::whole(&reply.body)],
            };
            return [vec![head], frames].concat();
        }
        let body = match self {
            Self::V1 if request.sid.is_some() => v1::shown_payload(&reply.body),
            Self::V1 | Self::V09 | Self::Packages | Self::Whole => {
                String::from_utf8_lossy(&reply.body).into_owned()
            }
        };
        let body = printable(&socketio::without_sid(&body));
        let body = if body.is_empty() { body } else { format!(" {}", shorten(&body)) };
        let text = format!("{} to {asked}:{headers}{body}", reply.status);
        vec![Item::http(request, text)]
    }
}

/// Text on one line, with names for what no one can see.
fn printable(text: &str) -> String {
    let shown = |char: char| match char {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        char if char.is_control() => format!("\\x{:02x}", u32::from(char)),
        char => char.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Where a request went, without the session.
fn target(request: &Request) -> String {
    let target = &request.target;
    let sid = socketio::sid_in_target(target);
    sid.map_or_else(|| target.clone(), |sid| target.replace(sid, "SID"))
}

/// Those headers of an answer that a client acts upon.
fn headers(reply: &Reply, only_type: bool) -> String {
    let is_shown = |name: &str| {
        name == "content-type"
            || (!only_type && (name == "set-cookie" || name.starts_with("access-control-")))
    };
    let mut shown: Vec<String> = Vec::new();
    // Without a type there is none, or the recorder did not look.
    for (name, value) in
        reply.headers.iter().filter(|(name, value)| is_shown(name) && !value.is_empty())
    {
        shown.push(format!(" {name}: {};", socketio::without_sid(value)));
    }
    shown.sort();
    shown.concat()
}
