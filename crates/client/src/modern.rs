//! The modern fields: positions, resuming, ids. What they mean is in `docs/protocol.md`.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
};

use model::{Outcome, Position};
use serde_json::{Map, Value, json};
use wire::{RequestId, Route, pomelo::Hello};

use crate::{
    chat::{Client, entering},
    error::{Error, Result},
    event::Queued,
    push::{Placed, position},
};

/// The member of a handshake's `user`, or of a request over Socket.IO, that asks for the modern fields,
/// and which of them.
const MEMBER: &str = "tangelo";
const VERSION: u64 = 1;

/// What to show to be let in again, with all that was missed.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// Proves who asks. As good as a password for this membership.
    pub token: String,
    /// Where the last thing heard stands.
    pub position: Position,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The answer to entering.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// What came of it.
    pub outcome: Outcome,
    /// Everybody in the room, this user included.
    pub users: Vec<String>,
    /// If resumed, exactly what was missed; otherwise the last messages to everyone, and after a
    /// reset something may be missing before them. Oldest first.
    pub events: Vec<Placed>,
    /// For the next time.
    pub resume: Resume,
}

/// Asks for the modern fields.
pub(crate) fn opt_in(hello: &mut Hello) {
    // Routes are sent as text and bodies as JSON: what was kept is of no use.
    hello.dict_version = None;
    hello.proto_version = None;
    if !hello.user.is_object() {
        hello.user = Value::Object(Map::new());
    }
    hello.user[MEMBER] = VERSION.into();
}

/// Asks for the modern fields in a request, where no handshake can.
pub(crate) fn ask(body: &mut Map<String, Value>) {
    body.insert(MEMBER.to_owned(), VERSION.into());
}

/// Whether the `user` of a server's answer says that it speaks the modern fields.
pub(crate) fn is_agreed(user: &Value) -> bool {
    user.get(MEMBER).and_then(Value::as_u64) == Some(VERSION)
}

/// An id for a message, which no other has.
pub(crate) fn new_id() -> String {
    let half = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", half(), half())
}

/// The modern fields. All need [`Options::modern`](crate::Options::modern), and a server that
/// speaks them.
impl Client {
    /// Enters a room, or comes back to it.
    ///
    /// # Errors
    ///
    /// [`Error::NotModern`]; [`Error::Refused`], as [`Client::enter`].
    pub async fn join(
        &mut self,
        name: &str,
        room: &str,
        resume: Option<&Resume>,
    ) -> Result<Joined> {
        self.must_be_modern()?;
        let mut body = entering(name, room);
        if let Some(Resume { token, position }) = resume {
            let Position { generation, seq } = position;
            let resume = json!({ "token": token, "gen": generation.0, "seq": seq });
            body.insert("resume".to_owned(), resume);
        }
        let mut answer = self.request(Route::Enter, &body).await?;
        if answer.get("outcome").is_none() && answer.get("users").is_some() {
            // A server that does not know what it was asked for has let us in as ever.
            return Err(Error::NotModern);
        }
        read(&mut answer).ok_or_else(|| Error::Unexpected(without_token(answer)))
    }

    /// Says something to one user of the room, or to `*`, and waits until it is in order. Answers
    /// where it stands. `id` (1 to 64 characters) makes it safe to say it again after a lost
    /// connection: it is applied once.
    ///
    /// # Errors
    ///
    /// [`Error::NotModern`]; [`Error::Refused`] if it was not done, or, with
    /// [`Code::Unknown`](model::Code::Unknown), if nobody knows.
    pub async fn say(&mut self, id: &str, target: &str, text: &str) -> Result<Position> {
        let request = self.begin_say(id, target, text)?;
        let answer = self.answer(request).await?;
        position(&answer).ok_or_else(|| Error::Unexpected(answer.to_string()))
    }

    /// Says something without waiting: the answer comes as an [`Event`](crate::Event).
    ///
    /// # Errors
    ///
    /// [`Error::NotModern`], or if it cannot be sent.
    pub fn begin_say(&mut self, id: &str, target: &str, text: &str) -> Result<RequestId> {
        self.must_be_modern()?;
        let mut body = Map::new();
        body.insert("content".to_owned(), text.into());
        body.insert("target".to_owned(), target.into());
        body.insert("id".to_owned(), id.into());
        self.begin(Route::Send, &body)
    }

    /// Waits for the next push. Answers that nobody waits for are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]: this is the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub async fn next_placed(&mut self) -> Result<Placed> {
        loop {
            if let Queued::Push(placed) = self.next_queued().await? {
                return Ok(placed);
            }
        }
    }

    fn must_be_modern(&self) -> Result<()> {
        if self.is_modern() { Ok(()) } else { Err(Error::NotModern) }
    }
}

fn read(answer: &mut Value) -> Option<Joined> {
    let outcome = answer.get("outcome")?.as_str()?;
    let outcomes = [Outcome::Joined, Outcome::Resumed, Outcome::Reset];
    let outcome = outcomes.into_iter().find(|it| it.name() == outcome)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let users = answer.get("users")?.as_array()?.iter().map(text).collect::<Option<_>>()?;
    let resume = Resume { token: text(answer.get("token")?)?, position: position(answer)? };
    let events = match answer.get_mut("events")?.take() {
        Value::Array(events) => events,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return None;
        }
    };
    let route = |event: &Value| event.get("route").and_then(text).unwrap_or_default();
    let events = events.into_iter().map(|event| Placed::read(route(&event), event)).collect();
    Some(Joined { outcome, users, events, resume })
}

/// An answer, to be shown to people.
fn without_token(mut answer: Value) -> String {
    if let Some(object) = answer.as_object_mut() {
        object.remove("token");
    }
    answer.to_string()
}
