//! Makes a run that fails small, so that a person can read its story.

use std::{collections::BTreeSet, time::Duration};

use super::{Config, FaultId, Outcome, run};

/// Runs tried at most: each takes some milliseconds.
const TRIES_MAX: u32 = 1500;
/// How often each smaller run is tried with other delays: what fails may need a coincidence.
const LUCKS: u64 = 6;
/// No shorter run is looked for.
const DURATION_MIN: Duration = Duration::from_secs(1);

/// Finds a smaller run whose history breaks a promise as that of `config` does.
#[must_use]
pub fn shrink(config: &Config) -> Config {
    shrink_by(config, |outcome| !outcome.report.is_clean())
}

/// Finds a smaller run of the same seed that `fails` too: shorter, with fewer faults, clients,
/// rooms and nodes. Gives `config` back if it does not fail itself.
#[must_use]
pub fn shrink_by(config: &Config, fails: impl Fn(&Outcome) -> bool) -> Config {
    let mut shrinker = Shrinker { best: config.clone(), fails, tries: TRIES_MAX };
    let first = run(config);
    if !(shrinker.fails)(&first) {
        return shrinker.best;
    }
    shrinker.best.only = Some(first.faults.into_iter().collect());
    loop {
        let before = shrinker.tries;
        let progress = shrinker.shorten() | shrinker.drop_faults() | shrinker.thin_out();
        if !progress || shrinker.tries == 0 || before == shrinker.tries {
            return shrinker.best;
        }
    }
}

struct Shrinker<F> {
    best: Config,
    fails: F,
    tries: u32,
}

impl<F: Fn(&Outcome) -> bool> Shrinker<F> {
    /// Whether a changed run fails too, with some luck; it is the best one then.
    fn try_with(&mut self, change: impl FnOnce(&mut Config)) -> bool {
        let mut config = self.best.clone();
        change(&mut config);
        for luck in 0..LUCKS {
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            config.luck = self.best.luck + luck;
            let outcome = run(&config);
            if (self.fails)(&outcome) {
                config.only = Some(outcome.faults.into_iter().collect());
                self.best = config;
                return true;
            }
        }
        false
    }

    fn shorten(&mut self) -> bool {
        let mut progress = false;
        for part in [2, 4, 8] {
            loop {
                let shorter = self.best.duration - self.best.duration / part;
                if shorter < DURATION_MIN || !self.try_with(|config| config.duration = shorter) {
                    break;
                }
                progress = true;
            }
        }
        progress
    }

    /// Leaves out faults: half of them, a quarter, … down to single ones.
    fn drop_faults(&mut self) -> bool {
        let mut progress = false;
        let mut size = self.faults().len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.faults().len() {
                let without: BTreeSet<FaultId> = {
                    let faults = self.faults();
                    let left_out = from..from + size;
                    let kept = (0..faults.len()).filter(|at| !left_out.contains(at));
                    kept.map(|at| faults[at]).collect()
                };
                if self.try_with(|config| config.only = Some(without)) {
                    progress = true;
                } else {
                    from += size;
                }
            }
            size /= 2;
        }
        progress
    }

    fn faults(&self) -> Vec<FaultId> {
        self.best.only.iter().flatten().copied().collect()
    }

    fn thin_out(&mut self) -> bool {
        let mut progress = false;
        while self.best.clients > 2 && self.try_with(|config| config.clients /= 2) {
            progress = true;
        }
        while self.best.clients > 2 && self.try_with(|config| config.clients -= 1) {
            progress = true;
        }
        while self.best.rooms > 1 && self.try_with(|config| config.rooms -= 1) {
            progress = true;
        }
        while self.best.connectors > 1 && self.try_with(|config| config.connectors -= 1) {
            progress = true;
        }
        while self.best.chats > 1 && self.try_with(|config| config.chats -= 1) {
            progress = true;
        }
        progress
    }
}
