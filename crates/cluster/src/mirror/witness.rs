//! Who else lives: doubts, and the removal of nodes that show no sign of life.

use std::time::Duration;

use model::{Incarnation, Time, limits};

use super::{Doom, Doomed, Effect, Mirror};

/// How long the next witness waits for the one before it.
const WITNESS_TURN: Duration = Duration::from_millis(100);

impl Mirror {
    /// What a node would be removed for; nothing, if it shows that it lives.
    fn doubt_of(&self, node: Incarnation) -> Option<Option<u64>> {
        match self.alive.get(&node) {
            None => Some(None),
            Some(sign) => sign.is_doubted.then_some(Some(sign.revision)),
        }
    }

    pub(super) fn note_doomed(&mut self, now: Time) {
        let mut doomed = std::mem::take(&mut self.doomed);
        for node in self.records.keys().copied().filter(|node| *node != self.me) {
            let Some(doubt) = self.doubt_of(node) else { continue };
            let known = doomed.remove(&node).filter(|doom| doom.doubt == doubt);
            let patience = doubt.map_or(Duration::ZERO, |_| self.timing.after_break);
            let doom = known.unwrap_or(Doom { doubt, at: now + patience });
            self.doomed.insert(node, doom);
        }
    }

    /// Doubts a node that shows that it lives. Like a removal, not after the store was away, or this
    /// process slept: then others have given it up, and ended links that they had to it.
    pub(super) fn doubt(&self, now: Time, node: Incarnation, out: &mut Vec<Effect>) {
        let is_witness = self.contact.is_some_and(|contact| {
            now >= contact.removes_from && now - contact.heard_at <= self.timing.lease / 2
        });
        if !is_witness {
            return;
        }
        let sign = self.alive.get(&node).filter(|sign| !sign.is_doubted && node != self.me);
        if let Some(sign) = sign.filter(|_| self.records.contains_key(&node)) {
            out.push(Effect::Doubt { node, revision: sign.revision });
        }
    }

    pub(super) fn remove(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(contact) = self.contact else { return };
        if now - contact.heard_at > self.timing.lease / 2 {
            self.contact = None;
            return;
        }
        let turn = self.turn();
        let is_due = |doom: &Doom| now >= doom.at.max(contact.removes_from) + turn;
        let mut due = Vec::new();
        for (node, doom) in
            self.doomed.iter_mut().filter(|(_, doom)| is_due(doom)).take(limits::ETCD_TXN_OPS)
        {
            if let Some(record) = self.records.get(node) {
                due.push(Doomed { role: record.node.role, node: *node, doubt: doom.doubt });
            }
            // Again, if nothing comes of it.
            doom.at = now + self.timing.call_timeout;
        }
        if !due.is_empty() {
            out.push(Effect::Remove(due));
        }
    }

    /// How long this witness lets those before it go first.
    pub(super) fn turn(&self) -> Duration {
        let before = self
            .alive
            .range(..self.me)
            .filter(|(node, sign)| !sign.is_doubted && self.records.contains_key(node));
        WITNESS_TURN * u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}
