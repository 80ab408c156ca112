//! Remembered message ids: what a client sends again is applied once.

use std::collections::{BTreeMap, VecDeque};

use model::{MessageId, Position, Time, UserName, limits};

/// About what one remembered id costs, in bytes.
const BYTES_EACH: usize = 150;

/// The message ids of one room, for [`limits::MESSAGE_ID_WINDOW`] and at most
/// [`limits::MESSAGE_IDS_MAX`] of them; past either the oldest are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    positions: BTreeMap<(UserName, MessageId), Position>,
    /// Oldest first.
    order: VecDeque<(Time, UserName, MessageId)>,
}

impl Dedup {
    /// Where the message of this name stands, if it does.
    pub(crate) fn position(
        &mut self,
        now: Time,
        user: &UserName,
        id: &MessageId,
    ) -> Option<Position> {
        self.forget(now);
        // Most rooms have no such messages, and look up nothing.
        if self.positions.is_empty() {
            return None;
        }
        self.positions.get(&(user.clone(), id.clone())).copied()
    }

    /// Remembers where a message stands.
    pub(crate) fn insert(&mut self, now: Time, user: UserName, id: MessageId, position: Position) {
        if self.order.len() >= limits::MESSAGE_IDS_MAX {
            self.forget_oldest();
        }
        self.order.push_back((now, user.clone(), id.clone()));
        self.positions.insert((user, id), position);
    }

    /// About how many bytes they keep alive.
    pub(crate) fn bytes(&self) -> usize {
        self.order.len() * BYTES_EACH
    }

    fn forget(&mut self, now: Time) {
        while let Some((at, ..)) = self.order.front()
            && now - *at >= limits::MESSAGE_ID_WINDOW
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, user, id)) = self.order.pop_front() {
            self.positions.remove(&(user, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Term;

    fn at(seconds: u64) -> Time {
        Time::from_start(std::time::Duration::from_secs(seconds))
    }

    fn position(seq: u64) -> Position {
        Position { generation: Term(1), seq }
    }

    #[test]
    fn a_name_is_one_users_and_for_a_while() {
        let mut dedup = Dedup::default();
        let user = |name| UserName::from_peer(name).unwrap();
        let id = MessageId::new("k1").unwrap();
        dedup.insert(at(0), user("alice"), id.clone(), position(7));
        assert_eq!(dedup.position(at(299), &user("alice"), &id), Some(position(7)));
        assert_eq!(dedup.position(at(299), &user("bob"), &id), None);
        assert_eq!(dedup.position(at(300), &user("alice"), &id), None);
        assert!(dedup.positions.is_empty());
    }

    #[test]
    fn the_oldest_go_first() {
        let mut dedup = Dedup::default();
        let user = UserName::from_peer("alice").unwrap();
        let id = |number: usize| MessageId::new(&number.to_string()).unwrap();
        for number in 0..=limits::MESSAGE_IDS_MAX {
            dedup.insert(at(0), user.clone(), id(number), position(1));
        }
        assert_eq!(dedup.position(at(0), &user, &id(0)), None);
        assert!(dedup.position(at(0), &user, &id(1)).is_some());
        assert_eq!(dedup.order.len(), limits::MESSAGE_IDS_MAX);
    }
}
