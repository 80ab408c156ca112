//! What clients that know Tangelo have beyond the original's: message ids, and a way back.

use std::{fmt, sync::Arc};

use crate::{NameError, Position, limits};

/// The name that a client gives to one of its messages, so that sending it again is safe: 1 to
/// [`limits::MESSAGE_ID_CHARS_MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Checks and wraps a client's text.
    ///
    /// # Errors
    ///
    /// If it is empty or too long.
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text.chars().take(limits::MESSAGE_ID_CHARS_MAX + 1).count() {
            0 => Err(NameError::Empty),
            length if length > limits::MESSAGE_ID_CHARS_MAX => Err(NameError::TooLong),
            _ => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What proves that a client is the member that it says it was: 128 bits that nobody can guess. Known
/// to the client, its connector and the room's owner, and shown in no log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResumeKey(pub u128);

impl ResumeKey {
    /// The key of this text, as [`Self::text`] wrote it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    /// The key as 32 hexadecimal digits.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKey(…)")
    }
}

/// What a client shows that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Its membership's key.
    pub key: ResumeKey,
    /// The last position that it saw.
    pub position: Position,
}

/// What became of an entrant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in, and had asked for nothing more.
    Joined,
    /// It is in, and is told all that it missed.
    Resumed,
    /// It is in, but what it missed cannot be told.
    Reset,
}

impl Outcome {
    /// The outcome's name on the wire and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Resumed => "resumed",
            Self::Reset => "reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_text() {
        for key in [ResumeKey(0), ResumeKey(7), ResumeKey(u128::MAX)] {
            assert_eq!(ResumeKey::parse(&key.text()), Some(key));
        }
        for wrong in
            ["", "7", "+0000000000000000000000000000000", "g0000000000000000000000000000000"]
        {
            assert_eq!(ResumeKey::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", ResumeKey(7)), "ResumeKey(…)");
    }

    #[test]
    fn message_ids_are_bounded() {
        assert!(MessageId::new(&"张".repeat(limits::MESSAGE_ID_CHARS_MAX)).is_ok());
        let long = "x".repeat(limits::MESSAGE_ID_CHARS_MAX + 1);
        assert_eq!(MessageId::new(&long), Err(NameError::TooLong));
        assert_eq!(MessageId::new(""), Err(NameError::Empty));
    }
}
