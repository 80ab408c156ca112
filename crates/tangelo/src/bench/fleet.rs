//! The threads that play the clients.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread::{Builder, JoinHandle},
};

use anyhow::{Context as _, anyhow};
use client::Connection;
use tokio::{
    select,
    sync::{Semaphore, watch},
    task::{JoinSet, LocalSet},
};
use verify::history::Log;

use super::{
    alarms::Alarms,
    plan::Plan,
    player::{self, Counts, Left, Notes, Phase, Table},
    verdict::Measured,
};

/// Everybody who plays.
pub(super) struct Fleet {
    pub(super) counts: Arc<Counts>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<anyhow::Result<Played>>>,
    /// The first client that could not join, and why.
    failure: Arc<Mutex<Option<String>>>,
}

/// What is left of the game.
pub(super) struct Played {
    /// In the order of the clients' numbers.
    pub(super) logs: Vec<Log>,
    pub(super) measured: Measured,
    /// Open as long as this lives, so that nobody sees anybody leave.
    pub(super) connections: Vec<Connection>,
    lefts: Vec<Left>,
}

impl Fleet {
    /// Starts the threads; everybody begins to join.
    pub(super) fn start(plan: Arc<Plan>, threads: u32) -> anyhow::Result<Self> {
        let (phase, watched) = watch::channel(Phase::Join);
        let counts = Arc::new(Counts::default());
        let failure = Arc::new(Mutex::new(None));
        let mut started = Vec::new();
        for number in 0..threads {
            let plan = Arc::clone(&plan);
            let (counts, watched) = (Arc::clone(&counts), watched.clone());
            let failure = Arc::clone(&failure);
            let thread = Builder::new().name(format!("clients-{number}"));
            started.push(thread.spawn(move || {
                let indexes = plan.of_thread(number, threads);
                play(plan, counts, watched, &failure, indexes)
            })?);
        }
        Ok(Self { counts, phase, threads: started, failure })
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells everybody what comes next.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Ends the game.
    pub(super) fn stop(self) -> anyhow::Result<Played> {
        self.phase.send_replace(Phase::Stop);
        let mut all: Option<Played> = None;
        for thread in self.threads {
            let played = thread.join().map_err(|_| anyhow!("a thread of clients panicked"))??;
            match &mut all {
                None => all = Some(played),
                Some(all) => {
                    all.measured.add(&played.measured)?;
                    all.lefts.extend(played.lefts);
                }
            }
        }
        let mut all = all.context("nobody played")?;
        all.lefts.sort_by_key(|left| left.index);
        for left in all.lefts.drain(..) {
            all.logs.push(left.log);
            all.connections.extend(left.connection);
        }
        Ok(all)
    }
}

fn play(
    plan: Arc<Plan>,
    counts: Arc<Counts>,
    mut told: watch::Receiver<Phase>,
    failure: &Mutex<Option<String>>,
    indexes: impl Iterator<Item = u32>,
) -> anyhow::Result<Played> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let notes = RefCell::new(Notes::new(plan.transport())?);
    let doors = Semaphore::new(plan.doors());
    let alarms = {
        let _inside = runtime.enter();
        Rc::new(Alarms::new()?)
    };
    let ringing = Rc::clone(&alarms);
    // Of what is woken from another thread a busy runtime runs one task in 31: with all clients
    // waiting for `told`, half of a saturated crowd would begin seconds after the other, and hear
    // nothing meanwhile.
    let (teller, phase) = watch::channel(*told.borrow());
    let telling = async {
        while told.changed().await.is_ok() {
            teller.send_replace(*told.borrow_and_update());
        }
    };
    let table = Rc::new(Table { plan, counts, phase, doors, alarms, notes });
    let playing = async {
        let mut clients = JoinSet::new();
        for index in indexes {
            clients.spawn_local(player::play(Rc::clone(&table), index));
        }
        let mut lefts = Vec::new();
        while let Some(left) = clients.join_next().await {
            match left? {
                Ok(left) => lefts.push(left),
                Err(error) => {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(format!("{error:#}"));
                }
            }
        }
        anyhow::Ok(lefts)
    };
    let lefts = LocalSet::new().block_on(&runtime, async {
        select! {
            lefts = playing => lefts,
            Err(error) = ringing.ring() => Err(error).context("the timer of a thread fails"),
            () = telling => Err(anyhow!("nobody tells the phase")),
        }
    })?;
    let table = Rc::into_inner(table).context("somebody still plays")?;
    let Notes { measured, .. } = table.notes.into_inner();
    Ok(Played { logs: Vec::new(), measured, connections: Vec::new(), lefts })
}
