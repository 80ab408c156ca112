//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use frontend::Outbound;
use model::{Code, SendNumber, SessionId, UserName};
use room::{
    Push,
    message::{Body, Event},
};
use session::{CloseReason, RequestKey};
use wire::{Dialect, Reply, pomelo::Options};

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
    pub(crate) fn entered(&mut self, session: SessionId, users: Vec<UserName>) {
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Users(users));
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
        push: &Push,
        answered: Option<(SessionId, SendNumber)>,
    ) -> usize {
        let mut encoded = Encoded::new(push);
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
                    outbound.push_and_reply(frame, key, Reply::Done, reply_first)
                }
                (Some(frame), None) => outbound.push(frame),
                (None, Some(key)) => outbound.reply(key, Reply::Done),
                (None, None) => continue,
            };
        }
        // The sender may have left the audience between its send and now.
        if let Some((sender, number)) = answered.filter(|(sender, _)| !sessions.contains(sender)) {
            self.said(sender, number, Code::Ok);
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
    frames: Vec<(Dialect, Option<Bytes>)>,
}

impl<'a> Encoded<'a> {
    fn new(push: &'a Push) -> Self {
        Self { push: in_wire_terms(push), frames: Vec::new() }
    }

    fn of(&mut self, dialect: Dialect, options: &Options) -> Option<Bytes> {
        if let Some((_, frame)) = self.frames.iter().find(|(known, _)| *known == dialect) {
            return frame.clone();
        }
        let frame = self.push.as_ref().and_then(|push| dialect.encode_push(push, options));
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
        Body::Joined(_) | Body::Left(_) | Body::Hidden => None,
    }
}
