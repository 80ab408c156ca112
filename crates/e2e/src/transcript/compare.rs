//! What the server sent, package by package, and how two servers' differ.
//!
//! This reads packages by itself, not with our own codec: a mistake there must not hide itself.

use std::{collections::BTreeSet, fmt};

const HEADER: usize = 4;
const DATA: u8 = 4;
const RESPONSE: u8 = 2;
const PUSH: u8 = 3;

/// One package of the server's, made comparable.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Whether it is a push: pushes and everything else are in order each for itself.
    pub(super) is_push: bool,
    /// The request that it answers.
    answers: Option<u64>,
    /// Its bytes, with the gate's host and port taken out.
    bytes: Vec<u8>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// Takes a message or a stream apart. Text is one item as a whole.
pub(super) fn items(bytes: &[u8], is_text: bool) -> Vec<Item> {
    if is_text {
        return vec![Item { is_push: false, answers: None, bytes: bytes.to_vec() }];
    }
    let mut items = Vec::new();
    let mut rest = bytes;
    while let Some(&[kind, high, middle, low]) = rest.first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some((body, after)) = rest[HEADER..].split_at_checked(length) else {
            break;
        };
        items.push(item(kind, body));
        rest = after;
    }
    if !rest.is_empty() {
        items.push(Item { is_push: false, answers: None, bytes: rest.to_vec() });
    }
    items
}

fn item(kind: u8, body: &[u8]) -> Item {
    let message = if kind == DATA { body.first().map(|flag| (flag >> 1) & 7) } else { None };
    let is_response = message == Some(RESPONSE);
    let body = if is_response { without_address(body) } else { body.to_vec() };
    let answers = if is_response { leb128(&body[1..]).map(|(id, _)| id) } else { None };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes()[1..]);
    bytes.extend_from_slice(&body);
    Item { is_push: message == Some(PUSH), answers, bytes }
}

/// Replaces host and port in a gate's answer: ours are others than the original's.
fn without_address(body: &[u8]) -> Vec<u8> {
    const HOST: &[u8] = b"{\"code\":200,\"host\":\"";
    const PORT: &[u8] = b"\",\"port\":";
    let find = |what: &[u8]| body.windows(what.len()).position(|window| window == what);
    let (Some(host), Some(port)) = (find(HOST), find(PORT)) else {
        return body.to_vec();
    };
    let digits = body[port + PORT.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut replaced = body[..host + HOST.len()].to_vec();
    replaced.extend_from_slice(b"H");
    replaced.extend_from_slice(PORT);
    replaced.extend_from_slice(if digits > 0 { b"1" } else { b"" });
    replaced.extend_from_slice(&body[port + PORT.len() + digits..]);
    replaced
}

fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, body) = match self.bytes.split_at_checked(HEADER) {
            Some((header, body)) if header[0] < 6 => (header[0], body),
            Some(_) | None => return self.show_text(f),
        };
        let text = |bytes: &[u8]| {
            let text = readable(bytes);
            let mut short: String = text.chars().take(120).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            short
        };
        match (kind, self.answers) {
            (1, _) => write!(f, "handshake {}", text(body)),
            (3, _) => f.write_str("heartbeat"),
            (5, _) => write!(f, "kick {}", text(body)),
            (DATA, Some(id)) => {
                let rest = leb128(&body[1..]).map_or(body, |(_, rest)| rest);
                write!(f, "answer {id} {}", text(rest))
            }
            (DATA, None) if self.is_push => {
                let length = usize::from(*body.get(1).unwrap_or(&0));
                let route = body.get(2..2 + length).unwrap_or_default();
                let rest = body.get(2 + length..).unwrap_or_default();
                write!(f, "push {} {}", text(route), chat(rest).unwrap_or_else(|| text(rest)))
            }
            _ => write!(f, "package {kind} {}", text(body)),
        }
    }
}

impl Item {
    /// Whether something stands in its place: another answer to the same request. Nothing need
    /// stand in the place of what is no answer.
    pub(super) fn is_replaced_in(&self, actual: &[Self]) -> bool {
        self.answers.is_none() || actual.iter().any(|item| item.answers == self.answers)
    }

    /// What is no package. Of an HTTP answer to what was never answered, the status is enough.
    fn show_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes);
        match text.split_once("\r\n") {
            Some((status, _)) if status.starts_with("HTTP/") && !status.contains(" 101 ") => {
                write!(f, "{status:?}")
            }
            Some(_) | None => write!(f, "{text:?}"),
        }
    }
}

/// Text as it is; what is none, as `\xff`.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text
}

/// The three strings of an `onChat`.
fn chat(mut body: &[u8]) -> Option<String> {
    let mut fields = Vec::new();
    for tag in [0x0a, 0x12, 0x1a] {
        let rest = body.strip_prefix(&[tag])?;
        let (length, rest) = leb128(rest)?;
        let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        fields.push(readable(text));
        body = rest;
    }
    let [text, from, target] = <[String; 3]>::try_from(fields).ok()?;
    Some(format!("\"{text}\" from \"{from}\" to \"{target}\""))
}

/// One thing that our server did otherwise than the original.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// On which connection of the transcript.
    pub connection: String,
    /// What differs.
    pub what: String,
}

impl Difference {
    pub(super) fn missing(connection: &str, item: &Item) -> Self {
        Self { connection: connection.to_owned(), what: format!("does not send {item}") }
    }

    pub(super) fn unanswered(connection: &str, id: u64) -> Self {
        let what = format!("leaves request {id} unanswered too");
        Self { connection: connection.to_owned(), what }
    }

    /// Whether the server sends something that the original did not.
    pub(super) fn is_more(&self) -> bool {
        self.what.starts_with(SENDS)
    }

    /// Whether it only refuses what the original never answered: what design asks for everywhere.
    #[must_use]
    pub fn is_refusal_instead_of_silence(&self) -> bool {
        let refusals = [r#" {"code":500}"#, r#" {"code":500,"error":true}"#];
        let refuses = refusals
            .iter()
            .any(|body| self.what.strip_suffix(INSTEAD).is_some_and(|what| what.ends_with(body)));
        refuses && self.what.starts_with(ANSWERS)
    }
}

const SENDS: &str = "sends ";
const ANSWERS: &str = "sends answer ";
const INSTEAD: &str = " instead of nothing";

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.connection, self.what)
    }
}

/// What was expected on a connection, and what of it has been found.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) items: Vec<Item>,
    /// Requests that the original never answered.
    pub(super) silent: BTreeSet<u64>,
    /// The original closed the connection, so that it could not.
    pub(super) closed: bool,
    /// Requests whose answer is not in the transcript.
    pub(super) withheld: BTreeSet<u64>,
}

impl Expected {
    /// What of it is not (yet) in `actual`.
    pub(super) fn missing(&self, actual: &[Item]) -> Vec<&Item> {
        let found = self.matches(actual);
        let lacks = |(at, item)| (!found.expected.contains(&at)).then_some(item);
        self.items.iter().enumerate().filter_map(lacks).collect()
    }

    /// How `actual` differs from it.
    pub(super) fn differences(&self, connection: &str, actual: &[Item]) -> Vec<Difference> {
        let found = self.matches(actual);
        let missing = self.missing(actual).into_iter();
        let mut differences: Vec<_> =
            missing.map(|item| Difference::missing(connection, item)).collect();
        for (at, item) in actual.iter().enumerate() {
            if found.actual.contains(&at) {
                continue;
            }
            let is_in = |ids: &BTreeSet<u64>| item.answers.is_some_and(|id| ids.contains(&id));
            let instead = if is_in(&self.silent) {
                INSTEAD
            } else if is_in(&self.withheld) {
                " instead of an exception's text"
            } else {
                ""
            };
            let what = format!("{SENDS}{item}{instead}");
            differences.push(Difference { connection: connection.to_owned(), what });
        }
        for id in self.silent.iter().filter(|_| !self.closed) {
            if !actual.iter().any(|item| item.answers == Some(*id)) {
                differences.push(Difference::unanswered(connection, *id));
            }
        }
        differences
    }

    /// Pairs what is expected with what came: pushes in order, and everything else in order.
    fn matches(&self, actual: &[Item]) -> Matches {
        let mut found = Matches::default();
        for is_push in [false, true] {
            let mut from = 0;
            for (at, item) in self.items.iter().enumerate().filter(|(_, it)| it.is_push == is_push)
            {
                let rest = actual.iter().enumerate().skip(from);
                if let Some((place, _)) = rest.into_iter().find(|(_, it)| *it == item) {
                    found.expected.insert(at);
                    found.actual.insert(place);
                    from = place + 1;
                }
            }
        }
        found
    }
}

#[derive(Default)]
struct Matches {
    expected: BTreeSet<usize>,
    actual: BTreeSet<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &[u8] = b"\x04\0\0\x16\x06\x06onChat\x0a\x02hi\x12\x05alice\x1a\x01*";

    fn answer(id: u8, body: &str) -> Vec<u8> {
        let mut bytes = vec![4, 0, 0, u8::try_from(body.len() + 2).unwrap(), 4, id];
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    fn expected(bytes: &[u8]) -> Expected {
        Expected { items: items(bytes, false), ..Expected::default() }
    }

    fn told(expected: &Expected, bytes: &[u8]) -> Vec<String> {
        let differences = expected.differences("c", &items(bytes, false));
        differences.into_iter().map(|difference| difference.what).collect()
    }

    #[test]
    fn a_push_may_come_before_or_after_the_answer() {
        let forth = [PUSH, &answer(2, "{}")].concat();
        let back = [&answer(2, "{}"), PUSH].concat();
        assert!(told(&expected(&forth), &back).is_empty());
    }

    #[test]
    fn answers_stay_in_order() {
        let forth = [answer(2, "{}"), answer(3, "{}")].concat();
        let back = [answer(3, "{}"), answer(2, "{}")].concat();
        assert_eq!(told(&expected(&forth), &back).len(), 2);
    }

    #[test]
    fn ports_do_not_count() {
        let theirs = answer(1, r#"{"code":200,"host":"127.0.0.1","port":3050}"#);
        let ours = answer(1, r#"{"code":200,"host":"localhost","port":23050}"#);
        assert!(told(&expected(&theirs), &ours).is_empty());
        let none = answer(1, r#"{"code":200,"host":"localhost","port":}"#);
        assert_eq!(told(&expected(&theirs), &none).len(), 2);
    }

    #[test]
    fn a_byte_makes_a_difference() {
        let theirs = answer(1, r#"{"users":["a"]}"#);
        let ours = answer(1, r#"{"users":["b"]}"#);
        assert_eq!(
            told(&expected(&theirs), &ours),
            [r#"does not send answer 1 {"users":["a"]}"#, r#"sends answer 1 {"users":["b"]}"#]
        );
    }

    #[test]
    fn an_answer_instead_of_silence_is_told_apart() {
        let mut expected = expected(PUSH);
        expected.silent.insert(7);
        assert_eq!(told(&expected, PUSH), ["leaves request 7 unanswered too"]);
        let ours = [PUSH, &answer(7, r#"{"code":500}"#)].concat();
        let differences = expected.differences("c", &items(&ours, false));
        assert_eq!(differences.len(), 1);
        assert!(differences[0].is_refusal_instead_of_silence());
        let ours = [PUSH, &answer(7, "{}")].concat();
        assert!(
            !expected.differences("c", &items(&ours, false))[0].is_refusal_instead_of_silence()
        );
    }

    #[test]
    fn a_person_can_read_it() {
        let shown = items(PUSH, false)[0].to_string();
        assert_eq!(shown, r#"push onChat "hi" from "alice" to "*""#);
        assert_eq!(items(b"\x03\0\0\0", false)[0].to_string(), "heartbeat");
    }
}
