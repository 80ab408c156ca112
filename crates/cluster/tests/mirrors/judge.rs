//! What must always hold, and what must have happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cluster::{
    ClusterMap, Lease, Owners,
    mirror::{Holding, What},
};
use model::{Incarnation, Shard, Term, Time};

use crate::{CHAOS, QUIET, STILL, Sim, store::Removal};

/// Somebody dead, whom this witness must have removed by now, or others before it.
pub(crate) struct Death {
    pub(crate) node: Incarnation,
    pub(crate) witness: Incarnation,
    pub(crate) session: u64,
    pub(crate) since: Time,
    pub(crate) known: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    ByDoubt,
    /// By doubt, though nobody has been there for long.
    Fresh,
    ByLease,
}

/// How often something happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: u64,
    pub(crate) doubts: u64,
    pub(crate) doubts_answered: u64,
    pub(crate) dead_by_doubt: u64,
    pub(crate) dead_by_lease: u64,
    pub(crate) hurt_by_doubt: u64,
    pub(crate) hurt_by_lease: u64,
    pub(crate) expected_by_doubt: u64,
    pub(crate) expected_fresh: u64,
    pub(crate) expected_by_lease: u64,
    pub(crate) mute_spared: u64,
    pub(crate) claims_won: u64,
    pub(crate) claims_lost: u64,
    pub(crate) claims_settling: u64,
    pub(crate) enlisted_again: u64,
    pub(crate) read_anew: u64,
    pub(crate) over: u64,
}

impl Counts {
    const fn each(&mut self) -> [(&'static str, &mut u64); 17] {
        [
            ("kills", &mut self.kills),
            ("doubts", &mut self.doubts),
            ("doubts answered", &mut self.doubts_answered),
            ("dead removed by doubt", &mut self.dead_by_doubt),
            ("dead removed by lease", &mut self.dead_by_lease),
            ("hurt removed by doubt", &mut self.hurt_by_doubt),
            ("hurt removed by lease", &mut self.hurt_by_lease),
            ("deaths to be known by doubt", &mut self.expected_by_doubt),
            ("deaths to be known by who is new", &mut self.expected_fresh),
            ("broken links of old builds", &mut self.mute_spared),
            ("deaths to be known by lease", &mut self.expected_by_lease),
            ("claims won", &mut self.claims_won),
            ("claims lost", &mut self.claims_lost),
            ("claims that wait", &mut self.claims_settling),
            ("signs put anew", &mut self.enlisted_again),
            ("read anew", &mut self.read_anew),
            ("lives over", &mut self.over),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, more)) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }

    /// What has not happened at all.
    pub(crate) fn never(mut self) -> Vec<&'static str> {
        self.each().into_iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect()
    }
}

impl Sim {
    pub(crate) fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            self.wrong = Some(format!("at {}: {what}", self.now));
        }
    }

    /// Looks at what the store has just done.
    pub(crate) fn judge_changes(&mut self) {
        let changes = self.store.changes(self.judged + 1, self.store.revision).to_vec();
        self.judged = self.store.revision;
        let mut shards = 0;
        for change in changes {
            let revision = change.revision;
            match change.what {
                What::Shard(shard, holding) => {
                    let last = self.granted.get(&shard).copied().unwrap_or(0);
                    match holding {
                        Holding::Owned(_) => {
                            self.demand(last < revision, || format!("terms of {shard} grow"));
                            self.granted.insert(shard, revision);
                        }
                        Holding::Free { last: term } => {
                            self.demand(term == Term(last), || format!("{shard} free at {term}"));
                        }
                    }
                    shards += 1;
                }
                what => self.note(|| format!("  {revision}: {what:?}")),
            }
        }
        if shards > 0 {
            let revision = self.store.revision;
            self.note(|| format!("  {revision}: {shards} shards"));
        }
        self.counts.doubts = self.store.doubts();
        for removal in self.store.removals() {
            self.judge_removal(&removal);
        }
    }

    fn judge_removal(&mut self, removal: &Removal) {
        let (asked_at, node, doubt) = (removal.asked_at, removal.node, removal.doubt);
        let by = removal.by;
        self.note(|| format!("{by} has removed {node}"));
        let Some(process) = self.processes.get(&node) else {
            match doubt {
                Some(_) => self.counts.dead_by_doubt += 1,
                None => self.counts.dead_by_lease += 1,
            }
            return;
        };
        let (is_lost, hurt_until) = (process.is_lost, process.hurt_until);
        if let Some(sign) = doubt {
            let answers = !self.store.is_mute(node);
            self.demand(answers, || format!("{node} answers no doubts, and was doubted"));
            self.counts.hurt_by_doubt += 1;
            let well = !is_lost && hurt_until < sign.at;
            self.demand(!well, || format!("{node} lives, hears etcd, and was doubted to death"));
            let evidence = self.evidence.get(&node).copied();
            let broke = evidence.is_some_and(|at| sign.at - at <= 3 * Duration::from_secs(1));
            self.demand(broke, || format!("{node} was doubted without evidence"));
        } else {
            self.counts.hurt_by_lease += 1;
            let well = !is_lost && hurt_until + self.timing.settle < asked_at;
            self.demand(!well, || format!("{node} lives, and was away only with all others"));
        }
    }

    /// By now it must be gone, unless something has happened to the witness or the store.
    pub(crate) fn judge_death(&mut self, death: &Death) {
        let Some(witness) = self.processes.get(&death.witness) else { return };
        let there = witness.session == death.session
            && witness.follows()
            && !witness.is_lost
            && witness.hurt_until < death.since
            && !self.store_was_away(death.since);
        if !there {
            return;
        }
        match death.known {
            Known::ByDoubt => self.counts.expected_by_doubt += 1,
            Known::Fresh => self.counts.expected_fresh += 1,
            Known::ByLease => self.counts.expected_by_lease += 1,
        }
        let is_gone = !self.store.has(death.node);
        self.demand(is_gone, || {
            format!(
                "{} is dead and not gone, as {} should know: {:?}",
                death.node, death.witness, death.known
            )
        });
    }

    pub(crate) fn judge_map(&mut self, me: Incarnation, map: &Arc<ClusterMap>) {
        let before = &self.processes[&me].map;
        let grows = before.version <= map.version;
        let terms = before.shards.iter().zip(&map.shards).all(|(old, new)| old.term <= new.term);
        self.demand(grows && terms, || format!("the map of {me} grows"));
        let same = match self.maps.get(&map.version) {
            Some(other) => other == map,
            None => true,
        };
        self.demand(same, || format!("two maps of version {}", map.version));
        self.maps.insert(map.version, Arc::clone(map));
        while self.maps.len() > 64 {
            self.maps.pop_first();
        }
    }

    pub(crate) fn judge_own(&mut self, me: Incarnation, shard: Shard, term: Term) {
        let other = self.opened.insert((shard, term), me);
        self.demand(other.is_none(), || {
            format!("{shard} at {term} is owned by {other:?} and {me}")
        });
    }

    pub(crate) fn judge_the_end(&mut self) {
        let live: BTreeSet<_> = self.processes.keys().copied().collect();
        let stored = self.store.nodes();
        self.demand(stored == live, || format!("{live:?} live, and {stored:?} are stored"));
        let maps: Vec<_> =
            self.processes.values().map(|process| Arc::clone(&process.map)).collect();
        let version = self.store.revision;
        let versions: BTreeSet<_> = maps.iter().map(|map| map.version).collect();
        self.demand(versions == BTreeSet::from([version]), || format!("{versions:?}: {version}"));
        let same = maps.windows(2).all(|pair| pair[0] == pair[1]);
        self.demand(same, || "nodes see different maps".to_owned());
        let mut owners = Owners::default();
        owners.update(&maps[0]);
        for shard in Shard::all() {
            let (is, wanted) = (maps[0].ownership(shard).owner, owners.preferred(shard));
            let home = is == wanted && is.is_some_and(|owner| live.contains(&owner));
            self.demand(home, || format!("{shard} is at {is:?} and belongs to {wanted:?}"));
        }
        let not_right = |(me, process): (&Incarnation, &crate::node::Process)| {
            let owned: BTreeMap<_, _> = process.map.owned_by(*me).collect();
            (process.standing != Lease::Held || process.open != owned).then_some(*me)
        };
        let not_right: Vec<_> = self.processes.iter().filter_map(not_right).collect();
        self.demand(not_right.is_empty(), || format!("{not_right:?} hold something else"));
        let still = Time::ZERO + CHAOS + QUIET - self.last_change >= STILL;
        self.demand(still, || "it still moves".to_owned());
    }
}
