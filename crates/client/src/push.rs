//! What is heard unasked.

use model::{Position, Term};
use serde_json::Value;
use wire::route;

/// What is heard unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// Somebody entered.
    Add {
        /// Who.
        user: String,
    },
    /// Somebody left.
    Leave {
        /// Who.
        user: String,
    },
    /// So many are here, in a room of more than 1,000 members, which does not tell who comes and
    /// goes. Only modern clients hear it.
    Count {
        /// How many.
        members: u64,
    },
    /// Somebody spoke.
    Chat {
        /// What was said.
        text: String,
        /// Who said it.
        from: String,
        /// To whom: `*`, or a user.
        target: String,
    },
    /// Something that this library does not know, or not in this shape.
    Other {
        /// Its route.
        route: String,
        /// Its body.
        body: Value,
    },
}

/// What is heard, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What is heard.
    pub push: Push,
    /// Where it stands in the room, if a modern server says it.
    pub position: Option<Position>,
    /// The id that the sender of a message has given it, to be seen by modern clients.
    pub id: Option<String>,
}

impl Placed {
    /// Reads the body of a push.
    pub(crate) fn read(name: String, body: Value) -> Self {
        let position = position(&body);
        let id = body.get("id").and_then(Value::as_str).map(str::to_owned);
        Self { push: Push::read(name, body), position, id }
    }
}

/// The position that a push or an answer carries.
pub(crate) fn position(body: &Value) -> Option<Position> {
    let number = |member| body.get(member).and_then(Value::as_u64);
    Some(Position { generation: Term(number("gen")?), seq: number("seq")? })
}

impl Push {
    /// Reads the body of a push.
    pub(crate) fn read(name: String, mut body: Value) -> Self {
        if name == route::ON_COUNT
            && let Some(members) = body.get("count").and_then(Value::as_u64)
        {
            return Self::Count { members };
        }
        let mut text = |member| match body.get_mut(member).map(Value::take) {
            Some(Value::String(text)) => Some(text),
            Some(_) | None => None,
        };
        match name.as_str() {
            route::ON_ADD => {
                if let Some(user) = text("user") {
                    return Self::Add { user };
                }
            }
            route::ON_LEAVE => {
                if let Some(user) = text("user") {
                    return Self::Leave { user };
                }
            }
            route::ON_CHAT => {
                if let (Some(words), Some(from), Some(target)) =
                    (text("msg"), text("from"), text("target"))
                {
                    return Self::Chat { text: words, from, target };
                }
            }
            _ => {}
        }
        Self::Other { route: name, body }
    }
}
