//! Types and services generated from `proto/tangelo/v1`, comments included.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    rustdoc::all,
    reason = "generated code"
)]

tonic::include_proto!("tangelo.v1");
include!(concat!(env!("OUT_DIR"), "/link/tangelo.v1.rs"));
