//! A timer that is set anew only when its moment has changed.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at a moment that is looked up in every turn of a loop, and seldom is another.
///
/// A `sleep_until` in a `select!` would be put on the runtime's clock and taken off again each time
/// that something else happens first.
#[derive(Debug)]
pub struct Alarm {
    at: Option<Instant>,
    /// Whether that was over when it was given, and `sleep` was not told of it: a [`Sleep`] that is
    /// set to what is over wakes its task, and a task that has been woken has its next turn before
    /// the sockets are looked at, also from within [`tokio::task::yield_now`].
    is_over: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { at: None, is_over: false, sleep: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Alarm {
    /// Waits until `at`, or for ever. What was waited for before does not count.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped and asked for again, at the same moment or another.
    pub async fn rings(&mut self, at: Option<Instant>) {
        if self.at != at {
            self.at = at;
            if let Some(at) = at {
                self.is_over = at <= Instant::now();
                if !self.is_over {
                    self.sleep.as_mut().reset(at);
                }
            }
        }
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.at {
            Some(_) if self.is_over => Poll::Ready(()),
            Some(_) => self.sleep.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// Notes whether somebody was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_rings_without_a_wake_of_the_task_that_is_told() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut alarm = Alarm::default();
        let mut rings = |at| pin!(alarm.rings(Some(at))).poll(&mut context);
        assert!(rings(start + second).is_pending(), "now it knows whom to wake");
        tokio::time::advance(second / 2).await;
        for at in [start, start + second / 2, start] {
            assert!(rings(at).is_ready());
        }
        assert!(!woken.0.load(Ordering::Relaxed));
        assert!(rings(start + second).is_pending());
        tokio::time::advance(second).await;
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(rings(start + second).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_moment_that_was_given_last() {
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let mut alarm = Alarm::default();
        let second = Duration::from_secs(1);
        assert!(timeout(second, alarm.rings(None)).await.is_err());
        assert!(timeout(second, alarm.rings(at(9))).await.is_err());
        alarm.rings(at(5)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        // What is over rings at once, and as often as it is asked.
        alarm.rings(at(5)).await;
        alarm.rings(at(2)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        alarm.rings(at(9)).await;
        assert_eq!(start.elapsed().as_secs(), 9);
        assert!(timeout(second, alarm.rings(None)).await.is_err());
    }
}
