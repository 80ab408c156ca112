//! The recent events of a room, by position.

use std::{collections::VecDeque, sync::Arc};

use model::{Position, limits};

use crate::message::{Body, Event};

/// The last events of one generation, without a gap: at most [`limits::TAIL_EVENTS_MAX`] events
/// and [`limits::TAIL_BYTES_MAX`] bytes; past either the oldest go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl Tail {
    /// Adds the next event.
    ///
    /// An event that does not follow the last one starts the tail anew.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        if self.events.back().is_some_and(|last| last.position.next() != event.position) {
            self.clear();
        }
        self.bytes += event.weight();
        self.events.push_back(event);
        while self.events.len() > limits::TAIL_EVENTS_MAX || self.bytes > limits::TAIL_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
        }
    }

    /// How many bytes they keep alive.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a whisper in the place of its placeholder, if that is here.
    pub(crate) fn disclose(&mut self, event: &Arc<Event>) {
        let stands = |known: &&mut Arc<Event>| known.position == event.position;
        if let Some(known) = self.events.iter_mut().find(stands)
            && known.body == Body::Hidden
        {
            self.bytes += event.weight() - known.weight();
            *known = Arc::clone(event);
        }
    }

    /// Forgets everything, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All events after `position`, oldest first; `None` if some of them are not here (any more, or
    /// as the room's history came without its end), or if `position` belongs to another history. `last` is the room's position.
    #[must_use]
    pub(crate) fn since(
        &self,
        position: Position,
        last: Position,
    ) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if position.generation != last.generation || position.seq > last.seq {
            return None;
        }
        let missing = usize::try_from(last.seq - position.seq).ok()?;
        if missing > 0 && self.events.back()?.position != last {
            return None;
        }
        let skip = self.events.len().checked_sub(missing)?;
        Some(self.events.iter().skip(skip))
    }

    /// The last events, oldest first: at most so many, and at most so many bytes.
    pub(crate) fn last(&self, count_max: usize, bytes_max: usize) -> Vec<Arc<Event>> {
        let mut bytes = 0;
        let fits = |event: &&Arc<Event>| {
            bytes += event.weight();
            bytes <= bytes_max
        };
        let newest = self.events.iter().rev().take(count_max).take_while(fits);
        let mut events: Vec<_> = newest.cloned().collect();
        events.reverse();
        events
    }

    /// All events, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Term;

    fn at(seq: u64) -> Position {
        Position { generation: Term(1), seq }
    }

    fn tail(first: u64, last: u64) -> Tail {
        let mut tail = Tail::default();
        for seq in first..=last {
            tail.push(Arc::new(Event { position: at(seq), body: Body::Hidden }));
        }
        tail
    }

    fn seqs(tail: &Tail, from: u64, last: u64) -> Option<Vec<u64>> {
        Some(tail.since(at(from), at(last))?.map(|event| event.position.seq).collect())
    }

    #[test]
    fn gives_what_is_missing_or_nothing() {
        let tail = tail(5, 9);
        assert_eq!(seqs(&tail, 7, 9), Some(vec![8, 9]));
        assert_eq!(seqs(&tail, 9, 9), Some(vec![]));
        assert_eq!(seqs(&tail, 4, 9), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(seqs(&tail, 3, 9), None, "event 4 is gone");
        assert_eq!(seqs(&tail, 10, 9), None, "from the future");
        assert_eq!(seqs(&tail, 8, 12), None, "events 10 to 12 are not here");
        let other = Position { generation: Term(2), seq: 9 };
        assert!(tail.since(at(7), other).is_none(), "another history");
    }

    #[test]
    fn stays_within_its_bounds() {
        let tail = tail(1, 5000);
        assert_eq!(tail.iter().count(), limits::TAIL_EVENTS_MAX);
        assert_eq!(seqs(&tail, 4998, 5000), Some(vec![4999, 5000]));
    }

    #[test]
    fn gives_its_end_within_bounds() {
        let tail = tail(1, 9);
        let seqs = |events: Vec<Arc<Event>>| -> Vec<u64> {
            events.iter().map(|event| event.position.seq).collect()
        };
        assert_eq!(seqs(tail.last(3, usize::MAX)), [7, 8, 9]);
        let weight = tail.iter().next().unwrap().weight();
        assert_eq!(seqs(tail.last(9, 2 * weight + 1)), [8, 9]);
        assert_eq!(seqs(tail.last(9, 0)), [0; 0]);
    }

    #[test]
    fn a_gap_starts_anew() {
        let mut tail = tail(1, 3);
        tail.push(Arc::new(Event { position: at(7), body: Body::Hidden }));
        assert_eq!(seqs(&tail, 6, 7), Some(vec![7]));
        assert_eq!(seqs(&tail, 5, 7), None);
    }
}
