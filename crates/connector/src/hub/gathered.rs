//! What one room is yet to be told, and who hears how much of it.

use std::{collections::BTreeMap, sync::Arc};

use model::{Position, RoomId, SendNumber, SessionId};
use room::Push;

/// A push, where its event stands in the log, and the send of a member that it answers.
pub(super) type Placed = (Push, Position, Option<(SessionId, SendNumber)>);

/// What one room is yet to be told.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) room: RoomId,
    /// Who hears the last of it, in order. Who has left since is in it until it is replaced.
    pub(super) audience: Arc<[SessionId]>,
    /// Who does not hear all of it, and the number of the first push that it hears.
    newcomers: BTreeMap<SessionId, usize>,
    pub(super) pushes: Vec<Placed>,
    bytes: usize,
}

impl Gathered {
    /// Nothing yet, for these sessions.
    pub(super) fn new(room: &RoomId, audience: &Arc<[SessionId]>) -> Self {
        let (room, audience) = (room.clone(), Arc::clone(audience));
        Self { room, audience, newcomers: BTreeMap::new(), pushes: Vec::new(), bytes: 0 }
    }

    /// Takes another audience, which hears what comes next: whoever is new in it hears nothing of
    /// what came before. False, and nothing done, if somebody is missing in it who is still there,
    /// for that one is yet to hear the rest.
    pub(super) fn becomes(
        &mut self,
        audience: &Arc<[SessionId]>,
        is_gone: impl Fn(SessionId) -> bool,
    ) -> bool {
        if Arc::ptr_eq(&self.audience, audience) {
            return true;
        }
        if !missing(&self.audience, audience).all(is_gone) {
            return false;
        }
        let count = self.pushes.len();
        self.newcomers.extend(missing(audience, &self.audience).map(|session| (session, count)));
        self.audience = Arc::clone(audience);
        true
    }

    /// Adds what all of the audience hear but one, who is new.
    pub(super) fn add(&mut self, placed: Placed, except: Option<SessionId>) {
        self.bytes += weight(&placed.0);
        self.pushes.push(placed);
        self.newcomers.extend(except.map(|session| (session, self.pushes.len())));
    }

    /// Roughly how many bytes it will take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.audience.binary_search(&session).is_ok()
    }

    /// The number of the first push that a session hears.
    pub(super) fn begins(&self, session: SessionId) -> usize {
        self.newcomers.get(&session).copied().unwrap_or(0)
    }

    pub(super) fn log(&self, members: usize) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for (push, _, answered) in &self.pushes {
            if let Push::Chat(event) = push {
                let (session, number) = answered.unzip();
                tracing::debug!(
                    position = %event.position, members,
                    session = session.map(|session| session.0), number = number.map(|it| it.0),
                    "told"
                );
            }
        }
    }
}

/// Which of these sessions are not among the others. Both are in order.
fn missing(these: &[SessionId], others: &[SessionId]) -> impl Iterator<Item = SessionId> {
    let mut others = others.iter().peekable();
    these.iter().copied().filter(move |session| {
        while others.next_if(|other| *other < session).is_some() {}
        others.peek() != Some(&session)
    })
}

/// Roughly how many bytes a push will take. Only the text can be large.
fn weight(push: &Push) -> usize {
    match push {
        Push::Add(_) | Push::Leave(_) | Push::Count(_) => 64,
        Push::Chat(event) => event.weight(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(numbers: &[u64]) -> Vec<SessionId> {
        numbers.iter().copied().map(SessionId).collect()
    }

    #[test]
    fn what_is_missing_is_found_in_one_pass() {
        for (these, others, left) in [
            (&[][..], &[1, 2][..], &[][..]),
            (&[1, 2], &[], &[1, 2]),
            (&[1, 2, 3], &[1, 2, 3], &[]),
            (&[1, 3, 5, 9], &[2, 3, 4, 9, 10], &[1, 5]),
            (&[7, 8], &[1, 2, 8], &[7]),
        ] {
            let found: Vec<_> = missing(&sessions(these), &sessions(others)).collect();
            assert_eq!(found, sessions(left), "{these:?} without {others:?}");
        }
    }
}
