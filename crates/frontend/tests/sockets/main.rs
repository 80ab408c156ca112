//! The frontend with real sockets on free ports, and a tiny chat behind it.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;
mod hostile;
mod order;
mod socketio;
mod tcp;
mod turns;
mod websocket;
