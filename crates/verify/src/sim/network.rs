//! What is on its way, and when it arrives.

use std::{collections::BTreeMap, time::Duration};

use model::Time;

/// Things to come, in the order of their time; of one time, in the order in which they were sent.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    items: BTreeMap<(Time, u64), T>,
    sent: u64,
    /// The last arrival on each ordered channel.
    channels: BTreeMap<Channel, Time>,
}

/// An ordered way from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    /// One direction of one stream; a stream opened again is another one.
    Stream { stream: u64, up: bool },
    /// The registry's map on its way to a node.
    Map(u64),
    /// A client's socket, upwards.
    Client(usize),
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { items: BTreeMap::new(), sent: 0, channels: BTreeMap::new() }
    }

    /// Lets `item` happen at `at`.
    pub(crate) fn at(&mut self, at: Time, item: T) {
        self.sent += 1;
        self.items.insert((at, self.sent), item);
    }

    /// Lets `item` arrive over an ordered channel, `delay` from now or after what was sent before.
    pub(crate) fn over(&mut self, channel: Channel, now: Time, delay: Duration, item: T) {
        let last = self.channels.entry(channel).or_default();
        let at = (now + delay).max(*last);
        *last = at;
        self.at(at, item);
    }

    /// Lets nothing arrive over a channel before `until`; it keeps its order.
    pub(crate) fn hold(&mut self, channel: Channel, until: Time) {
        let last = self.channels.entry(channel).or_default();
        *last = until.max(*last);
    }

    /// The next thing to happen, unless it is after `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<(Time, T)> {
        let entry = self.items.first_entry().filter(|entry| entry.key().0 <= end)?;
        let ((at, _), item) = entry.remove_entry();
        Some((at, item))
    }
}
