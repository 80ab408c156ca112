//! One client, from its handshake to its close: what it may say, when, and what it is answered.
//!
//! A [`Session`] is fed the bytes that a client sends and answers with [`Effect`]s: bytes to
//! transmit, [`Call`]s for the role (gate or connector) to carry out, and in the end one
//! [`CloseReason`]. The role answers a call later, with [`Event::Reply`] and the call's
//! [`RequestKey`]. Pushes do not pass through here: whoever has one encodes it once per dialect
//! and queues it to each client.
//!
//! A client of the binary protocol goes through these stages:
//!
//! 1. *greeting*: it sends HANDSHAKE within the handshake timeout, and is answered;
//! 2. *greeted*: it sends ACK, which a connector answers with a HEARTBEAT;
//! 3. *working*: DATA packages carry its requests, and a HEARTBEAT is answered with one;
//! 4. *closed*: nothing is emitted any more, whatever happens.
//!
//! A client of Socket.IO is *working* as soon as it is connected, and asks for the modern fields by what
//! it calls first. One of generation 0.9 is asked for signs of life by the server, later ones send
//! them by themselves.
//!
//! What is out of place is ignored, as in the original. Where the original threw an exception, and
//! hung or went deaf, a request is answered with `{"code":500}` (`enter`: `"error":true` beside
//! it) and the session goes on. Every request is answered exactly once; a notify never.
//!
//! Nothing here does I/O or reads a clock: a shell does, the crate `frontend`.

mod call;
mod client;
mod close;
mod config;
mod dialect;
mod oddity;
mod polls;
mod session;
mod socketio;
mod turnstile;

pub use call::Call;
pub use close::{CloseReason, Farewell};
pub use config::{Config, Limits, SocketIoBeats};
pub use dialect::{Protocol, Transport};
pub use oddity::Oddity;
pub use polls::{Answer, Polls};
pub use session::{Effect, Event, RequestKey, Session};
pub use turnstile::{Report, Turnstile, share};
