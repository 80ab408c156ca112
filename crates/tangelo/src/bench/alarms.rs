//! Wakes the clients of a thread when a message of theirs is due, some microseconds late at most.
//!
//! A timer of Tokio has steps of a millisecond and rounds up. All that a client is late counts as
//! latency, and with such timers that was most of the latency in a small room.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

/// The alarms of all clients of a thread.
pub(super) struct Alarms {
    timer: AsyncFd<OwnedFd>,
    /// By the moment, and the number of the client.
    due: RefCell<BTreeMap<(Instant, u32), Rc<Notify>>>,
}

impl Alarms {
    /// Alarms of which none is set. To be called where a runtime runs.
    ///
    /// # Errors
    ///
    /// If the system gives no timer, as when too many files are open.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // What replaces it is `unsafe`, for things that can give another descriptor each time they
        // are asked (tokio-rs/tokio#8587). An `OwnedFd` gives its own.
        #[expect(deprecated, reason = "sound for an `OwnedFd`")]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self { timer, due: RefCell::default() })
    }

    /// Has a client woken at this moment.
    ///
    /// # Errors
    ///
    /// If the timer cannot be set.
    pub(super) fn set(&self, at: Instant, client: u32, sleeper: &Rc<Notify>) -> io::Result<()> {
        let mut due = self.due.borrow_mut();
        due.insert((at, client), Rc::clone(sleeper));
        if due.first_key_value().is_some_and(|(first, _)| *first == (at, client)) {
            self.arm(at)?;
        }
        Ok(())
    }

    /// Wakes everybody in time, as long as it is polled.
    ///
    /// # Errors
    ///
    /// If the timer cannot be waited for or set.
    pub(super) async fn ring(&self) -> io::Result<Infallible> {
        loop {
            self.timer.readable().await?.clear_ready();
            // Setting it anew takes back that it has rung.
            let next = self.wake(Instant::now());
            if let Some(next) = next {
                self.arm(next)?;
            }
        }
    }

    /// Wakes all whose moment has come; answers when the next one's does.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let mut due = self.due.borrow_mut();
        while let Some(first) = due.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                return Some(at);
            }
            first.remove().notify_one();
        }
        None
    }

    fn arm(&self, at: Instant) -> io::Result<()> {
        // A time of zero would take the alarm back.
        let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(wait).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn everybody_is_woken_and_nobody_too_soon() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let alarms = Rc::new(Alarms::new().unwrap());
            let begin = Instant::now();
            let ringing = Rc::clone(&alarms);
            tokio::task::spawn_local(async move { ringing.ring().await });
            let sleeper = || Rc::new(Notify::new());
            let (past, soon, later) = (sleeper(), sleeper(), sleeper());
            let at = |millis| begin + Duration::from_millis(millis);
            alarms.set(at(30), 1, &later).unwrap();
            alarms.set(at(10), 2, &soon).unwrap();
            alarms.set(begin, 3, &past).unwrap();
            past.notified().await;
            soon.notified().await;
            assert!(Instant::now() >= at(10));
            later.notified().await;
            assert!(Instant::now() >= at(30));
            // One set after all have rung rings too.
            alarms.set(at(31), 1, &later).unwrap();
            later.notified().await;
            assert!(Instant::now() >= at(31));
        });
    }
}
