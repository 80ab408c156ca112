//! What the simulations share.

use std::{collections::BTreeMap, time::Duration};

use model::Time;

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// In milliseconds, the second one excluded.
    pub(crate) fn span(&mut self, from: u64, to: u64) -> Duration {
        millis(from + self.below(to - from))
    }

    pub(crate) fn any<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.below(list.len() as u64) as usize])
    }
}

/// What is on its way: in the order of time, and of sending where that is the same.
pub(crate) struct Queue<T> {
    waiting: BTreeMap<(Time, u64), T>,
    last_id: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), last_id: 0 }
    }

    /// A number that nothing else has.
    pub(crate) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn send(&mut self, at: Time, what: T) {
        let id = self.id();
        self.waiting.insert((at, id), what);
    }

    /// Sends later what was to arrive now, in its order among others.
    pub(crate) fn put_off(&mut self, until: Time, id: u64, what: T) {
        self.waiting.insert((until, id), what);
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// The next that has arrived by `now`, and its number.
    pub(crate) fn arrived(&mut self, now: Time) -> Option<(u64, T)> {
        let entry = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, id), what) = entry.remove_entry();
        Some((id, what))
    }
}
