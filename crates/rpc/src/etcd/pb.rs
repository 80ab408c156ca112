//! Types and services generated from `proto/etcd`, comments included.

#![allow(
    dead_code,
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

tonic::include_proto!("etcdserverpb");
