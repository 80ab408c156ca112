//! A client for Pomelo chat servers, in the binary protocol and both generations of Socket.IO.
//!
//! Ask a gate for a connector, connect to it, enter a room, speak and listen:
//!
//! ```no_run
//! use client::{Client, Event, Options, Push};
//!
//! # async fn example() -> Result<(), client::Error> {
//! let options = Options::default();
//! let entry = Client::query_entry("127.0.0.1:3014", &options, "alice", Some("lobby")).await?;
//! let mut client = Client::connect((entry.host.as_str(), entry.port), &options).await?;
//!
//! let users = client.enter("alice", "lobby").await?;
//! println!("here: {}", users.join(", "));
//!
//! client.send("*", "hello, everyone").await?;
//! loop {
//!     match client.next_push().await? {
//!         Push::Chat { from, text, .. } => println!("{from}: {text}"),
//!         Push::Add { user } => println!("{user} came"),
//!         Push::Leave { user } => println!("{user} left"),
//!         Push::Count { .. } | Push::Other { .. } => {}
//!     }
//! }
//! # }
//! ```
//!
//! A [`Client`] is a value, not a task: nothing happens behind its owner's back, and thousands
//! fit into one process. The price is that it must be driven: heartbeats are sent while one of
//! its methods is awaited, so await [`Client::next`] whenever there is nothing else to do. All
//! methods that wait can be dropped half-way (in a `select!`) without losing anything.
//!
//! [`Options::transport`] chooses what is spoken and what carries it; nothing else differs. Where
//! requests carry a session, what is begun leaves while one of its methods is awaited.
//!
//! With [`Options::modern`] a client asks for what Tangelo has beyond that: where everything stands
//! in the room's order, what was missed while a connection was lost, and sends that can be repeated
//! safely. [`Client::join`], [`Client::say`] and [`Client::next_placed`] speak it, one connection
//! at a time; a [`Member`] does it for its owner, over as many connections as it takes.
//!
//! [`Connection`] is the layer below, for those who count microseconds: units in, units out.
//! [`Client::into_parts`] hands it over after entering, and [`Heard`] reads in place.

mod chat;
mod codec;
mod connection;
mod ear;
mod error;
mod event;
mod handshake;
mod http;
mod lean;
mod member;
mod modern;
mod polling;
mod push;
mod socket;
mod transport;
mod websocket;

pub use chat::{Client, Entry, Options};
pub use codec::Codec;
pub use connection::{Connection, Unit};
pub use error::{Closed, Error, Result};
pub use event::Event;
pub use lean::{Heard, Names};
pub use member::{Member, Seen};
pub use model::{Code, Outcome, Position};
pub use modern::{Joined, Resume};
pub use push::{Placed, Push};
pub use transport::Transport;
pub use wire::{
    Dialect, RequestId, Route,
    pomelo::{Hello, client::Kept},
};
