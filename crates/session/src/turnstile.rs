//! Who is let in now, when many want to at once.

use std::time::Duration;

use model::{Bucket, Rate, Time, limits};

/// A wait that somebody may notice: shorter ones are no news.
const NOTICED: Duration = Duration::from_millis(100);
/// The least time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Lets clients in at a rate. Who comes too early waits, if its turn is near; all others are sent
/// away for a time, each for another, so that they come back at the same rate.
///
/// Its state is a few numbers, however many clients wait or are away. No more wait at any time than
/// are let in within their patience.
#[derive(Debug)]
pub struct Turnstile {
    rate: Rate,
    bucket: Bucket,
    /// When the last of those who were sent away is expected back.
    back: Time,
    sent_away: u64,
    report: Report,
    reported: Option<Time>,
}

/// What has become of clients since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// So many had to wait for their turn, for long enough to notice.
    pub waited: u64,
    /// So many were sent away.
    pub sent_away: u64,
}

impl Turnstile {
    /// A turnstile that nobody has come to yet.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        let report = Report { waited: 0, sent_away: 0 };
        let bucket = Bucket::FULL;
        Self { rate, bucket, back: Time::ZERO, sent_away: 0, report, reported: None }
    }

    /// Lets a client in. Answers how long it has to wait, `patience` at most.
    ///
    /// # Errors
    ///
    /// If it would have to wait for longer: how long to stay away, at most somewhat more than
    /// [`limits::ADMISSION_DELAY_MAX`].
    pub fn turn(&mut self, now: Time, patience: Duration) -> Result<Duration, Duration> {
        let booked = self.bucket.book(now, self.rate, patience);
        match booked {
            Ok(wait) => {
                self.report.waited += u64::from(wait >= NOTICED);
                Ok(wait)
            }
            Err(wait) => {
                self.report.sent_away += 1;
                Err(self.send_away(now, wait))
            }
        }
    }

    /// How long to stay away for: after all who wait, and after all who were sent away before.
    fn send_away(&mut self, now: Time, wait: Duration) -> Duration {
        self.sent_away += 1;
        let latest = now + limits::ADMISSION_DELAY_MAX;
        self.back = (self.back.max(now + wait) + self.rate.per_token()).min(latest);
        let away = self.back.since(now);
        away + (away / 8).mul_f64(share(self.sent_away))
    }

    /// What there is to tell: once a second at most, and only if somebody has noticed.
    pub fn report(&mut self, now: Time) -> Option<Report> {
        let is_early = self.reported.is_some_and(|at| now.since(at) < REPORT_EVERY);
        if is_early || self.report == Report::default() {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.report))
    }
}

/// A number in 0..1 for each number: any run of them is spread evenly, as steps of the golden ratio
/// never cluster.
#[must_use]
pub fn share(number: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let [high, low, ..] = number.wrapping_mul(GOLDEN).to_be_bytes();
    f64::from(u16::from_be_bytes([high, low])) / 65536.0
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use super::*;

    const RATE: Rate = Rate { per_second: 100, burst: 10 };
    const PATIENCE: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn in_peace_nobody_waits() {
        let mut turnstile = Turnstile::new(RATE);
        for number in 0..1000 {
            assert_eq!(turnstile.turn(at(number * 10), Duration::ZERO), Ok(Duration::ZERO));
        }
        assert_eq!(turnstile.report(at(10_000)), None);
    }

    #[test]
    fn so_many_wait_and_the_rest_is_sent_away_in_a_row() {
        let mut turnstile = Turnstile::new(RATE);
        let turns: Vec<_> = (0..1000).map(|_| turnstile.turn(at(0), PATIENCE)).collect();
        let let_in: Vec<_> = turns.iter().flatten().collect();
        assert_eq!(let_in.len(), 210, "the burst, and two seconds' worth");
        assert!(let_in.is_sorted());
        let away: Vec<_> = turns.iter().filter_map(|turn| turn.err()).collect();
        assert!(away.iter().all(|away| *away > PATIENCE && away.as_millis() < 12_000), "{away:?}");
        let mut differ = away.clone();
        differ.sort_unstable();
        differ.dedup();
        assert!(differ.len() > away.len() * 9 / 10, "hardly two come back at one moment");
    }

    #[test]
    fn nobody_is_sent_away_for_ever() {
        let mut turnstile = Turnstile::new(RATE);
        let longest = limits::ADMISSION_DELAY_MAX.mul_f64(1.126);
        for _ in 0..100_000 {
            assert!(turnstile.turn(at(0), Duration::ZERO).err().is_none_or(|it| it <= longest));
        }
        assert_eq!(turnstile.turn(at(60_000), Duration::ZERO), Ok(Duration::ZERO));
    }

    /// Ten thousand at once, who come back when they are told to: the rate is kept and used, and all
    /// are in as soon as it allows.
    #[test]
    fn a_storm_passes_as_fast_as_the_rate_allows() {
        let mut turnstile = Turnstile::new(Rate { per_second: 1000, burst: 100 });
        let mut coming: BinaryHeap<_> = (0..10_000).map(|_| std::cmp::Reverse(at(0))).collect();
        let (mut let_in, mut asked) = (Vec::new(), 0);
        while let Some(std::cmp::Reverse(now)) = coming.pop() {
            asked += 1;
            match turnstile.turn(now, PATIENCE) {
                Ok(wait) => let_in.push(now + wait),
                Err(away) => coming.push(std::cmp::Reverse(now + away)),
            }
        }
        let last = let_in.iter().max().copied().unwrap_or_default();
        assert!(last < at(13_000), "{last}");
        assert!(asked < 20_000, "{asked} tries");
        for second in 0..13 {
            let (from, to) = (at(second * 1000), at(second * 1000 + 1000));
            let count = let_in.iter().filter(|it| **it >= from && **it < to).count();
            assert!(count <= 1101, "{count} in second {second}");
        }
    }

    #[test]
    fn reports_are_rare() {
        let mut turnstile = Turnstile::new(RATE);
        let mut reports = Vec::new();
        for millis in 0..3000 {
            let _ = turnstile.turn(at(millis), Duration::ZERO);
            reports.extend(turnstile.report(at(millis)));
        }
        assert_eq!(reports.len(), 3);
        assert!(reports[1].sent_away > 800 && reports[1].waited == 0, "{reports:?}");
    }
}
