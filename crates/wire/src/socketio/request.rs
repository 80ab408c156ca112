//! The request string inside a Socket.IO message, the same in both generations.
//!
//! ```text
//! 4 characters  id, big-endian, the low 8 bits of each
//! 1 character   length of the route, in characters
//! route
//! body          JSON
//! ```
//!
//! Characters are UTF-16 code units, as JavaScript counts them.

use crate::{Call, RequestId, Route, body::Sink};

/// A request string, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Comes back with the reply. 0 for a notify.
    pub id: RequestId,
    /// What it wants.
    pub route: &'a str,
    /// JSON, hopefully.
    pub json: &'a str,
}

impl<'a> Request<'a> {
    /// Takes a request string apart. A route that claims to be longer than the string is cut to
    /// what is there, with no body after it.
    ///
    /// `None` if it has no five characters: there is no request then, and nothing to answer.
    #[must_use]
    pub fn decode(text: &'a str) -> Option<Self> {
        let mut chars = text.chars();
        let mut id = 0;
        for _ in 0..4 {
            id = (id << 8) | u64::from(low_byte(chars.next()?));
        }
        let route_units = usize::from(low_byte(chars.next()?));
        let (route, json) = split_at_unit(chars.as_str(), route_units);
        Some(Self { id: RequestId(id), route, json })
    }

    /// Appends the request as a string.
    ///
    /// `None`, with nothing appended, if the id takes more than 32 bits or the route more than
    /// 255 characters.
    #[must_use]
    pub fn encode(&self, out: &mut impl Sink) -> Option<()> {
        let id = u32::try_from(self.id.0).ok()?;
        let route_units = u8::try_from(self.route.encode_utf16().count()).ok()?;
        let [a, b, c, d] = id.to_be_bytes().map(char::from);
        let mut head = String::with_capacity(10);
        head.extend([a, b, c, d, char::from(route_units)]);
        out.text(&head);
        out.text(self.route);
        out.text(self.json);
        Some(())
    }

    /// The call, whose arguments are `json`.
    pub(super) fn call(&self, json: &str) -> (RequestId, Call) {
        let call = match Route::from_name(self.route) {
            Some(route) => Call::from_json(route, json),
            None => Call::Unknown { route: self.route.to_owned() },
        };
        (self.id, call)
    }
}

/// The low byte of a character that stands for a number. One beyond the BMP would be two units;
/// no client means that.
fn low_byte(char: char) -> u8 {
    let [.., low] = u32::from(char).to_be_bytes();
    low
}

/// Splits text after so many UTF-16 units, or at its end if it has fewer. A character of two
/// units that straddles the cut stays behind it.
fn split_at_unit(text: &str, units: usize) -> (&str, &str) {
    let mut left = units;
    for (at, char) in text.char_indices() {
        match left.checked_sub(char.len_utf16()) {
            Some(rest) if left > 0 => left = rest,
            _ => return text.split_at(at),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Content;

    const ENTRY: &str = "\0\0\0\u{2}\u{1b}gate.gateHandler.queryEntry{\"uid\":\"alice\"}";

    #[test]
    fn a_request_is_taken_apart_and_put_together() {
        let request = Request::decode(ENTRY).unwrap();
        assert_eq!(request.id, RequestId(2));
        assert_eq!(request.route, Route::QueryEntry.name());
        let mut out = Vec::new();
        request.encode(&mut out).unwrap();
        assert_eq!(out, ENTRY.as_bytes());
        let (_, call) = request.call(request.json);
        let uid = Content::Text("alice".into());
        assert_eq!(
            call,
            Call::QueryEntry { uid, rid: Content::Missing, tangelo: Content::Missing }
        );
    }

    #[test]
    fn ids_use_the_low_byte_of_each_character() {
        let id = |text| Request::decode(text).map(|request| request.id.0);
        assert_eq!(id("\u{80}\u{80}\u{80}\u{80}\0"), Some(0x8080_8080));
        assert_eq!(id("\u{100}\u{201}\0\u{3ff}\0"), Some(0x0001_00ff));
        assert_eq!(id("\0\0\0\0"), None);
        assert_eq!(id(""), None);
    }

    #[test]
    fn lengths_count_utf16_units() {
        let request = Request::decode("\0\0\0\u{1}\u{4}a张😀{}").unwrap();
        assert_eq!((request.route, request.json), ("a张😀", "{}"));
        let straddling = Request::decode("\0\0\0\u{1}\u{1}😀{}").unwrap();
        assert_eq!((straddling.route, straddling.json), ("", "😀{}"));
        let cut = Request::decode("\0\0\0\u{1}\u{c8}chat.x{}").unwrap();
        assert_eq!((cut.route, cut.json), ("chat.x{}", ""));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut out = Vec::new();
        let (route, json) = ("x", "{}");
        let large = Request { id: RequestId(1 << 32), route, json };
        assert_eq!(large.encode(&mut out), None);
        let route = &*"x".repeat(256);
        let long = Request { id: RequestId(1), route, json };
        assert_eq!(long.encode(&mut out), None);
        assert!(out.is_empty());
    }
}
