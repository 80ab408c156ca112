//! Pomelo's own flavour of protobuf.
//!
//! Differences from the real one: `int32` is zigzag like `sInt32`; a repeated number is its tag,
//! the *count of elements*, and the elements; the wire type is written and never looked at; there
//! are no defaults, no maps, and a tag that the schema does not know ends the decoding.
//!
//! A schema is written in an application's `serverProtos.json` or `clientProtos.json` as
//! `{"onChat": {"required string msg": 1, "message Inner": {…}}}` and announced to clients in a
//! parsed form, which clients keep under a version.

mod codec;
mod schema;

pub use codec::{DecodeError, EncodeError, Member};
pub use schema::{Mistake, Schema, SchemaError};

use super::dictionary::version_of;

/// Schemas of both directions, and what clients that keep them compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protos {
    /// For what the server sends: pushes and responses, by route.
    pub server: Schema,
    /// For what clients send: requests and notifies, by route.
    pub client: Schema,
}

impl Protos {
    /// The chat application's: `onChat` is protobuf, everything else JSON.
    #[must_use]
    pub fn chat() -> Self {
        Self { server: Schema::chat(), client: Schema::default() }
    }

    /// Base64 of the MD5 of the client's schema and the server's, as announced.
    #[must_use]
    pub fn version(&self) -> String {
        version_of(&[self.client.json(), self.server.json()])
    }
}
