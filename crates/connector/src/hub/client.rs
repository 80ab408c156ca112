//! What is known of a client beside its room.

use std::{collections::VecDeque, mem};

use frontend::{Answer, Outbound};
use model::{Code, Position, SendNumber, SessionId};
use session::RequestKey;
use wire::{Dialect, Reply};

/// What a worker needs to answer a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) outbound: Outbound,
    pub(super) dialect: Dialect,
    /// Boxed, as most clients have asked nothing at most times.
    asked: Option<Box<Asked>>,
}

// Idle clients are millions.
const _: () = assert!(size_of::<(SessionId, Client)>() <= 32);

/// What a client has asked and is not answered yet.
#[derive(Debug, Default)]
struct Asked {
    /// The `enter` that waits for its answer.
    entering: Option<RequestKey>,
    /// The sends that wait for theirs, in order.
    saying: VecDeque<(SendNumber, RequestKey)>,
    /// Those of them that what is gathered answers.
    answers: Vec<Answer>,
}

impl Client {
    /// One that waits for the answer to its `enter`.
    pub(super) fn new(outbound: Outbound, dialect: Dialect, key: RequestKey) -> Self {
        let asked = Some(Box::new(Asked { entering: Some(key), ..Asked::default() }));
        Self { outbound, dialect, asked }
    }

    /// One that waits for nothing.
    #[cfg(test)]
    pub(super) const fn idle(outbound: Outbound, dialect: Dialect) -> Self {
        Self { outbound, dialect, asked: None }
    }

    /// Notes which request a send answers.
    pub(super) fn says(&mut self, number: SendNumber, key: RequestKey) {
        self.asked.get_or_insert_default().saying.push_back((number, key));
    }

    /// Notes an answer that is to be told beside what was gathered.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.asked.get_or_insert_default().answers.push(answer);
    }

    /// The request that its `enter` was, once.
    pub(super) fn entering(&mut self) -> Option<RequestKey> {
        let key = self.asked.as_mut()?.entering.take();
        self.forget_if_answered();
        key
    }

    /// The request that this send was, once.
    pub(super) fn saying(&mut self, number: SendNumber) -> Option<RequestKey> {
        let saying = &mut self.asked.as_mut()?.saying;
        // Answers come in the order of the sends, but for refusals that need no owner.
        let at = saying.iter().position(|(said, _)| *said == number)?;
        let (_, key) = saying.remove(at)?;
        self.forget_if_answered();
        Some(key)
    }

    /// What is to be told beside what was gathered.
    pub(super) fn take_answers(&mut self) -> Vec<Answer> {
        let Some(asked) = &mut self.asked else { return Vec::new() };
        let answers = mem::take(&mut asked.answers);
        self.forget_if_answered();
        answers
    }

    fn forget_if_answered(&mut self) {
        self.asked.take_if(|asked| {
            asked.entering.is_none() && asked.saying.is_empty() && asked.answers.is_empty()
        });
    }

    /// The answer to a send that has this position.
    pub(super) fn done(&self, position: Position) -> Reply {
        if self.dialect.is_modern() { Reply::Placed(position) } else { Reply::Done }
    }

    pub(super) fn refuse(&mut self, number: SendNumber, code: Code) {
        if let Some(key) = self.saying(number) {
            self.outbound.reply(key, Reply::Refused { code, error: false });
        }
    }
}
