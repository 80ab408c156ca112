//! Handshake and heartbeat rules: what each package means at each stage.

use wire::pomelo::packet::Kind;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is known of it yet.
    Greeting,
    /// It was told how to speak, and has not accepted yet.
    Greeted,
    /// It may ask.
    Working,
    /// It is gone, or to be gone.
    Closed,
}

/// What a package asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To be told how to speak.
    Greet,
    /// To begin.
    Begin,
    /// A sign of life in return.
    Beat,
    /// To have its message read.
    Message,
    /// Nothing: it is out of place.
    Ignore,
    /// The end: only servers send such a package.
    Close,
}

/// What a package of the binary protocol means to a client's server.
pub(crate) const fn step(stage: Stage, kind: Kind) -> Step {
    match (stage, kind) {
        (_, Kind::Kick) => Step::Close,
        (Stage::Greeting, Kind::Handshake) => Step::Greet,
        (Stage::Greeted, Kind::HandshakeAck) => Step::Begin,
        (Stage::Working, Kind::Heartbeat) => Step::Beat,
        (Stage::Working, Kind::Data) => Step::Message,
        (
            Stage::Greeting | Stage::Greeted | Stage::Working | Stage::Closed,
            Kind::Handshake | Kind::HandshakeAck | Kind::Heartbeat | Kind::Data,
        ) => Step::Ignore,
    }
}
