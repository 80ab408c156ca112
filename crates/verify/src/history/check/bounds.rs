//! What is judged by positions and by the clock, where the logs know them.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use model::Position;
use room::Duplicates;

use super::{Checker, End, Kind, Name, TextId, To, index_u32};
use crate::history::Leave;

/// Since when sessions of one user in one room may have been in, and when they ended: none for one
/// that is still there, or may be.
type Lives = Vec<(Option<Duration>, Option<Duration>)>;

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
        for index in 0..self.history.logs.len() {
            self.check_beginning(index_u32(index), &placed);
        }
    }

    /// Between its join and the first message that it saw a session has missed none.
    fn check_beginning(&mut self, index: u32, placed: &BTreeMap<(Name, Position), (TextId, u32)>) {
        let log = self.log(index);
        let mut seen = log.positions.iter().filter(|(_, id)| self.is_for_everyone(*id));
        let Some((joined, (first, _))) = log.joined_at.zip(seen.next()) else { return };
        if joined.generation != first.generation || joined >= *first {
            return;
        }
        let between = (Bound::Excluded((log.room, joined)), Bound::Excluded((log.room, *first)));
        let missed = placed.range(between).map(|(_, (id, _))| *id);
        let missed: Vec<TextId> = missed.filter(|id| self.is_for_everyone(*id)).collect();
        for TextId { sender, number } in missed {
            self.gap(index, self.bases[sender.0 as usize] + number - 1);
        }
    }

    fn is_for_everyone(&self, id: TextId) -> bool {
        let sender = self.history.logs.get(id.sender.0 as usize);
        let to = sender.and_then(|log| log.sends.get((id.number as usize).checked_sub(1)?));
        to == Some(&To::Everyone)
    }

    /// Whoever has seen the room before and after a whisper to its name has seen the whisper.
    pub(super) fn check_whispers(&mut self) {
        let mut targets: BTreeMap<(Name, Name), Vec<u32>> = BTreeMap::new();
        for (index, log) in self.history.logs.iter().enumerate() {
            targets.entry((log.room, log.user)).or_default().push(index_u32(index));
        }
        for (sender, log) in self.history.logs.iter().enumerate() {
            for (number, position) in &log.whispers {
                let Some(To::One(user)) = log.sends.get(*number as usize - 1) else { continue };
                let entry = self.bases[sender] + number - 1;
                for target in targets.get(&(log.room, *user)).map_or(&[][..], Vec::as_slice) {
                    if self.was_there(*target, *position) && !self.contains(*target, entry) {
                        self.gap(*target, entry);
                    }
                }
            }
        }
    }

    /// Whether a session has surely seen everything around a position.
    fn was_there(&self, index: u32, at: Position) -> bool {
        let log = self.log(index);
        let last = log.last_seen();
        let within = |from: Position, to: Position| {
            from.generation == at.generation
                && to.generation == at.generation
                && from < at
                && at < to
        };
        if !log.joined_at.zip(last).is_some_and(|(joined, last)| within(joined, last)) {
            return false;
        }
        // While it was away, its name may have been another's.
        let mut absences = log.all_returns().iter().filter(|back| within(back.from, back.to));
        absences.all(|back| !self.may_be_anothers(log, back))
    }

    /// Nobody is seen to leave, or is listed, long after its session has ended.
    pub(super) fn check_times(&mut self) {
        let mut lives: BTreeMap<(Name, Name), Lives> = BTreeMap::new();
        for log in &self.history.logs {
            let end = if log.end == End::Gone { log.times.gone } else { None };
            let since = match self.history.duplicates {
                Duplicates::Replace => log.times.asked,
                Duplicates::Reject | Duplicates::Multi => log.times.joined,
            };
            lives.entry((log.room, log.user)).or_default().push((since, end));
        }
        for (index, log) in self.history.logs.iter().enumerate() {
            let index = index_u32(index);
            for Leave { user, at, .. } in &log.times.leaves {
                let Some(seen) = at else { continue };
                let of = lives.get(&(log.room, *user)).map_or(&[][..], Vec::as_slice);
                // One that is put out may hear of it later than the others do.
                let lived = |(since, end): &(Option<Duration>, Option<Duration>)| {
                    since.is_some_and(|it| it <= *seen) && end.is_none_or(|it| it > *seen)
                };
                // Otherwise it is the leave of whoever ended last before it.
                let ended = of.iter().filter_map(|(_, end)| *end).filter(|end| end <= seen).max();
                if let Some(ended) = ended.filter(|_| !of.iter().any(lived)) {
                    self.check_late(index, *user, *seen - ended, "saw leave");
                }
            }
            let Some(joined) = log.times.joined else { continue };
            for user in log.members.iter().filter(|user| **user != log.user) {
                let of = lives.get(&(log.room, *user)).map_or(&[][..], Vec::as_slice);
                let there = of.iter().any(|(_, end)| end.is_none_or(|end| end >= joined));
                let ended = of.iter().filter_map(|(_, end)| *end).max();
                if let Some(ended) = ended.filter(|_| !there) {
                    self.check_late(index, *user, joined - ended, "found in the list");
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
