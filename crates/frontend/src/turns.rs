//! Clients that are let in one after the other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use model::{Rate, Time};
use session::{Report, Turnstile};
use tokio::time::{Instant, sleep};

/// Lets clients in at a rate: who comes too early waits, and who would wait for too long is sent
/// away. Clones share the rate.
#[derive(Clone, Debug)]
pub struct Turns {
    what: &'static str,
    patience: Duration,
    start: Instant,
    turnstile: Arc<Mutex<Turnstile>>,
}

/// Counts one that waits until it is dropped.
struct Waiting(&'static str);

impl Waiting {
    fn new(what: &'static str) -> Self {
        gauge!("tangelo_client_turns_waiting", "for" => what).increment(1);
        Self(what)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!("tangelo_client_turns_waiting", "for" => self.0).decrement(1);
    }
}

impl Turns {
    /// Turns for `what`, a word for logs and metrics, that one may wait for as long as `patience`.
    #[must_use]
    pub fn new(what: &'static str, rate: Rate, patience: Duration) -> Self {
        metrics::describe_gauge!(
            "tangelo_client_turns_waiting",
            "Clients that wait for their turn"
        );
        metrics::describe_counter!(
            "tangelo_client_turns_total",
            "Clients that could not be let in at once, and what became of them"
        );
        let turnstile = Arc::new(Mutex::new(Turnstile::new(rate)));
        Self { what, patience, start: Instant::now(), turnstile }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// How long to stay away, if it would take too long. Nothing has waited then.
    ///
    /// # Cancel safety
    ///
    /// A turn that is dropped half-way is lost: nobody else has it.
    pub async fn turn(&self) -> Result<(), Duration> {
        self.turn_within(self.patience).await
    }

    /// Waits for a turn, for no longer than `patience`.
    ///
    /// # Errors
    ///
    /// How long to stay away, if it would take longer. Nothing has waited then.
    ///
    /// # Cancel safety
    ///
    /// A turn that is dropped half-way is lost: nobody else has it.
    pub async fn turn_within(&self, patience: Duration) -> Result<(), Duration> {
        let now = Time::from_start(self.start.elapsed());
        let (turn, report) = {
            let mut turnstile = self.turnstile.lock().unwrap_or_else(PoisonError::into_inner);
            (turnstile.turn(now, patience), turnstile.report(now))
        };
        if let Some(Report { waited, sent_away }) = report {
            let what = self.what;
            tracing::warn!(what, waited, sent_away, "many come at once: they are let in by turns");
        }
        match turn {
            Ok(wait) if wait.is_zero() => Ok(()),
            Ok(wait) => {
                counter!("tangelo_client_turns_total", "for" => self.what, "outcome" => "waited")
                    .increment(1);
                let _waiting = Waiting::new(self.what);
                sleep(wait).await;
                Ok(())
            }
            Err(away) => {
                counter!("tangelo_client_turns_total", "for" => self.what, "outcome" => "sent-away")
                    .increment(1);
                Err(away)
            }
        }
    }
}

/// The same, where there need not be any turns.
pub(crate) async fn turn(turns: Option<&Turns>) -> Result<(), Duration> {
    match turns {
        Some(turns) => turns.turn().await,
        None => Ok(()),
    }
}

/// Whole seconds for the header Retry-After, rounded up.
pub(crate) fn retry_after(away: Duration) -> String {
    away.as_millis().div_ceil(1000).max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_wait_for_their_turn_or_are_sent_away() {
        let rate = Rate { per_second: 10, burst: 1 };
        let turns = Turns::new("test", rate, Duration::from_secs(1));
        let begun = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let turns = turns.clone();
            waiting.spawn(async move { turns.turn().await });
        }
        let all = waiting.join_all().await;
        assert_eq!(all.iter().filter(|turn| turn.is_ok()).count(), 11);
        assert!((1000..1010).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }

    #[test]
    fn seconds_are_rounded_up() {
        let seconds = |millis| retry_after(Duration::from_millis(millis));
        assert_eq!([0, 1, 1000, 1001].map(seconds), ["1", "1", "1", "2"]);
    }
}
