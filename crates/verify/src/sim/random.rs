//! Chance from a seed.

use std::time::Duration;

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The same numbers whenever it is asked for the same thing.
    #[must_use]
    pub const fn of(seed: u64, what: u64) -> Self {
        Self(Self(seed).next() ^ Self(what).next())
    }

    /// The next number, any of all.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another source, whose numbers do not depend on how many this one gives later.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`, which must not be 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An index below `len`, which must not be 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A span between two bounds, in whole microseconds.
    pub fn span(&mut self, from: Duration, to: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let width = micros(to).saturating_sub(micros(from)) + 1;
        from + Duration::from_micros(self.below(width))
    }

    /// A span between two bounds, in whole milliseconds.
    pub const fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// A delay of the network: mostly short, sometimes long.
    pub(crate) fn delay(&mut self) -> Duration {
        let longest = if self.one_in(50) { 100_000 } else { 2_000 };
        self.span(Duration::from_micros(20), Duration::from_micros(longest))
    }
}
