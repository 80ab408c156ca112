//! How often something may happen.

use std::time::Duration;

use crate::Time;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Times per second, sustained. 0 lets nothing happen after the burst, ever.
    pub per_second: u32,
    /// Times at once, after a pause.
    pub burst: u32,
}

impl Rate {
    /// So many times per second, and as many at once as come in a tenth of one.
    #[must_use]
    pub const fn even(per_second: u32) -> Self {
        Self { per_second, burst: per_second.div_ceil(10) }
    }

    /// How long until it may happen once more.
    #[must_use]
    pub fn per_token(self) -> Duration {
        // A century stands for never.
        let never = Duration::from_secs(100 * 366 * 24 * 3600);
        Duration::from_secs(1).checked_div(self.per_second).unwrap_or(never)
    }
}

/// A token bucket, kept as the moment at which it will be full: 16 bytes, and nothing to refill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Time,
}

const _: () = assert!(size_of::<Bucket>() == 16);

impl Bucket {
    /// One that nothing was taken from yet.
    pub const FULL: Self = Self { full_at: Time::ZERO };

    /// Takes a token, if one is there.
    #[must_use]
    pub fn take(&mut self, now: Time, rate: Rate) -> bool {
        self.book(now, rate, Duration::ZERO).is_ok()
    }

    /// Takes a token that is there, or will be within `patience`; answers how long until then. No
    /// more are booked at any time than come in within that patience.
    ///
    /// # Errors
    ///
    /// If it takes longer: how long. Nothing was taken.
    pub fn book(
        &mut self,
        now: Time,
        rate: Rate,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let per_token = rate.per_token();
        let full_at = self.full_at.max(now) + per_token;
        let wait = full_at.since(now).saturating_sub(per_token.saturating_mul(rate.burst));
        if wait > patience {
            return Err(wait);
        }
        self.full_at = full_at;
        Ok(wait)
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
    fn tokens_that_will_be_there_are_booked_in_order() {
        let mut bucket = Bucket::default();
        let mut book = |millis, patience| {
            let booked = bucket.book(at(millis), RATE, Duration::from_millis(patience));
            booked.map(|wait| wait.as_millis()).map_err(|wait| wait.as_millis())
        };
        let booked: Vec<_> = (0..7).map(|_| book(0, 250)).collect();
        assert_eq!(booked, [Ok(0), Ok(0), Ok(0), Ok(100), Ok(200), Err(300), Err(300)]);
        assert_eq!(book(50, 250), Ok(250), "what was refused took nothing");
        assert_eq!(book(600, 0), Ok(0));
    }

    #[test]
    fn an_even_rate_lets_at_least_one_through() {
        assert_eq!(Rate::even(2000), Rate { per_second: 2000, burst: 200 });
        assert_eq!(Rate::even(1), Rate { per_second: 1, burst: 1 });
    }

    #[test]
    fn nothing_at_a_rate_of_nothing() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(at(0), Rate { per_second: 5, burst: 0 }));
        assert!(bucket.take(at(0), Rate { per_second: 0, burst: 1 }));
        assert!(!bucket.take(at(1_000_000_000_000), Rate { per_second: 0, burst: 1 }));
    }
}
