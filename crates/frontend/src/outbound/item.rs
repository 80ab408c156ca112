//! One thing that waits to be sent.

use bytes::Bytes;
use session::{CloseReason, RequestKey};
use wire::Reply;

/// What an item counts for beside the bytes it has.
pub(super) const ITEM_BYTES: usize = 16;

/// Something for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A finished package.
    Push(Bytes),
    /// So many finished packages with their headers, or what is left of them.
    Run(Bytes, usize),
    /// The answer to a call.
    Reply(RequestKey, Reply),
    /// Somebody wants to know whether the client lives.
    Probe,
    /// The session's time has come.
    Alarm,
    /// A reason to go.
    Kick(String),
    /// The end. Always the last item.
    Close(CloseReason),
}

impl Item {
    /// What it counts for, in items and bytes.
    pub(super) fn weight(&self) -> (usize, usize) {
        let (items, bytes) = match self {
            Self::Push(bytes) | Self::Run(bytes, _) => (1, bytes.len()),
            Self::Reply(_, reply) => (1, reply.json_len_hint()),
            Self::Probe | Self::Alarm | Self::Kick(_) | Self::Close(_) => (0, 0),
        };
        (items, items * ITEM_BYTES + bytes)
    }
}
