//! How two servers differ.

use std::{collections::BTreeSet, fmt};

use super::item::{Item, Lane};

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

    pub(super) fn unanswered(connection: &str, id: i64) -> Self {
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
    pub(super) silent: BTreeSet<i64>,
    /// The original closed the connection, so that it could not.
    pub(super) closed: bool,
    /// Requests whose answer is not in the transcript.
    pub(super) withheld: BTreeSet<i64>,
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
            let instead = match item.answers {
                Some(id) if self.withheld.contains(&id) => " instead of an exception's text",
                Some(_) if item.lane != Lane::Http && !item.is_replaced_in(&self.items) => INSTEAD,
                Some(_) | None => "",
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

    /// Pairs what is expected with what came: in order within each lane.
    fn matches(&self, actual: &[Item]) -> Matches {
        let mut found = Matches::default();
        for lane in [Lane::Push, Lane::Other, Lane::Http] {
            let mut from = 0;
            for (at, item) in self.items.iter().enumerate().filter(|(_, it)| it.lane == lane) {
                let is_it = |(place, it): &(usize, &Item)| {
                    *it == item && it.lane == lane && !found.actual.contains(place)
                };
                let mut rest = actual.iter().enumerate().skip(from);
                if let Some((place, _)) = rest.find(is_it) {
                    found.expected.insert(at);
                    found.actual.insert(place);
                    from = if lane == Lane::Http { 0 } else { place + 1 };
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

    use crate::transcript::packages::items;

    const PUSH: &[u8] = b"\x04\0\0\x16\x06\x06onChat\x0a\x02hi\x12\x05alice\x1a\x01*";

    fn answer(id: u8, body: &str) -> Vec<u8> {
        let mut bytes = vec![4, 0, 0, u8::try_from(body.len() + 2).unwrap(), 4, id];
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    fn expected(bytes: &[u8]) -> Expected {
        Expected { items: items(bytes), ..Expected::default() }
    }

    fn told(expected: &Expected, bytes: &[u8]) -> Vec<String> {
        let differences = expected.differences("c", &items(bytes));
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
        let differences = expected.differences("c", &items(&ours));
        assert_eq!(differences.len(), 1);
        assert!(differences[0].is_refusal_instead_of_silence());
        let ours = [PUSH, &answer(7, "{}")].concat();
        assert!(!expected.differences("c", &items(&ours))[0].is_refusal_instead_of_silence());
    }

    #[test]
    fn a_person_can_read_it() {
        let shown = items(PUSH)[0].to_string();
        assert_eq!(shown, r#"push onChat "hi" from "alice" to "*""#);
        assert_eq!(items(b"\x03\0\0\0")[0].to_string(), "heartbeat");
    }
}
