//! Whether a process can serve, and if not, why.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// The condition that every process starts with and meets by [`Readiness::started`].
const START: &str = "start";
/// The condition that no process meets again.
const DRAIN: &str = "drain";

/// Conditions that a process must meet to be ready, with the reason for each that it does not.
///
/// A new process is not ready until [`Readiness::started`]: declare all other conditions before.
/// Clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness {
    unmet: Arc<watch::Sender<BTreeMap<&'static str, String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        let start = BTreeMap::from([(START, "the process is starting".to_owned())]);
        Self { unmet: Arc::new(watch::Sender::new(start)) }
    }
}

impl Readiness {
    /// Makes the readiness of a process that is starting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares that `condition` is not met, because of `reason`.
    pub fn unmet(&self, condition: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.change(|unmet| unmet.insert(condition, reason.clone()) != Some(reason));
    }

    /// Declares that `condition` is met.
    pub fn met(&self, condition: &'static str) {
        self.change(|unmet| unmet.remove(condition).is_some());
    }

    /// Declares `condition` met by `Ok`, not met by a reason.
    pub fn set(&self, condition: &'static str, state: Result<(), String>) {
        match state {
            Ok(()) => self.met(condition),
            Err(reason) => self.unmet(condition, reason),
        }
    }

    /// Declares that the process has started; from here on the other conditions decide.
    pub fn started(&self) {
        self.met(START);
    }

    /// Declares that the process drains: it is not ready and will not be again.
    pub fn drain(&self) {
        let reason = "the process is draining".to_owned();
        self.unmet.send_if_modified(|unmet| unmet.insert(DRAIN, reason).is_none());
    }

    /// Whether all conditions are met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unmet.borrow().is_empty()
    }

    /// What is not met, as `condition: reason`, in order.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let unmet = self.unmet.borrow();
        unmet.iter().map(|(condition, reason)| format!("{condition}: {reason}")).collect()
    }

    /// Waits for a change of what is met, any number of times.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.unmet.subscribe()
    }

    /// Applies `change`, which says whether it changed something, and logs when the answer to
    /// "ready?" flips.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, String>) -> bool) {
        let mut flipped = None;
        self.unmet.send_if_modified(|unmet| {
            let before = unmet.is_empty();
            let changed = change(unmet);
            flipped = (before != unmet.is_empty()).then_some(!before);
            changed
        });
        match flipped {
            Some(true) => tracing::info!("ready"),
            Some(false) => tracing::info!(reasons = self.reasons().join("; "), "not ready"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_nothing_is_unmet() {
        let ready = Readiness::new();
        assert_eq!(ready.reasons(), ["start: the process is starting"]);
        ready.unmet("registry", "not joined");
        ready.started();
        assert!(!ready.is_ready());
        assert_eq!(ready.reasons(), ["registry: not joined"]);
        ready.set("registry", Ok(()));
        assert!(ready.is_ready());
        ready.drain();
        assert_eq!(ready.reasons(), ["drain: the process is draining"]);
    }

    #[test]
    fn watchers_hear_changes_only() {
        let ready = Readiness::new();
        let mut watch = ready.watch();
        ready.unmet("registry", "not joined");
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        ready.unmet("registry", "not joined");
        ready.met("shards");
        assert!(!watch.has_changed().unwrap());
    }
}
