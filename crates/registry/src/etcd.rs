//! etcd as the registry: every node speaks to it by itself, and [`cluster::Mirror`] decides.
//!
//! A node follows all keys of its cluster over one endpoint, with a lease that it prolongs with
//! every beat. An endpoint that does not answer a beat is left for the next one; when none
//! answers, the node is silent and tries on. Each try opens a connection of its own, so that one
//! that hangs holds up nothing. HTTP/2 pings are not used: etcd ends connections that ping more
//! often than every 5 s, and the lease asks anyway.
//!
//! Not supported: TLS and passwords. Let etcd listen only where the cluster's processes reach it.

mod address;
mod calls;
mod client;
mod endpoints;

pub(crate) use calls::Calls;
pub(crate) use client::Client;
