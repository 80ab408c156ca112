//! A new owner rebuilds a room from what the connectors know of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{Incarnation, MemberId, Position, Term, Time};

use crate::{
    members::Members,
    message::{Body, Event, RoomState},
    room::{Known, Room},
    tail::Tail,
};

/// A rebuilt room, and whether its history goes on.
pub(crate) struct Rebuilt {
    pub(crate) room: Room,
    /// False if continuity could not be proved: the room starts a new generation.
    pub(crate) continuous: bool,
    /// Whether the connectors had seen it up to different positions.
    pub(crate) merged: bool,
}

/// Rebuilds one room at `term`.
///
/// `states` are the views of the connectors that know the room, `attached` are all connectors that
/// attached; `complete` says that every connector live at the claim attached, or is gone and cannot have known
/// more than they. Returns `None` if nobody saw the room before, so that
/// there is nothing to rebuild.
///
/// The history goes on only if every connector that had members in the room has attached: another
/// one may have shown its clients an event that nobody else knows, and its position must not be
/// given to a different event (promise P8).
pub(crate) fn rebuild(
    now: Time,
    term: Term,
    complete: bool,
    attached: &BTreeSet<Incarnation>,
    states: &[(Incarnation, &RoomState)],
) -> Option<Rebuilt> {
    let generation =
        states.iter().map(|(_, state)| state.position.generation).max().filter(|g| g.0 > 0)?;
    let current: Vec<_> =
        states.iter().filter(|(_, state)| state.position.generation == generation).collect();
    let (_, top) = current.iter().max_by_key(|(_, state)| state.position)?;

    let all_here = current
        .iter()
        .flat_map(|(_, state)| &state.members)
        .all(|member| attached.contains(&member.id.connector));
    let continuous = complete && all_here;

    let members: Members = top.members.iter().cloned().collect();
    let events = union(current.iter().flat_map(|(_, state)| &state.tail));
    let known = known(states, events.values());
    let mut tail = Tail::default();
    let position = if continuous {
        for event in events.into_values() {
            tail.push(event);
        }
        top.position
    } else {
        Position { generation: term, seq: top.position.seq }
    };
    let merged = current.iter().any(|(_, state)| state.position != top.position);
    let room = Room::restored(now, position, members, tail, &known);
    Some(Rebuilt { room, continuous, merged })
}

/// All events by number; a whisper wins over its placeholder.
fn union<'a>(tails: impl Iterator<Item = &'a Arc<Event>>) -> BTreeMap<u64, Arc<Event>> {
    let mut events: BTreeMap<u64, Arc<Event>> = BTreeMap::new();
    for event in tails {
        let known = events.entry(event.position.seq).or_insert_with(|| Arc::clone(event));
        if known.body == Body::Hidden {
            *known = Arc::clone(event);
        }
    }
    events
}

/// What is known of each member beside its place: its stay, from its own connector, and its highest
/// applied send, from there and from events that its connector has not seen yet.
fn known<'a>(
    states: &[(Incarnation, &RoomState)],
    events: impl Iterator<Item = &'a Arc<Event>>,
) -> BTreeMap<MemberId, Known> {
    let own = states.iter().flat_map(|(connector, state)| {
        state.own.iter().map(|own| {
            let id = MemberId { connector: *connector, session: own.session };
            (id, Known { applied: own.applied, stay: own.stay })
        })
    });
    let mut known: BTreeMap<MemberId, Known> = own.collect();
    for event in events {
        if let Some((member, number)) = event.send() {
            let known = known.entry(member).or_default();
            known.applied = number.max(known.applied);
        }
    }
    known
}
