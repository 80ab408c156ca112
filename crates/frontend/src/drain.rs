//! When each session is told that the node ends.

use std::{sync::OnceLock, time::Duration};

use model::SessionId;
use session::share;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Ends all sessions of a frontend, evenly over some time: clients that all came back at once
/// would hit the other nodes like one wave.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    token: CancellationToken,
    window: OnceLock<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    begun: Instant,
    over: Duration,
}

impl Drain {
    /// Begins. Only the first call counts.
    pub(crate) fn begin(&self, over: Duration) {
        // A second window is no error: the first stands.
        let _ = self.window.set(Window { begun: Instant::now(), over });
        self.token.cancel();
    }

    /// Waits for the beginning.
    pub(crate) async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Waits for the beginning, and then for the moment at which this session is to end: its share
    /// of the time, or at once when `end` is cancelled.
    pub(crate) async fn reaches(&self, session: SessionId, end: &CancellationToken) {
        self.begun().await;
        // Boxed, as every session waits for the beginning and few for more.
        Box::pin(self.reaches_moment(session, end)).await;
    }

    async fn reaches_moment(&self, session: SessionId, end: &CancellationToken) {
        if let Some(Window { begun, over }) = self.window.get() {
            let moment = *begun + over.mul_f64(share(session.0));
            tokio::select! {
                () = end.cancelled() => {}
                () = sleep_until(moment) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test(start_paused = true)]
    async fn sessions_end_within_the_window() {
        let drain = Drain::default();
        let end = CancellationToken::new();
        drain.begin(Duration::from_secs(10));
        let begun = Instant::now();
        for id in 1..20 {
            drain.reaches(SessionId(id), &end).await;
            assert!(begun.elapsed() <= Duration::from_secs(10) + Duration::from_millis(1));
        }
        assert!(begun.elapsed() > Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_all_tasks_waits_for_no_window() {
        let drain = Drain::default();
        let end = CancellationToken::new();
        end.cancel();
        drain.begin(Duration::from_secs(10));
        let begun = Instant::now();
        drain.reaches(SessionId(1), &end).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
