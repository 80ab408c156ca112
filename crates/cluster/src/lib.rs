//! Who is in the cluster, and what belongs where. Pure: no clock, no socket, no randomness.
//!
//! - [`map`]: the [`ClusterMap`], a versioned picture of the live nodes and of each shard's owner,
//!   which every node follows.
//! - [`placement`]: the only hashing of keys. Room to shard, room to connector, shard to the chat
//!   that *should* own it.
//! - [`registrar`]: the state of the embedded registry, which says who *does* own a shard.
//! - [`mirror`]: the same without a registry of ours: a node's picture of a store such as etcd, and
//!   what it may do there.
//! - [`member`]: what a node remembers of its own membership, to join again after a silence.
//! - [`ownership`]: a chat's side, which shards to claim and which to give up, and when.
//!
//! # How ownership moves
//!
//! A shard has an owner, or none, and a term. A chat that the ring prefers claims a shard that
//! has no owner by compare-and-swap on the term; the registry answers with a higher term and the
//! connectors live at that moment, all of which the new owner waits for. A shard loses its owner
//! when the owner releases it or is gone; the term stays.
//!
//! # Invariants
//!
//! - **One owner.** At any version of the map a shard has at most one owner, and it is a live chat.
//! - **Terms grow.** No two claims ever win the same term of a shard, whatever restarts.
//! - **Silence changes nothing.** No map is published because something was *not* heard, except
//!   that a node is gone after its lease; and a registry that has itself just started, or slept,
//!   waits before it trusts a silence.

pub mod claim;
pub mod map;
pub mod member;
pub mod mirror;
pub mod ownership;
pub mod placement;
pub mod registrar;
pub mod slots;
pub mod timing;

pub use claim::{Claim, Outcome};
pub use map::{
    ClientAddress, ClusterMap, MapDelta, MapUpdate, MissedUpdate, Node, NodeState, Ownership,
};
pub use member::{Join, Lease, Member};
pub use mirror::Mirror;
pub use ownership::Shards;
pub use placement::{Connectors, Owners, shard_of};
pub use registrar::{Gone, Registrar};
pub use slots::Slots;
pub use timing::Timing;
