//! What can happen in a run, and to whom.

use model::{Incarnation, Position, SessionId, Shard, Time};
use room::{
    OwnerEvent, RelayEvent,
    message::{Frame, ToOwner, ToRelay},
};

use super::{clients::Action, clock::Clock, plan::Planned};

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
    /// A connector learns that a client's connection is lost.
    Noticed {
        connector: usize,
        life: Incarnation,
        session: SessionId,
        room: usize,
    },
    /// A client whose connection was lost tries to come back, if its log is still this one.
    ComesBack {
        client: usize,
        log: usize,
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
    /// A frame is sent once more.
    Again {
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
    /// The registry looks once more for a life that it missed when it came back.
    Missed(Incarnation),
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
    /// A stream of which one direction carried nothing breaks.
    Broken(u64),
    Fault(Planned),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Connector(usize),
    Chat(usize),
}

/// A place for a node, filled by one life after the other.
#[derive(Debug)]
pub(super) struct Slot<M> {
    pub(super) life: Incarnation,
    pub(super) alive: bool,
    pub(super) paused_until: Time,
    pub(super) clock: Clock,
    /// When it is to be woken, by its own clock.
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

impl Item {
    /// What the item is, as numbers: cheap to hash, and different for most that differ.
    pub(super) fn fingerprint(&self) -> [u64; 3] {
        match self {
            Self::Acts(client) => [1, *client as u64, 0],
            Self::Does { connector, session, action, .. } => {
                let said = if let Action::Say { number, .. } = action { number.0 } else { 0 };
                [2 + ((*connector as u64) << 8), session.0, said]
            }
            Self::Relay { connector, life, event } => {
                if let RelayEvent::Owner { shard, owner, term } = event {
                    let owner = owner.map_or(0, |owner| owner.0);
                    [3 + ((shard.index() as u64) << 8), owner, term.0]
                } else {
                    [4, *connector as u64, life.0]
                }
            }
            Self::Dialled(stream) => [5, *stream, 0],
            Self::LinkUp(stream) => [6, *stream, 0],
            Self::ChatLinkDown(stream) => [7, *stream, 0],
            Self::LinkDown(stream) => [8, *stream, 0],
            Self::Up { stream, frame } => {
                let (session, number) = match &frame.message {
                    ToOwner::Say { session, number, .. } => (session.0, number.0),
                    ToOwner::Join { session, .. }
                    | ToOwner::Leave { session, .. }
                    | ToOwner::Withdraw { session, .. }
                    | ToOwner::Alive { session, .. } => (session.0, 0),
                    ToOwner::State(state) => (state.position.generation.0, state.position.seq),
                    ToOwner::Attached { rooms, .. } => (*rooms as u64, 0),
                };
                [9 + (*stream << 8), session, number]
            }
            Self::Down { stream, frame } => {
                let position = if let ToRelay::Event { event, .. } = &frame.message {
                    event.position
                } else {
                    Position::default()
                };
                [10 + (*stream << 8), position.generation.0, position.seq]
            }
            Self::Owner { chat, life, .. } => [11, *chat as u64, life.0],
            Self::Dial { connector, chat } => [12, *connector as u64, *chat as u64],
            Self::Gone(life) => [13, life.0, 0],
            Self::Missed(life) => [14, life.0, 0],
            Self::GivenUp { life, .. } => [15, life.0, 0],
            Self::Claim(shard) => [16, shard.index() as u64, 0],
            Self::Start(node) => [17, node.number(), 0],
            Self::Stalled { life, .. } => [18, life.0, 0],
            Self::Broken(stream) => [19, *stream, 0],
            Self::Again { stream, .. } => [21, *stream, 0],
            Self::Fault(fault) => [20, fault.kind as u64, 0],
            Self::Noticed { connector, session, .. } => [22, *connector as u64, session.0],
            Self::ComesBack { client, log } => [23, *client as u64, *log as u64],
        }
    }
}

impl Node {
    fn number(self) -> u64 {
        match self {
            Self::Connector(n) => n as u64,
            Self::Chat(n) => 1000 + n as u64,
        }
    }
}

impl<M> Slot<M> {
    /// Fills the place with a new life.
    pub(super) fn begin(&mut self, life: Incarnation, clock: Clock, machine: M) {
        *self = Self { life, alive: true, clock, ..Self::new(machine) };
    }

    pub(super) fn new(machine: M) -> Self {
        let life = Incarnation(0);
        let (paused_until, clock) = (Time::ZERO, Clock::TRUE);
        Self { life, alive: false, paused_until, clock, timer: None, machine }
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
