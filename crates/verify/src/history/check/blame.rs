//! Two logs differ: who is wrong?

use super::{ACKED, Checker, End, Event, Kind};

/// Differences looked into; further ones are blamed on the later log without looking.
const CLASSIFIED_MAX: u32 = 20_000;
/// Logs whose messages are kept sorted for looking into differences.
const SORTED_LOGS_MAX: usize = 64;

impl Checker<'_> {
    /// Log `a` has `theirs` beside `at`, log `b` has `mine`. Says who is wrong; true if `a` is, so
    /// that `b`'s word takes its place.
    pub(super) fn differ(&mut self, a: u32, b: u32, theirs: u32, mine: u32, at: u32) -> bool {
        self.classified += 1;
        if self.classified > CLASSIFIED_MAX {
            self.gap(b, theirs);
            return false;
        }
        match (self.contains(a, mine), self.contains(b, theirs)) {
            (true, true) => {
                let detail = format!(
                    "{} has {} beside {}, session {a} has {}",
                    self.who(b),
                    self.describe(mine),
                    self.describe(at),
                    self.describe(theirs)
                );
                self.add(Kind::RoomOrder, b, self.text_id(at), detail);
                false
            }
            (false, true) => {
                self.gap(a, mine);
                true
            }
            (true, false) => {
                self.gap(b, theirs);
                false
            }
            (false, false) => {
                // Whoever is gone may have been so before the other's message.
                let (a_stayed, b_stayed) = (self.stayed(a), self.stayed(b));
                if a_stayed || !b_stayed {
                    self.gap(a, mine);
                }
                if b_stayed || !a_stayed {
                    self.gap(b, theirs);
                }
                false
            }
        }
    }

    /// Whether a session was there at the end.
    fn stayed(&self, log: u32) -> bool {
        let of = self.log(log);
        of.joined && of.end == End::Alive
    }

    /// Whether a session saw a message (or the end).
    pub(super) fn contains(&mut self, log: u32, entry: u32) -> bool {
        if (entry as usize) < self.history.names.texts.len() {
            return self.stayed(log);
        }
        let of = self.log(log);
        if self.sorted.len() >= SORTED_LOGS_MAX && !self.sorted.contains_key(&log) {
            self.sorted.clear();
        }
        let bases = &self.bases;
        let sorted = self.sorted.entry(log).or_insert_with(|| {
            let mut seen = Vec::new();
            for event in &of.events {
                if let Event::Saw { id, .. } = event
                    && let Some(base) = bases.get(id.sender.0 as usize)
                {
                    seen.push(base.saturating_add(id.number).wrapping_sub(1));
                }
            }
            seen.sort_unstable();
            seen
        });
        sorted.binary_search(&entry).is_ok()
    }

    /// A session should have seen this and has not.
    pub(super) fn gap(&mut self, log: u32, entry: u32) {
        let Some(id) = self.text_id(entry) else {
            return;
        };
        if !self.gaps.insert((log, entry)) {
            return;
        }
        let acked = self.entries[entry as usize].status & ACKED != 0;
        let kind = if acked { Kind::Lost } else { Kind::Gap };
        let detail = format!("{} did not see it", self.who(log));
        self.add(kind, log, Some(id), detail);
    }
}
