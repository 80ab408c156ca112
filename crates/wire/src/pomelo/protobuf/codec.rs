//! Bodies to bytes and back, by a schema.

use model::limits;
use serde_json::{Map, Number, Value};

use super::schema::{Definition, Field, Kind, Rule, Schema};
use crate::pomelo::{
    Encoding,
    message::{MessageError, decode_leb128, encode_leb128},
    text,
};

/// The value of a member to be encoded.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// A string.
    Text(&'a str),
    /// Any JSON value.
    Json(&'a Value),
}

/// Why a body cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The schema has no such route.
    #[error("the schema has no such route")]
    Route,
    /// A required member is not there. The original sends an empty body instead.
    #[error("a required member is missing")]
    Missing,
    /// A member is not of its type. The original fails and sends nothing.
    #[error("a member is not of its type")]
    Type,
    /// Nested deeper than [`limits::JSON_DEPTH_MAX`].
    #[error("nested too deeply")]
    TooDeep,
}

/// Why bytes are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The schema has no such route.
    #[error("the schema has no such route")]
    Route,
    /// They end inside a field.
    #[error("the body ends inside a field")]
    Truncated,
    /// A number needs more than 64 bits.
    #[error("a number is too large")]
    Number,
    /// A tag that the schema does not know: its length cannot be told.
    #[error("the schema has no field {0}")]
    Tag(u64),
    /// Nested deeper than [`limits::JSON_DEPTH_MAX`].
    #[error("nested too deeply")]
    TooDeep,
}

impl<'a> From<&'a Value> for Member<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Self::Json(value),
        }
    }
}

impl Schema {
    /// Appends the body of `route` to `out`: the members that the schema knows, in the order given.
    ///
    /// # Errors
    ///
    /// If the schema does not know the route or the members do not fit it; `out` may then hold
    /// part of them.
    pub fn encode<'a>(
        &self,
        route: &str,
        members: impl Iterator<Item = (&'a str, Member<'a>)> + Clone,
        encoding: Encoding,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let definition = self.message(route).ok_or(EncodeError::Route)?;
        let encoder = Encoder { schema: self, encoding };
        encoder.check(definition, members.clone(), 1)?;
        encoder.message(definition, members, out)
    }

    /// Reads a body of `route`.
    ///
    /// # Errors
    ///
    /// If the schema does not know the route or the bytes do not fit it.
    pub fn decode(&self, route: &str, bytes: &[u8]) -> Result<Map<String, Value>, DecodeError> {
        let definition = self.message(route).ok_or(DecodeError::Route)?;
        self.decode_message(definition, bytes, 1)
    }

    fn decode_message(
        &self,
        definition: &Definition,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Map<String, Value>, DecodeError> {
        if depth > limits::JSON_DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let mut message = Map::new();
        let mut input = Input(bytes);
        while !input.0.is_empty() {
            let tag = input.number()? >> 3;
            let field = definition.by_tag(tag).ok_or(DecodeError::Tag(tag))?;
            match field.rule {
                Rule::Required | Rule::Optional => {
                    let value = self.decode_value(field.kind, &mut input, depth)?;
                    message.insert(field.name.clone(), value);
                }
                Rule::Repeated => {
                    let name = field.name.clone();
                    let elements = message.entry(name).or_insert_with(|| Value::Array(vec![]));
                    if let Value::Array(elements) = elements {
                        self.decode_elements(field.kind, &mut input, depth, elements)?;
                    }
                }
            }
        }
        Ok(message)
    }

    fn decode_elements(
        &self,
        kind: Kind,
        input: &mut Input<'_>,
        depth: usize,
        elements: &mut Vec<Value>,
    ) -> Result<(), DecodeError> {
        let count = if kind.is_delimited() { 1 } else { input.number()? };
        // Each element takes at least a byte, so a count that lies ends with the input.
        for _ in 0..count {
            elements.push(self.decode_value(kind, input, depth)?);
        }
        Ok(())
    }

    fn decode_value(
        &self,
        kind: Kind,
        input: &mut Input<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        Ok(match kind {
            Kind::UInt32 => Value::Number(input.number()?.into()),
            Kind::SInt32 => {
                let zigzag = input.number()?;
                let magnitude = i64::try_from(zigzag >> 1).unwrap_or_default();
                let signed = if zigzag & 1 == 1 { -magnitude - 1 } else { magnitude };
                Value::Number(signed.into())
            }
            Kind::Float => from_double(f32::from_le_bytes(*input.chunk()?).into()),
            Kind::Double => from_double(f64::from_le_bytes(*input.chunk()?)),
            Kind::String => Value::String(text::decode(input.delimited()?).into_owned()),
            Kind::Message(at) => {
                let bytes = input.delimited()?;
                let inner = self.definition(at).ok_or(DecodeError::Route)?;
                Value::Object(self.decode_message(inner, bytes, depth + 1)?)
            }
        })
    }
}

struct Encoder<'s> {
    schema: &'s Schema,
    encoding: Encoding,
}

impl Encoder<'_> {
    /// Whether everything required is there, before anything is written.
    fn check<'a>(
        &self,
        definition: &Definition,
        members: impl Iterator<Item = (&'a str, Member<'a>)> + Clone,
        depth: usize,
    ) -> Result<(), EncodeError> {
        if depth > limits::JSON_DEPTH_MAX {
            return Err(EncodeError::TooDeep);
        }
        for field in &definition.fields {
            let member = members.clone().find(|(name, _)| *name == field.name);
            let Some((_, member)) = member else {
                if field.rule == Rule::Required {
                    return Err(EncodeError::Missing);
                }
                continue;
            };
            let Kind::Message(at) = field.kind else {
                continue;
            };
            let inner = self.schema.definition(at).ok_or(EncodeError::Type)?;
            for element in Elements::of(field, member)? {
                let object = object(element).ok_or(EncodeError::Missing)?;
                self.check(inner, object_members(object), depth + 1)?;
            }
        }
        Ok(())
    }

    fn message<'a>(
        &self,
        definition: &Definition,
        members: impl Iterator<Item = (&'a str, Member<'a>)>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        for (name, member) in members {
            let Some(field) = definition.by_name(name) else {
                continue;
            };
            let tag = (u64::from(field.tag) << 3) | field.kind.wire_type();
            let elements = Elements::of(field, member)?;
            let counted = field.rule == Rule::Repeated && !field.kind.is_delimited();
            if counted && elements.left() > 0 {
                encode_leb128(out, tag);
                encode_leb128(out, elements.left() as u64);
            }
            for element in elements {
                if !counted {
                    encode_leb128(out, tag);
                }
                self.value(field.kind, element, out)?;
            }
        }
        Ok(())
    }

    fn value(&self, kind: Kind, member: Member<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match kind {
            Kind::UInt32 => {
                let number = whole(member).ok_or(EncodeError::Type)?;
                let unsigned = u64::try_from(number).map_err(|_| EncodeError::Type)?;
                encode_leb128(out, unsigned);
            }
            Kind::SInt32 => {
                let number = whole(member).ok_or(EncodeError::Type)?;
                let zigzag = (number << 1) ^ (number >> 63);
                encode_leb128(out, zigzag.cast_unsigned());
            }
            Kind::Float => {
                let double = double(member).ok_or(EncodeError::Type)?;
                #[expect(clippy::cast_possible_truncation, reason = "a float was asked for")]
                out.extend_from_slice(&(double as f32).to_le_bytes());
            }
            Kind::Double => {
                let double = double(member).ok_or(EncodeError::Type)?;
                out.extend_from_slice(&double.to_le_bytes());
            }
            Kind::String => {
                let Member::Text(text) = member else {
                    return Err(EncodeError::Type);
                };
                encode_leb128(out, self.encoding.len(text) as u64);
                self.encoding.append(out, text);
            }
            Kind::Message(at) => {
                let inner = self.schema.definition(at).ok_or(EncodeError::Type)?;
                let object = object(member).ok_or(EncodeError::Type)?;
                let mut bytes = Vec::new();
                self.message(inner, object_members(object), &mut bytes)?;
                encode_leb128(out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
        }
        Ok(())
    }
}

/// The values of a field: one, or the elements of a repeated member.
#[derive(Clone, Copy)]
struct Elements<'a> {
    single: Option<Member<'a>>,
    many: &'a [Value],
}

impl<'a> Elements<'a> {
    fn of(field: &Field, member: Member<'a>) -> Result<Self, EncodeError> {
        let (single, many) = match (field.rule, member) {
            (Rule::Required | Rule::Optional, member) => (Some(member), &[][..]),
            (Rule::Repeated, Member::Json(Value::Array(elements))) => (None, elements.as_slice()),
            (Rule::Repeated, Member::Text("")) => (None, &[][..]),
            (Rule::Repeated, Member::Text(_)) => return Err(EncodeError::Type),
            // What has no length counts as nothing.
            (Rule::Repeated, Member::Json(_)) => (None, &[][..]),
        };
        Ok(Self { single, many })
    }

    fn left(&self) -> usize {
        usize::from(self.single.is_some()) + self.many.len()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        if let Some(single) = self.single.take() {
            return Some(single);
        }
        let (first, rest) = self.many.split_first()?;
        self.many = rest;
        Some(first.into())
    }
}

fn object(member: Member<'_>) -> Option<&Map<String, Value>> {
    match member {
        Member::Json(value) => value.as_object(),
        Member::Text(_) => None,
    }
}

fn object_members(object: &Map<String, Value>) -> impl Iterator<Item = (&str, Member<'_>)> + Clone {
    object.iter().map(|(name, value)| (name.as_str(), Member::from(value)))
}

fn double(member: Member<'_>) -> Option<f64> {
    match member {
        Member::Json(value) => value.as_f64(),
        Member::Text(_) => None,
    }
}

/// The whole part of a number, within what JavaScript holds exactly.
fn whole(member: Member<'_>) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    let whole = double(member)?.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "within 53 bits")]
    (whole.abs() <= EXACT_MAX).then_some(whole as i64)
}

/// What JSON cannot say is null, as `JSON.stringify` has it.
fn from_double(double: f64) -> Value {
    Number::from_f64(double).map_or(Value::Null, Value::Number)
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn number(&mut self) -> Result<u64, DecodeError> {
        let (number, rest) = decode_leb128(self.0).map_err(|error| match error {
            MessageError::Id => DecodeError::Number,
            MessageError::Truncated | MessageError::Kind(_) | MessageError::Route => {
                DecodeError::Truncated
            }
        })?;
        self.0 = rest;
        Ok(number)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(chunk)
    }

    fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SOURCE: &str = r#"{
        "message Point": {"required int32 x": 1, "optional sInt32 y": 2},
        "all": {
            "optional uInt32 u": 1, "optional int32 i": 2, "optional float f": 3,
            "optional double d": 4, "optional string s": 5, "optional Point p": 6,
            "repeated uInt32 us": 7, "repeated string ss": 8, "repeated Point ps": 16
        },
        "tree": {"repeated Tree branches": 1},
        "message Tree": {"repeated Tree branches": 1},
        "strict": {"required string a": 1, "required Point p": 2}
    }"#;

    fn encode(route: &str, body: &Value) -> Result<Vec<u8>, EncodeError> {
        let schema = Schema::parse(SOURCE).unwrap();
        let mut out = Vec::new();
        let members = object_members(body.as_object().unwrap());
        schema.encode(route, members, Encoding::Utf8, &mut out)?;
        Ok(out)
    }

    fn decode(route: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
        let schema = Schema::parse(SOURCE).unwrap();
        schema.decode(route, bytes).map(Value::Object)
    }

    #[track_caller]
    fn check(body: Value, bytes: &[u8]) {
        assert_eq!(encode("all", &body).unwrap(), bytes);
        assert_eq!(decode("all", bytes).unwrap(), body);
    }

    #[test]
    fn each_type_has_its_bytes() {
        check(json!({"u": 300}), &[0x08, 0xac, 0x02]);
        check(json!({"i": -1}), &[0x10, 0x01]);
        check(json!({"i": 64}), &[0x10, 0x80, 0x01]);
        check(json!({"f": 0.5}), &[0x1d, 0, 0, 0, 0x3f]);
        check(json!({"d": -2.0}), &[0x21, 0, 0, 0, 0, 0, 0, 0, 0xc0]);
        check(json!({"s": "hé"}), b"\x2a\x03h\xc3\xa9");
        check(json!({"p": {"x": 1, "y": -2}}), &[0x32, 4, 8, 2, 0x10, 3]);
        check(json!({"ss": ["a", ""]}), b"\x42\x01a\x42\0");
        check(json!({"ps": [{"x": 0}, {"x": 1}]}), &[0x82, 1, 2, 8, 0, 0x82, 1, 2, 8, 2]);
    }

    #[test]
    fn repeated_numbers_carry_their_count_not_their_length() {
        check(json!({"us": [1, 300]}), &[0x38, 2, 1, 0xac, 2]);
        assert_eq!(encode("all", &json!({"us": []})).unwrap(), b"");
    }

    #[test]
    fn the_wire_type_is_not_looked_at() {
        assert_eq!(decode("all", &[0x0a, 5]).unwrap(), json!({"u": 5}));
        assert_eq!(decode("all", &[0x0f, 5]).unwrap(), json!({"u": 5}));
    }

    #[test]
    fn unknown_members_are_left_out_and_unknown_tags_refused() {
        assert_eq!(encode("all", &json!({"x": [], "u": 0})).unwrap(), [8, 0]);
        assert_eq!(decode("all", &[0x78, 0]), Err(DecodeError::Tag(15)));
        assert_eq!(encode("none", &json!({})), Err(EncodeError::Route));
        assert_eq!(decode("none", &[]), Err(DecodeError::Route));
    }

    #[test]
    fn required_members_are_asked_for_before_types() {
        let missing = Err(EncodeError::Missing);
        assert_eq!(encode("strict", &json!({"a": 1})), missing);
        assert_eq!(encode("strict", &json!({"a": 1, "p": {}})), missing);
        assert_eq!(encode("strict", &json!({"a": 1, "p": 5})), missing);
        let wrong = json!({"a": 1, "p": {"x": 1}});
        assert_eq!(encode("strict", &wrong), Err(EncodeError::Type));
        for wrong in [
            json!({"u": -1}),
            json!({"u": "1"}),
            json!({"s": null}),
            json!({"f": "x"}),
            json!({"i": 1e300}),
            json!({"us": "text"}),
        ] {
            assert_eq!(encode("all", &wrong), Err(EncodeError::Type), "{wrong}");
        }
    }

    #[test]
    fn lies_about_length_are_seen() {
        for bytes in [
            &[0x2a][..],
            &[0x2a, 5, b'a'],
            &[0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x38, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            &[0x1d, 0, 0],
            &[0x80],
        ] {
            assert_eq!(decode("all", bytes), Err(DecodeError::Truncated));
        }
        assert_eq!(decode("all", &[0xff; 11]), Err(DecodeError::Number));
    }

    #[test]
    fn depth_is_bounded_both_ways() {
        let (mut bytes, mut body) = (Vec::new(), json!({}));
        for _ in 0..limits::JSON_DEPTH_MAX {
            let mut outer = vec![0x0a];
            encode_leb128(&mut outer, bytes.len() as u64);
            outer.extend(&bytes);
            bytes = outer;
            body = json!({"branches": [body]});
        }
        assert_eq!(decode("tree", &bytes), Err(DecodeError::TooDeep));
        assert_eq!(encode("tree", &body), Err(EncodeError::TooDeep));
    }

    #[test]
    fn text_leaves_in_the_encoding_asked_for() {
        let schema = Schema::parse(SOURCE).unwrap();
        let mut out = Vec::new();
        let members = [("s", Member::Text("😀"))].into_iter();
        let done = schema.encode("all", members, Encoding::Cesu8, &mut out);
        assert_eq!(done, Ok(()));
        assert_eq!(out, b"\x2a\x06\xed\xa0\xbd\xed\xb8\x80");
        assert_eq!(decode("all", &out).unwrap(), json!({"s": "😀"}));
    }
}
