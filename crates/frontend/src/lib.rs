//! The clients' port of a gate or a connector: one listener for WebSocket, raw TCP and HTTP.
//!
//! ```text
//! accept ─► admission ─► sniff ─┬─► raw TCP ───────────────┬─► connection ⇄ session::Session
//!           (caps)              └─► HTTP ─┬─► WebSocket ───┘        │ calls     ▲ replies, pushes
//!                                         ├─► Socket.IO, by polls and posts
//!                                         └─► axum::Router          ▼           │
//!                                                                 Handler    Outbound
//! ```
//!
//! The first bytes say what a client speaks: a package type of the binary protocol (1 to 5), or
//! the name of an HTTP method. What is neither is closed at once. Each client is one task, which
//! drives its [`session::Session`]: it reads, applies effects in order, and writes.
//!
//! A role gives an [`Application`], which makes a [`Handler`] for each session. The handler is
//! given the session's calls; replies and pushes come back through the session's [`Outbound`],
//! from whatever task has them.
//!
//! - **Nobody waits for a client.** An [`Outbound`] never waits: a client that leaves more than
//!   its budget unread is closed as a slow reader, and only that client notices.
//! - **Silence ends.** Every stage has a time limit, a stalled write too; so has a close.
//! - **No wake-up per delivery.** What is pushed to an idle socket is written at once, by whoever
//!   has it, and what many hear is handed to the kernel by [`Writes`] in few calls; only what the socket does not take is left to the session's task. Nobody writes while
//!   that task has its turn, or before what was queued earlier.
//! - **Idle is cheap.** A session has no buffer; queues are allocated when something is in them, and one
//!   clock rings all sessions.

mod admission;
mod application;
mod clock;
mod connection;
mod context;
mod frontend;
mod http;
mod mailbox;
mod meters;
mod outbound;
mod pomelo_files;
mod run;
mod settings;
mod sniff;
mod socketio;
mod transport;
mod turns;
mod upgrade;
mod writes;

pub use application::{Application, Client, Handler};
pub use frontend::{Frontend, Handle};
pub use mailbox::{Delivery, Mailbox};
pub use outbound::Outbound;
pub use pomelo_files::{PomeloFiles, path};
pub use run::{Answer, Form, Run};
pub use settings::Settings;
pub use turns::Turns;
pub use writes::Writes;
