//! What goes wrong in earnest: processes killed, stopped, drained and cut off under load, while a
//! crowd talks and the history checker judges what everybody saw.
//!
//! `cargo test -p e2e --test faults` plays short versions. The figures of `docs/guarantees.md` come
//! from the long ones, under the standard load (3 connectors, 3 chats, 600 users in 60 rooms, 300
//! sends/s): `TANGELO_BIN_DIR=$PWD/target/release TANGELO_FAULTS=full cargo test -p e2e --test
//! faults -- --test-threads 1 --nocapture`, once the three roles are built with `--release`.
//! Figures are printed (`figure: …`), never asserted: a loaded machine is slow, not wrong.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "faults/chat.rs"]
mod chat;
#[path = "faults/connector.rs"]
mod connector;
#[path = "faults/drain.rs"]
mod drain;
#[path = "faults/gate.rs"]
mod gate;
#[path = "faults/link.rs"]
mod link;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/modern.rs"]
mod modern;
#[path = "faults/people.rs"]
mod people;
#[path = "faults/planned.rs"]
mod planned;
