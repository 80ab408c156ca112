//! What is sent to a connector once, though many hear it.
//!
//! Those who enter a room together are told much the same: what was said last, or what they all
//! missed. So a welcome is sent as what distinguishes it from the last one of its room on the same
//! stream. Both ends of a stream remember the same, as they saw the same; nothing of it is known to
//! the room, and what comes out is what went in.
//!
//! **Bounded.** The last [`ROOMS_MAX`] rooms are remembered, and [`BYTES_MAX`] bytes in all; what
//! is forgotten is sent whole the next time.

use std::{collections::VecDeque, sync::Arc};

use model::{RoomId, limits};
use room::message::Event;

use crate::convert::{Invalid, Result};

/// Rooms whose last welcome is remembered: those that people enter at the same time.
const ROOMS_MAX: usize = 32;
/// Bytes remembered: some rooms whose members have missed all that a room keeps.
const BYTES_MAX: usize = 8 * limits::TAIL_BYTES_MAX;

/// The events of the last welcomes, by room, the most recent last.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    rooms: VecDeque<Known>,
    bytes: usize,
}

/// The events of one room's last welcome.
#[derive(Debug)]
struct Known {
    room: RoomId,
    events: Vec<Arc<Event>>,
    bytes: usize,
}

/// Events, as far as the other end does not have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Whether these events are to be put among those of the last welcome.
    pub(crate) is_as_before: bool,
    /// The numbers of those of the last welcome that are not among them, growing.
    pub(crate) without: Vec<u32>,
    /// The others, in order.
    pub(crate) more: Vec<Arc<Event>>,
}

impl Shared {
    /// Says events by what the other end has already.
    pub(crate) fn difference(&mut self, room: &RoomId, events: &[Arc<Event>]) -> Difference {
        let before = self.take(room);
        // Events have an order, by which they are put among others.
        let in_order = events.is_sorted_by(|one, next| one.position < next.position);
        let difference = match before.filter(|_| in_order) {
            Some(before) => Difference::between(&before, events),
            None => Difference { is_as_before: false, without: Vec::new(), more: events.to_vec() },
        };
        self.put(room.clone(), events.to_vec());
        difference
    }

    /// What was said so.
    ///
    /// # Errors
    ///
    /// If the other end takes for known what is not: the stream is to be ended.
    pub(crate) fn whole(
        &mut self,
        room: &RoomId,
        difference: Difference,
    ) -> Result<Vec<Arc<Event>>> {
        let before = self.take(room);
        let events = if difference.is_as_before {
            difference.and(before.ok_or(Invalid("welcome"))?)?
        } else {
            difference.more
        };
        self.put(room.clone(), events.clone());
        Ok(events)
    }

    fn take(&mut self, room: &RoomId) -> Option<Vec<Arc<Event>>> {
        let at = self.rooms.iter().rposition(|known| known.room == *room)?;
        let known = self.rooms.remove(at)?;
        self.bytes -= known.bytes;
        Some(known.events)
    }

    fn put(&mut self, room: RoomId, events: Vec<Arc<Event>>) {
        let bytes = events.iter().map(|event| size(event)).sum();
        self.bytes += bytes;
        self.rooms.push_back(Known { room, events, bytes });
        while self.rooms.len() > ROOMS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.rooms.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

impl Difference {
    fn between(before: &[Arc<Event>], events: &[Arc<Event>]) -> Self {
        let (mut without, mut more) = (Vec::new(), Vec::new());
        let mut rest = events.iter().peekable();
        for (number, known) in (0..).zip(before) {
            while let Some(event) = rest.next_if(|it| it.position < known.position) {
                more.push(Arc::clone(event));
            }
            // Most are the same in memory; the others are the same in all but that, or not.
            if rest.next_if(|it| Arc::ptr_eq(it, known) || *it == known).is_none() {
                without.push(number);
            }
        }
        more.extend(rest.cloned());
        Self { is_as_before: true, without, more }
    }

    /// Puts them among those of the last welcome.
    fn and(self, before: Vec<Arc<Event>>) -> Result<Vec<Arc<Event>>> {
        let mut without = self.without.into_iter().peekable();
        let mut events: Vec<_> = (0..)
            .zip(before)
            .filter_map(|(number, event)| without.next_if_eq(&number).is_none().then_some(event))
            .collect();
        if without.peek().is_some() {
            return Err(Invalid("welcome"));
        }
        events.extend(self.more);
        events.sort_by_key(|event| event.position);
        Ok(events)
    }
}

/// What an event counts for, which must be the same at both ends.
fn size(event: &Event) -> usize {
    64 + event.body.spoken().map_or(0, |it| it.bytes())
}

#[cfg(test)]
mod tests {
    use model::{
        Content, Incarnation, MemberId, Outcome, Position, ResumeKey, SendNumber, SessionId, Shard,
        Term, UserName,
    };
    use proptest::prelude::*;
    use prost::Message as _;
    use room::message::{Body, Frame, Member, Spoken, Stay, ToRelay, Welcome};

    use super::*;
    use crate::convert::{connector_frame, connector_frame_from};

    fn room(number: u8) -> RoomId {
        RoomId::from_peer(&format!("r{number}")).unwrap()
    }

    /// One said at this position; of several variants, as two owners may have known it.
    fn said(seq: u64, variant: usize, bytes: usize) -> Arc<Event> {
        let id = MemberId { connector: Incarnation(3), session: SessionId(seq) };
        let from = Member { id, user: UserName::from_peer("alice").unwrap() };
        let shown = Content::Text("*".into());
        let content = Content::Text("x".repeat(bytes + variant).into());
        let number = SendNumber(1);
        let body = Body::Said(Box::new(Spoken { from, number, shown, content, id: None }));
        Arc::new(Event { position: Position { generation: Term(1), seq }, body })
    }

    fn welcome(room: RoomId, session: u64, events: Vec<Arc<Event>>) -> Frame<ToRelay> {
        let stay = Stay { key: ResumeKey(7), since: 1 };
        let welcome = Welcome { outcome: Outcome::Joined, stay, events };
        let session = SessionId(session);
        let message = ToRelay::Welcome { room, session, welcome };
        Frame { shard: Shard::new(1).unwrap(), term: Term(1), message }
    }

    prop_compose! {
        /// A welcome to one of some rooms, with any part of what was said there.
        fn any_welcome()(
            room in 0_u8..40,
            seqs in prop::collection::btree_map(0_u64..30, 0_usize..2, 0..20),
            shuffled in prop::bool::weighted(0.1),
        ) -> Frame<ToRelay> {
            let mut events: Vec<_> =
                seqs.into_iter().map(|(seq, variant)| said(seq, variant, 9)).collect();
            if shuffled {
                events.reverse();
            }
            welcome(self::room(room), 1, events)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whoever is told something over a stream that shares is told what it would have been told
        /// over one that does not.
        #[test]
        fn what_comes_out_is_what_went_in(
            frames in prop::collection::vec(any_welcome(), 1..120),
        ) {
            let (mut one, mut other) = (Shared::default(), Shared::default());
            for frame in frames {
                let sent = connector_frame(frame.clone(), &mut one).encode_to_vec();
                let received = crate::pb::ConnectorFrame::decode(&*sent).unwrap();
                prop_assert_eq!(connector_frame_from(received, &mut other).unwrap(), frame);
                prop_assert!(one.rooms.len() <= ROOMS_MAX && one.bytes == other.bytes);
            }
        }
    }

    #[test]
    fn no_more_is_remembered_than_it_may_be() {
        let (mut one, mut other) = (Shared::default(), Shared::default());
        for number in 0..30 {
            let events = vec![said(1, 0, limits::TAIL_BYTES_MAX / 2)];
            let frame = welcome(room(number % 20), 1, events);
            let sent = connector_frame(frame.clone(), &mut one);
            assert_eq!(connector_frame_from(sent, &mut other).unwrap(), frame);
            assert!(one.bytes <= BYTES_MAX && other.bytes <= BYTES_MAX);
        }
        assert_eq!(one.rooms.len(), 15);
    }

    #[test]
    fn what_is_not_known_cannot_be_referred_to() {
        let difference =
            |without| Difference { is_as_before: true, without, more: vec![said(2, 0, 1)] };
        let mut shared = Shared::default();
        assert!(shared.whole(&room(1), difference(vec![])).is_err());
        shared.difference(&room(1), &[said(1, 0, 1)]);
        assert!(shared.whole(&room(1), difference(vec![1])).is_err());
    }

    /// A thousand who know Tangelo enter a room in which fifty things were said, and now and then
    /// something more.
    #[test]
    fn a_crowded_rooms_joins_are_linear_in_bytes() {
        let mut history: Vec<_> = (1..=50).map(|seq| said(seq, 0, 128)).collect();
        let (mut shared, mut bytes, mut unshared) = (Shared::default(), 0, 0);
        for session in 0..1000 {
            if session % 20 == 0 {
                history.remove(0);
                history.push(said(1000 + session, 0, 128));
            }
            let frame = || welcome(room(1), session, history.clone());
            bytes += connector_frame(frame(), &mut shared).encoded_len();
            unshared += connector_frame(frame(), &mut Shared::default()).encoded_len();
        }
        println!("{bytes} bytes, and {unshared} if nothing were shared");
        assert!(bytes < 80 * 1000 && unshared > 8_000 * 1000);
    }
}
