//! What is judged by positions and by the clock, where the logs know them.

use std::{collections::BTreeMap, time::Duration};

use model::Position;

use super::{Checker, End, Kind, Name, TextId, index_u32};

/// Ends of the sessions of one user in one room: none for one that is still there, or may be.
type Ends = Vec<Option<Duration>>;

impl Checker<'_> {
    /// One position holds one message, whoever saw it; and everyone's positions grow.
    pub(super) fn check_positions(&mut self) {
        let mut placed: BTreeMap<(Name, Position), (TextId, u32)> = BTreeMap::new();
        for (index, log) in self.history.logs.iter().enumerate() {
            let index = index_u32(index);
            let mut last: Option<Position> = None;
            for (position, id) in &log.positions {
                if last.is_some_and(|last| last >= *position) {
                    let detail = format!("{} saw it at {position}, later", self.who(index));
                    self.add(Kind::Fork, index, Some(*id), detail);
                }
                last = Some(*position);
                let found = placed.entry((log.room, *position)).or_insert((*id, index));
                if found.0 != *id {
                    let (other, by) = *found;
                    let detail =
                        format!("{} saw it at {position}, session {by} {other}", self.who(index));
                    self.add(Kind::Fork, index, Some(*id), detail);
                }
            }
        }
    }

    /// Nobody is seen to leave, or is listed, long after its session has ended.
    pub(super) fn check_times(&mut self) {
        let mut ends: BTreeMap<(Name, Name), Ends> = BTreeMap::new();
        for log in &self.history.logs {
            let end = if log.end == End::Gone { log.times.gone } else { None };
            ends.entry((log.room, log.user)).or_default().push(end);
        }
        for (index, log) in self.history.logs.iter().enumerate() {
            let index = index_u32(index);
            for (user, seen) in &log.times.leaves {
                let of = ends.get(&(log.room, *user)).map_or(&[][..], Vec::as_slice);
                // The leave of whoever ended last before it; one that goes on ended later.
                let ended = of.iter().flatten().filter(|end| *end <= seen).max();
                if let Some(ended) = ended {
                    self.check_late(index, *user, *seen - *ended, "saw leave");
                }
            }
            let Some(joined) = log.times.joined else { continue };
            for user in log.members.iter().filter(|user| **user != log.user) {
                let of = ends.get(&(log.room, *user)).map_or(&[][..], Vec::as_slice);
                let there = of.iter().any(|end| end.is_none_or(|end| end >= joined));
                if let Some(ended) = of.iter().flatten().max().filter(|_| !there) {
                    self.check_late(index, *user, joined - *ended, "found in the list");
                }
            }
        }
    }

    fn check_late(&mut self, log: u32, user: Name, after: Duration, what: &str) {
        self.report.leave_latest = self.report.leave_latest.max(Some(after));
        if self.history.leave_within.is_some_and(|bound| after > bound) {
            let name = self.history.names.text(user);
            let detail = format!(
                "{} {what} {name} {:.1} s after its end",
                self.who(log),
                after.as_secs_f64()
            );
            self.add(Kind::Late, log, None, detail);
        }
    }
}
