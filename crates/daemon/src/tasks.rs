//! Every task of a process, so that none outlives it and none fails unseen.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::runtime::{EnterGuard, Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks and ends them. Clones share one set of tasks.
///
/// Invariant *nobody is orphaned*: a task is spawned here or not at all, sees the token, and has
/// ended (or is named as stuck) before the process does.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    set: Arc<Set>,
    /// Whose threads carry them, if not the caller's.
    runtime: Option<Handle>,
}

/// What all clones share, and every task has a hold of.
#[derive(Debug, Default)]
struct Set {
    tracker: TaskTracker,
    token: CancellationToken,
    failed: CancellationToken,
    alive: Mutex<BTreeMap<Cow<'static, str>, usize>>,
}

impl Tasks {
    /// Makes an empty set of tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same set, for tasks that are to run on the threads of `runtime`.
    #[must_use]
    pub fn on(&self, runtime: Handle) -> Self {
        Self { set: Arc::clone(&self.set), runtime: Some(runtime) }
    }

    /// What libraries spawn and which sockets they make before the guard is dropped belongs to the
    /// threads that these tasks run on. None if these are the caller's.
    #[must_use]
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.runtime.as_ref().map(Handle::enter)
    }

    /// Spawns `future` under `name`, which is told when the task panics or does not end.
    ///
    /// Tasks of one kind share a name (`connection`), so that names stay few. A panic in the
    /// future is logged, marks the process as failed and cancels the token.
    pub fn spawn(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let registration = Registration::new(self, name.into());
        // An async block would keep the future twice: where it was captured, and where it waits.
        let future = future.map(move |()| drop(registration));
        match &self.runtime {
            None => self.set.tracker.spawn(future),
            Some(runtime) => self.set.tracker.spawn_on(future, runtime),
        };
    }

    /// Runs `work`, which may block, on a thread made for that.
    ///
    /// The work cannot be cancelled: it must be short, or look at the token itself.
    pub fn spawn_blocking(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl FnOnce() + Send + 'static,
    ) {
        let registration = Registration::new(self, name.into());
        let work = move || {
            let _registration = registration;
            work();
        };
        match &self.runtime {
            None => self.set.tracker.spawn_blocking(work),
            Some(runtime) => self.set.tracker.spawn_blocking_on(work, runtime),
        };
    }

    /// The token that every task must watch: cancelled means "end now".
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.set.token.clone()
    }

    /// Asks every task to end, and returns at once.
    pub fn cancel(&self) {
        self.set.token.cancel();
    }

    /// Whether a task has panicked.
    #[must_use]
    pub fn have_failed(&self) -> bool {
        self.set.failed.is_cancelled()
    }

    /// How many tasks are running.
    #[must_use]
    pub fn count(&self) -> usize {
        self.set.tracker.len()
    }

    /// Asks every task to end, waits for that at most `deadline`, and returns the names of those
    /// that have not ended, as `name` or `name (count)`.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        self.set.token.cancel();
        self.set.tracker.close();
        // The names below tell the same as an elapsed deadline, and more.
        let _ = tokio::time::timeout(deadline, self.set.tracker.wait()).await;
        self.names()
    }

    /// The names of the tasks that are running, as `name` or `name (count)`, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let alive = self.set.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive
            .iter()
            .map(|(name, count)| match count {
                1 => name.to_string(),
                _ => format!("{name} ({count})"),
            })
            .collect()
    }
}

/// One running task's entry among the names; notices on its way out that the task panicked.
struct Registration {
    set: Arc<Set>,
    name: Cow<'static, str>,
}

impl Registration {
    fn new(tasks: &Tasks, name: Cow<'static, str>) -> Self {
        let set = Arc::clone(&tasks.set);
        let mut alive = set.alive.lock().unwrap_or_else(PoisonError::into_inner);
        *alive.entry(name.clone()).or_insert(0) += 1;
        drop(alive);
        Self { set, name }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut alive = self.set.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = alive.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                alive.remove(&self.name);
            }
        }
        drop(alive);
        if std::thread::panicking() {
            // A panic is a bug of ours, and what the task left half done may be wrong. Others
            // take over what this process did; going on would hide it.
            tracing::error!(task = %self.name, "task panicked: the process ends");
            self.set.failed.cancel();
            self.set.token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn drain_waits_for_all() {
        let tasks = Tasks::new();
        for _ in 0..3 {
            let token = tasks.token();
            tasks.spawn("listener", async move { token.cancelled().await });
        }
        assert_eq!(tasks.count(), 3);
        assert_eq!(tasks.names(), ["listener (3)"]);
        assert!(tasks.drain(LONG).await.is_empty());
        assert!(!tasks.have_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_names_what_is_stuck() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn(format!("link {}", "chat-1"), std::future::pending());
        let stuck = tasks.drain(Duration::from_millis(10)).await;
        assert_eq!(stuck, ["deaf (2)", "link chat-1"]);
    }

    #[tokio::test]
    async fn a_panic_cancels_the_rest() {
        let tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("healthy", async move { token.cancelled().await });
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.token().cancelled().await;
        assert!(tasks.have_failed());
        assert!(tasks.drain(LONG).await.is_empty());
    }
}
