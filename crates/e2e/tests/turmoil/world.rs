//! What a run knows beside its nodes: the plan of its time, the clients' logs, and what is to be
//! told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daemon::Tasks;
use model::{Incarnation, NodeId};
use verify::{
    history::{History, Log, Name, Names, Presence},
    sim::Random,
};

use crate::{
    client::Client,
    etcd::Store,
    network::Cuts,
    plan::{Faults, Mix, Plan},
};

/// When clients begin: the registry has settled and the chats have their shards.
pub(crate) const TALK: Duration = Duration::from_secs(4);
/// Faults begin and are all healed between these two.
pub(crate) const FAULTS: Duration = Duration::from_secs(6);
pub(crate) const HEALED: Duration = Duration::from_secs(20);
/// Clients stay where they are from then on, and say one last thing. By then a room that lost
/// its owner in the last moment has another.
pub(crate) const QUIET: Duration = Duration::from_secs(28);
/// At the latest, everything has come to rest.
pub(crate) const END: Duration = Duration::from_secs(46);

/// Nobody hears of a client that is back within less: the grace, by a clock that is fast.
const QUIET_RETURN: Duration = Duration::from_millis(4_700);

/// It has, if so long ago everybody was answered to its last thing.
const REST: Duration = Duration::from_secs(4);

/// One run, shared by all that takes part in it.
pub(crate) type World = Arc<Run>;

/// What a run knows.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) mix: Mix,
    /// What etcd stores, if that is the registry.
    pub(crate) store: Arc<Store>,
    pub(crate) cuts: Cuts,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) names: Names,
    pub(crate) logs: Vec<Log>,
    seats: usize,
    /// Clients that have no connection.
    pub(crate) away: Vec<Client>,
    /// How many connections there have been.
    connections: u64,
    /// Who has said its last thing and was answered, by seat.
    pub(crate) settled: BTreeMap<usize, Duration>,
    /// Why sessions ended, in words.
    pub(crate) ends: BTreeMap<String, u32>,
    /// Tasks that did not end with the life of their node.
    pub(crate) stuck: Vec<String>,
    lives: Vec<Tasks>,
}

impl Run {
    pub(crate) fn new(mix: Mix, seed: u64, plan: &Plan) -> World {
        let mut state = State { seats: plan.seats, ..State::default() };
        for seat in 0..plan.seats {
            let client = Client::new(seat, (plan.seats, plan.rooms), seed, &mut state);
            state.away.push(client);
        }
        Arc::new(Self {
            seed,
            mix,
            store: Arc::default(),
            cuts: Cuts::default(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a life of a node.
    pub(crate) fn begin(&self, node: &NodeId) -> (Incarnation, Tasks) {
        let tasks = Tasks::new();
        let mut state = self.state();
        state.lives.push(tasks.clone());
        let life = state.lives.len() as u64;
        let incarnation = Incarnation((Random::of(self.seed, life).next() >> 11).max(1));
        tracing::info!(%node, incarnation = incarnation.0, "a life begins");
        (incarnation, tasks)
    }

    /// Ends it, as a process does that is not killed.
    pub(crate) async fn end(&self, node: &NodeId, tasks: &Tasks) {
        let stuck = tasks.drain(Duration::from_secs(10)).await;
        let stuck = stuck.into_iter().map(|task| format!("{node}: {task}"));
        self.state().stuck.extend(stuck);
    }

    /// The logs of all sessions, for the judge.
    pub(crate) fn history(&self) -> History {
        let mut state = self.state();
        let State { away, logs, .. } = &mut *state;
        for client in &*away {
            logs[client.log].gone();
        }
        let names = std::mem::take(&mut state.names);
        let mut history = History::new(names, Presence::Announced);
        if self.mix.faults != Faults::All {
            history.quiet_within(QUIET_RETURN);
        }
        for log in state.logs.drain(..) {
            history.push(log);
        }
        history
    }
}

impl State {
    /// Begins a session's log. Returns its place.
    pub(crate) fn open(&mut self, room: &str, user: &str) -> usize {
        let (room, user) = (self.names.intern(room), self.names.intern(user));
        self.logs.push(Log::new(room, user));
        self.logs.len() - 1
    }

    /// Whether all that is to be seen has been seen.
    pub(crate) fn is_at_rest(&self, now: Duration) -> bool {
        let mut settled = self.settled.values();
        self.away.is_empty() && settled.len() == self.seats && settled.all(|at| *at + REST < now)
    }

    /// The number of a connection that is made now.
    pub(crate) const fn connected(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// A client that wants a connection now.
    pub(crate) fn next(&mut self) -> Option<Client> {
        let now = now();
        let next = self.away.iter().position(|client| client.comes_at <= now)?;
        Some(self.away.remove(next))
    }

    pub(crate) fn name(&mut self, text: &str) -> Name {
        self.names.intern(text)
    }

    /// The log of a session, which is told the time; none once they are with the judge.
    pub(crate) fn log(&mut self, session: usize) -> Option<&mut Log> {
        let log = self.logs.get_mut(session)?;
        log.at(now());
        Some(log)
    }

    /// Whether a task has panicked, of any life.
    pub(crate) fn have_failed(&self) -> bool {
        self.lives.iter().any(Tasks::have_failed)
    }

    pub(crate) fn lives(&self) -> usize {
        self.lives.len()
    }
}

/// The time of the run, the same on all hosts.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
