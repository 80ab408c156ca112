//! One room that is larger than the others, and may be too large for one process to play.
//!
//! Its members are played by processes of their own, however few they are: what the others measure
//! is then theirs alone. Each plays every so many-th member and knows of all, so that names and
//! numbers mean the same everywhere; when all is at rest it hands over its logs.

use std::net::SocketAddr;

use anyhow::Context as _;
use client::Transport;

use super::{
    Args,
    parts::Share,
    plan::{Part, Plan},
    verdict::Verdict,
};

/// Most members that one process plays: half of what a file limit of 20,000 lets it, as reading
/// for so many keeps a processor busy.
const SLICE_MAX: u32 = 10_000;

/// The room, and how it is shared out.
pub(super) struct BigRoom {
    /// As for a run of nothing else.
    args: Args,
    plan: Plan,
    slices: u32,
}

impl BigRoom {
    /// The room that the arguments ask for.
    pub(super) fn new(args: &Args, gate: SocketAddr, transport: Transport) -> Option<Self> {
        let clients = args.big_room?;
        let mut args =
            Args { clients, rooms: 1, rate: args.big_rate, big_room: None, ..args.clone() };
        let plan = Plan::new(&args, Part::default(), gate, transport);
        args.run = Some(plan.run.clone());
        Some(Self { args, plan, slices: clients.div_ceil(SLICE_MAX) })
    }

    /// Most members that one process plays of a room of so many.
    pub(super) const fn largest_slice(members: u32) -> u32 {
        members.div_ceil(members.div_ceil(SLICE_MAX))
    }

    /// How many processes play it.
    pub(super) const fn parts(&self) -> usize {
        self.slices as usize
    }

    /// What each of these processes is told.
    pub(super) fn slices(&self) -> impl Iterator<Item = (Args, Share)> {
        let Args { clients, rooms, rate, enter_rate, .. } = self.args;
        let share = Share { clients, rooms, rate, enter_rate };
        (0..self.slices).map(move |number| {
            let slice = Some((number, self.slices));
            (Args { slice, ..self.args.clone() }, share)
        })
    }

    /// Judges what all members have seen.
    ///
    /// # Errors
    ///
    /// If a log is missing or is none.
    pub(super) fn judge(&self, mut texts: Vec<(u32, String)>) -> anyhow::Result<Verdict> {
        texts.sort_unstable_by_key(|(number, _)| *number);
        let logs = (0..self.plan.clients).zip(texts).map(|(number, (of, text))| {
            let log = self.plan.log(number).replay(&text).filter(|_| of == number);
            log.with_context(|| format!("no log of member {number}"))
        });
        let logs = logs.collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(logs.len() == self.plan.clients as usize, "logs of members are missing");
        Ok((&self.plan.judge(logs)).into())
    }
}
