//! How long to wait before a process that died is started again.

use std::time::Duration;

/// The first wait; short, since most deaths are alone.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A process that lived this long was well: its death is the first again.
const STABLE: Duration = Duration::from_secs(60);

/// Counts deaths in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Takes note of a death after `uptime`, and says how long to wait.
    pub(super) fn died(&mut self, uptime: Duration) -> Duration {
        if uptime >= STABLE {
            self.deaths = 0;
        }
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.deaths)).min(LONGEST);
        self.deaths = self.deaths.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.died(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        for _ in 0..100 {
            assert_eq!(backoff.died(Duration::from_secs(1)), LONGEST);
        }
    }

    #[test]
    fn a_stable_life_forgives() {
        let mut backoff = Backoff::default();
        backoff.died(Duration::ZERO);
        backoff.died(Duration::ZERO);
        assert_eq!(backoff.died(STABLE), FIRST);
        assert_eq!(backoff.died(STABLE - Duration::from_secs(1)), FIRST * 2);
    }
}
