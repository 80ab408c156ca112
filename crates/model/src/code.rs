//! Every answer a client can get.

use std::fmt;

/// The outcome of a request, as modern clients see it.
///
/// Old clients know only success and `500`; [`Code::for_old_clients`] translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Code {
    /// Done.
    Ok = 200,
    /// The request does not say what it should; sending it again changes nothing.
    Malformed = 400,
    /// Who you are is not known here: enter first.
    Unauthorized = 401,
    /// You are known, and may not.
    Forbidden = 403,
    /// The target is not in the room, or the route does not exist.
    Absent = 404,
    /// Another member of the room has this name.
    NameTaken = 409,
    /// Larger than the limit.
    TooLarge = 413,
    /// More than the rate allows; try again later.
    SlowDown = 429,
    /// Nothing was applied; trying again is safe.
    NotApplied = 503,
    /// Whether it was applied is not known; trying again with the same message id is safe.
    Unknown = 504,
}

impl Code {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code that stands for `number`, if one does.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            200 => Self::Ok,
            400 => Self::Malformed,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::Absent,
            409 => Self::NameTaken,
            413 => Self::TooLarge,
            429 => Self::SlowDown,
            503 => Self::NotApplied,
            504 => Self::Unknown,
            _ => return None,
        })
    }

    /// The number that clients written for Pomelo understand: 200 or 500.
    #[must_use]
    pub const fn for_old_clients(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Malformed
            | Self::Unauthorized
            | Self::Forbidden
            | Self::Absent
            | Self::NameTaken
            | Self::TooLarge
            | Self::SlowDown
            | Self::NotApplied
            | Self::Unknown => 500,
        }
    }

    /// What it says to people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Malformed => "the request does not say what it should",
            Self::Unauthorized => "enter a room first",
            Self::Forbidden => "not allowed",
            Self::Absent => "nobody of this name, or nothing at this route",
            Self::NameTaken => "that name is taken in this room",
            Self::TooLarge => "too large",
            Self::SlowDown => "too fast; try again later",
            Self::NotApplied => "nothing was done; try again",
            Self::Unknown => "it may or may not have been done",
        }
    }

    /// Whether the same request may be sent again without being applied twice.
    #[must_use]
    pub const fn retry_is_safe(self) -> bool {
        matches!(self, Self::SlowDown | Self::NotApplied | Self::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}
