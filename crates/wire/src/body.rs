//! JSON bodies, read as leniently as the original read them and written as it wrote them.
//!
//! Reading never fails: what is no JSON object, or is nested deeper than
//! [`limits::JSON_DEPTH_MAX`], counts as an empty object. Depth is checked before anything is parsed.

use std::{borrow::Cow, fmt, sync::Arc};

use model::{Content, limits};
use serde::de::{Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

/// Somewhere to write text. What arrives can be an encoding of it.
pub trait Sink {
    /// Appends `text`.
    fn text(&mut self, text: &str);
}

impl Sink for Vec<u8> {
    fn text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }
}

/// Writes into a JSON string inside of another sink: everything that JSON wants escaped, is.
pub struct Escaped<'a, S>(pub &'a mut S);

impl<S: Sink> Sink for Escaped<'_, S> {
    fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut clean_from = 0;
        let mut at = 0;
        while at < bytes.len() {
            if !IS_ESCAPED[usize::from(bytes[at])] {
                at += 1;
                continue;
            }
            if clean_from < at {
                self.0.text(&text[clean_from..at]);
            }
            self.0.text(escape_of(bytes[at]));
            at += 1;
            clean_from = at;
        }
        if clean_from < at {
            self.0.text(&text[clean_from..]);
        }
    }
}

/// Which bytes JSON wants escaped inside a string.
const IS_ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// How `JSON.stringify` writes an escaped byte.
const fn escape_of(byte: u8) -> &'static str {
    const CONTROL: [&str; 32] = [
        "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007",
        "\\b", "\\t", "\\n", "\\u000b", "\\f", "\\r", "\\u000e", "\\u000f", "\\u0010", "\\u0011",
        "\\u0012", "\\u0013", "\\u0014", "\\u0015", "\\u0016", "\\u0017", "\\u0018", "\\u0019",
        "\\u001a", "\\u001b", "\\u001c", "\\u001d", "\\u001e", "\\u001f",
    ];
    match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        control => CONTROL[(control & 0x1f) as usize],
    }
}

/// Writes `text` as a JSON string.
pub fn write_string(out: &mut impl Sink, text: &str) {
    out.text("\"");
    Escaped(out).text(text);
    out.text("\"");
}

/// Writes a whole number.
pub fn write_number(out: &mut impl Sink, number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.text(str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Writes the member `name` with a comma before it, unless the content is missing.
pub fn write_member(out: &mut impl Sink, name: &str, content: &Content) {
    if *content == Content::Missing {
        return;
    }
    out.text(",\"");
    out.text(name);
    out.text("\":");
    match content {
        Content::Text(text) => write_string(out, text),
        Content::Json(json) => out.text(json),
        Content::Missing => {}
    }
}

/// Writes a JSON value the way `JSON.stringify` does, without spaces. Recurses as deep as the value.
pub fn write_value(out: &mut impl Sink, value: &Value) {
    match value {
        Value::Null => out.text("null"),
        Value::Bool(true) => out.text("true"),
        Value::Bool(false) => out.text("false"),
        Value::Number(number) => {
            out.text(&javascript_number(number.as_f64().unwrap_or(f64::NAN)));
        }
        Value::String(text) => write_string(out, text),
        Value::Array(elements) => {
            out.text("[");
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.text(",");
                }
                write_value(out, element);
            }
            out.text("]");
        }
        Value::Object(members) => {
            out.text("{");
            for (at, (name, member)) in members.iter().enumerate() {
                if at > 0 {
                    out.text(",");
                }
                write_string(out, name);
                out.text(":");
                write_value(out, member);
            }
            out.text("}");
        }
    }
}

/// Reads the named members of a request's body.
///
/// The last of several members of one name counts.
#[must_use]
pub fn members<const N: usize>(json: &str, names: [&str; N]) -> [Content; N] {
    let mut found = [None; N];
    if depth_is_within(json, limits::JSON_DEPTH_MAX) {
        found = parse_members(json, &names).unwrap_or([None; N]);
    }
    found.map(|raw| raw.map_or(Content::Missing, content_of))
}

/// The first argument of a handler: the body itself, or the first element of an array, which
/// Pomelo 2 spreads over the handler's arguments. Empty if there is none.
#[must_use]
pub fn first_argument(json: &str) -> &str {
    if !json.trim_start().starts_with('[') {
        return json;
    }
    if !depth_is_within(json, limits::JSON_DEPTH_MAX) {
        return "";
    }
    let elements = serde_json::from_str::<Elements<'_, 1>>(json);
    elements.map_or("", |Elements([first])| first.map_or("", RawValue::get))
}

/// Whether no value in `json` is nested deeper than `max`. Reads each byte once, allocates nothing.
#[must_use]
pub fn depth_is_within(json: &str, max: usize) -> bool {
    let bytes = json.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    true
}

/// Where the quote is that ends a string whose inside begins at `from`.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The name that the original made of a member: JavaScript's text of the value. A member that was
/// not there gives `undefined`.
#[must_use]
pub fn as_name(content: &Content) -> Cow<'_, str> {
    match content {
        Content::Text(text) => Cow::Borrowed(text),
        Content::Missing => Cow::Borrowed("undefined"),
        Content::Json(json) => serde_json::from_str(json)
            .map_or(Cow::Borrowed(json), |value| Cow::Owned(javascript_text(&value))),
    }
}

/// The room that the original made of a member. `None` where it failed: missing, `null` or an array.
#[must_use]
pub fn as_room(content: &Content) -> Option<Cow<'_, str>> {
    match content {
        Content::Missing => None,
        Content::Json(json) if json.starts_with(['n', '[']) => None,
        Content::Text(_) | Content::Json(_) => Some(as_name(content)),
    }
}

/// The user that the original's gate made of `uid`. `None` where it refused (whatever JavaScript
/// holds for false) or failed (an array).
#[must_use]
pub fn as_uid(content: &Content) -> Option<Cow<'_, str>> {
    match content {
        Content::Json(json) if matches!(&**json, "false" | "0") => None,
        Content::Text(text) if text.is_empty() => None,
        Content::Missing | Content::Text(_) | Content::Json(_) => as_room(content),
    }
}

/// The JSON texts of the first two elements of an array.
pub(crate) fn first_two(json: &str) -> Option<(&str, &str)> {
    let Elements([first, second]) = serde_json::from_str(json).ok()?;
    Some((first?.get(), second?.get()))
}

/// The first elements of an array, whose others are looked at but not kept.
struct Elements<'a, const N: usize>([Option<&'a RawValue>; N]);

impl<'de, const N: usize> Deserialize<'de> for Elements<'de, N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for First<N> {
            type Value = Elements<'de, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut first = [None; N];
                for element in &mut first {
                    *element = seq.next_element()?;
                    if element.is_none() {
                        return Ok(Elements(first));
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements(first))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

fn parse_members<'a, const N: usize>(
    json: &'a str,
    names: &[&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = Members(names).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

/// Picks the members of these names out of an object, without parsing their values.
struct Members<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(wanted) = map.next_key_seed(Position(self.0))? {
            match wanted {
                Some(at) => found[at] = Some(map.next_value::<&RawValue>()?.get()),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(found)
    }
}

/// Reads a member's name as its place among these names.
struct Position<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

/// Makes content of one JSON value. Values other than strings are kept as the original would
/// write them again.
pub(crate) fn content_of(raw: &str) -> Content {
    if let Some(inner) = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        return Content::Text(if inner.contains('\\') {
            unescape(inner).into()
        } else {
            inner.into()
        });
    }
    let Ok(value) = serde_json::from_str::<Value>(raw) else {
        // A number too large for a double or half a surrogate pair; the text itself is sound.
        return Content::Json(raw.into());
    };
    let mut json = Vec::with_capacity(raw.len());
    write_value(&mut json, &value);
    Content::Json(String::from_utf8(json).map_or_else(|_| Arc::from(raw), Arc::from))
}

/// Decodes the inside of a JSON string whose escapes are sound. Half a surrogate pair, which
/// JavaScript allows, becomes U+FFFD.
fn unescape(inner: &str) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((clean, escape)) = rest.split_once('\\') {
        text.push_str(clean);
        let mut after = escape.chars();
        let char = match after.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (char, tail) = unescape_unicode(escape);
                text.push(char);
                rest = tail;
                continue;
            }
            Some(other) => other,
            None => char::REPLACEMENT_CHARACTER,
        };
        text.push(char);
        rest = after.as_str();
    }
    text.push_str(rest);
    text
}

/// Decodes `uXXXX`, or `uXXXX\uXXXX` if that is a surrogate pair; also returns what follows.
fn unescape_unicode(escape: &str) -> (char, &str) {
    let unit = |text: &str| u16::from_str_radix(text.get(1..5)?, 16).ok();
    let Some(first) = unit(escape) else {
        return (char::REPLACEMENT_CHARACTER, escape.get(1..).unwrap_or_default());
    };
    let tail = &escape[5..];
    let second = tail
        .strip_prefix("\\u")
        .and_then(|_| unit(tail.get(1..)?).filter(|unit| (0xdc00..0xe000).contains(unit)));
    if let (0xd800..0xdc00, Some(second)) = (first, second) {
        let mut decoded = char::decode_utf16([first, second]);
        if let Some(Ok(char)) = decoded.next() {
            return (char, &tail[6..]);
        }
    }
    let char = char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
    (char, tail)
}

/// `String(value)` in JavaScript.
fn javascript_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) => javascript_number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Array(elements) => {
            let texts = elements.iter().map(|element| {
                if element.is_null() { String::new() } else { javascript_text(element) }
            });
            texts.collect::<Vec<_>>().join(",")
        }
        Value::Object(_) => "[object Object]".to_owned(),
    }
}

/// How JavaScript writes a number: plain up to 21 digits, with an exponent beyond. What JSON has
/// no number for is `null`, as `JSON.stringify` has it.
fn javascript_number(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let shortest = format!("{:e}", number.abs());
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits = digits.replace('.', "");
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The decimal point stands after so many of the digits.
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    match point {
        _ if (count..=21).contains(&point) => format!("{sign}{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
            format!("{sign}{whole}.{fraction}")
        }
        -5..=0 => format!("{sign}0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{sign}{first}{dot}{rest}e{:+}", point - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Text(text.into())
    }

    fn json(text: &str) -> Content {
        Content::Json(text.into())
    }

    fn one(body: &str) -> Content {
        let [content] = members(first_argument(body), ["a"]);
        content
    }

    #[test]
    fn members_are_found_in_any_order_and_others_ignored() {
        let body = r#" {"x":[{"a":1}],"b" : "two","a":"one","timestamp":1360240686755} "#;
        assert_eq!(members(body, ["a", "b"]), [text("one"), text("two")]);
        assert_eq!(one(r#"{"a":1,"a":2}"#), json("2"));
        assert_eq!(one(r#"{"\u0061":1}"#), json("1"));
    }

    #[test]
    fn what_is_no_object_is_an_empty_one() {
        for body in [
            "",
            "{",
            "not json",
            "null",
            "5",
            "\"a\"",
            "true",
            "[]",
            "[1,2]",
            "[[{\"a\":1}]]",
            "{\"a\":1} trailing",
            "[{\"a\":1}",
            "{\"a\":}",
            "\u{feff}{\"a\":1}",
        ] {
            assert_eq!(one(body), Content::Missing, "{body}");
        }
    }

    #[test]
    fn an_array_stands_for_its_first_element() {
        assert_eq!(one(r#"[{"a":"b"}]"#), text("b"));
        assert_eq!(one(r#" [ {"a":"b"} , 7, [] ]"#), text("b"));
    }

    #[test]
    fn depth_is_bounded_before_parsing() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let fine = format!(r#"{{"a":{}}}"#, nested(limits::JSON_DEPTH_MAX - 1));
        assert_eq!(one(&fine), json(&nested(limits::JSON_DEPTH_MAX - 1)));
        let deep = format!(r#"{{"a":{}}}"#, nested(limits::JSON_DEPTH_MAX));
        assert_eq!(one(&deep), Content::Missing);
        assert!(!depth_is_within(&"[".repeat(1 << 20), 32));
        assert!(depth_is_within(r#"["[[[\"[[["]"#, 1));
    }

    #[test]
    fn values_are_kept_as_the_original_wrote_them_again() {
        for (body, kept) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("-12.5", "-12.5"),
            ("1.25e-9", "1.25e-9"),
            ("100", "100"),
            (r#"{ "b" : [ 1 , null ], "a" : "\u00e9" }"#, r#"{"b":[1,null],"a":"é"}"#),
            ("1e999", "1e999"),
        ] {
            assert_eq!(one(&format!(r#"{{"a":{body}}}"#)), json(kept));
        }
    }

    #[test]
    fn strings_are_unescaped_even_where_javascript_alone_would() {
        let tricky = r#"{"a":"\ud83d\ude00 \ud83d x\udc00 \ud83d\u0041\\ \n\/\"é"}"#;
        assert_eq!(one(tricky), text("😀 \u{fffd} x\u{fffd} \u{fffd}A\\ \n/\"é"));
        assert_eq!(one(r#"{"a":"\t\u4e2d"}"#), text("\t中"));
        assert_eq!(one(r#"{"a":"\q"}"#), Content::Missing);
    }

    #[test]
    fn strings_are_written_as_javascript_writes_them() {
        let mut out = Vec::new();
        write_string(&mut out, "a\"b\\c\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}\u{2028}é/");
        let written = String::from_utf8(out).unwrap();
        assert_eq!(written, "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\u{2028}é/\"");
    }

    #[test]
    fn names_are_coerced_as_the_original_did() {
        for (content, name) in [
            (text("alice"), "alice"),
            (text(""), ""),
            (json("7"), "7"),
            (json("true"), "true"),
            (json("null"), "null"),
            (json(r#"{"a":1}"#), "[object Object]"),
            (json(r#"["a","b"]"#), "a,b"),
            (json(r#"[null,[1,{}]]"#), ",1,[object Object]"),
            (Content::Missing, "undefined"),
        ] {
            assert_eq!(as_name(&content), name);
        }
        assert_eq!(as_room(&json("8")).as_deref(), Some("8"));
        assert_eq!(as_room(&json("null")), None);
        assert_eq!(as_room(&json("[\"r\"]")), None);
        assert_eq!(as_room(&Content::Missing), None);
        for refused in [text(""), json("0"), json("null"), json("false"), json("[1]")] {
            assert_eq!(as_uid(&refused), None);
        }
        assert_eq!(as_uid(&json("12")).as_deref(), Some("12"));
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 65535, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
