//! The binary protocol of Pomelo's `hybridconnector`, for the server's side and the client's.
//!
//! A server builds its [`Options`] once: they hold the dictionary, the schemas and the finished
//! handshake answers, and turn messages into [`Call`](crate::Call)s and replies and pushes into
//! packages. A connection goes through these steps:
//!
//! 1. The client's HANDSHAKE package holds a [`Hello`]; the server sends [`Options::answer`], or
//!    [`handshake::refusal`] and closes.
//! 2. The client sends [`packet::HANDSHAKE_ACK`]. A connector answers with [`packet::HEARTBEAT`],
//!    and so every heartbeat of the client's.
//! 3. DATA packages hold [`Message`]s: [`Options::decode_call`] reads the client's,
//!    [`Options::encode_reply`] and [`Options::encode_push`] write the server's.
//!    Clients of [`pitaya`] get theirs in another form.
//! 4. The server may end it with [`encode_kick`].

pub mod client;
pub mod dictionary;
pub mod handshake;
pub mod message;
pub mod modern;
mod options;
pub mod packet;
pub mod pitaya;
pub mod protobuf;
pub mod text;

use bytes::Bytes;

pub use dictionary::{Dictionary, DictionaryError};
pub use handshake::Hello;
pub use message::{Message, MessageError, RouteName};
pub use options::Options;
pub use packet::{Packet, PacketError};
pub use protobuf::{Protos, Schema, SchemaError};
pub use text::Encoding;

use crate::body::{self, Sink};

/// The KICK package. The connection is closed after it. A reason of 16 MiB is left out.
#[must_use]
pub fn encode_kick(reason: &str, encoding: Encoding) -> Bytes {
    let mut package = packet::begin(packet::Kind::Kick, 13 + reason.len());
    let out = &mut package;
    let mut text = text::Encoder { out, encoding };
    text.text("{\"reason\":");
    body::write_string(&mut text, reason);
    text.text("}");
    packet::finish(package).unwrap_or_else(|| encode_kick("", encoding))
}
