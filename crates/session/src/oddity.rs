//! What clients do that they should not.

use model::Code;

/// Something a client did that was ignored or refused; counted, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    // Ignored.
    /// A package of a stage that has not come or is over.
    OutOfPlace,
    /// DATA that is no message.
    MalformedMessage,
    /// A message that only servers send, or of no defined type.
    ForeignMessage,
    /// A compressed route that is not in the dictionary.
    UnknownCode,

    // Refused.
    /// A route that does not exist here.
    UnknownRoute,
    /// A user or room name against the rule, or none.
    BadName,
    /// A second `enter`.
    EnteredTwice,
    /// A `send` before `enter`.
    NotEntered,
    /// A target that names nobody.
    BadTarget,
    /// A message id that is no text, empty or too long.
    BadMessageId,
    /// A `resume` that does not say what it must.
    BadResume,
    /// Content over the limit.
    TooLarge,
    /// Calls faster than the rate.
    TooFast,
    /// More sends than may be unanswered at a time.
    TooManyUnanswered,
}

impl Oddity {
    /// All oddities, in order.
    pub const ALL: [Self; 14] = [
        Self::OutOfPlace,
        Self::MalformedMessage,
        Self::ForeignMessage,
        Self::UnknownCode,
        Self::UnknownRoute,
        Self::BadName,
        Self::EnteredTwice,
        Self::NotEntered,
        Self::BadTarget,
        Self::BadMessageId,
        Self::BadResume,
        Self::TooLarge,
        Self::TooFast,
        Self::TooManyUnanswered,
    ];

    /// The oddity's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfPlace => "out-of-place",
            Self::MalformedMessage => "malformed-message",
            Self::ForeignMessage => "foreign-message",
            Self::UnknownCode => "unknown-code",
            Self::UnknownRoute => "unknown-route",
            Self::BadName => "bad-name",
            Self::EnteredTwice => "entered-twice",
            Self::NotEntered => "not-entered",
            Self::BadTarget => "bad-target",
            Self::BadMessageId => "bad-message-id",
            Self::BadResume => "bad-resume",
            Self::TooLarge => "too-large",
            Self::TooFast => "too-fast",
            Self::TooManyUnanswered => "too-many-unanswered",
        }
    }

    /// The code with which a request is refused for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::OutOfPlace
            | Self::MalformedMessage
            | Self::ForeignMessage
            | Self::UnknownCode
            | Self::BadName
            | Self::BadTarget
            | Self::BadMessageId
            | Self::BadResume => Code::Malformed,
            Self::UnknownRoute => Code::Absent,
            Self::EnteredTwice => Code::Forbidden,
            Self::NotEntered => Code::Unauthorized,
            Self::TooLarge => Code::TooLarge,
            Self::TooFast | Self::TooManyUnanswered => Code::SlowDown,
        }
    }
}

impl std::fmt::Display for Oddity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
