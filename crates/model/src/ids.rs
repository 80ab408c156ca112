//! Identifiers, each checked once when it is made.

use std::{fmt, sync::Arc};

use crate::limits;

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Answers which connector to use.
    Gate,
    /// Holds client sessions.
    Connector,
    /// Owns rooms.
    Chat,
}

impl Role {
    /// The role's name in logs, flags and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Connector => "connector",
            Self::Chat => "chat",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("the name is empty")]
    Empty,
    /// Longer than the limit.
    #[error("the name is too long")]
    TooLong,
    /// A character that the rule does not allow.
    #[error("the name has a character that is not allowed: {0:?}")]
    Character(char),
}

/// The name of a node for people and logs, such as `connector-2`: 1 to 64 of `a-z A-Z 0-9 - _ .`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Checks and wraps a node's name.
    ///
    /// # Errors
    ///
    /// If it is empty, over 64 bytes, or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        match name {
            "" => Err(NameError::Empty),
            _ if name.len() > 64 => Err(NameError::TooLong),
            _ => match name.chars().find(odd) {
                Some(c) => Err(NameError::Character(c)),
                None => Ok(Self(name.into())),
            },
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which names clients may take, for users and for rooms alike.
///
/// The default is the alphabet of the original page (letters of any script, digits, `_`) and the
/// hyphen, which native clients use in room ids: 1 to [`limits::NAME_CHARS_MAX`] characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Most characters.
    pub chars_max: usize,
    /// Characters allowed beside letters and digits.
    pub extra: Arc<str>,
    /// Allows every character and the empty name, as the original did. For replaying recordings.
    pub anything: bool,
}

impl Default for NameRule {
    fn default() -> Self {
        Self { chars_max: limits::NAME_CHARS_MAX, extra: "_-".into(), anything: false }
    }
}

impl NameRule {
    /// Checks `name` against this rule.
    ///
    /// # Errors
    ///
    /// What is wrong with it first.
    pub fn check(&self, name: &str) -> Result<(), NameError> {
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if self.anything {
            return Ok(());
        }
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.chars().count() > self.chars_max {
            return Err(NameError::TooLong);
        }
        match name.chars().find(|c| !c.is_alphanumeric() && !self.extra.contains(*c)) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(()),
        }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a client's text against `rule` and wraps it.
            ///
            /// # Errors
            ///
            /// What is wrong with it first.
            pub fn parse(text: &str, rule: &NameRule) -> Result<Self, NameError> {
                rule.check(text)?;
                Ok(Self(text.into()))
            }

            /// Wraps a name that another of our processes has checked; only its size is looked at.
            ///
            /// # Errors
            ///
            /// If it is over [`limits::NAME_BYTES_MAX`] bytes.
            pub fn from_peer(text: &str) -> Result<Self, NameError> {
                if text.len() > limits::NAME_BYTES_MAX { return Err(NameError::TooLong) }
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a room.
    RoomId
}
name! {
    /// The display name of a user, unique in its room.
    UserName
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}
text_traits!(NodeId, RoomId, UserName);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One life of a node: a random number drawn when the process starts (below 2^53, so that it
    /// survives JSON).
    Incarnation(u64)
}
number! {
    /// A client session, unique in its connector's incarnation and never used twice in it.
    SessionId(u64)
}
number! {
    /// Which ownership of a shard: grows with every claim, never goes back.
    Term(u64)
}
number! {
    /// The n-th send of a session, from 1: what makes a repeated send recognisable.
    SendNumber(u64)
}

impl SendNumber {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A slot of room names, below [`limits::SHARD_COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// The shard with this number, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < limits::SHARD_COUNT { Some(Self(number)) } else { None }
    }

    /// The shard that a hash falls into.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below SHARD_COUNT")]
    pub const fn from_hash(hash: u64) -> Self {
        Self((hash % limits::SHARD_COUNT as u64) as u16)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its number as an index into a table of all shards.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// All shards in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..limits::SHARD_COUNT).map(Self)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A session in a room, named cluster-wide. A leave that names a member of an earlier life of a
/// connector can therefore never hit a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The connector's incarnation.
    pub connector: Incarnation,
    /// The session on it.
    pub session: SessionId,
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.connector.0, self.session)
    }
}

/// Where in a room's order an event stands.
///
/// `seq` counts everything in the room (chat, join, leave); `generation` is the term at which the
/// room's unbroken history began. Positions of different generations are ordered by generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The unbroken history that `seq` counts in.
    pub generation: Term,
    /// How many events the generation had, this one included. 0 is "before the first".
    pub seq: u64,
}

impl Position {
    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { generation: self.generation, seq: self.seq + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.seq)
    }
}

/// What a client wants others to read, or whom it named: usually text, but the original passes
/// any JSON value through, so these must survive the way as they came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A JSON string, decoded.
    Text(Arc<str>),
    /// Another JSON value, as its JSON text.
    Json(Arc<str>),
    /// The member was not there at all.
    Missing,
}

impl Content {
    /// Bytes that it keeps alive.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Missing => 0,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(_) | Self::Missing => None,
        }
    }
}

/// Whom a chat message is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Every member of the room, the sender included. `shown` is what receivers are told as the
    /// target: the original echoes the client's JSON, and `["*"]` counts as `"*"` there.
    Everyone {
        /// What receivers are told as the target.
        shown: Content,
    },
    /// One member of the same room.
    One(UserName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let rule = NameRule::default();
        for good in ["alice", "张三", "émile", "room_1", "room-1", "12345678901234567890"] {
            assert!(RoomId::parse(good, &rule).is_ok(), "{good}");
        }
        assert_eq!(UserName::parse("", &rule), Err(NameError::Empty));
        assert_eq!(UserName::parse("a*b", &rule), Err(NameError::Character('*')));
        assert_eq!(UserName::parse("a b", &rule), Err(NameError::Character(' ')));
        assert_eq!(UserName::parse("123456789012345678901", &rule), Err(NameError::TooLong));
        let anything = NameRule { anything: true, ..rule };
        assert!(UserName::parse("", &anything).is_ok());
        assert!(UserName::parse(&"x".repeat(257), &anything).is_err());
    }

    #[test]
    fn node_names_are_plain() {
        assert!(NodeId::new("connector-2").is_ok());
        assert_eq!(NodeId::new("a/b"), Err(NameError::Character('/')));
        assert_eq!(NodeId::new(&"x".repeat(65)), Err(NameError::TooLong));
    }

    #[test]
    fn positions_order_by_generation_first() {
        let old = Position { generation: Term(3), seq: 900 };
        let new = Position { generation: Term(4), seq: 1 };
        assert!(old < new);
        assert_eq!(new.next().seq, 2);
    }

    #[test]
    fn every_hash_has_a_shard() {
        assert_eq!(Shard::from_hash(u64::MAX).number(), 1023);
        assert_eq!(Shard::new(1024), None);
        assert_eq!(Shard::all().len(), 1024);
    }
}
