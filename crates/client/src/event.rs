//! What comes from the server.

use serde_json::Value;
use wire::RequestId;

use crate::{
    error::Result,
    push::{Placed, Push},
};

/// What comes from the server.
#[derive(Debug)]
pub enum Event {
    /// Something unasked.
    Push(Push),
    /// The answer to a request begun with [`Client::begin`](crate::Client::begin) or
    /// [`Client::begin_send`](crate::Client::begin_send).
    Answer {
        /// The request's.
        id: RequestId,
        /// The answer's body, or [`Error::Refused`](crate::Error::Refused) or
        /// [`Error::Unreadable`](crate::Error::Unreadable).
        result: Result<Value>,
    },
}

/// An event, with what a modern server says about it.
pub(crate) enum Queued {
    Push(Placed),
    Answer { id: RequestId, result: Result<Value> },
}

impl From<Queued> for Event {
    fn from(queued: Queued) -> Self {
        match queued {
            Queued::Push(Placed { push, .. }) => Self::Push(push),
            Queued::Answer { id, result } => Self::Answer { id, result },
        }
    }
}
