//! The client's side of the binary protocol.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use model::limits;
use serde_json::{Map, Value};

use super::{
    Dictionary, DictionaryError, Encoding, Hello, Message, MessageError, Protos, RouteName, Schema,
    SchemaError,
    packet::{self, Kind},
    protobuf::{DecodeError, EncodeError, Member},
    text,
};
use crate::{
    RequestId,
    body::{depth_is_within, write_value},
};

/// What a client learned in the handshake: how to encode what it says and decode what it hears.
#[derive(Clone, Debug)]
pub struct Codec {
    /// How often to send a heartbeat; never, at a gate.
    pub heartbeat: Option<Duration>,
    /// What the server's application says to this client; null if nothing.
    pub user: Value,
    /// What to show at the next handshake, so that it need not be sent again.
    pub kept: Kept,
    encoding: Encoding,
}

/// What a client may keep from one handshake to the next with servers of the same role: a gate
/// announces no dictionary, so what it leaves is not what a connector leaves.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    dictionary: Option<(Arc<Dictionary>, String)>,
    protos: Option<(Arc<Protos>, String)>,
}

/// Why a server's handshake is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It refuses, with this code.
    #[error("the server refused the handshake with code {0}")]
    Refused(u64),
    /// It is no JSON object, or nested too deeply.
    #[error("the server's handshake is unreadable")]
    Unreadable,
    /// It leaves out what this client has not kept.
    #[error("the server's handshake is incomplete")]
    Incomplete,
    /// Its dictionary cannot be used.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// Its schemas cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Why a request cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Its route is too long.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its body does not fit the server's schema.
    #[error(transparent)]
    Body(#[from] EncodeError),
    /// It is larger than a package can be.
    #[error("the request is too large")]
    TooLarge,
}

/// Why what a server sent cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// It is no message, or one that only clients send.
    #[error("this is no message of a server")]
    Message,
    /// Its route is not in the dictionary.
    #[error("the dictionary has no code {0}")]
    Code(u16),
    /// Its body is no JSON, or nested too deeply.
    #[error("the body is no JSON")]
    Json,
    /// Its body does not fit the schema.
    #[error(transparent)]
    Body(#[from] DecodeError),
}

/// What a server says in a DATA package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// The answer to a request. Which schema its body has depends on the route that was
    /// requested: see [`Codec::decode_body`].
    Response {
        /// The request's.
        id: RequestId,
        /// Not yet decoded.
        body: &'a [u8],
    },
    /// Something to hear.
    Push {
        /// What it is.
        route: String,
        /// Its body.
        body: Value,
    },
}

impl Kept {
    /// Fills in the versions of what is kept.
    pub fn introduce(&self, hello: &mut Hello) {
        hello.dict_version = self.dictionary.as_ref().map(|(_, version)| version.clone());
        hello.proto_version = self.protos.as_ref().map(|(_, version)| version.clone());
    }
}

impl Codec {
    /// Reads the body of the server's HANDSHAKE, which answers `hello`.
    ///
    /// # Errors
    ///
    /// If the server refuses, or what it says is unreadable or incomplete.
    pub fn from_answer(body: &[u8], hello: &Hello, kept: &Kept) -> Result<Self, AnswerError> {
        let mut answer = parse(body).ok_or(AnswerError::Unreadable)?;
        match answer.get("code").and_then(Value::as_u64) {
            Some(200) => {}
            Some(code) => return Err(AnswerError::Refused(code)),
            None => return Err(AnswerError::Unreadable),
        }
        let user = answer.get_mut("user").map(Value::take).unwrap_or_default();
        let sys = answer.get("sys").ok_or(AnswerError::Unreadable)?;
        let kept = Kept {
            dictionary: match (sys.get("dict"), sys.get("useDict")) {
                (Some(dict), _) => {
                    let dictionary = Dictionary::from_announcement(dict)?;
                    Some((Arc::new(dictionary), version(sys.get("dictVersion"))))
                }
                (None, Some(_)) if kept.dictionary.is_none() => {
                    return Err(AnswerError::Incomplete);
                }
                // Without `useDict` there is no dictionary here, at a gate for example.
                (None, used) => kept.dictionary.clone().filter(|_| used.is_some()),
            },
            protos: match (sys.get("protos"), sys.get("useProto")) {
                (Some(protos), _) => {
                    let schema = |name| match protos.get(name) {
                        Some(schema) => Schema::from_announcement(&schema.to_string()),
                        None => Ok(Schema::default()),
                    };
                    let (server, client) = (schema("server")?, schema("client")?);
                    let protos_version = version(protos.get("version"));
                    Some((Arc::new(Protos { server, client }), protos_version))
                }
                (None, Some(_)) if kept.protos.is_none() => return Err(AnswerError::Incomplete),
                (None, used) => kept.protos.clone().filter(|_| used.is_some()),
            },
        };
        let heartbeat = sys.get("heartbeat").and_then(Value::as_u64);
        Ok(Self {
            heartbeat: heartbeat.filter(|s| *s > 0).map(Duration::from_secs),
            user,
            kept,
            encoding: hello.encoding(),
        })
    }

    /// Encodes a request as a finished DATA package; a notify, if `id` is [`RequestId::NOTIFY`].
    ///
    /// # Errors
    ///
    /// If it does not fit the schema or is too large.
    pub fn encode_request(
        &self,
        id: RequestId,
        route: &str,
        body: &Map<String, Value>,
    ) -> Result<Bytes, RequestError> {
        let code = self.dictionary().and_then(|it| it.code(route));
        let name = code.map_or(RouteName::Text(route.into()), RouteName::Code);
        let head = if id.is_notify() {
            Message::Notify { route: name, body: b"" }
        } else {
            Message::Request { id, route: name, body: b"" }
        };
        let mut package = packet::begin(Kind::Data, 256);
        head.encode(&mut package)?;
        match self.protos().filter(|protos| protos.client.has(route)) {
            Some(protos) => {
                let members = body.iter().map(|(name, it)| (name.as_str(), Member::from(it)));
                let schema = &protos.client;
                schema.encode(route, members, self.encoding, &mut package)?;
            }
            None => {
                let (out, encoding) = (&mut package, self.encoding);
                write_object(&mut text::Encoder { out, encoding }, body);
            }
        }
        packet::finish(package).ok_or(RequestError::TooLarge)
    }

    /// Reads what a server sent in a DATA package.
    ///
    /// # Errors
    ///
    /// If it is nothing that a server sends, or a push that cannot be read.
    pub fn decode<'a>(&self, data: &'a [u8]) -> Result<Incoming<'a>, IncomingError> {
        match Message::decode(data) {
            Ok(Message::Response { id, body }) => Ok(Incoming::Response { id, body }),
            Ok(Message::Push { route, body }) => {
                let route = match route {
                    RouteName::Text(name) => name.into_owned(),
                    RouteName::Code(code) => {
                        let name = self.dictionary().and_then(|it| it.route(code));
                        name.ok_or(IncomingError::Code(code))?.to_owned()
                    }
                };
                let body = self.decode_body(&route, body)?;
                Ok(Incoming::Push { route, body })
            }
            Ok(Message::Request { .. } | Message::Notify { .. }) | Err(_) => {
                Err(IncomingError::Message)
            }
        }
    }

    /// Reads the body of a push, or of the response to a request for `route`.
    ///
    /// # Errors
    ///
    /// If it does not fit the schema, or is no JSON.
    pub fn decode_body(&self, route: &str, body: &[u8]) -> Result<Value, IncomingError> {
        match self.protos().filter(|protos| protos.server.has(route)) {
            Some(protos) => Ok(Value::Object(protos.server.decode(route, body)?)),
            None => parse(body).ok_or(IncomingError::Json),
        }
    }

    fn dictionary(&self) -> Option<&Dictionary> {
        self.kept.dictionary.as_ref().map(|(it, _)| &**it)
    }

    fn protos(&self) -> Option<&Protos> {
        self.kept.protos.as_ref().map(|(it, _)| &**it)
    }
}

/// The reason in the body of a KICK; empty if there is none.
#[must_use]
pub fn kick_reason(body: &[u8]) -> String {
    let reason = parse(body).and_then(|mut body| body.get_mut("reason").map(Value::take));
    match reason {
        Some(Value::String(reason)) => reason,
        Some(_) | None => String::new(),
    }
}

fn parse(body: &[u8]) -> Option<Value> {
    let json = text::decode(body);
    let fine = depth_is_within(&json, limits::JSON_DEPTH_MAX);
    fine.then(|| serde_json::from_str(&json).ok()).flatten()
}

fn version(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn write_object(out: &mut text::Encoder<'_>, object: &Map<String, Value>) {
    use crate::body::{Sink, write_string};
    out.text("{");
    for (at, (name, value)) in object.iter().enumerate() {
        if at > 0 {
            out.text(",");
        }
        write_string(out, name);
        out.text(":");
        write_value(out, value);
    }
    out.text("}");
}
