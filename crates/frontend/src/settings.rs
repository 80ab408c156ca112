//! What may be chosen.

use std::{sync::Arc, time::Duration};

use model::limits;

use crate::Turns;

/// How a frontend treats its clients. The defaults are those of [`model::limits`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// How sessions behave.
    pub session: Arc<session::Config>,
    /// Connections at a time; others are closed as soon as they are accepted.
    pub connections_max: usize,
    /// Connections at a time from one address (of IPv6: from one network of 64 bits).
    pub connections_per_address_max: usize,
    /// Sessions begin by turns; nothing: all at once. Others wait, and whoever would wait for too
    /// long is told to come later.
    pub turns: Option<Turns>,
    /// Which pages may open a WebSocket: their origins, such as `https://chat.example.org`.
    /// Nothing: all may. Clients that are no browsers name no origin, and always may.
    pub origins: Option<Vec<String>>,
    /// Time for the first bytes, and for an HTTP head; also for the next one on a kept connection.
    pub head_timeout: Duration,
    /// How long one write may make no progress.
    pub write_timeout: Duration,
    /// Items that may wait for one client: a frame, or several that came together.
    pub queue_items_max: usize,
    /// Bytes that may wait for one client. One frame may be larger than that.
    pub queue_bytes_max: usize,
}

impl Settings {
    /// The defaults, with these sessions.
    #[must_use]
    pub fn new(session: session::Config) -> Self {
        Self {
            session: Arc::new(session),
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            turns: None,
            origins: None,
            head_timeout: limits::HANDSHAKE_TIMEOUT,
            write_timeout: limits::WRITE_TIMEOUT,
            queue_items_max: limits::SESSION_QUEUE_ITEMS_MAX,
            queue_bytes_max: limits::SESSION_QUEUE_BYTES_MAX,
        }
    }
}
