//! The nouns of Tangelo: identifiers, answer codes and limits.
//!
//! Every other crate may use this one; it uses none of them. Nothing here does I/O, reads a
//! clock or draws a random number.

pub mod code;
pub mod ids;
pub mod limits;
mod rate;
mod resume;
pub mod time;

pub use code::Code;
pub use ids::{
    Content, Incarnation, MemberId, NameError, NameRule, NodeId, Position, Role, RoomId,
    SendNumber, SessionId, Shard, Target, Term, UserName,
};
pub use rate::{Bucket, Rate};
pub use resume::{MessageId, Outcome, Resume, ResumeKey};
pub use time::Time;
