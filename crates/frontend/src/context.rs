//! What all connections of a frontend share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::Router;
use daemon::Tasks;
use model::{SessionId, Time};
use session::CloseReason;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Settings, admission::Admission, clock::Clock, meters::Meters, socketio::Directory};

/// Sessions that end at once. A task waits behind all that are ready before it, and these are few;
/// with nothing else to do that holds nobody back.
const CLOSINGS_AT_ONCE: usize = 16;

/// What a frontend and its handles share with all connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) admission: Arc<Admission>,
    pub(crate) meters: Meters,
    pub(crate) clock: Clock,
    /// Which sessions of Socket.IO requests can reach.
    pub(crate) directory: Arc<Directory>,
    /// Sessions that are over wait here for the role to note it.
    pub(crate) closings: Semaphore,
    start: Instant,
    last_id: AtomicU64,
    sessions: AtomicUsize,
}

/// What one frontend's connections need, beside that.
#[derive(Debug)]
pub(crate) struct Context<A> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: A,
    pub(crate) http: Router,
    /// Where the tasks of sessions belong that no connection of their own has.
    pub(crate) tasks: Tasks,
    /// Cancelled when every task must end.
    pub(crate) end: CancellationToken,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let start = Instant::now();
        let (total, per_address) = (settings.connections_max, settings.connections_per_address_max);
        Self {
            admission: Admission::new(total, per_address),
            meters: Meters::new(),
            clock: Clock::new(start),
            directory: Arc::default(),
            closings: Semaphore::new(CLOSINGS_AT_ONCE),
            start,
            last_id: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
            settings,
        }
    }

    /// The time, as sessions want it.
    pub(crate) fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    /// That time, as the runtime wants it.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.start + time.since_start()
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(crate) fn opened(&self) -> SessionId {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.meters.opened();
        SessionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.meters.closed(reason);
    }
}
