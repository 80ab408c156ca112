//! When each session is rung: at its own time, and when the node ends.
//!
//! One task rings them all, and a session has a word here. A timer of its own, and a wait of its
//! own for the node's end, would be a tenth of all that an idle session takes.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{SessionId, Time};
use session::share;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::Outbound;

/// How exactly sessions are rung. What they wait for takes seconds, but for an answer that is held
/// back for some such ticks.
const TICK_MILLIS: u64 = 10;

/// Rings the sessions of a frontend.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    rings: Mutex<Rings>,
    /// There is something to do before the next that was known.
    sooner: Notify,
    draining: CancellationToken,
}

/// A moment, in ticks since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

#[derive(Debug, Default)]
struct Rings {
    /// Each session at most once.
    waiting: BTreeMap<Tick, Vec<Outbound>>,
    /// How many sessions there are, those that are not to be rung now among them.
    sessions: usize,
    drain: Option<Window>,
}

/// In what time all sessions end: clients that all came back at once would hit the other nodes like
/// one wave.
#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Tick,
    over: Duration,
}

impl Tick {
    /// No session is rung then.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The first that comes after this time.
    pub(crate) fn after(time: Time) -> Self {
        Self(Self::before(time).0.saturating_add(1))
    }

    /// The last that does not come after this time.
    fn before(time: Time) -> Self {
        let since = time.since_start();
        let millis =
            since.as_secs().saturating_mul(1000).saturating_add(since.subsec_millis().into());
        Self(millis / TICK_MILLIS)
    }
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        let (rings, draining) = (Mutex::default(), CancellationToken::new());
        Self { start, rings, sooner: Notify::new(), draining }
    }

    /// Notes that there is one more session.
    pub(crate) fn enter(&self) {
        self.lock().sessions += 1;
    }

    /// Notes that a session has ended that was to be rung then.
    pub(crate) fn leave(&self, at: Tick, session: SessionId) {
        let mut rings = self.lock();
        rings.remove(at, session);
        rings.sessions -= 1;
        if rings.is_deserted() {
            self.sooner.notify_one();
        }
    }

    /// Has a session rung that is not to be rung yet, at this time or when it is to end, whichever
    /// is first. Returns when that is.
    pub(crate) fn set(&self, at: Tick, session: Outbound) -> Tick {
        let mut rings = self.lock();
        let at = at.min(rings.end(session.id()));
        if at <= self.now() {
            // There may be nobody left to ring it.
            drop(rings);
            session.ring();
        } else {
            let is_first = rings.waiting.keys().next().is_none_or(|first| at < *first);
            rings.waiting.entry(at).or_default().push(session);
            if is_first {
                self.sooner.notify_one();
            }
        }
        at
    }

    /// Has a session not rung that was to be rung then. Nothing happens if it has been.
    pub(crate) fn stop(&self, at: Tick, session: SessionId) {
        self.lock().remove(at, session);
    }

    /// Whether a session is to end.
    pub(crate) fn is_over(&self, session: SessionId) -> bool {
        let end = self.lock().end(session);
        end <= self.now()
    }

    /// Ends all sessions, evenly over some time. Only the first call counts.
    pub(crate) fn drain(&self, over: Duration) {
        let mut rings = self.lock();
        if rings.drain.is_none() {
            self.end_within(&mut rings, over);
        }
    }

    /// Waits until all sessions are to end.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Rings whoever is to be rung, until all sessions have ended in a drain, or until `end`: then
    /// those that are left are to end at once.
    pub(crate) async fn run(&self, end: &CancellationToken) {
        loop {
            let next = self.ring();
            if self.lock().is_deserted() {
                break;
            }
            tokio::select! {
                () = end.cancelled() => break,
                () = self.sooner.notified() => {}
                () = self.wait(next) => {}
            }
        }
        self.end_within(&mut self.lock(), Duration::ZERO);
        self.ring();
    }

    fn end_within(&self, rings: &mut Rings, over: Duration) {
        rings.drain = Some(Window { begun: self.now(), over });
        for (at, sessions) in mem::take(&mut rings.waiting) {
            for session in sessions {
                let at = at.min(rings.end(session.id()));
                rings.waiting.entry(at).or_default().push(session);
            }
        }
        self.draining.cancel();
        self.sooner.notify_one();
    }

    /// Rings whose time has come. Returns when the next one's will.
    fn ring(&self) -> Option<Tick> {
        loop {
            let mut rings = self.lock();
            let first = rings.waiting.first_entry()?;
            if *first.key() > self.now() {
                return Some(*first.key());
            }
            let due = first.remove();
            drop(rings);
            due.iter().for_each(Outbound::ring);
        }
    }

    async fn wait(&self, until: Option<Tick>) {
        match until {
            Some(Tick(ticks)) => {
                let millis = ticks.saturating_mul(TICK_MILLIS);
                sleep_until(self.start + Duration::from_millis(millis)).await;
            }
            None => std::future::pending().await,
        }
    }

    fn now(&self) -> Tick {
        Tick::before(Time::from_start(self.start.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        // Every change is complete before anything that could panic.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rings {
    fn remove(&mut self, at: Tick, session: SessionId) {
        // It may have been moved when the end was told.
        let at = at.min(self.end(session));
        let Some(waiting) = self.waiting.get_mut(&at) else { return };
        waiting.retain(|it| it.id() != session);
        if waiting.is_empty() {
            self.waiting.remove(&at);
        }
    }

    fn is_deserted(&self) -> bool {
        self.drain.is_some() && self.sessions == 0
    }

    /// When a session is to end, as far as that is known: at its share of the time.
    fn end(&self, session: SessionId) -> Tick {
        let Some(Window { begun, over }) = self.drain else { return Tick::NEVER };
        let share = Time::from_start(over.mul_f64(share(session.0)));
        Tick(begun.0 + Tick::before(share).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outbound::{Inbox, Item},
        run::Form,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn session(id: u64) -> (Outbound, Inbox) {
        Outbound::new(SessionId(id), Form::Units, None, 1, 1)
    }

    fn after(seconds: u32) -> Tick {
        Tick::after(Time::from_start(seconds * SECOND))
    }

    /// Waits until it is rung.
    async fn rung(inbox: &mut Inbox) {
        let taken = std::future::poll_fn(|context| inbox.poll_take(context)).await;
        assert_eq!(taken.unwrap(), [Item::Alarm]);
        inbox.written();
    }

    /// Whether a session was rung at about this time.
    fn is_about(begun: Instant, seconds: u32) -> bool {
        let late = begun.elapsed().saturating_sub(seconds * SECOND);
        begun.elapsed() >= seconds * SECOND && late <= Duration::from_millis(3 * TICK_MILLIS)
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_rung_in_time_and_those_that_are_stopped_not_at_all() {
        let begun = Instant::now();
        let (clock, end) = (Clock::new(begun), CancellationToken::new());
        let [(one, mut first), (two, _second), (three, mut third)] = [1, 2, 3].map(session);
        let late = clock.set(after(7), three.clone());
        let waits = async {
            clock.set(after(5), one);
            let at = clock.set(after(6), two);
            rung(&mut first).await;
            assert!(is_about(begun, 5));
            clock.stop(at, SessionId(2));
            clock.stop(late, SessionId(3));
            clock.set(after(6), three);
            rung(&mut third).await;
            assert!(is_about(begun, 6));
            assert!(clock.lock().waiting.is_empty());
        };
        tokio::select! {
            () = clock.run(&end) => panic!("it has not ended"),
            () = waits => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_within_the_window_or_when_all_does() {
        let begun = Instant::now();
        let (clock, end) = (Clock::new(begun), CancellationToken::new());
        let mut sessions: Vec<_> = (0..20).map(|id| (id, session(id))).collect();
        for (_, (outbound, _)) in &sessions {
            clock.enter();
            clock.set(after(60), outbound.clone());
        }
        sessions.sort_by(|one, other| share(one.0).total_cmp(&share(other.0)));
        let waits = async {
            clock.drain(10 * SECOND);
            clock.drain(SECOND);
            for (number, (id, (_, inbox))) in (0_u32..).zip(&mut sessions) {
                if number == 15 {
                    assert!(!clock.is_over(SessionId(*id)));
                    end.cancel();
                }
                rung(inbox).await;
                assert!(clock.is_over(SessionId(*id)));
            }
        };
        tokio::join!(clock.run(&end), waits);
        assert!(begun.elapsed() > 5 * SECOND && begun.elapsed() < 9 * SECOND);
        // Nobody rings any more, and who comes now is to end all the same.
        let (late, mut inbox) = session(99);
        clock.set(after(60), late);
        rung(&mut inbox).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_over_with_the_last_session() {
        let (clock, end) = (Clock::new(Instant::now()), CancellationToken::new());
        let (one, _inbox) = session(1);
        clock.enter();
        let at = clock.set(after(3600), one);
        clock.drain(3600 * SECOND);
        tokio::join!(clock.run(&end), async { clock.leave(at, SessionId(1)) });
        // Who comes all the same is not left alone.
        let (late, mut inbox) = session(2);
        clock.set(after(60), late);
        rung(&mut inbox).await;
        assert!(clock.is_over(SessionId(2)));
    }

    #[test]
    fn any_run_of_sessions_is_spread_evenly() {
        for first in [1, 1000, 123_456_789] {
            let mut tenths = [0; 10];
            for id in first..first + 1000 {
                let share = share(id);
                let tenth = (0..10).rev().find(|tenth| share >= f64::from(*tenth) / 10.0);
                tenths[usize::try_from(tenth.unwrap()).unwrap()] += 1;
            }
            assert!(tenths.iter().all(|count| (90..=110).contains(count)), "{tenths:?}");
        }
    }
}
