//! How fast a walk goes through a large room, so that others can be heard beside it.
//!
//! A write to one member costs the same whether it brings it one message or ten. While messages come
//! faster than walks are done, all that a walk at full speed gains is that the next one begins sooner
//! and has less to bring, at the price of every processor that the cluster, and whoever reads from
//! it, could have had. So a walk rests after each piece, for longer than the piece took, and what is
//! said meanwhile goes with the next walk. A room that has rested for a while is walked through
//! without a pause, so that a message which comes alone is told as fast as it can be. Each room rests
//! for itself: many large rooms that are not busy may use all of a worker's time.
//!
//! Small rooms are told whole, and at once. Only a worker that is behind with them all [stands
//! still](stand) for a moment, as a network card waits for company before it interrupts a busy host.

use std::time::Duration;

use model::Time;

/// For the time that a piece takes, so many times as long is rested: one room has a third of its
/// worker's time.
const RESTS: u32 = 2;
/// Rest that may be owed: the walks of so much rest go without a pause. With 20,000 members on two
/// connectors that is one walk.
const CREDIT: Duration = Duration::from_millis(300);
/// A piece that seems to have taken longer did not work for so long: the process was stopped, or
/// others had its processor.
const PIECE_TIME_MAX: Duration = Duration::from_millis(10);

/// With so many messages to bring, more company makes a write hardly cheaper. Nobody rests for more,
/// and whoever reads slowly must not find more at once than its queue holds.
pub(super) const COMPANY_PUSHES: usize = 32;
/// With so many messages in each write, a worker is behind: what it tells has waited for its turn
/// already, and is told with more company if it waits a little longer.
const BEHIND_PUSHES: usize = 16;
/// The longest that a worker which is behind stands still, whatever else it could do.
const STAND_MAX: Duration = Duration::from_millis(5);

/// How long a worker should stand still that took so long to tell small rooms, in so many writes.
///
/// When all processors are busy, what it does next decides for how long it will be: read at once what
/// little has come, and tell it at once, or let chats and clients come to their work first, and then
/// read and tell much together.
pub(super) fn stand(took: Duration, deliveries: usize, writes: usize) -> Duration {
    if writes == 0 || !(BEHIND_PUSHES..COMPANY_PUSHES).contains(&(deliveries / writes)) {
        return Duration::ZERO;
    }
    (took * RESTS).min(STAND_MAX)
}

/// When the next piece of a room's walks is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When all pieces so far have had their rest.
    rested_at: Time,
}

impl Pace {
    /// When the next piece is due; a moment that is over, if nothing is to be waited for.
    pub(super) fn due(self) -> Time {
        Time::from_start(self.rested_at.since_start().saturating_sub(CREDIT))
    }

    /// Whether there is rest to be had, now or later.
    pub(super) fn is_owed(self, now: Time) -> bool {
        self.rested_at > now
    }

    /// Notes that a piece was told between two moments. Those that were told before they were due
    /// are not made up for later: a rest is never longer than its own piece asks for.
    pub(super) fn walked(&mut self, begin: Time, end: Time) {
        let took = end.since(begin).min(PIECE_TIME_MAX);
        let latest = end + CREDIT + took * RESTS;
        self.rested_at = latest.min(self.rested_at.max(begin) + took * (1 + RESTS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    /// Walks whenever it may, in pieces of so many milliseconds. Answers how many were walked in all.
    fn walk(pace: &mut Pace, from: u64, until: u64, piece: u64) -> u64 {
        let (mut now, mut walked) = (from, 0);
        while now < until {
            if pace.due() <= at(now) {
                pace.walked(at(now), at(now + piece));
                now += piece;
                walked += piece;
            } else {
                now += 1;
            }
        }
        walked
    }

    #[test]
    fn a_walk_after_a_pause_goes_without_one_and_then_a_third_of_the_time() {
        let mut pace = Pace::default();
        assert_eq!(walk(&mut pace, 10_000, 10_150, 1), 150, "what is owed is within the credit");
        let more = walk(&mut pace, 10_150, 13_150, 1);
        assert!((1000..=1002).contains(&more), "{more} ms of 3 s");
        // After less than the credit it has not rested from everything.
        let more = walk(&mut pace, 13_250, 13_400, 1);
        assert!((80..=90).contains(&more), "{more} ms of 150");
        assert_eq!(walk(&mut pace, 20_000, 20_150, 1), 150);
    }

    #[test]
    fn who_hurried_for_long_rests_no_longer_than_after_one_piece() {
        let mut pace = Pace::default();
        for now in 0..60_000 {
            pace.walked(at(now), at(now + 1));
        }
        assert_eq!(pace.due(), at(60_002));
    }

    #[test]
    fn only_who_is_behind_stands_still_and_not_for_long() {
        let took = Duration::from_millis(1);
        assert_eq!(stand(took, 0, 0), Duration::ZERO);
        assert_eq!(stand(took, 15 * 1000, 1000), Duration::ZERO);
        assert_eq!(stand(took, 16 * 1000, 1000), took * RESTS);
        assert_eq!(stand(took * 1000, 500 * 16, 500), STAND_MAX);
        assert_eq!(stand(took, 32 * 1000, 1000), Duration::ZERO, "it has company enough");
    }

    #[test]
    fn a_process_that_was_stopped_does_not_rest_for_as_long() {
        let mut pace = Pace::default();
        pace.walked(at(1000), at(61_000));
        assert!(pace.due() <= at(61_000));
        for _ in 0..100 {
            pace.walked(at(61_000), at(120_000));
        }
        assert!(pace.due() <= at(120_020));
    }
}
