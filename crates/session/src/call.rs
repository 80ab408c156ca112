//! What clients ask of the role, checked.

use model::{Content, MessageId, NameRule, Resume, RoomId, SendNumber, Target, UserName};
use wire::{body, pomelo::modern};

use crate::Oddity;

/// The original's word for everyone.
const EVERYONE: &str = "*";

/// What a client wants from the role. Names follow the rule, content is within its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Asks a gate which connector to use.
    QueryEntry {
        /// The user's name as the client gave it, the key of the choice in the original. Not
        /// empty; up to the limit of a message, and of any characters.
        uid: String,
        /// The room it wants, if it says so.
        room: Option<RoomId>,
    },
    /// Enters a room. A session has at most one such call without an answer, and none after one
    /// that was answered with users.
    Enter {
        /// The name to be known by.
        user: UserName,
        /// The room.
        room: RoomId,
        /// What it shows if it comes back. Only clients that know Tangelo do.
        resume: Option<Resume>,
    },
    /// Says something in the room that the session has entered, or asked to enter.
    Say {
        /// Counts these calls of the session, from 1, without a gap.
        number: SendNumber,
        /// What to say.
        content: Content,
        /// To whom.
        target: Target,
        /// The client's own name for it. Only clients that know Tangelo give one.
        id: Option<MessageId>,
    },
}

/// The user and the room of an `enter`, as the original would have called them.
pub(crate) fn enter(
    username: &Content,
    rid: &Content,
    rule: &NameRule,
) -> Result<(UserName, RoomId), Oddity> {
    // The original took a name that was not there for `undefined` or `null`.
    let username = match username {
        Content::Missing => return Err(Oddity::BadName),
        Content::Json(json) if &**json == "null" => return Err(Oddity::BadName),
        Content::Text(_) | Content::Json(_) => body::as_name(username),
    };
    let rid = body::as_room(rid).ok_or(Oddity::BadName)?;
    let user = UserName::parse(&username, rule).map_err(|_| Oddity::BadName)?;
    let room = RoomId::parse(&rid, rule).map_err(|_| Oddity::BadName)?;
    Ok((user, room))
}

/// What a client shows that comes back.
pub(crate) fn resume(shown: &Content) -> Result<Option<Resume>, Oddity> {
    match shown {
        Content::Missing => Ok(None),
        Content::Json(json) if &**json == "null" => Ok(None),
        Content::Text(_) | Content::Json(_) => {
            modern::resume(shown).map(Some).ok_or(Oddity::BadResume)
        }
    }
}

/// The client's own name for a message.
pub(crate) fn message_id(id: &Content) -> Result<Option<MessageId>, Oddity> {
    match id {
        Content::Missing => Ok(None),
        Content::Text(text) => MessageId::new(text).map(Some).map_err(|_| Oddity::BadMessageId),
        Content::Json(_) => Err(Oddity::BadMessageId),
    }
}

/// The user and the room of a `queryEntry`. A room against the rule counts as none: the connector
/// will refuse it.
pub(crate) fn query_entry(
    uid: &Content,
    rid: &Content,
    rule: &NameRule,
) -> Result<(String, Option<RoomId>), Oddity> {
    let uid = body::as_uid(uid).ok_or(Oddity::BadName)?;
    let room = body::as_room(rid).and_then(|room| RoomId::parse(&room, rule).ok());
    Ok((uid.into_owned(), room))
}

/// Whom a `send` is for.
pub(crate) fn target(shown: Content, rule: &NameRule) -> Result<Target, Oddity> {
    match &shown {
        Content::Text(text) if &**text == EVERYONE => Ok(Target::Everyone { shown }),
        // JavaScript finds `["*"]` equal to `"*"`, however deeply nested.
        Content::Json(json) if json.starts_with('[') && body::as_name(&shown) == EVERYONE => {
            Ok(Target::Everyone { shown })
        }
        // Nobody can have entered under a name against the rule, so nobody is absent here.
        Content::Text(text) => {
            UserName::parse(text, rule).map(Target::One).map_err(|_| Oddity::BadTarget)
        }
        Content::Json(_) | Content::Missing => Err(Oddity::BadTarget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Text(text.into())
    }

    fn json(text: &str) -> Content {
        Content::Json(text.into())
    }

    fn entered(username: Content, rid: Content) -> Result<(String, String), Oddity> {
        let (user, room) = enter(&username, &rid, &NameRule::default())?;
        Ok((user.as_str().to_owned(), room.as_str().to_owned()))
    }

    #[test]
    fn scalars_are_names() {
        let named = |user: &str, room: &str| Ok((user.to_owned(), room.to_owned()));
        assert_eq!(entered(text("张三"), text("r_1")), named("张三", "r_1"));
        assert_eq!(entered(json("7"), json("8")), named("7", "8"));
        assert_eq!(entered(json("true"), text("r")), named("true", "r"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            Content::Missing,
            json("null"),
            json(r#"{"a":1}"#),
            json(r#"["a","b"]"#),
            text(""),
            text("a*b"),
            text("a b"),
            text(&"x".repeat(21)),
        ] {
            assert_eq!(entered(bad.clone(), text("r")), Err(Oddity::BadName), "{bad:?}");
            assert_eq!(entered(text("u"), bad.clone()), Err(Oddity::BadName), "{bad:?}");
        }
        assert_eq!(entered(text("u"), json(r#"["r"]"#)), Err(Oddity::BadName));
    }

    #[test]
    fn a_query_needs_a_user_only() {
        let query = |uid: Content, rid: Content| {
            let (uid, room) = query_entry(&uid, &rid, &NameRule::default())?;
            Ok((uid, room.map(|room| room.as_str().to_owned())))
        };
        let found = |uid: &str, room: Option<&str>| Ok((uid.to_owned(), room.map(str::to_owned)));
        assert_eq!(query(text("a*b c"), Content::Missing), found("a*b c", None));
        assert_eq!(query(json("42"), text("r")), found("42", Some("r")));
        assert_eq!(query(text("a"), text("no such room")), found("a", None));
        for bad in [Content::Missing, text(""), json("null"), json("0"), json(r#"["a"]"#)] {
            assert_eq!(query(bad.clone(), text("r")), Err(Oddity::BadName), "{bad:?}");
        }
    }

    #[test]
    fn targets_are_everyone_or_one() {
        let rule = NameRule::default();
        for everyone in [text("*"), json(r#"["*"]"#), json(r#"[["*"]]"#)] {
            let shown = everyone.clone();
            assert_eq!(target(everyone, &rule), Ok(Target::Everyone { shown }));
        }
        let bob = UserName::parse("bob", &rule).unwrap();
        assert_eq!(target(text("bob"), &rule), Ok(Target::One(bob)));
        for bad in [
            Content::Missing,
            json("null"),
            text(""),
            json("7"),
            json(r#"{"a":1}"#),
            json(r#"["bob"]"#),
            text("**"),
        ] {
            assert_eq!(target(bad.clone(), &rule), Err(Oddity::BadTarget), "{bad:?}");
        }
    }
}
