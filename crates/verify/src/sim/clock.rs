//! A node's own clock.

use std::time::Duration;

use model::Time;

use super::random::Random;

/// A clock that began at some moment of its own and may run fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// When it was set, by the true time.
    born: Time,
    /// What it showed then.
    start: Duration,
    /// What it gains in a thousand; 1000 is right.
    permille: u32,
}

impl Clock {
    /// One that shows the true time.
    pub(super) const TRUE: Self = Self { born: Time::ZERO, start: Duration::ZERO, permille: 1000 };

    /// One that is set to anything, and wrong by up to 5 %: far worse than a real one.
    pub(super) fn skewed(born: Time, random: &mut Random) -> Self {
        let start = random.span(Duration::ZERO, Duration::from_secs(1000));
        let permille = 950 + u32::try_from(random.below(101)).unwrap_or_default();
        Self { born, start, permille }
    }

    /// What it shows.
    pub(super) fn local(&self, now: Time) -> Time {
        Time::from_start(self.start + (now - self.born) * self.permille / 1000)
    }

    /// When it will show `at`, by the true time; never too early.
    pub(super) fn global(&self, at: Time) -> Time {
        if self.permille == 1000 {
            return self.born + at.since_start().saturating_sub(self.start);
        }
        let shown = at.since_start().saturating_sub(self.start);
        self.born + shown * 1000 / self.permille + Duration::from_micros(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_never_early() {
        let mut random = Random::new(1);
        for seed in 0..1000 {
            let born = Time::from_start(Duration::from_micros(seed * 7919));
            let clock = Clock::skewed(born, &mut random);
            let due = clock.local(born) + random.span(Duration::ZERO, Duration::from_secs(20));
            assert!(clock.local(clock.global(due)) >= due, "{clock:?}");
        }
        let at = Time::from_start(Duration::from_nanos(123_456_789));
        assert_eq!(Clock::TRUE.global(Clock::TRUE.local(at)), at);
    }
}
