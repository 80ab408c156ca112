//! What is to go wrong, and when: all of it is drawn before the run begins, each fault with its
//! own chance, so that one can be left out and the others stay what they were.

use std::time::Duration;

use model::Time;

use super::{Config, FaultId, random::Random};

/// Tells the chance of faults from that of everything else.
const SALT: u64 = 0x0fa0_1700;

/// More faults of one kind than there are in any run.
const PER_KIND: u32 = 10_000;

/// One fault that is planned.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// Its name in this seed: the same in a shorter run.
    pub(super) id: FaultId,
    pub(super) at: Time,
    pub(super) kind: Kind,
    /// Decides whom it strikes, and how long.
    pub(super) random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ChatKilled,
    ConnectorKilled,
    LinkCut,
    OneWay,
    Parted,
    Paused,
    Slow,
    Moved,
    RegistryAway,
    ConnectionLost,
}

/// All faults of a run, kind by kind.
pub(super) fn plan(config: &Config) -> Vec<Planned> {
    let mut random = Random::new(config.seed ^ SALT);
    let faults = config.faults;
    let kinds = [
        (faults.chat_killed, Kind::ChatKilled),
        (faults.connector_killed, Kind::ConnectorKilled),
        (faults.link_cut, Kind::LinkCut),
        (faults.one_way, Kind::OneWay),
        (faults.parted, Kind::Parted),
        (faults.paused, Kind::Paused),
        (faults.slow, Kind::Slow),
        (faults.moved, Kind::Moved),
        (faults.registry_away, Kind::RegistryAway),
        (faults.connection_lost, Kind::ConnectionLost),
    ];
    let mut planned = Vec::new();
    for (number, (mean, kind)) in (0..).zip(kinds) {
        let mut random = random.fork();
        let Some(mean) = mean else { continue };
        let mut at = Time::ZERO + Duration::from_secs(1);
        for nth in 0.. {
            at = at + random.span(mean / 4, mean * 7 / 4);
            if at.since_start() >= config.duration {
                break;
            }
            let id = FaultId(number * PER_KIND + nth);
            planned.push(Planned { id, at, kind, random: random.fork() });
        }
    }
    if let Some(only) = &config.only {
        planned.retain(|fault| only.contains(&fault.id));
    }
    planned
}
