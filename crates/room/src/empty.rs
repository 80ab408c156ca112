//! Rooms that nobody is in and somebody may come back to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{AddAssign, SubAssign},
};

use model::{RoomId, Time, limits};

/// Rooms without members, and until when each is kept for those who may come back.
#[derive(Debug, Default)]
pub(crate) struct EmptyRooms {
    order: BTreeSet<(Time, RoomId)>,
    rooms: BTreeMap<RoomId, (Time, usize)>,
    size: Size,
}

/// How many rooms, and how many bytes they keep alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rooms: usize,
    pub(crate) bytes: usize,
}

impl Size {
    /// Whether this is more than one worker may keep.
    pub(crate) const fn is_too_much(self) -> bool {
        self.rooms > limits::EMPTY_ROOMS_MAX || self.bytes > limits::EMPTY_ROOMS_BYTES_MAX
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.rooms += other.rooms;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Size {
    fn sub_assign(&mut self, other: Self) {
        self.rooms -= other.rooms;
        self.bytes -= other.bytes;
    }
}

impl EmptyRooms {
    /// Keeps a room of so many bytes until then, and no longer if it was kept already.
    pub(crate) fn insert(&mut self, until: Time, room: RoomId, bytes: usize) {
        self.remove(&room);
        self.size += Size { rooms: 1, bytes };
        self.order.insert((until, room.clone()));
        self.rooms.insert(room, (until, bytes));
    }

    /// Somebody is in the room, or it is gone.
    pub(crate) fn remove(&mut self, room: &RoomId) {
        if let Some((until, bytes)) = self.rooms.remove(room) {
            self.order.remove(&(until, room.clone()));
            self.size -= Size { rooms: 1, bytes };
        }
    }

    /// Until when the first is kept.
    pub(crate) fn next(&self) -> Option<Time> {
        self.order.first().map(|(until, _)| *until)
    }

    /// Takes out the room that is kept for the shortest time.
    pub(crate) fn pop(&mut self) -> Option<RoomId> {
        let (_, room) = self.order.first()?.clone();
        self.remove(&room);
        Some(room)
    }

    /// How many there are, and what they keep alive.
    pub(crate) const fn size(&self) -> Size {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn room(name: &str) -> RoomId {
        RoomId::from_peer(name).unwrap()
    }

    #[test]
    fn a_room_counts_once_and_the_oldest_goes_first() {
        let mut empty = EmptyRooms::default();
        empty.insert(at(1), room("a"), 10);
        empty.insert(at(2), room("b"), 20);
        empty.insert(at(3), room("a"), 15);
        assert_eq!(empty.size(), Size { rooms: 2, bytes: 35 });
        assert_eq!((empty.next(), empty.pop()), (Some(at(2)), Some(room("b"))));
        empty.remove(&room("b"));
        empty.remove(&room("a"));
        assert_eq!((empty.size(), empty.next(), empty.pop()), (Size::default(), None, None));
    }
}
