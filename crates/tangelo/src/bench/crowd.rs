//! Everybody who plays, in this process or in several.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use anyhow::Context as _;
use client::Transport;
use verify::history::Log;

use super::{
    Args,
    fleet::{Fleet, Played},
    parts::Parts,
    plan::Plan,
    player::Phase,
    verdict::{Judged, Measured},
};

/// What a crowd has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) joined: u64,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) delivered: u64,
}

impl Sums {
    pub(super) const fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.joined += other.joined;
        self.sent += other.sent;
        self.answered += other.answered;
        self.delivered += other.delivered;
    }
}

/// All clients of a run. When it is dropped, their connections end.
pub(super) enum Crowd {
    /// Threads of this process play them.
    Here(Box<Here>),
    /// Processes of their own play them.
    Parts(Parts),
}

impl Crowd {
    /// Has everybody begin to come in.
    ///
    /// # Errors
    ///
    /// If a thread or a process cannot be started.
    pub(super) fn start(
        args: &Args,
        gate: SocketAddr,
        transport: Transport,
    ) -> anyhow::Result<Self> {
        if args.processes > 1 || args.big_room.is_some() {
            return Parts::start(args, gate, transport).map(Self::Parts);
        }
        Ok(Self::Here(Box::new(Here::start(args, gate, transport)?)))
    }

    pub(super) fn sums(&self) -> Sums {
        match self {
            Self::Here(here) => here.sums(),
            Self::Parts(parts) => parts.sums(),
        }
    }

    /// The first client that could not join and why, or the first process that ended.
    pub(super) fn failure(&self) -> Option<String> {
        match self {
            Self::Here(here) => here.failure(),
            Self::Parts(parts) => parts.failure(),
        }
    }

    /// Has everybody speak.
    pub(super) fn speak(&mut self) {
        match self {
            Self::Here(here) => here.speak(Instant::now()),
            Self::Parts(parts) => parts.speak(),
        }
    }

    /// Has everybody listen only.
    pub(super) fn hush(&mut self) {
        match self {
            Self::Here(here) => here.hush(),
            Self::Parts(parts) => parts.hush(),
        }
    }

    /// Ends the game and judges it: the rooms, and the big one beside them. Connections stay open.
    ///
    /// # Errors
    ///
    /// If a thread or a process has failed.
    pub(super) async fn judge(&mut self) -> anyhow::Result<(Judged, Option<Judged>)> {
        match self {
            Self::Here(here) => here.judge().map(|judged| (judged, None)),
            Self::Parts(parts) => parts.judge().await,
        }
    }

    /// The processes that play, if they are others than this one.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Here(_) => Vec::new(),
            Self::Parts(parts) => parts.pids(),
        }
    }
}

/// Clients that threads of this process play.
pub(super) struct Here {
    plan: Arc<Plan>,
    fleet: Option<Fleet>,
    /// What is left of the game; holds the connections.
    played: Option<Played>,
}

impl Here {
    pub(super) fn start(
        args: &Args,
        gate: SocketAddr,
        transport: Transport,
    ) -> anyhow::Result<Self> {
        let plan = Arc::new(Plan::new(args, args.part(), gate, transport));
        let fleet = Fleet::start(Arc::clone(&plan), args.threads)?;
        Ok(Self { plan, fleet: Some(fleet), played: None })
    }

    pub(super) fn sums(&self) -> Sums {
        self.fleet.as_ref().map(|fleet| fleet.counts.sums()).unwrap_or_default()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.fleet.as_ref().and_then(Fleet::failure)
    }

    /// Has everybody speak from a moment on, which may be about to come.
    pub(super) fn speak(&self, start: Instant) {
        self.enter(Phase::Send { start });
    }

    pub(super) fn hush(&self) {
        self.enter(Phase::Hush);
    }

    fn enter(&self, phase: Phase) {
        if let Some(fleet) = &self.fleet {
            fleet.enter(phase);
        }
    }

    pub(super) fn judge(&mut self) -> anyhow::Result<Judged> {
        let (measured, logs) = self.end()?;
        Ok(Judged { measured, verdict: (&self.plan.judge(logs)).into() })
    }

    /// Ends the game, of which others have a part that is judged with it: what was measured, and
    /// the clients' logs in the order of their numbers. Connections stay open.
    pub(super) fn end(&mut self) -> anyhow::Result<(Measured, Vec<Log>)> {
        let fleet = self.fleet.take().context("it has been judged")?;
        let played = self.played.insert(fleet.stop()?);
        Ok((played.measured.clone(), std::mem::take(&mut played.logs)))
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }
}
