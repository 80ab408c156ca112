//! Replays what was recorded between the original server and its clients.
//!
//! A transcript holds both directions. [`replay`] plays the clients: it does what they did, in
//! the recorded order, each time after everything recorded before it has arrived. What the server
//! sends is compared byte for byte; ports are ours. Where a transcript leaves the order open (a
//! push against the answer to the client's own request) both orders count as equal.
//!
//! Whatever differs is a [`Difference`]. Some are meant; the test that replays knows which.

mod compare;
mod connection;
mod exchange;
mod item;
#[cfg(test)]
mod mirror;
mod packages;
mod play;
mod record;
mod script;
mod socket;
mod socketio;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use compare::Difference;
pub use play::{Stage, replay};
pub use record::Transcript;

/// Where the transcripts are, if not in `shared/protocol/transcripts` beside the checkout.
pub const FOLDER: &str = "TANGELO_TRANSCRIPTS";

/// The folder of the transcripts, if there is one: they are not part of this repository.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let beside = checkout.join("../shared/protocol/transcripts");
    beside.is_dir().then_some(beside)
}
