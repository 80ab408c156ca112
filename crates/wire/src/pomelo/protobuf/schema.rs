//! Schemas: which bodies are protobuf, and how.

use std::collections::BTreeMap;

use model::limits;
use serde_json::{Map, Value};

use crate::body::{self, Sink, depth_is_within};

/// The bodies that are protobuf, by route. The empty schema leaves everything JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    json: String,
    definitions: Vec<Definition>,
    routes: BTreeMap<String, usize>,
}

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is no JSON.
    #[error("it is no JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// It is nested deeper than [`limits::JSON_DEPTH_MAX`].
    #[error("it is nested deeper than {} levels", limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// One of its messages makes no sense.
    #[error("in {message:?}: {mistake}")]
    Message {
        /// The message: its route, and the names of the messages that it is nested in.
        message: String,
        /// What is wrong with it.
        mistake: Mistake,
    },
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It is no object.
    #[error("a message is an object of fields, such as {{\"required string name\": 1}}")]
    Shape,
    /// A field without a usable number.
    #[error("the field {0:?} needs a tag from 1 to 536870911")]
    Tag(String),
    /// Two fields of one name.
    #[error("the field {0:?} is there twice")]
    Duplicate(String),
    /// A type that is neither built in nor defined.
    #[error(
        "the field {field:?} has the unknown type {kind:?}; there are uInt32, int32, sInt32, \
         float, double, string, and the messages defined beside it"
    )]
    Type {
        /// The field.
        field: String,
        /// Its type.
        kind: String,
    },
}

impl Mistake {
    fn in_message(self, message: &str) -> SchemaError {
        SchemaError::Message { message: message.to_owned(), mistake: self }
    }
}

impl SchemaError {
    /// The same mistake, seen from the message around the one that has it.
    fn inside(self, outer: &str) -> Self {
        match self {
            Self::Message { message, mistake } => {
                Self::Message { message: format!("{outer}/{message}"), mistake }
            }
            Self::Json(_) | Self::TooDeep => self,
        }
    }
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) tag: u32,
    pub(super) rule: Rule,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Required,
    Optional,
    Repeated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    UInt32,
    SInt32,
    Float,
    Double,
    String,
    /// A place in [`Schema::definitions`].
    Message(usize),
}

impl Default for Schema {
    fn default() -> Self {
        Self { json: "{}".to_owned(), definitions: Vec::new(), routes: BTreeMap::new() }
    }
}

impl Schema {
    /// What the chat application's server sends.
    #[must_use]
    pub fn chat() -> Self {
        const SOURCE: &str = r#"{"onChat":
            {"required string msg": 1, "required string from": 2, "required string target": 3}}"#;
        Self::parse(SOURCE).unwrap_or_default()
    }

    /// Reads an application's `serverProtos.json` or `clientProtos.json`.
    ///
    /// As in the original, an entry that does not look like a field or a message is skipped, and
    /// so is a field whose tag another field of the message has.
    ///
    /// # Errors
    ///
    /// If it is no JSON object of messages, or a field has no tag or an unknown type.
    pub fn parse(source: &str) -> Result<Self, SchemaError> {
        Self::read(source, Draft::from_source)
    }

    /// Reads the parsed form that a server announces.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn from_announcement(json: &str) -> Result<Self, SchemaError> {
        Self::read(json, Draft::from_announcement)
    }

    /// The parsed form, as announced.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Whether bodies of this route are protobuf.
    #[must_use]
    pub fn has(&self, route: &str) -> bool {
        self.routes.contains_key(route)
    }

    pub(super) fn message(&self, route: &str) -> Option<&Definition> {
        self.definitions.get(*self.routes.get(route)?)
    }

    pub(super) fn definition(&self, at: usize) -> Option<&Definition> {
        self.definitions.get(at)
    }

    fn read(
        json: &str,
        draft: fn(&str, &Map<String, Value>) -> Result<Draft, SchemaError>,
    ) -> Result<Self, SchemaError> {
        if !depth_is_within(json, limits::JSON_DEPTH_MAX) {
            return Err(SchemaError::TooDeep);
        }
        let messages: Map<String, Value> = serde_json::from_str(json)?;
        let mut drafts = Vec::with_capacity(messages.len());
        for (route, message) in &messages {
            let object = message.as_object().ok_or_else(|| Mistake::Shape.in_message(route))?;
            drafts.push((route.clone(), draft(route, object)?));
        }
        Self::build(&drafts)
    }

    fn build(drafts: &[(String, Draft)]) -> Result<Self, SchemaError> {
        let mut schema = Self::default();
        // Room for each message first, so that others and its own fields can name it.
        schema.definitions.resize_with(drafts.len(), Definition::default);
        for (at, (route, _)) in drafts.iter().enumerate() {
            schema.routes.insert(route.clone(), at);
        }
        for (at, (route, draft)) in drafts.iter().enumerate() {
            schema.define(at, route, draft)?;
        }
        let mut json = Vec::new();
        write_object(&mut json, drafts.iter(), |json, (route, draft)| {
            write_entry(json, route, |json| draft.write_json(json));
        });
        schema.json = String::from_utf8(json).unwrap_or_default();
        Ok(schema)
    }

    /// Resolves the types of a message and of those nested in it, as deep as the schema.
    fn define(&mut self, at: usize, message: &str, draft: &Draft) -> Result<(), SchemaError> {
        let mut nested = BTreeMap::new();
        for (name, inner) in &draft.nested {
            nested.insert(name.as_str(), self.definitions.len());
            self.definitions.push(Definition::default());
            let defined = self.define(self.definitions.len() - 1, name, inner);
            defined.map_err(|error| error.inside(message))?;
        }
        let mut fields = Vec::with_capacity(draft.fields.len());
        for field in &draft.fields {
            let global = || self.routes.get(&format!("message {}", field.kind)).copied();
            let kind = Kind::built_in(&field.kind).or_else(|| {
                let message = nested.get(field.kind.as_str()).copied().or_else(global);
                message.map(Kind::Message)
            });
            fields.push(Field {
                name: field.name.clone(),
                tag: field.tag,
                rule: field.rule,
                kind: kind.ok_or_else(|| {
                    let (field, kind) = (field.name.clone(), field.kind.clone());
                    Mistake::Type { field, kind }.in_message(message)
                })?,
            });
        }
        self.definitions[at].fields = fields;
        Ok(())
    }
}

impl Definition {
    pub(super) fn by_name(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub(super) fn by_tag(&self, tag: u64) -> Option<&Field> {
        self.fields.iter().find(|field| u64::from(field.tag) == tag)
    }
}

impl Rule {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "required" => Self::Required,
            "optional" => Self::Optional,
            "repeated" => Self::Repeated,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::Repeated => "repeated",
        }
    }
}

impl Kind {
    fn built_in(name: &str) -> Option<Self> {
        Some(match name {
            "uInt32" => Self::UInt32,
            "int32" | "sInt32" => Self::SInt32,
            "float" => Self::Float,
            "double" => Self::Double,
            "string" => Self::String,
            _ => return None,
        })
    }

    /// Whether a value says its own length; several then repeat the tag.
    pub(super) const fn is_delimited(self) -> bool {
        matches!(self, Self::String | Self::Message(_))
    }

    /// The wire type of real protobuf.
    pub(super) const fn wire_type(self) -> u64 {
        match self {
            Self::UInt32 | Self::SInt32 => 0,
            Self::Double => 1,
            Self::String | Self::Message(_) => 2,
            Self::Float => 5,
        }
    }
}

/// A message whose types are still names.
struct Draft {
    fields: Vec<DraftField>,
    nested: Vec<(String, Draft)>,
}

struct DraftField {
    name: String,
    rule: Rule,
    kind: String,
    tag: u32,
}

impl Draft {
    /// From `{"required string msg": 1, "message Inner": {…}}`.
    fn from_source(message: &str, object: &Map<String, Value>) -> Result<Self, SchemaError> {
        let mut draft = Self::empty();
        for (entry, value) in object {
            let words: Vec<&str> = entry.split(' ').collect();
            match words.as_slice() {
                ["message", name] => draft
                    .nest(name, value, Self::from_source)
                    .map_err(|error| error.inside(message))?,
                [rule, kind, name] => {
                    if let Some(rule) = Rule::from_name(rule) {
                        let added = draft.add(name, rule, kind, value);
                        added.map_err(|mistake| mistake.in_message(message))?;
                    }
                }
                _ => {}
            }
        }
        Ok(draft)
    }

    /// From `{"msg": {"option": "required", "type": "string", "tag": 1}, "__messages": {…}}`.
    fn from_announcement(message: &str, object: &Map<String, Value>) -> Result<Self, SchemaError> {
        let mut draft = Self::empty();
        for (name, value) in object {
            match name.as_str() {
                "__tags" => {}
                "__messages" => {
                    for (name, inner) in value.as_object().into_iter().flatten() {
                        draft
                            .nest(name, inner, Self::from_announcement)
                            .map_err(|error| error.inside(message))?;
                    }
                }
                _ => {
                    let text = |member| value.get(member).and_then(Value::as_str);
                    let rule = text("option").and_then(Rule::from_name);
                    if let (Some(rule), Some(kind)) = (rule, text("type")) {
                        let added = draft.add(name, rule, kind, &value["tag"]);
                        added.map_err(|mistake| mistake.in_message(message))?;
                    }
                }
            }
        }
        Ok(draft)
    }

    const fn empty() -> Self {
        Self { fields: Vec::new(), nested: Vec::new() }
    }

    fn nest(
        &mut self,
        name: &str,
        message: &Value,
        draft: fn(&str, &Map<String, Value>) -> Result<Self, SchemaError>,
    ) -> Result<(), SchemaError> {
        let object = message.as_object().ok_or_else(|| Mistake::Shape.in_message(name))?;
        self.nested.push((name.to_owned(), draft(name, object)?));
        Ok(())
    }

    fn add(&mut self, name: &str, rule: Rule, kind: &str, tag: &Value) -> Result<(), Mistake> {
        const TAG_MAX: u64 = (1 << 29) - 1;
        let tag = tag
            .as_u64()
            .filter(|tag| (1..=TAG_MAX).contains(tag))
            .and_then(|tag| u32::try_from(tag).ok())
            .ok_or_else(|| Mistake::Tag(name.to_owned()))?;
        if self.fields.iter().any(|field| field.tag == tag) {
            return Ok(());
        }
        if self.fields.iter().any(|field| field.name == name) {
            return Err(Mistake::Duplicate(name.to_owned()));
        }
        self.fields.push(DraftField { name: name.to_owned(), rule, kind: kind.to_owned(), tag });
        Ok(())
    }

    /// The parsed form, members in the original's order.
    fn write_json(&self, out: &mut Vec<u8>) {
        out.text("{");
        for field in &self.fields {
            write_entry(out, &field.name, |out| {
                out.text("{\"option\":\"");
                out.text(field.rule.name());
                out.text("\",\"type\":");
                body::write_string(out, &field.kind);
                out.text(",\"tag\":");
                body::write_number(out, field.tag.into());
                out.text("}");
            });
            out.text(",");
        }
        out.text("\"__messages\":");
        write_object(out, self.nested.iter(), |out, (name, draft)| {
            write_entry(out, name, |out| draft.write_json(out));
        });
        out.text(",\"__tags\":");
        // JavaScript puts members that are numbers into their order.
        let tags: BTreeMap<u32, &str> =
            self.fields.iter().map(|field| (field.tag, field.name.as_str())).collect();
        write_object(out, tags.iter(), |out, (tag, name)| {
            write_entry(out, &tag.to_string(), |out| body::write_string(out, name));
        });
        out.text("}");
    }
}

fn write_object<T>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.text("{");
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            out.text(",");
        }
        write(out, entry);
    }
    out.text("}");
}

fn write_entry(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    body::write_string(out, name);
    out.text(":");
    write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsed_form_can_be_read_again() {
        let source = r#"{
            "message Point": {"required int32 x": 1, "optional float y": 2},
            "onMove": {
                "repeated Point path": 10,
                "required Who who": 2,
                "message Who": {"required string name": 1, "optional uInt32 age": 2},
                "optional string skipped": 2,
                "some comment": 7,
                "strange rule here": 9
            }
        }"#;
        let schema = Schema::parse(source).unwrap();
        let expected = concat!(
            r#"{"message Point":{"x":{"option":"required","type":"int32","tag":1},"#,
            r#""y":{"option":"optional","type":"float","tag":2},"#,
            r#""__messages":{},"__tags":{"1":"x","2":"y"}},"#,
            r#""onMove":{"path":{"option":"repeated","type":"Point","tag":10},"#,
            r#""who":{"option":"required","type":"Who","tag":2},"#,
            r#""__messages":{"Who":{"name":{"option":"required","type":"string","tag":1},"#,
            r#""age":{"option":"optional","type":"uInt32","tag":2},"#,
            r#""__messages":{},"__tags":{"1":"name","2":"age"}}},"#,
            r#""__tags":{"2":"who","10":"path"}}}"#,
        );
        assert_eq!(schema.json(), expected);
        assert_eq!(Schema::from_announcement(expected).unwrap(), schema);
    }

    #[test]
    fn the_chat_has_a_schema() {
        assert!(Schema::chat().has("onChat"));
        assert!(!Schema::chat().has("onAdd"));
    }

    #[test]
    fn mistakes_are_told() {
        let deep = format!("{}1{}", r#"{"message M":"#.repeat(40), "}".repeat(40));
        for (source, mistake) in [
            ("[", "no JSON"),
            (r#"{"onChat": 1}"#, "in \"onChat\": a message is an object"),
            (r#"{"a": {"required string b": 0}}"#, "in \"a\": the field \"b\" needs a tag"),
            (r#"{"a": {"required string b": "1"}}"#, "needs a tag"),
            (r#"{"a": {"message B": {"message C": {"required string d": 0}}}}"#, "in \"a/B/C\""),
            (r#"{"a": {"message B": []}}"#, "in \"a/B\": a message is an object"),
            (r#"{"a": {"message B": {"required int64 c": 1}}}"#, "in \"a/B\": the field \"c\""),
            (r#"{"a": {"required int64 b": 1}}"#, "the unknown type \"int64\"; there are uInt32"),
            (r#"{"a": {"required string b": 1, "optional string b": 2}}"#, "twice"),
            (&deep, "nested deeper"),
        ] {
            let error = Schema::parse(source).unwrap_err().to_string();
            assert!(error.contains(mistake), "{error}");
        }
    }

    #[test]
    fn a_message_may_contain_itself() {
        let source = r#"{"message Tree": {"repeated Tree branches": 1}}"#;
        assert!(Schema::parse(source).is_ok());
    }
}
