//! What can happen in a run, and to whom.

use model::{Incarnation, SessionId, Shard, Time};
use room::{
    OwnerEvent, RelayEvent,
    message::{Frame, ToOwner, ToRelay},
};

use super::clients::Action;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Item {
    /// A client does something, if it is time for that.
    Acts(usize),
    /// Its action arrives at its connector.
    Does {
        connector: usize,
        life: Incarnation,
        session: SessionId,
        room: usize,
        action: Action,
    },
    /// Something for a connector's rooms.
    Relay {
        connector: usize,
        life: Incarnation,
        event: RelayEvent,
    },
    /// A stream reaches a chat.
    Dialled(u64),
    /// The chat's answer reaches the connector.
    LinkUp(u64),
    /// A chat notices that a stream is gone.
    ChatLinkDown(u64),
    /// A connector notices that a stream is gone.
    LinkDown(u64),
    /// A frame arrives at a chat.
    Up {
        stream: u64,
        frame: Frame<ToOwner>,
    },
    /// A frame arrives at a connector.
    Down {
        stream: u64,
        frame: Frame<ToRelay>,
    },
    /// The registry tells a chat something.
    Owner {
        chat: usize,
        life: Incarnation,
        event: OwnerEvent,
    },
    /// A connector tries to reach a chat.
    Dial {
        connector: usize,
        chat: usize,
    },
    /// The registry notices that a life of a node has ended.
    Gone(Incarnation),
    /// A node is told that the registry gave it up.
    GivenUp {
        node: Node,
        life: Incarnation,
    },
    /// A free shard is claimed.
    Claim(Shard),
    /// A node begins a new life.
    Start(Node),
    /// Streams of a node that stands still break.
    Stalled {
        node: Node,
        life: Incarnation,
    },
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Connector(usize),
    Chat(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    ChatKilled,
    ConnectorKilled,
    LinkCut,
    Paused,
    Moved,
}

/// A place for a node, filled by one life after the other.
#[derive(Debug)]
pub(super) struct Slot<M> {
    pub(super) life: Incarnation,
    pub(super) alive: bool,
    pub(super) paused_until: Time,
    pub(super) timer: Option<Time>,
    pub(super) machine: M,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) connector: usize,
    pub(super) connector_life: Incarnation,
    pub(super) chat: usize,
    pub(super) chat_life: Incarnation,
    pub(super) open: bool,
    /// Whether the connector knows that it is not; only then does it dial again.
    pub(super) mourned: bool,
}

impl<M> Slot<M> {
    /// Fills the place with a new life.
    pub(super) fn begin(&mut self, life: Incarnation, machine: M) {
        *self = Self { life, alive: true, ..Self::new(machine) };
    }

    pub(super) fn new(machine: M) -> Self {
        let life = Incarnation(0);
        Self { life, alive: false, paused_until: Time::ZERO, timer: None, machine }
    }

    /// Whether a timer must be set for `at`; notes that it is.
    pub(super) fn wants_timer(&mut self, at: Time) -> bool {
        let sooner = self.timer.is_none_or(|timer| at < timer);
        if sooner {
            self.timer = Some(at);
        }
        sooner
    }
}
