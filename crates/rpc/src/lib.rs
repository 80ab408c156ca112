//! What the processes of a cluster say to each other over gRPC.
//!
//! The messages are described in `proto/tangelo/v1`, and the part of etcd that is used in `proto/etcd`. Types of module [`pb`] are translated into
//! those of the pure crates here and nowhere else.

pub mod codec;
pub mod convert;
pub mod dial;
pub mod ended;
pub mod etcd;
pub mod link;
pub mod local;
pub mod pb;
pub mod registry;
mod resume;
mod shared;
pub mod token;
