//! Who else lives: doubts, and the removal of nodes that show no sign of life.

use std::time::Duration;

use model::{Incarnation, Time, limits};

use super::{Contact, Doomed, Effect, Kind, Mirror};

/// How long the next witness waits for the one before it.
const WITNESS_TURN: Duration = Duration::from_millis(100);

/// How often a node has to answer after its link broke: what it has answered first may have been a
/// doubt from before that, and its answer may have been on its way when it died.
const ANSWERS: u8 = 2;

/// A node whose link broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    /// The revision of its sign of life that was looked at last.
    seen: u64,
    /// How many doubts it has still to answer.
    answers: u8,
}

/// Why a node is to be removed, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doom {
    /// The revision of the doubt; none: there is no sign of life.
    doubt: Option<u64>,
    at: Time,
    /// When the store was heard, in the second half of the time that the doubt gives.
    confirmed_at: Option<Time>,
    /// It was asked to be.
    is_asked: bool,
}

impl Doom {
    /// Not before [`Mirror::remove`] may be due.
    fn at(&self, contact: Contact, is_heard: bool) -> Time {
        match self.doubt {
            Some(_) if is_heard => self.at,
            Some(_) => self.at.max(contact.removes_doubted_from),
            None => self.at.max(contact.removes_from),
        }
    }
}

impl Mirror {
    // ---- doubts

    /// Doubts a node that shows that it lives. Like a removal, not after the store was away, or this
    /// process slept: then others have given it up, and ended links that they had to it. One that
    /// has just started had no links before.
    pub(super) fn doubt(&mut self, now: Time, node: Incarnation, out: &mut Vec<Effect>) {
        let may_doubt = |contact: Contact| contact.is_first || now >= contact.removes_from;
        if node == self.me || !self.contact(now).is_some_and(may_doubt) {
            return;
        }
        let Some(sign) = self.alive.get(&node).filter(|_| self.records.contains_key(&node)) else {
            return;
        };
        let answers = if sign.kind == Kind::Doubted { ANSWERS - 1 } else { ANSWERS };
        self.suspects.insert(node, Suspect { seen: sign.revision, answers });
        if sign.kind == Kind::Alive {
            out.push(Effect::Doubt { node, revision: sign.revision });
        }
    }

    /// Doubts suspects again that have put their sign anew.
    pub(super) fn doubt_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.contact(now).is_none() {
            self.suspects.clear();
        }
        let signs = &self.alive;
        self.suspects.retain(|node, suspect| {
            let Some(sign) = signs.get(node) else { return false };
            if sign.revision == suspect.seen {
                return true;
            }
            suspect.seen = sign.revision;
            match sign.kind {
                Kind::Alive if suspect.answers == 0 => return false,
                Kind::Alive => out.push(Effect::Doubt { node: *node, revision: sign.revision }),
                Kind::Doubted => suspect.answers = suspect.answers.saturating_sub(1),
                Kind::Mute => return false,
            }
            true
        });
    }

    // ---- who is to be removed

    /// What a node would be removed for; nothing, if it shows that it lives.
    fn doubt_of(&self, node: Incarnation) -> Option<Option<u64>> {
        match self.alive.get(&node) {
            None => Some(None),
            Some(sign) => (sign.kind == Kind::Doubted).then_some(Some(sign.revision)),
        }
    }

    pub(super) fn note_doomed(&mut self, now: Time) {
        let mut doomed = std::mem::take(&mut self.doomed);
        for node in self.records.keys().copied().filter(|node| *node != self.me) {
            let Some(doubt) = self.doubt_of(node) else { continue };
            let known = doomed.remove(&node).filter(|doom| doom.doubt == doubt);
            let patience = doubt.map_or(Duration::ZERO, |_| self.timing.after_break);
            let doom = known.unwrap_or(Doom {
                doubt,
                at: now + patience,
                confirmed_at: None,
                is_asked: false,
            });
            self.doomed.insert(node, doom);
        }
    }

    /// The store is heard: who was doubted half the time ago has had that to answer, or has from
    /// now on.
    pub(super) fn confirm_doubts(&mut self, now: Time) {
        let half = self.timing.after_break / 2;
        for doom in self.doomed.values_mut().filter(|doom| now + half >= doom.at) {
            doom.confirmed_at.get_or_insert(now);
        }
    }

    /// What was known of others before the store was away, or this process slept, says nothing.
    pub(super) fn begin_anew(&mut self) {
        self.suspects.clear();
        for doom in self.doomed.values_mut() {
            (doom.confirmed_at, doom.is_asked) = (None, false);
        }
    }

    /// When a node is to be removed, or before that the store to be asked for an answer; nothing if
    /// it has been asked.
    fn due(&self, node: Incarnation, contact: Contact, turn: Duration) -> Option<Time> {
        let (half, doom) = (self.timing.after_break / 2, self.doomed.get(&node)?);
        let at = doom.at(contact, self.is_heard(node)) + turn;
        match (doom.doubt, doom.confirmed_at) {
            (None, _) => Some(at),
            (Some(_), Some(confirmed_at)) => Some(at.max(confirmed_at + half)),
            (Some(_), None) if doom.is_asked => None,
            (Some(_), None) => Some(Time::from_start(at.since_start().saturating_sub(half))),
        }
    }

    /// When [`Mirror::remove`] has something to do.
    pub(super) fn removal(&self) -> Option<Time> {
        let (contact, turn) = (self.contact?, self.turn());
        let due = |node: &Incarnation| self.due(*node, contact, turn);
        let first = self.doomed.keys().filter_map(due).min()?;
        // Later than that, only if the store is heard again before.
        Some(first).filter(|first| *first - contact.heard_at <= self.timing.lease / 2)
    }

    pub(super) fn remove(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(contact) = self.contact(now) else {
            self.contact = None;
            return;
        };
        let turn = self.turn();
        let is_due =
            |node: &Incarnation| self.due(*node, contact, turn).is_some_and(|due| now >= due);
        let due: Vec<_> = self.doomed.keys().copied().filter(is_due).collect();
        let (mut doomed, mut asks) = (Vec::new(), false);
        for node in due.into_iter().take(limits::ETCD_TXN_OPS) {
            let (Some(doom), Some(record)) = (self.doomed.get_mut(&node), self.records.get(&node))
            else {
                continue;
            };
            if doom.doubt.is_some() && doom.confirmed_at.is_none() {
                (doom.is_asked, asks) = (true, true);
                continue;
            }
            doomed.push(Doomed { role: record.node.role, node, doubt: doom.doubt });
            // Again, if nothing comes of it.
            doom.at = now + self.timing.call_timeout;
        }
        if asks {
            out.push(Effect::Ask);
        }
        if !doomed.is_empty() {
            out.push(Effect::Remove(doomed));
        }
    }

    /// How long this witness lets those before it go first.
    fn turn(&self) -> Duration {
        let before = self
            .alive
            .range(..self.me)
            .filter(|(node, sign)| sign.kind != Kind::Doubted && self.records.contains_key(node));
        WITNESS_TURN * u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}
