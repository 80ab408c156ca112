//! Judges what the system did.
//!
//! [`history`] takes what clients did and saw and says which promises were broken. It knows
//! nothing of how messages travel, so the same judge serves the simulation, the tests with real
//! processes and the benchmark.

pub mod history;
pub mod sim;
