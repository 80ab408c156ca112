//! How a client puts requests into units, and how it shows that it lives.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use wire::{
    RequestId,
    pomelo::{
        client::{self as pomelo, Kept, RequestError},
        packet::HEARTBEAT,
    },
    socketio::{client::PING, request::Request, v1, v09},
};

/// Heartbeats of the binary protocol that may be missed before the server counts as gone.
const HEARTBEATS_MISSED_MAX: u32 = 2;

/// What a client learned when it was greeted: how to say what it says.
#[derive(Clone, Debug)]
pub struct Codec {
    pub(crate) speech: Speech,
    /// Nothing, at a server that neither beats nor is beaten.
    pub(crate) beats: Option<Beats>,
}

#[derive(Clone, Debug)]
pub(crate) enum Speech {
    Pomelo(pomelo::Codec),
    SocketIo09,
    SocketIo1,
}

/// When to show that one lives, and when the server counts as gone.
#[derive(Clone, Debug)]
pub(crate) struct Beats {
    /// How often to beat, or at least to look whether the server does.
    pub(crate) every: Duration,
    /// How long the server may stay silent.
    pub(crate) patience: Duration,
    /// What to send. Nothing where the server begins.
    pub(crate) unit: Option<Bytes>,
}

impl Codec {
    pub(crate) fn pomelo(codec: pomelo::Codec) -> Self {
        let beats = codec.heartbeat.map(|every| Beats {
            every,
            patience: every * HEARTBEATS_MISSED_MAX,
            unit: Some(HEARTBEAT),
        });
        Self { speech: Speech::Pomelo(codec), beats }
    }

    pub(crate) fn socket_io_09(patience: Duration) -> Self {
        let beats = Beats { every: patience / 2, patience, unit: None };
        Self { speech: Speech::SocketIo09, beats: Some(beats) }
    }

    pub(crate) fn socket_io_1(every: Duration, patience: Duration) -> Self {
        let beats = Beats { every, patience: every + patience, unit: Some(PING) };
        Self { speech: Speech::SocketIo1, beats: Some(beats) }
    }

    /// How often this client is to send [`Codec::beat`], if it is.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.beats.as_ref().filter(|beats| beats.unit.is_some()).map(|beats| beats.every)
    }

    /// How long the server may stay silent, if it is to say anything unasked.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.beats.as_ref().map(|beats| beats.patience)
    }

    /// The unit that says that this client lives; empty if it need not say so unasked.
    #[must_use]
    pub fn beat(&self) -> Bytes {
        self.beats.as_ref().and_then(|beats| beats.unit.clone()).unwrap_or_default()
    }

    /// What a further client of a server of this role need not be told again.
    #[must_use]
    pub fn kept(&self) -> Kept {
        match &self.speech {
            Speech::Pomelo(codec) => codec.kept.clone(),
            Speech::SocketIo09 | Speech::SocketIo1 => Kept::default(),
        }
    }

    /// Encodes a request as a finished unit; a notify, if `id` is [`RequestId::NOTIFY`].
    ///
    /// # Errors
    ///
    /// If it does not fit the server's schema or is too large.
    pub fn encode_request(
        &self,
        id: RequestId,
        route: &str,
        body: &Map<String, Value>,
    ) -> Result<Bytes, RequestError> {
        let encode: fn(&Request<'_>) -> Option<Bytes> = match &self.speech {
            Speech::Pomelo(codec) => return codec.encode_request(id, route, body),
            Speech::SocketIo09 => v09::encode_request,
            Speech::SocketIo1 => v1::encode_request,
        };
        // A map of text to values is always JSON.
        let json = serde_json::to_string(body).unwrap_or_default();
        encode(&Request { id, route, json: &json }).ok_or(RequestError::TooLarge)
    }
}
