//! Replays what was recorded between the original server and its clients.
//!
//! A transcript holds both directions. [`replay`] plays the clients: it does what they did, in
//! the recorded order, each time after everything recorded before it has arrived. What the server
//! sends is compared byte for byte; ports are ours. Where a transcript leaves the order open (a
//! push against the answer to the client's own request) both orders count as equal.
//!
//! Whatever differs is a [`Difference`]. Some are meant; the test that replays knows which.

mod compare;
mod play;
mod record;
mod socket;

pub use compare::Difference;
pub use play::{Stage, replay};
pub use record::Transcript;
