//! Clients without a socket.

use std::future::poll_fn;

use bytes::Bytes;
use model::SessionId;
use session::{CloseReason, Event};

use crate::{
    Outbound,
    outbound::{Inbox, Item},
    run::Form,
};

/// What is sent to a client that has no socket: for those who play clients in the process of the
/// role itself, and drive their sessions as a connection's task does.
#[derive(Debug)]
pub struct Mailbox {
    inbox: Inbox,
}

/// Something for such a client.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A finished unit.
    Unit(Bytes),
    /// Something that its session has to hear first.
    Event(Event<'static>),
}

impl Mailbox {
    /// The two ends of a session's queue of so many items and bytes.
    #[must_use]
    pub fn new(session: SessionId, items_max: usize, bytes_max: usize) -> (Outbound, Self) {
        let (outbound, inbox) = Outbound::new(session, Form::Units, None, items_max, bytes_max);
        (outbound, Self { inbox })
    }

    /// Waits for what is sent, and takes all of it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn take(&mut self) -> Vec<Delivery> {
        let Ok(items) = poll_fn(|context| self.inbox.poll_take(context)).await else {
            return vec![Delivery::Event(Event::Close(CloseReason::SlowReader))];
        };
        let mut deliveries = Vec::with_capacity(items.len() + 1);
        let replied = self.inbox.take_replied();
        if replied > 0 {
            deliveries.push(Delivery::Event(Event::Replied(replied)));
        }
        deliveries.extend(items.into_iter().map(|item| match item {
            Item::Push(unit) | Item::Run(unit, _) => Delivery::Unit(unit),
            Item::Reply(request, reply) => Delivery::Event(Event::Reply { request, reply }),
            Item::Probe => Delivery::Event(Event::Probe),
            Item::Alarm => Delivery::Event(Event::Timeout),
            Item::Kick(reason) => Delivery::Event(Event::Kick { reason }),
            Item::Close(reason) => Delivery::Event(Event::Close(reason)),
        }));
        self.inbox.written();
        deliveries
    }
}
