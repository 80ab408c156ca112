//! Real processes, driven and judged.
//!
//! A test starts a [`Cluster`]: the binaries of this workspace as child processes on loopback
//! ports, with one log file each. [`Crowd`] puts users into it who record what they did and saw;
//! `verify::history` judges them. [`transcript`] replays what was recorded at the original server.
//!
//! Whatever a cluster starts it also ends, when it is dropped, by process id.

mod binaries;
mod cluster;
mod crowd;
mod etcd;
pub mod http;
pub mod network;
mod node;
mod ports;
pub mod transcript;

pub use cluster::{Cluster, Shape, deadline, until};
pub use crowd::{Acked, Crowd, Lost, Returned, UserKey};
pub use etcd::Etcd;
pub use node::Node;
