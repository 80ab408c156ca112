//! How long to wait between tries.

use std::time::Duration;

/// The pause after the first failure: a gate that restarts is back within a second.
const FIRST: Duration = Duration::from_millis(25);

/// Pauses that double up to a bound, each shortened at random by up to a half, so that the nodes
/// of a cluster do not all come back in the same moment.
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    random: u64,
}

impl Backoff {
    /// Starts with a short pause. Nodes with different seeds wait differently.
    pub(crate) fn new(max: Duration, seed: u64) -> Self {
        Self { next: FIRST.min(max), max, random: seed }
    }

    /// The pause before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(self.max);
        longest / 2 + (longest / 2).mul_f64(self.fraction())
    }

    /// Starts again, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST.min(self.max);
    }

    /// A number from 0 to 1, by the generator SplitMix64.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_differ() {
        let max = Duration::from_millis(500);
        let pauses = |seed| {
            let mut backoff = Backoff::new(max, seed);
            (0..12).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        let one = pauses(1);
        assert!(one[0] <= FIRST);
        assert!(one.iter().all(|pause| *pause >= FIRST / 2 && *pause <= max));
        assert!(one[6..].iter().all(|pause| *pause >= max / 2));
        assert_ne!(one, pauses(2));
        let mut backoff = Backoff::new(max, 1);
        backoff.pause();
        backoff.pause();
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
