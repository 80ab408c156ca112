//! How many are in a crowd: told now and then, where comings and goings are not told one by one.

use model::{Time, limits};

use super::{Push, Relay};
use crate::relays::Effect;

/// When the members here were told how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    /// The last time; or since when they are a crowd for all that this end knows.
    told: Option<Time>,
    /// Whether there is to be a next time, of which [`Relay::recount`] has said when.
    is_due: bool,
}

const fn is_crowd(members: usize) -> bool {
    members > limits::PRESENCE_MEMBERS_MAX
}

impl Relay {
    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Somebody may have come or gone since there were `before` members. Tells a crowd how many
    /// there are, and a room that becomes one, or is none any more; returns when to call
    /// [`Self::tell_count`], if that must wait.
    pub(crate) fn recount(
        &mut self,
        now: Time,
        before: usize,
        out: &mut Vec<Effect>,
    ) -> Option<Time> {
        match (is_crowd(before), is_crowd(self.len())) {
            (false, false) => None,
            (true, true) if before == self.len() || self.crowd.is_due => None,
            (true, true) => self.count_at(now, out),
            (false, true) | (true, false) => {
                self.count_now(now, out);
                None
            }
        }
    }

    /// It is time to tell the crowd how many there are, if it is one still, and was not told since.
    /// Returns when to try again.
    pub(crate) fn tell_count(&mut self, now: Time, out: &mut Vec<Effect>) -> Option<Time> {
        self.crowd.is_due = false;
        if is_crowd(self.len()) { self.count_at(now, out) } else { None }
    }

    fn count_at(&mut self, now: Time, out: &mut Vec<Effect>) -> Option<Time> {
        // Who is here without having been told has just entered, and was told by that.
        let at = *self.crowd.told.get_or_insert(now) + limits::PRESENCE_COUNT_INTERVAL;
        if at <= now {
            self.count_now(now, out);
            return None;
        }
        self.crowd.is_due = true;
        Some(at)
    }

    fn count_now(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.crowd.told = Some(now);
        self.tell(None, Push::Count(self.len()), self.position, out);
    }
}
