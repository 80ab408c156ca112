//! How a server speaks the binary protocol.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use model::{Code, Content, limits};
use serde_json::Value;

use super::{
    Dictionary, Encoding, Hello, Message, MessageError, Protos, RouteName, Schema, handshake,
    message, packet, pitaya,
    protobuf::{EncodeError, Member},
    text,
};
use crate::{Call, Push, Reply, RequestId, Route, body, route};

/// How a server speaks the binary protocol: fixed at start, shared by all sessions.
#[derive(Debug)]
pub struct Options {
    dictionary: Option<Dictionary>,
    protos: Protos,
    answers: handshake::Answers,
    add: PushForm,
    leave: PushForm,
    chat: PushForm,
}

/// What every push of one route begins with.
#[derive(Debug)]
struct PushForm {
    /// The flag and the route, as text or by its code.
    head: Vec<u8>,
    /// Whether the body is protobuf.
    has_schema: bool,
}

impl Options {
    /// How a gate speaks: without a heartbeat and, as in the original, usually without a dictionary.
    #[must_use]
    pub fn gate(dictionary: Option<Dictionary>, protos: Protos) -> Self {
        Self::new(None, dictionary, protos)
    }

    /// How a connector speaks. Clients are told the heartbeat in whole seconds.
    #[must_use]
    pub fn connector(heartbeat: Duration, dictionary: Dictionary, protos: Protos) -> Self {
        Self::new(Some(heartbeat), Some(dictionary), protos)
    }

    /// How the original's gate speaks.
    #[must_use]
    pub fn chat_gate() -> Self {
        Self::gate(None, Protos::chat())
    }

    /// How the original's connectors speak.
    #[must_use]
    pub fn chat_connector() -> Self {
        let heartbeat = limits::POMELO_HEARTBEAT;
        Self::connector(heartbeat, Dictionary::chat(), Protos::chat())
    }

    fn new(heartbeat: Option<Duration>, dictionary: Option<Dictionary>, protos: Protos) -> Self {
        let form = |route| PushForm::new(route, dictionary.as_ref(), &protos.server);
        Self {
            answers: handshake::Answers::new(heartbeat, dictionary.as_ref(), &protos),
            add: form(route::ON_ADD),
            leave: form(route::ON_LEAVE),
            chat: form(route::ON_CHAT),
            dictionary,
            protos,
        }
    }

    /// The HANDSHAKE package for a client: what it has kept is not sent again.
    #[must_use]
    pub fn answer(&self, hello: &Hello) -> Bytes {
        self.answers.to(hello)
    }

    /// Reads what a client sent in a DATA package. `None` for a message that only servers send or
    /// that nobody defined: the original ignores it.
    ///
    /// # Errors
    ///
    /// If it is no message at all. The original's connection was deaf from then on.
    pub fn decode_call(&self, data: &[u8]) -> Result<Option<(RequestId, Call)>, MessageError> {
        let (id, route, body) = match Message::decode(data) {
            Ok(Message::Request { id, route, body }) => (id, route, body),
            Ok(Message::Notify { route, body }) => (RequestId::NOTIFY, route, body),
            Ok(Message::Response { .. } | Message::Push { .. }) | Err(MessageError::Kind(_)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let plain =
            if message::is_compressed(data) { pitaya::inflate(body) } else { Cow::Borrowed(body) };
        Ok(Some((id, self.call(&route, &plain))))
    }

    fn call(&self, route: &RouteName<'_>, body: &[u8]) -> Call {
        let name = match route {
            RouteName::Text(name) => Some(&**name),
            RouteName::Code(code) => self.dictionary.as_ref().and_then(|d| d.route(*code)),
        };
        let Some(known) = name.and_then(Route::from_name) else {
            let route = match route {
                RouteName::Text(name) => name.clone().into_owned(),
                RouteName::Code(code) => name.map_or_else(|| format!("#{code}"), str::to_owned),
            };
            return Call::Unknown { route };
        };
        if self.protos.client.has(known.name()) {
            // What does not fit the schema counts as an empty body, like bad JSON.
            let members = self.protos.client.decode(known.name(), body);
            let mut json = Vec::with_capacity(body.len());
            body::write_value(&mut json, &Value::Object(members.unwrap_or_default()));
            return Call::from_json(known, &text::decode(&json));
        }
        let json = text::decode(body);
        Call::from_json(known, body::first_argument(&json))
    }

    /// Encodes a push as a finished DATA package. `None` if its schema cannot carry its content;
    /// clients then hear nothing, as in the original.
    #[must_use]
    pub fn encode_push(&self, push: &Push<'_>, encoding: Encoding) -> Option<Bytes> {
        let form = match push {
            Push::Add { .. } => &self.add,
            Push::Leave { .. } => &self.leave,
            Push::Chat { .. } => &self.chat,
            // The original knew no such push, and told of no schema for it.
            Push::Count { .. } => return None,
        };
        let hint = form.head.len() + push.json_len_hint();
        let mut package = packet::begin(packet::Kind::Data, hint);
        package.extend_from_slice(&form.head);
        if form.has_schema {
            encode_push_body(&self.protos.server, push, encoding, &mut package)?;
        } else {
            let out = &mut package;
            push.write_json(&mut text::Encoder { out, encoding });
        }
        packet::finish(package)
    }

    /// Encodes the response to request `id`, which called `route`, as a finished DATA package.
    /// `None` for a notify.
    #[must_use]
    pub fn encode_reply(
        &self,
        id: RequestId,
        route: Option<Route>,
        reply: &Reply,
        encoding: Encoding,
    ) -> Option<Bytes> {
        if id.is_notify() {
            return None;
        }
        let schema = &self.protos.server;
        let schema_route = route.map(Route::name).filter(|route| schema.has(route));
        let mut package = packet::begin(packet::Kind::Data, 16 + reply.json_len_hint());
        message::response_head(&mut package, id);
        match schema_route {
            Some(route) => encode_reply_body(schema, route, reply, encoding, &mut package),
            None => {
                let out = &mut package;
                reply.write_json(&mut text::Encoder { out, encoding });
            }
        }
        packet::finish(package).or_else(|| {
            // A list of members that no package can carry.
            let (code, error) = (Code::NotApplied, true);
            let refused = Reply::Refused { code, error };
            self.encode_reply(id, route, &refused, encoding)
        })
    }
}

impl PushForm {
    fn new(route: &str, dictionary: Option<&Dictionary>, schema: &Schema) -> Self {
        let code = dictionary.and_then(|dictionary| dictionary.code(route));
        let push = Message::Push {
            route: code.map_or(RouteName::Text(route.into()), RouteName::Code),
            body: b"",
        };
        let mut head = Vec::new();
        // Fails for routes of over 255 bytes only, and the pushes' are ours.
        _ = push.encode(&mut head);
        Self { head, has_schema: schema.has(route) }
    }
}

/// Appends a push's protobuf body: nothing if a required member is missing. `None` if a member
/// is not of its type.
fn encode_push_body(
    schema: &Schema,
    push: &Push<'_>,
    encoding: Encoding,
    out: &mut Vec<u8>,
) -> Option<()> {
    let body_from = out.len();
    let route = ("route", Member::Text(push.route()));
    let done = match push {
        Push::Add { user } | Push::Leave { user } => {
            let members = [route, ("user", Member::Text(user.as_str()))];
            schema.encode(push.route(), members.into_iter(), encoding, out)
        }
        Push::Count { .. } => Err(EncodeError::Route),
        Push::Chat { content, from, target } => {
            let (content_json, target_json) = (json_of(content), json_of(target));
            let members = [
                Some(route),
                member("msg", content, content_json.as_ref()),
                Some(("from", Member::Text(from.as_str()))),
                member("target", target, target_json.as_ref()),
            ];
            schema.encode(push.route(), members.into_iter().flatten(), encoding, out)
        }
    };
    keep_or_empty(done, body_from, out)
}

/// Appends a reply's protobuf body, empty if it does not fit the schema.
fn encode_reply_body(
    schema: &Schema,
    route: &str,
    reply: &Reply,
    encoding: Encoding,
    out: &mut Vec<u8>,
) {
    let mut json = Vec::with_capacity(reply.json_len_hint());
    reply.write_json(&mut json);
    let object: serde_json::Map<String, Value> = serde_json::from_slice(&json).unwrap_or_default();
    let members = object.iter().map(|(name, value)| (name.as_str(), value.into()));
    let body_from = out.len();
    let done = schema.encode(route, members, encoding, out);
    if keep_or_empty(done, body_from, out).is_none() {
        out.truncate(body_from);
    }
}

fn keep_or_empty(done: Result<(), EncodeError>, body_from: usize, out: &mut Vec<u8>) -> Option<()> {
    match done {
        Ok(()) => Some(()),
        Err(EncodeError::Missing) => {
            out.truncate(body_from);
            Some(())
        }
        Err(EncodeError::Type | EncodeError::Route | EncodeError::TooDeep) => None,
    }
}

/// The parsed value of content that is no text.
fn json_of(content: &Content) -> Option<Value> {
    match content {
        Content::Json(json) => serde_json::from_str(json).ok(),
        Content::Text(_) | Content::Missing => None,
    }
}

fn member<'a>(
    name: &'static str,
    content: &'a Content,
    json: Option<&'a Value>,
) -> Option<(&'static str, Member<'a>)> {
    let value = match content {
        Content::Text(text) => Member::Text(text),
        // Text that cannot be parsed is of no type.
        Content::Json(_) => json.map_or(Member::Json(&Value::Null), Member::from),
        Content::Missing => return None,
    };
    Some((name, value))
}
