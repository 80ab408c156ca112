//! What the two ends of a room say to each other.
//!
//! Every message travels with the shard and the term it was meant for; a receiver drops what
//! carries another term. The stream between two processes keeps order, and both ends rely on it.

use std::sync::Arc;

use model::{
    Code, Content, MemberId, MessageId, Outcome, Position, ResumeKey, RoomId, SendNumber,
    SessionId, Shard, Target, Term, UserName,
};

/// A message with the ownership it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// The shard.
    pub shard: Shard,
    /// The ownership of the shard that the sender believes in.
    pub term: Term,
    /// What is said.
    pub message: M,
}

/// What a connector says to the owner of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToOwner {
    /// One room as this connector knows it; sent for each of its rooms before [`Self::Attached`].
    State(RoomState),
    /// All states of this shard were sent: answer with what is missing, then [`ToRelay::Opened`].
    Attached {
        /// How many states. The receiver may have become the owner between two of them.
        rooms: usize,
        /// Whether the last owner could be heard until it lost the shard, or no owner ever was. If
        /// not, somebody else may have heard more from it.
        in_step: bool,
        /// Whether a connector has gone since shortly before an owner was last heard here. It may
        /// have been that somebody.
        departed: bool,
    },
    /// A session wants to be a member.
    Join {
        /// The room.
        room: RoomId,
        /// The session on this connector.
        session: SessionId,
        /// The name it wants, unique in the room.
        user: UserName,
        /// For clients that can come back.
        ticket: Option<Ticket>,
    },
    /// A session is no member any more.
    Leave {
        /// The room.
        room: RoomId,
        /// The session on this connector.
        session: SessionId,
    },
    /// A session that wants to be a member does not wait for that any longer, and may ask again.
    /// Answered by [`ToRelay::Withdrawn`].
    Withdraw {
        /// The room.
        room: RoomId,
        /// The session on this connector.
        session: SessionId,
    },
    /// A member that was asked by [`ToRelay::Probe`] lives.
    Alive {
        /// The room.
        room: RoomId,
        /// The session on this connector.
        session: SessionId,
    },
    /// A member says something.
    Say {
        /// The room.
        room: RoomId,
        /// The session on this connector.
        session: SessionId,
        /// The send's number in its session; one number is applied once.
        number: SendNumber,
        /// For whom it is.
        target: Target,
        /// What is said.
        content: Content,
        /// The client's own name for it; one name of one user is applied once.
        id: Option<MessageId>,
    },
}

/// How a session that wants in can come back later, or comes back now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// By what it will be known. Who comes back keeps its key.
    pub key: ResumeKey,
    /// What it has seen, if it comes back.
    pub seen: Option<Position>,
}

/// What the owner of a shard says to a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToRelay {
    /// Everything that was missing has been sent; joins and sends may follow.
    Opened,
    /// The receiver of the frame does not own the shard at that term (yet, or any more).
    NotOwner,
    /// The room as it stands; replaces what the relay knew.
    Snapshot(Snapshot),
    /// The next event of the room.
    Event {
        /// The room.
        room: RoomId,
        /// The event.
        event: Arc<Event>,
    },
    /// What an entrant with a ticket is told; the event that makes it a member follows.
    Welcome {
        /// The room.
        room: RoomId,
        /// The session that asked.
        session: SessionId,
        /// What it is told.
        welcome: Welcome,
    },
    /// A send had a position already, under its message id.
    Repeated {
        /// The room.
        room: RoomId,
        /// The session that asked.
        session: SessionId,
        /// Which send.
        number: SendNumber,
        /// Where it stands.
        position: Position,
    },
    /// Somebody wants the name of this member: does its client live? Answered by
    /// [`ToOwner::Alive`], or by nothing.
    Probe {
        /// The room.
        room: RoomId,
        /// The session that is asked.
        session: SessionId,
    },
    /// The name that a session wants is taken, and its member is asked whether it lives.
    Probing {
        /// The room.
        room: RoomId,
        /// The session that wants it.
        session: SessionId,
    },
    /// A session does not want to be a member, and is none: what it asked before is settled.
    Withdrawn {
        /// The room.
        room: RoomId,
        /// The session.
        session: SessionId,
    },
    /// A join was refused.
    JoinRefused {
        /// The room.
        room: RoomId,
        /// The session that asked.
        session: SessionId,
        /// Why.
        code: Code,
    },
    /// A send was refused; it has no position and never will.
    SayRefused {
        /// The room.
        room: RoomId,
        /// The session that asked.
        session: SessionId,
        /// Which send.
        number: SendNumber,
        /// Why.
        code: Code,
    },
}

/// What an entrant with a ticket is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What became of it.
    pub outcome: Outcome,
    /// Its stay in the room.
    pub stay: Stay,
    /// What it missed, or what was said last.
    pub events: Vec<Arc<Event>>,
}

/// A membership that can be taken up again by another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Who has it may.
    pub key: ResumeKey,
    /// The number of the event by which it began. Nothing before it may be told to who comes back:
    /// the name may have been another's.
    pub since: u64,
}

/// One connector's view of a room: what a new owner rebuilds the room from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomState {
    /// The room.
    pub room: RoomId,
    /// The last event it saw; the default position if it never saw the room.
    pub position: Position,
    /// This connector's own sessions that were told that they are members.
    pub own: Vec<OwnMember>,
    /// Its sessions that wait to be told. An owner may have made them members already.
    pub entering: Vec<SessionId>,
    /// All members it knows, its own included, in the room's order.
    pub members: Vec<Member>,
    /// The recent events it saw, without a gap, ending at `position`.
    pub tail: Vec<Arc<Event>>,
}

/// A session of the connector that speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMember {
    /// The session.
    pub session: SessionId,
    /// The highest number of its sends that the owner has applied, as far as this end knows.
    pub applied: SendNumber,
    /// For clients that can come back. Only what connectors say has it.
    pub stay: Option<Stay>,
}

/// A member and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which session of which connector.
    pub id: MemberId,
    /// Its name in the room.
    pub user: UserName,
}

/// A room at one position, for a connector that cannot be brought there event by event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The room.
    pub room: RoomId,
    /// The last event that it contains.
    pub position: Position,
    /// All members, in the room's order.
    pub members: Vec<Member>,
    /// For the receiver's own members: the highest number of their sends that is applied.
    pub applied: Vec<OwnMember>,
    /// The last events before and at `position`, as many as are at hand within some bounds. The
    /// receiver shows them to nobody: they are for connectors that have missed them, should the
    /// owner die now.
    pub tail: Vec<Arc<Event>>,
}

/// Something that happened in a room, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where in the room's order.
    pub position: Position,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A member came.
    Joined(Member),
    /// A member went.
    Left(Member),
    /// A member was put out: its name goes to another session.
    Replaced(Member),
    /// A member has one more session. Nobody is told.
    SessionJoined(Member),
    /// A session of a member went that has others. Nobody is told.
    SessionLeft(Member),
    /// A member is another session now: its client came back. Nobody is told.
    Moved {
        /// The session that it was.
        from: MemberId,
        /// The one that it is.
        to: Box<Member>,
    },
    /// A member said something to everyone.
    Said(Box<Spoken>),
    /// A member said something to one member. All connectors with members in the room get it, or it
    /// would be lost with those whom it concerns; each shows it to nobody else.
    Whispered(Box<Whisper>),
    /// A whisper of which this node knows no more. Owners of a version before say it to connectors
    /// that have nobody whom it concerns.
    Hidden,
}

// What is seldom and what is large is boxed: of idle members, who are millions, the recent events
// are their joins.
const _: () = assert!(size_of::<Event>() <= 56);

/// What a member said, to everyone or to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Who.
    pub from: Member,
    /// Which of its sends.
    pub number: SendNumber,
    /// What receivers are told as the target; of a whisper, the name of its receiver.
    pub shown: Content,
    /// What was said.
    pub content: Content,
    /// The client's own name for it.
    pub id: Option<MessageId>,
}

/// What a member said to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whisper {
    /// What was said.
    pub spoken: Spoken,
    /// To whom.
    pub to: Member,
    /// Its other sessions.
    pub also: Box<[MemberId]>,
}

impl Spoken {
    /// Bytes of all texts in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shown.len() + self.content.len()
    }
}

impl Whisper {
    /// All sessions that hear it.
    pub fn receivers(&self) -> impl Iterator<Item = MemberId> {
        [self.to.id].into_iter().chain(self.also.iter().copied())
    }
}

impl Body {
    /// What was said, if that is what happened.
    #[must_use]
    pub fn spoken(&self) -> Option<&Spoken> {
        match self {
            Self::Said(spoken) => Some(spoken),
            Self::Whispered(whisper) => Some(&whisper.spoken),
            Self::Joined(_)
            | Self::Left(_)
            | Self::Replaced(_)
            | Self::SessionJoined(_)
            | Self::SessionLeft(_)
            | Self::Moved { .. }
            | Self::Hidden => None,
        }
    }
}

impl Event {
    /// Whether it is the business of a client of this name that came back: what it missed. Whispers
    /// are so up to the number `until`, and its own coming and going is not.
    #[must_use]
    pub fn is_for(&self, user: &UserName, until: u64) -> bool {
        match &self.body {
            Body::Joined(member) | Body::Left(member) | Body::Replaced(member) => {
                member.user != *user
            }
            Body::Said(_) => true,
            Body::Whispered(whisper) => whisper.to.user == *user && self.position.seq <= until,
            Body::SessionJoined(_) | Body::SessionLeft(_) | Body::Moved { .. } | Body::Hidden => {
                false
            }
        }
    }

    /// The name that its sender gave it, and the sender's.
    #[must_use]
    pub fn message_id(&self) -> Option<(&UserName, &MessageId)> {
        let Spoken { from, id, .. } = self.body.spoken()?;
        Some((&from.user, id.as_ref()?))
    }

    /// The send that this event is the result of.
    #[must_use]
    pub fn send(&self) -> Option<(MemberId, SendNumber)> {
        self.body.spoken().map(|it| (it.from.id, it.number))
    }

    /// Roughly how many bytes it keeps alive.
    #[must_use]
    pub fn weight(&self) -> usize {
        let spoken = self.body.spoken().map_or(0, |it| it.bytes() + size_of::<Spoken>());
        spoken + size_of::<Self>()
    }
}
