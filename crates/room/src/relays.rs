//! [`Relays`], a connector's end of all rooms of some shards: follows the map, attaches to owners.

mod clock;
mod frame;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    Code, Content, Incarnation, MessageId, Position, RoomId, SendNumber, SessionId, Shard, Target,
    Term, Time, UserName, limits,
};

use crate::{
    message::{Frame, Ticket, ToOwner, ToRelay, Welcome},
    relay::{Push, Relay},
    room::Saying,
};

/// What happens to a connector's end.
#[derive(Clone, Debug)]
pub enum Event {
    /// The map says who owns a shard. Older news than known is ignored.
    Owner {
        /// The shard.
        shard: Shard,
        /// Its owner; none while it is free.
        owner: Option<Incarnation>,
        /// The term of that ownership, or of the last one.
        term: Term,
    },
    /// The stream to a chat node is open.
    LinkUp(Incarnation),
    /// The stream to a chat node is gone; nothing more comes from it.
    LinkDown(Incarnation),
    /// A chat node says something.
    Frame {
        /// Which.
        from: Incarnation,
        /// What.
        frame: Frame<ToRelay>,
    },
    /// A session wants in. Answered by [`Effect::Entered`] or [`Effect::EnterRefused`].
    Enter {
        /// The room's shard.
        shard: Shard,
        /// The room.
        room: RoomId,
        /// The session.
        session: SessionId,
        /// The name it wants.
        user: UserName,
        /// For clients that can come back.
        ticket: Option<Ticket>,
    },
    /// A session says something. Answered by [`Effect::Said`], by an [`Effect::Push`] that is
    /// `answered`, or by [`Effect::SayRefused`].
    Say {
        /// The room's shard.
        shard: Shard,
        /// The room it entered.
        room: RoomId,
        /// The session.
        session: SessionId,
        /// The number of the send in its session, growing.
        number: SendNumber,
        /// For whom.
        target: Target,
        /// What.
        content: Content,
        /// The client's own name for it.
        id: Option<MessageId>,
    },
    /// The client of a session that [`Effect::Probe`] asked about lives.
    Alive {
        /// The room's shard.
        shard: Shard,
        /// The room it entered.
        room: RoomId,
        /// The session.
        session: SessionId,
    },
    /// A session is gone.
    Leave {
        /// The room's shard.
        shard: Shard,
        /// The room it entered.
        room: RoomId,
        /// The session.
        session: SessionId,
        /// Whether its connection was lost, so that its client may come back.
        lost: bool,
    },
    /// The map says that another connector is gone. Told before the news of owners that it came
    /// with.
    ConnectorGone,
    /// The time given by [`Relays::poll_timeout`] has come.
    Timeout,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame over the stream to a chat node.
    Frame {
        /// Which node.
        to: Incarnation,
        /// What.
        frame: Frame<ToOwner>,
    },
    /// Cut the stream to a chat node and open it again: something was lost on it.
    CutLink(Incarnation),
    /// Tell a client that it is in, with everybody in the room.
    Entered {
        /// The session.
        session: SessionId,
        /// Names in the room's order, its own included.
        users: Vec<UserName>,
        /// Up to where that is so.
        position: Position,
        /// What else it is told, if it can come back.
        welcome: Option<Welcome>,
    },
    /// Tell a client that it is not in.
    EnterRefused {
        /// The session.
        session: SessionId,
        /// Why.
        code: Code,
    },
    /// Tell a client that its send has a position.
    Said {
        /// The session.
        session: SessionId,
        /// Which send.
        number: SendNumber,
        /// Where it stands.
        position: Position,
    },
    /// Tell a client that its send failed.
    SayRefused {
        /// The session.
        session: SessionId,
        /// Which send.
        number: SendNumber,
        /// Why.
        code: Code,
    },
    /// Tell members something.
    Push {
        /// Of which room.
        room: RoomId,
        /// Whom.
        sessions: Arc<[SessionId]>,
        /// Who of them is not told.
        except: Option<SessionId>,
        /// What.
        push: Push,
        /// Where it stands.
        position: Position,
        /// The send of one of them that is thereby applied: its client gets its answer right
        /// before or after the push, as its dialect wants.
        answered: Option<(SessionId, SendNumber)>,
    },
    /// Close a session that lost its place in the room.
    Expel {
        /// The session.
        session: SessionId,
    },
    /// Close a session whose client came back as another.
    Supersede {
        /// The session.
        session: SessionId,
    },
    /// Close a session whose name another has now.
    Replace {
        /// The session.
        session: SessionId,
    },
    /// Find out whether the client of a session lives. If so, [`Event::Alive`] says it.
    Probe {
        /// The session.
        session: SessionId,
    },
    /// A frame of another term, or from a node that is not the owner, was dropped.
    StaleFrame {
        /// The shard.
        shard: Shard,
        /// Who sent it.
        from: Incarnation,
        /// The term it carried.
        term: Term,
    },
    /// The shard's owner has brought every room here up to date.
    Attached {
        /// The shard.
        shard: Shard,
        /// The owner.
        owner: Incarnation,
        /// Its term.
        term: Term,
    },
}

/// A connector's end of all rooms of the shards that one worker drives.
#[derive(Debug)]
pub struct Relays {
    me: Incarnation,
    linked: BTreeSet<Incarnation>,
    shards: BTreeMap<Shard, Group>,
    /// Relays without sessions, and when each may go.
    idle: BTreeSet<(Time, Shard, RoomId)>,
    /// Sessions whose connections are lost, or that wait for a name, and how long each may.
    expiring: BTreeSet<(Time, Shard, RoomId, SessionId)>,
    /// Rooms of too many members to tell each join and leave, and when each is to be told how many
    /// there are.
    crowds: BTreeSet<(Time, Shard, RoomId)>,
    /// When another connector was last seen to go.
    departed: Option<Time>,
    /// No group's deadline is before this; checked only when it comes.
    timeout: Option<Time>,
}

/// The relays of one shard.
#[derive(Debug, Default)]
struct Group {
    owner: Option<Incarnation>,
    term: Term,
    state: State,
    rooms: BTreeMap<RoomId, Relay>,
    /// Whether an owner could not be heard any more before it lost the shard.
    cut_off: bool,
    /// When an owner was last in step with this end, if it is not now; none if that never was.
    heard: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody to talk to; waits for the map, for a link, or for `retry`. What waits for an answer
    /// is given up at `give_up`.
    #[default]
    Idle,
    Detached {
        retry: Option<Time>,
        give_up: Time,
    },
    /// States are sent; waits for the owner to open.
    Attaching {
        give_up: Time,
    },
    /// In step with the owner.
    Attached,
}

impl Relays {
    /// A connector's end without rooms; `me` is the connector's incarnation.
    #[must_use]
    pub fn new(me: Incarnation) -> Self {
        Self {
            me,
            linked: BTreeSet::new(),
            shards: BTreeMap::new(),
            idle: BTreeSet::new(),
            expiring: BTreeSet::new(),
            crowds: BTreeSet::new(),
            departed: None,
            timeout: None,
        }
    }

    /// How many rooms have members here.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.shards.values().map(|group| group.rooms.len()).sum()
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timeout
    }

    /// Takes one event; appends what must be done.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Owner { shard, owner, term } => self.owner(now, shard, owner, term, out),
            Event::LinkUp(peer) => self.link_up(now, peer, out),
            Event::LinkDown(peer) => self.link_down(now, peer),
            Event::Frame { from, frame } => self.frame(now, from, frame, out),
            Event::Enter { shard, room, session, user, ticket } => {
                let me = self.me;
                let group = self.group(now, shard);
                let attached = group.state == State::Attached;
                let relay = group.rooms.entry(room.clone());
                let relay = relay.or_insert_with(|| Relay::new(me, room));
                let join = relay.enter(session, user, ticket, attached);
                self.send(shard, join, out);
            }
            Event::Say { shard, room, session, number, target, content, id } => {
                let relay = self.group(now, shard).rooms.get_mut(&room);
                let saying = Saying { number, target, content, id };
                let said =
                    relay.ok_or(Code::Unauthorized).and_then(|relay| relay.say(session, saying));
                match said {
                    Ok(say) => self.send(shard, say, out),
                    Err(code) => out.push(Effect::SayRefused { session, number, code }),
                }
            }
            Event::Alive { shard, room, session } => {
                let alive = self.with(now, shard, &room, |relay| relay.alive(session)).flatten();
                if let Some(alive) = alive {
                    self.send(shard, alive, out);
                }
            }
            Event::Leave { shard, room, session, lost } => {
                let until = |relay: &mut Relay| lost.then(|| relay.lose(now, session)).flatten();
                match self.with(now, shard, &room, until).flatten() {
                    Some(until) => self.expire_at(until, shard, room, session),
                    None => self.leave(now, shard, &room, session, out),
                }
            }
            Event::ConnectorGone => self.departed = Some(now),
            Event::Timeout => self.timed_out(now, out),
        }
    }

    /// Notes that a session's time ends then, unless something else happens to it.
    fn expire_at(&mut self, until: Time, shard: Shard, room: RoomId, session: SessionId) {
        self.expiring.insert((until, shard, room, session));
        wake_at(&mut self.timeout, until);
    }

    /// Notes that a room is to be told then how many members it has.
    fn count_at(&mut self, due: Time, shard: Shard, room: RoomId) {
        self.crowds.insert((due, shard, room));
        wake_at(&mut self.timeout, due);
    }

    fn leave(
        &mut self,
        now: Time,
        shard: Shard,
        room: &RoomId,
        session: SessionId,
        out: &mut Vec<Effect>,
    ) {
        let attaching = self.is_attaching(shard);
        let leave = self.with(now, shard, room, |relay| relay.leave(session, attaching)).flatten();
        if let Some(leave) = leave {
            self.send(shard, leave, out);
        }
    }

    fn is_attaching(&self, shard: Shard) -> bool {
        let group = self.shards.get(&shard);
        group.is_some_and(|group| matches!(group.state, State::Attaching { .. }))
    }

    fn group(&mut self, now: Time, shard: Shard) -> &mut Group {
        let group = self.shards.entry(shard).or_default();
        if group.state == State::Idle {
            group.state = State::Detached { retry: None, give_up: now + limits::OWNER_TIMEOUT };
            wake_at(&mut self.timeout, now + limits::OWNER_TIMEOUT);
        }
        group
    }

    fn owner(
        &mut self,
        now: Time,
        shard: Shard,
        owner: Option<Incarnation>,
        term: Term,
        out: &mut Vec<Effect>,
    ) {
        let group = self.group(now, shard);
        let same = group.owner == owner && group.term == term;
        if same || term < group.term {
            return;
        }
        if group.owner.is_some() {
            // Where nobody was ever in step nobody has been heard: there is nothing of a room here
            // that could lack something.
            group.cut_off = group.state != State::Attached && group.heard.is_some();
        }
        group.owner = owner;
        group.term = term;
        self.detach(now, shard, None);
        self.attach(now, shard, out);
    }

    fn link_up(&mut self, now: Time, peer: Incarnation, out: &mut Vec<Effect>) {
        self.linked.insert(peer);
        for shard in self.owned_by(peer) {
            self.attach(now, shard, out);
        }
    }

    fn link_down(&mut self, now: Time, peer: Incarnation) {
        self.linked.remove(&peer);
        for shard in self.owned_by(peer) {
            self.detach(now, shard, None);
        }
    }

    fn owned_by(&self, peer: Incarnation) -> Vec<Shard> {
        let owned = self.shards.iter().filter(|(_, group)| group.owner == Some(peer));
        owned.map(|(shard, _)| *shard).collect()
    }

    /// Stops talking to the owner; keeps the moment since when nobody answers.
    fn detach(&mut self, now: Time, shard: Shard, retry: Option<Time>) {
        let Some(group) = self.shards.get_mut(&shard) else {
            return;
        };
        if group.state == State::Attached {
            group.heard = Some(now);
        }
        let give_up = match group.state {
            State::Detached { give_up, .. } | State::Attaching { give_up } => give_up,
            State::Idle | State::Attached => now + limits::OWNER_TIMEOUT,
        };
        group.state = State::Detached { retry, give_up };
        wake_at(&mut self.timeout, give_up);
        if let Some(retry) = retry {
            wake_at(&mut self.timeout, retry);
        }
    }

    /// Sends all that is known of the shard to its owner, if there is a way to it.
    fn attach(&mut self, now: Time, shard: Shard, out: &mut Vec<Effect>) {
        let Some(group) = self.shards.get_mut(&shard) else {
            return;
        };
        let Some(owner) = group.owner.filter(|owner| self.linked.contains(owner)) else {
            return;
        };
        let give_up = match group.state {
            State::Detached { give_up, .. } => give_up,
            State::Idle => now + limits::OWNER_TIMEOUT,
            State::Attaching { .. } | State::Attached => return,
        };
        group.state = State::Attaching { give_up };
        let term = group.term;
        let rooms = group.rooms.len();
        let states = group.rooms.values_mut().map(|relay| ToOwner::State(relay.state()));
        let in_step = !group.cut_off;
        let times = group.heard.zip(self.departed);
        let departed = times.is_some_and(|(heard, at)| heard < at + limits::DEPARTURE_DOUBT);
        for message in states.chain([ToOwner::Attached { rooms, in_step, departed }]) {
            out.push(Effect::Frame { to: owner, frame: Frame { shard, term, message } });
        }
    }

    /// Lets a room's relay act; one without sessions goes after a while.
    fn with<T>(
        &mut self,
        now: Time,
        shard: Shard,
        room: &RoomId,
        act: impl FnOnce(&mut Relay) -> T,
    ) -> Option<T> {
        let relay = self.shards.get_mut(&shard)?.rooms.get_mut(room)?;
        let result = act(relay);
        if let Some(at) = relay.check_idle(now) {
            self.idle.insert((at, shard, room.clone()));
            wake_at(&mut self.timeout, at);
        }
        Some(result)
    }

    /// Sends to the owner if the shard is attached. If it is not, the relay's state carries it.
    fn send(&mut self, shard: Shard, message: ToOwner, out: &mut Vec<Effect>) {
        if let Some(group) = self.shards.get(&shard)
            && group.state == State::Attached
            && let Some(to) = group.owner
        {
            out.push(Effect::Frame { to, frame: Frame { shard, term: group.term, message } });
        }
    }
}

/// Moves a wake-up time forward to `at` if that is earlier.
pub(crate) fn wake_at(timeout: &mut Option<Time>, at: Time) {
    *timeout = Some(timeout.map_or(at, |known| known.min(at)));
}
