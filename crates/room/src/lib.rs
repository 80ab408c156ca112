//! Rooms: both ends of one, and how a room survives the loss of its owner.
//!
//! A room is ordered by exactly one chat node, the *owner* of its shard; [`Owner`] is that end. On
//! every connector that has members of the room stands a [`Relay`](Relays), which knows the room's
//! members, its recent events, and the sends of its own members that are not answered yet. What a
//! client sends goes up to the owner, gets a [`Position`](model::Position), and comes back once per
//! connector as an [`Event`](message::Event); the relay hands it to its members.
//!
//! # Positions
//!
//! Everything that happens in a room takes the next position. A relay applies an event only if it
//! follows the last one, so that it sees every event once, in order, without a gap. A whisper is an
//! event as others are: all relays of the room hold it, and each shows it to those whom it is for.
//!
//! # Takeover
//!
//! When an owner dies, another chat claims the shard and gets a higher *term*. Every connector
//! *attaches*: it sends what it knows of each room, and from then on drops what the old owner still
//! says. The new owner rebuilds each room from the view that is furthest ahead, brings the others
//! up to it event by event, and opens the shard; then the relays send again what was not answered.
//! A send carries its number in its session, so that the owner recognises what it has applied.
//! When continuity cannot be proved the room starts a new *generation* and every relay gets a
//! snapshot: a loss is said, never hidden.
//!
//! # A name that is taken
//!
//! The owner decides what becomes of a newcomer whose name somebody has, by its [`Duplicates`]
//! policy. To refuse it fairly it asks the member's connector whether the client lives, and lets
//! the newcomer wait for that; a member that says nothing in time is put out. The newcomer's relay
//! knows that it waits, and refuses it by itself if no owner has answered by then. A new owner
//! knows nothing of probes: the newcomer's join comes again, and is asked about anew.
//!
//! # Invariants
//!
//! - **One position, one event.** No two events have the same room, generation and number.
//! - **No gap.** A relay's tail holds consecutive positions and ends at its own.
//! - **No answer before the event is held.** A relay answers a send when the event has reached it, so
//!   the owner and the sender's connector both hold what was acknowledged.
//! - **Stale terms are not heard.** Both ends drop a frame of another term than their own.
//!
//! Both machines take events with the time and append effects; they do no I/O.

mod dedup;
mod duplicates;
mod empty;
mod group;
pub mod members;
pub mod message;
mod owner;
mod relay;
mod relays;
mod room;
mod standstill;
mod tail;
mod takeover;

pub use duplicates::{Duplicates, NoSuchPolicy, ProbeOutcome};
pub use owner::{Effect as OwnerEffect, Event as OwnerEvent, LinkId, Owner};
pub use relay::Push;
pub use relays::{Effect as RelayEffect, Event as RelayEvent, Relays};
pub use standstill::{Standstill, Unheard};
