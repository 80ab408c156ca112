//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use frontend::Outbound;
use model::{Code, Position, SendNumber, SessionId, UserName};
use room::{
    Push,
    message::{Body, Event, Member, Welcome},
};
use session::{CloseReason, RequestKey};
use wire::{
    Dialect, Entered, Reply, Stamp,
    pomelo::{Options, modern},
};

/// The sessions of one worker that have asked to enter a room.
#[derive(Debug)]
pub(crate) struct Hub {
    sessions: HashMap<SessionId, Client>,
    /// The dictionary and the definitions that clients were told in their handshake.
    options: Arc<Options>,
}

/// What a worker needs to answer a client.
#[derive(Debug)]
struct Client {
    outbound: Outbound,
    dialect: Dialect,
    /// The `enter` that waits for its answer.
    entering: Option<RequestKey>,
    /// The sends that wait for theirs, in order.
    saying: VecDeque<(SendNumber, RequestKey)>,
}

impl Hub {
    /// A hub without sessions.
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { sessions: HashMap::new(), options }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session that asks to enter.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        outbound: Outbound,
        dialect: Dialect,
        key: RequestKey,
    ) {
        let client = Client { outbound, dialect, entering: Some(key), saying: VecDeque::new() };
        self.sessions.insert(session, client);
    }

    /// Notes which request a send answers.
    pub(crate) fn say(&mut self, session: SessionId, number: SendNumber, key: RequestKey) {
        if let Some(client) = self.sessions.get_mut(&session) {
            client.saying.push_back((number, key));
        }
    }

    /// Forgets a session.
    pub(crate) fn leave(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Tells a client that it is in.
    pub(crate) fn entered(
        &mut self,
        session: SessionId,
        users: Vec<UserName>,
        position: Position,
        welcome: Option<Welcome>,
    ) {
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            let reply = match welcome {
                None => Reply::Users(users),
                Some(Welcome { outcome, stay, events }) => {
                    let (key, events) = (stay.key, in_json(&events));
                    Reply::Entered(Box::new(Entered { outcome, users, position, key, events }))
                }
            };
            client.outbound.reply(key, reply);
        }
    }

    /// Tells a client that its send has a position.
    pub(crate) fn placed(&mut self, session: SessionId, number: SendNumber, position: Position) {
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.answers(number)
        {
            client.outbound.reply(key, client.done(position));
        }
    }

    /// Tells a client that it is not in.
    pub(crate) fn enter_refused(&mut self, session: SessionId, code: Code) {
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Refused { code, error: true });
        }
    }

    /// Tells a client how its send ended.
    pub(crate) fn said(&mut self, session: SessionId, number: SendNumber, code: Code) {
        if let Some(client) = self.sessions.get_mut(&session) {
            client.answer(number, code);
        }
    }

    /// Closes a session.
    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        if let Some(client) = self.sessions.remove(&session) {
            client.outbound.close(reason);
        }
    }

    /// Tells members something; `answered` gets the reply to its send beside it, in the order
    /// that its dialect wants. Returns how many were told.
    pub(crate) fn push(
        &mut self,
        sessions: &[SessionId],
        except: Option<SessionId>,
        (push, position): (&Push, Position),
        answered: Option<(SessionId, SendNumber)>,
    ) -> usize {
        let mut encoded = Encoded::new(push, position);
        let mut told = 0;
        for session in sessions {
            if Some(*session) == except {
                continue;
            }
            let Some(client) = self.sessions.get_mut(session) else { continue };
            let answer = answered.filter(|(sender, _)| sender == session);
            let key = answer.and_then(|(_, number)| client.answers(number));
            let frame = encoded.of(client.dialect, &self.options);
            told += usize::from(frame.is_some());
            let outbound = &client.outbound;
            match (frame, key) {
                (Some(frame), Some(key)) => {
                    let reply_first = client.dialect.reply_before_push();
                    outbound.push_and_reply(frame, key, client.done(position), reply_first)
                }
                (Some(frame), None) => outbound.push(frame),
                (None, Some(key)) => outbound.reply(key, client.done(position)),
                (None, None) => continue,
            };
        }
        // The sender may have left the audience between its send and now.
        if let Some((sender, number)) = answered.filter(|(sender, _)| !sessions.contains(sender)) {
            self.placed(sender, number, position);
        }
        told
    }
}

impl Client {
    /// The request that this send was, once.
    fn answers(&mut self, number: SendNumber) -> Option<RequestKey> {
        // Answers come in the order of the sends, but for refusals that need no owner.
        let at = self.saying.iter().position(|(said, _)| *said == number)?;
        self.saying.remove(at).map(|(_, key)| key)
    }

    /// The answer to a send that has this position.
    fn done(&self, position: Position) -> Reply {
        if self.dialect == Dialect::Modern { Reply::Placed(position) } else { Reply::Done }
    }

    fn answer(&mut self, number: SendNumber, code: Code) {
        let Some(key) = self.answers(number) else { return };
        let reply = match code {
            Code::Ok => Reply::Done,
            Code::Malformed
            | Code::Unauthorized
            | Code::Forbidden
            | Code::Absent
            | Code::NameTaken
            | Code::TooLarge
            | Code::SlowDown
            | Code::NotApplied
            | Code::Unknown => Reply::Refused { code, error: false },
        };
        self.outbound.reply(key, reply);
    }
}

/// One push in the bytes of each dialect that somebody in the room speaks.
struct Encoded<'a> {
    push: Option<wire::Push<'a>>,
    stamp: Stamp<'a>,
    frames: Vec<(Dialect, Option<Bytes>)>,
}

impl<'a> Encoded<'a> {
    fn new(push: &'a Push, position: Position) -> Self {
        let id = match push {
            Push::Chat(event) => event.message_id().map(|(_, id)| id),
            Push::Add(_) | Push::Leave(_) => None,
        };
        let stamp = Stamp { position, id };
        Self { push: in_wire_terms(push), stamp, frames: Vec::new() }
    }

    fn of(&mut self, dialect: Dialect, options: &Options) -> Option<Bytes> {
        if let Some((_, frame)) = self.frames.iter().find(|(known, _)| *known == dialect) {
            return frame.clone();
        }
        let frame = self.push.as_ref().and_then(|push| match dialect {
            Dialect::Modern => modern::encode_push(push, Some(self.stamp)),
            Dialect::Pomelo
            | Dialect::PomeloCesu8
            | Dialect::Pitaya
            | Dialect::SocketIo09
            | Dialect::SocketIo1 => dialect.encode_push(push, options),
        });
        self.frames.push((dialect, frame.clone()));
        frame
    }
}

fn in_wire_terms(push: &Push) -> Option<wire::Push<'_>> {
    match push {
        Push::Add(user) => Some(wire::Push::Add { user }),
        Push::Leave(user) => Some(wire::Push::Leave { user }),
        Push::Chat(event) => chat(event),
    }
}

fn chat(event: &Event) -> Option<wire::Push<'_>> {
    match &event.body {
        Body::Said { from, shown, content, .. } | Body::Whispered { from, shown, content, .. } => {
            Some(wire::Push::Chat { content, from: &from.user, target: shown })
        }
        Body::Joined(_) | Body::Left(_) | Body::Moved { .. } | Body::Hidden => None,
    }
}

/// Events as the pushes that a client would have had, in a JSON array.
fn in_json(events: &[Arc<Event>]) -> String {
    let mut json = b"[".to_vec();
    for event in events {
        let push = match &event.body {
            Body::Joined(Member { user, .. }) => Some(wire::Push::Add { user }),
            Body::Left(Member { user, .. }) => Some(wire::Push::Leave { user }),
            Body::Said { .. } | Body::Whispered { .. } => chat(event),
            Body::Moved { .. } | Body::Hidden => None,
        };
        let Some(push) = push else { continue };
        if json.len() > 1 {
            json.push(b',');
        }
        let id = event.message_id().map(|(_, id)| id);
        let stamp = Stamp { position: event.position, id };
        modern::write_push(&mut json, &push, Some(stamp));
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_else(|_| "[]".to_owned())
}
