//! How often a client may call.

use std::time::Duration;

use model::Time;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Times per second, sustained. 0 lets nothing happen after the burst, ever.
    pub per_second: u32,
    /// Times at once, after a pause.
    pub burst: u32,
}

/// A token bucket, kept as the moment at which it will be full: 16 bytes, and nothing to refill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Time,
}

const _: () = assert!(size_of::<Bucket>() == 16);

impl Bucket {
    /// Takes a token, if one is there.
    #[must_use]
    pub fn take(&mut self, now: Time, rate: Rate) -> bool {
        // A century stands for never.
        let never = Duration::from_secs(100 * 366 * 24 * 3600);
        let per_token = Duration::from_secs(1).checked_div(rate.per_second).unwrap_or(never);
        let full_at = self.full_at.max(now) + per_token;
        let allowed = full_at.since(now) <= per_token.saturating_mul(rate.burst);
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn taken(bucket: &mut Bucket, now: Time) -> u32 {
        let mut taken = 0;
        while bucket.take(now, RATE) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, at(0)), 3);
        assert_eq!(taken(&mut bucket, at(99)), 0);
        assert_eq!(taken(&mut bucket, at(100)), 1);
        assert_eq!(taken(&mut bucket, at(350)), 2);
        assert_eq!(taken(&mut bucket, at(60_000)), 3);
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let mut bucket = Bucket::default();
        for millis in 0..10_000 {
            let _ = bucket.take(at(millis), RATE);
        }
        assert_eq!(taken(&mut bucket, at(10_300)), 3);
    }

    #[test]
    fn nothing_at_a_rate_of_nothing() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(at(0), Rate { per_second: 5, burst: 0 }));
        assert!(bucket.take(at(0), Rate { per_second: 0, burst: 1 }));
        assert!(!bucket.take(at(1_000_000_000_000), Rate { per_second: 0, burst: 1 }));
    }
}
