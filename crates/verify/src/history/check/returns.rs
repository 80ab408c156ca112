//! What is judged of clients that were away and came back.
//!
//! While a client is away others may see it leave and join again; its own coming and going is
//! none of what it is told. So its own name is left out where its log is held against others.

use std::collections::BTreeMap;

use super::{Checker, Event, Kind, Log, NONE, Name, Walk, mix, report, rest::presence_in};
use crate::history::returns::Return;

impl Checker<'_> {
    /// A client that is back was told exactly the members that its log makes up.
    pub(super) fn resume(&mut self, walk: &mut Walk, number: u32) {
        let log = self.log(walk.log);
        let Some(Return { members, .. }) = log.all_returns().get(number as usize) else { return };
        let mut told: Vec<Name> = members.clone();
        told.sort_unstable();
        told.dedup();
        let hashes = told.iter().map(|user| mix(u64::from(user.0) + 1));
        let hash = hashes.fold(0_u64, u64::wrapping_add);
        if self.announced() && hash != walk.list_hash && !walk.presence_reported {
            walk.presence_reported = true;
            let list = report::list(&self.history.names, members);
            let detail =
                format!("{} came back and was told {list}, not whom it knew", self.who(walk.log));
            self.add(Kind::Presence, walk.log, None, detail);
        }
    }

    /// Whether two logs differ in what they have of joins and leaves by nothing but the names of
    /// those of them that were away.
    pub(super) fn same_presence(
        &self,
        (a, of_a): (u32, (u32, u32)),
        (b, of_b): (u32, (u32, u32)),
    ) -> bool {
        let left_out = self.away(a, b);
        if left_out == [None, None] {
            return false;
        }
        let kept = |event: &Event| {
            let of = |user| [Event::SawAdd(user), Event::SawLeave(user)].contains(event);
            !left_out.into_iter().flatten().any(of)
        };
        let (a, b) = (presence_in(self.log(a), of_a), presence_in(self.log(b), of_b));
        a.filter(kept).eq(b.filter(kept))
    }

    /// Whether two lists of members differ by nothing but the names of those who were away.
    pub(super) fn same_members(&self, (a, of_a): (u32, u64), (b, of_b): (u32, u64)) -> bool {
        let [one, other] =
            self.away(a, b).map(|user| user.map_or(0, |it| mix(u64::from(it.0) + 1)));
        let differences = [0, one, other, one.wrapping_add(other), one.wrapping_sub(other)];
        let found = of_a.wrapping_sub(of_b);
        differences.into_iter().any(|it| found == it || found == it.wrapping_neg())
    }

    fn away(&self, a: u32, b: u32) -> [Option<Name>; 2] {
        [a, b].map(|log| {
            let log = (log != NONE).then(|| self.log(log))?;
            log.was_away().then_some(log.user)
        })
    }

    /// Nobody hears of a client that was away for a short while only, if nobody else wanted its
    /// name.
    pub(super) fn check_quiet(&mut self) {
        let Some(bound) = self.history.quiet_within else { return };
        let mut leaves: BTreeMap<(Name, Name), Vec<_>> = BTreeMap::new();
        for log in &self.history.logs {
            for leave in &log.times.leaves {
                leaves.entry((log.room, leave.user)).or_default().extend(leave.position);
            }
        }
        for index in 0..self.history.logs.len() {
            let index = super::index_u32(index);
            let log = self.log(index);
            let of = leaves.get(&(log.room, log.user)).map_or(&[][..], Vec::as_slice);
            for back in log.all_returns().iter().filter(|it| it.back - it.lost < bound) {
                let heard = of.iter().find(|at| **at > back.from && **at < back.to);
                if let Some(at) = heard.filter(|_| !self.is_wanted_by_others(log, back)) {
                    let away = (back.back - back.lost).as_secs_f64();
                    let detail = format!(
                        "{} was seen to leave at {at}, and was away for {away:.1} s",
                        self.who(index)
                    );
                    self.add(Kind::Noticed, index, None, detail);
                }
            }
        }
    }

    /// Whether another session of this name asked for it while the client was away.
    fn is_wanted_by_others(&self, log: &Log, back: &Return) -> bool {
        self.namesakes(log).any(|other| asked_meanwhile(other, back))
    }

    /// Whether another session of this name may have been in, in a part of the room's order that
    /// the client missed: also before the loss of its connection, if that was cut off.
    pub(super) fn may_be_anothers(&self, log: &Log, back: &Return) -> bool {
        self.namesakes(log).any(|other| match other.joined_at {
            Some(joined) => {
                let last = other.last_seen().unwrap_or(joined);
                asked_meanwhile(other, back) || (joined < back.to && last.max(joined) > back.from)
            }
            // It may never have known that it was in.
            None => other.times.asked.is_some_and(|asked| asked <= back.back),
        })
    }

    fn namesakes<'b>(&'b self, log: &'b Log) -> impl Iterator<Item = &'b Log> {
        self.history.logs.iter().filter(move |other| {
            other.room == log.room && other.user == log.user && !std::ptr::eq(*other, log)
        })
    }
}

fn asked_meanwhile(other: &Log, back: &Return) -> bool {
    let asked = other.times.asked.is_some_and(|asked| asked <= back.back);
    asked && other.times.gone.is_none_or(|gone| gone >= back.lost)
}
