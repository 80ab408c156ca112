//! Says which limits of this machine are in the way of many sessions, and what to set.

use std::io::Write as _;

use anyhow::bail;

use crate::{
    cli::DoctorArgs,
    machine::{Demand, Machine},
};

/// Prints each limit beside what is wanted; `Ok` is "nothing is in the way".
///
/// # Errors
///
/// If so many sessions cannot be held.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let share = args.sessions.div_ceil(args.connectors.into());
    let demand = Demand {
        sessions: args.sessions,
        per_process: share,
        per_address: args.clients.then_some(share),
    };
    let findings = Machine::read().check(demand);
    for finding in &findings {
        writeln!(std::io::stdout(), "{finding}")?;
    }
    if findings.iter().any(|finding| finding.is_needed && !finding.is_fine()) {
        bail!("{} sessions cannot be held here as it is", args.sessions);
    }
    Ok(())
}
