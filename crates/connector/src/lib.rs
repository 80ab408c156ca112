//! Placeholder.

pub mod advertise;
