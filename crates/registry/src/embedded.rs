//! The embedded registry: one gate hosts it, every node joins it over gRPC.

mod client;
mod feed;
mod server;

pub(crate) use client::{Calls, Client};
pub use server::{EmbeddedServer, EmbeddedService};
