//! A thread of its own for what others judge the process by.
//!
//! The beats to the registry, the registry itself where it is hosted, and the admin port must not
//! wait behind clients and rooms: a process that is busy would be taken for dead, and what others
//! do then makes all of them busier. What the thread would hide, it looks for itself: that the
//! other threads do nothing any more, as after a deadlock. Such a process ends, so that others
//! take over what it did.
//!
//! With more than one other thread the watch sees only whether any of them works.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use model::limits;
use tokio::{runtime::Builder, time::interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Tasks;

/// How often the watch looks. Not a clock time that has passed: a process that was stopped, and
/// wakes, is not stuck.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds without any work after which the log says so.
const ROUNDS_LATE: u32 = 2;

/// The thread. Ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Vitals {
    tasks: Tasks,
    _running: DropGuard,
}

impl Vitals {
    /// Starts the thread, and the watch over the threads of the caller. `stuck` is called on a
    /// thread of its own if those do nothing for [`limits::STUCK_AFTER`].
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start(tasks: &Tasks, stuck: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::start_with(tasks, ROUND, stuck)
    }

    fn start_with(
        tasks: &Tasks,
        round: Duration,
        stuck: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let vitals = tasks.on(runtime.handle().clone());
        let running = CancellationToken::new();
        let ended = running.clone();
        thread::Builder::new()
            .name("vitals".into())
            .spawn(move || runtime.block_on(ended.cancelled()))?;

        let pulse = Arc::new(AtomicU64::new(0));
        let (beaten, token) = (Arc::clone(&pulse), tasks.token());
        tasks.spawn("pulse", async move {
            let mut beat = interval(round / 2);
            while token.run_until_cancelled(beat.tick()).await.is_some() {
                beaten.fetch_add(1, Ordering::Relaxed);
            }
        });
        let token = tasks.token();
        vitals.spawn("pulse watch", async move {
            token.run_until_cancelled(watch(&pulse, round, stuck)).await;
        });
        Ok(Self { tasks: vitals, _running: running.drop_guard() })
    }

    /// Spawns on this thread, into the same set of tasks.
    pub(crate) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

/// Looks at the pulse once a round, until it has stood still for too many.
async fn watch(pulse: &AtomicU64, round: Duration, stuck: impl FnOnce() + Send + 'static) {
    let mut rounds = interval(round);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pulses = Pulses::default();
    loop {
        rounds.tick().await;
        match pulses.look(pulse.load(Ordering::Relaxed)) {
            Finding::Well => {}
            Finding::Late => tracing::warn!(
                seconds = (round * ROUNDS_LATE).as_secs(),
                "no thread has got to its work for a while: the machine is too busy, or this is a \
                 bug; beats go on"
            ),
            Finding::Recovered { rounds } => {
                let seconds = (round * rounds).as_secs();
                metrics::counter!("tangelo_stalls_total").increment(1);
                tracing::warn!(seconds, "the threads work again");
            }
            Finding::Stuck => {
                // Even the log may be what is stuck.
                thread::spawn(stuck);
                return;
            }
        }
    }
}

/// What was seen of the pulse.
#[derive(Debug, Default)]
struct Pulses {
    last: Option<u64>,
    still: u32,
}

/// What a look at the pulse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Work goes on, or has stopped just now.
    Well,
    /// It has stood still for [`ROUNDS_LATE`] rounds; said once.
    Late,
    /// It goes on after so many rounds.
    Recovered { rounds: u32 },
    /// It has stood still for [`limits::STUCK_AFTER`].
    Stuck,
}

impl Pulses {
    fn look(&mut self, pulse: u64) -> Finding {
        if self.last.replace(pulse) != Some(pulse) {
            let rounds = std::mem::take(&mut self.still);
            return if rounds >= ROUNDS_LATE {
                Finding::Recovered { rounds }
            } else {
                Finding::Well
            };
        }
        self.still += 1;
        if self.still == ROUNDS_LATE {
            Finding::Late
        } else if self.still >= ROUNDS_STUCK {
            Finding::Stuck
        } else {
            Finding::Well
        }
    }
}

/// Rounds in [`limits::STUCK_AFTER`].
#[expect(clippy::cast_possible_truncation, reason = "seconds, few")]
const ROUNDS_STUCK: u32 = limits::STUCK_AFTER.as_secs() as u32;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_pulse_that_goes_on_is_well() {
        let mut pulses = Pulses::default();
        for pulse in [0, 1, 3, 3, 4, 4, 5] {
            assert_eq!(pulses.look(pulse), Finding::Well);
        }
    }

    #[test]
    fn a_long_stall_is_told_once_and_its_end_too() {
        let mut pulses = Pulses::default();
        let findings: Vec<Finding> = [7, 7, 7, 7, 7, 8, 9].map(|pulse| pulses.look(pulse)).into();
        let (well, late) = (Finding::Well, Finding::Late);
        let recovered = Finding::Recovered { rounds: 4 };
        assert_eq!(findings, [well, well, late, well, well, recovered, well]);
    }

    #[test]
    fn a_pulse_that_stands_still_for_long_is_stuck() {
        let mut pulses = Pulses::default();
        let looks = (0..).take_while(|_| pulses.look(7) != Finding::Stuck).count();
        assert_eq!(looks, usize::try_from(ROUNDS_STUCK).unwrap());
    }

    /// What runs on the thread goes on while the caller's thread does nothing, and the thread
    /// notices that.
    #[tokio::test]
    async fn a_stuck_caller_is_found_and_holds_up_nothing() {
        let tasks = Tasks::new();
        let (found, finding) = mpsc::channel();
        let round = Duration::from_millis(20);
        let vitals = Vitals::start_with(&tasks, round, move || found.send(()).unwrap()).unwrap();
        let (says, heard) = mpsc::channel();
        vitals.tasks().spawn("beats", async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if says.send(()).is_err() {
                    return;
                }
            }
        });
        // Without a break for the only thread of this runtime.
        for _ in 0..10 {
            heard.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        finding.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(heard);
        assert!(tasks.drain(Duration::from_secs(30)).await.is_empty());
    }
}
