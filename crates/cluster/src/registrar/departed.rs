//! Who is gone, so that it can be told.

use std::collections::{BTreeMap, VecDeque};

use model::{Incarnation, limits};

use super::Gone;

/// The incarnations that are over: the last [`limits::REGISTRY_GONE_MAX`] of them.
#[derive(Default)]
pub(super) struct Departed {
    reasons: BTreeMap<Incarnation, Gone>,
    order: VecDeque<Incarnation>,
}

impl Departed {
    pub(super) fn get(&self, incarnation: Incarnation) -> Option<Gone> {
        self.reasons.get(&incarnation).copied()
    }

    pub(super) fn insert(&mut self, incarnation: Incarnation, reason: Gone) {
        if self.reasons.insert(incarnation, reason).is_none() {
            self.order.push_back(incarnation);
        }
        if self.order.len() > limits::REGISTRY_GONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.reasons.remove(&oldest);
        }
    }
}
