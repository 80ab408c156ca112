//! [`Standstill`], what a chat makes of a time in which it did not run.

use std::{collections::BTreeSet, time::Duration};

use model::{Time, limits};

use crate::LinkId;

/// What one worker of a chat knows of the times in which it stood still: stopped, or on a machine
/// that was.
///
/// Connectors give up the link to a chat that is silent for longer than a moment, and open another.
/// A chat that slept for longer finds its links as they were, with what came over them at first,
/// and would answer into sockets that nobody reads. So it takes the links that it had for *over*:
/// it still reads what they brought, says nothing over them, and counts what it would have said.
/// They end by themselves, as their other ends are closed; any that has not by then is cut after
/// [`limits::STANDSTILL_REST`], and the connector attaches anew.
#[derive(Debug, Default)]
pub struct Standstill {
    looked: Time,
    over: Option<Over>,
}

/// The links that are over, and what was not said over them.
#[derive(Debug)]
struct Over {
    still: Duration,
    woke: Time,
    left: BTreeSet<LinkId>,
    links: usize,
    frames: u64,
}

/// What came of a standstill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheard {
    /// How long the worker stood still.
    pub still: Duration,
    /// How many links were over.
    pub links: usize,
    /// How many frames it would have sent over them.
    pub frames: u64,
}

impl Standstill {
    /// Looks at the clock. To be called before every turn of the worker, and not less often than
    /// [`limits::STANDSTILL_LOOK`] if it has nothing to do. `links` are those that there are.
    pub fn look(&mut self, now: Time, links: impl IntoIterator<Item = LinkId>) {
        let still = now - std::mem::replace(&mut self.looked, now);
        if still < limits::STANDSTILL {
            return;
        }
        let mut left: BTreeSet<LinkId> = links.into_iter().collect();
        let before = self.over.take();
        let (frames, earlier) = before.map_or((0, BTreeSet::new()), |it| (it.frames, it.left));
        left.extend(earlier);
        if !left.is_empty() {
            self.over = Some(Over { still, woke: now, links: left.len(), left, frames });
        }
    }

    /// Whether a frame is to be dropped, as its link is over. Counts it then.
    pub fn drops(&mut self, link: LinkId) -> bool {
        let Some(over) = self.over.as_mut().filter(|over| over.left.contains(&link)) else {
            return false;
        };
        over.frames += 1;
        true
    }

    /// The links that are over, have had the time to bring what they held, and are there still:
    /// they are to be cut.
    pub fn overdue(&self, now: Time) -> impl Iterator<Item = LinkId> {
        let over = self.over.as_ref().filter(|it| it.woke + limits::STANDSTILL_REST <= now);
        over.into_iter().flat_map(|over| over.left.iter().copied())
    }

    /// A link has ended. Tells what came of the standstill if it was the last that was over.
    pub fn ended(&mut self, link: LinkId) -> Option<Unheard> {
        let over = self.over.as_mut()?;
        over.left.remove(&link);
        if over.left.is_empty() { self.finish() } else { None }
    }

    /// Whether there are links that are over.
    #[must_use]
    pub const fn has_links_over(&self) -> bool {
        self.over.is_some()
    }

    /// The worker ends. Tells what came of a standstill, if links are over still.
    pub fn finish(&mut self) -> Option<Unheard> {
        let Over { still, links, frames, .. } = self.over.take()?;
        Some(Unheard { still, links, frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: [LinkId; 2] = [LinkId(1), LinkId(2)];

    fn after(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// A worker that has looked once, then stood still for so long.
    fn stood_still(still: Duration) -> (Standstill, Time) {
        let mut standstill = Standstill::default();
        let woke = after(700) + still;
        standstill.look(after(700), LINKS);
        standstill.look(woke, LINKS);
        (standstill, woke)
    }

    #[test]
    fn what_is_said_over_links_of_before_is_dropped_and_counted() {
        let (mut standstill, _) = stood_still(Duration::from_secs(10));
        assert!(standstill.drops(LINKS[0]) && standstill.drops(LINKS[1]));
        assert!(standstill.drops(LINKS[0]));
        assert!(!standstill.drops(LinkId(3)), "a link that was opened since is a link");
        assert_eq!(standstill.ended(LINKS[0]), None, "one of them may bring more");
        assert!(!standstill.drops(LINKS[0]));
        assert!(standstill.drops(LINKS[1]));
        let still = Duration::from_secs(10);
        let unheard = Unheard { still, links: 2, frames: 4 };
        assert_eq!(standstill.ended(LINKS[1]), Some(unheard));
        assert_eq!((standstill.finish(), standstill.has_links_over()), (None, false), "told once");
    }

    #[test]
    fn a_worker_that_ends_tells_what_it_has() {
        let (mut standstill, _) = stood_still(Duration::from_secs(10));
        assert!(standstill.drops(LINKS[1]));
        let still = Duration::from_secs(10);
        assert_eq!(standstill.finish(), Some(Unheard { still, links: 2, frames: 1 }));
        assert_eq!(standstill.finish(), None);
    }

    /// Neither a doze nor a busy machine ends a link that may live: not even if the look before was
    /// as long ago as one may be.
    #[test]
    fn a_short_standstill_is_none() {
        let dead = limits::LINK_KEEPALIVE + limits::LINK_KEEPALIVE_TIMEOUT;
        for still in [Duration::from_secs(1), dead + limits::STANDSTILL_LOOK] {
            let (mut standstill, woke) = stood_still(still);
            assert!(!standstill.has_links_over());
            assert!(!LINKS.into_iter().any(|link| standstill.drops(link)));
            assert_eq!(standstill.overdue(woke + Duration::from_secs(60)).next(), None);
            assert_eq!(standstill.finish(), None);
        }
    }

    #[test]
    fn time_that_passes_between_looks_adds_up_to_nothing() {
        let mut standstill = Standstill::default();
        for second in 0..3600 {
            standstill.look(after(second * 1000), LINKS);
        }
        assert!(!standstill.has_links_over());
    }

    #[test]
    fn links_that_do_not_end_are_cut_after_a_while() {
        let (mut standstill, woke) = stood_still(limits::STANDSTILL);
        assert_eq!(standstill.overdue(woke).next(), None, "they are read first");
        assert_eq!(standstill.ended(LINKS[0]), None);
        let overdue: Vec<_> = standstill.overdue(woke + limits::STANDSTILL_REST).collect();
        assert_eq!(overdue, [LINKS[1]]);
        assert!(standstill.drops(LINKS[1]), "until it has ended");
    }

    #[test]
    fn a_worker_without_links_has_nothing_to_tell() {
        let mut standstill = Standstill::default();
        standstill.look(after(60_000), []);
        assert!(!standstill.has_links_over());
    }

    /// Stopped again before the links of the first time had ended.
    #[test]
    fn a_second_standstill_goes_on_with_the_first() {
        let (mut standstill, woke) = stood_still(Duration::from_secs(10));
        assert!(standstill.drops(LINKS[0]));
        let again = woke + Duration::from_secs(20);
        standstill.look(again, [LINKS[1], LinkId(3)]);
        assert_eq!(standstill.overdue(again).next(), None);
        assert!(standstill.drops(LinkId(3)) && standstill.drops(LINKS[0]));
        let still = Duration::from_secs(20);
        assert_eq!(standstill.finish(), Some(Unheard { still, links: 3, frames: 3 }));
    }
}
