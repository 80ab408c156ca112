//! A fixed set of tasks, each of which drives the relays of its shards.
//!
//! A shard belongs to one worker for the life of the process, so that relays need no lock. Effects
//! are applied in order before the next event; a worker never waits for a peer or a client.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use daemon::{Alarm, Tasks};
use frontend::{Outbound, Writes};
use metrics::{Counter, counter, gauge};
use model::{
    Content, Incarnation, MessageId, NodeId, Outcome, RoomId, SendNumber, SessionId, Shard, Target,
    Time, UserName,
};
use room::{
    RelayEffect, RelayEvent, Relays,
    message::{Frame, Ticket, ToOwner, ToRelay},
};
use rpc::link::Sender;
use session::{CloseReason, RequestKey};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use wire::{Dialect, pomelo::Options};

use crate::hub::{Hub, Told};

/// Events taken from the queue at once.
const BATCH: usize = 256;
/// After so many deliveries in a row, some milliseconds of system calls, those who read from
/// sockets and links get a turn before the next.
const BUSY_DELIVERIES: usize = 512;
/// So many turns others get between two pieces of a walk. A message passes several tasks of this
/// process: from a client's session to a worker to a link, and from a link's connection to its
/// stream to a worker. With one turn it would wait for a piece at each of these steps.
const WALK_TURNS: usize = 3;
/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);

/// A room and its shard, worked out once per session.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) shard: Shard,
    pub(crate) room: RoomId,
}

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something for the relays.
    Room(RelayEvent),
    /// A stream to a chat is open.
    LinkUp { peer: Incarnation, name: NodeId, sender: Sender<ToOwner>, cut: CancellationToken },
    /// A batch from a chat, only frames of this worker's shards.
    Frames { from: Incarnation, frames: Vec<Frame<ToRelay>> },
    /// A client wants in.
    Enter {
        place: Place,
        session: SessionId,
        user: UserName,
        ticket: Option<Ticket>,
        key: RequestKey,
        dialect: Dialect,
        outbound: Outbound,
    },
    /// A client says something.
    Say {
        place: Place,
        session: SessionId,
        number: SendNumber,
        target: Target,
        content: Content,
        id: Option<MessageId>,
        key: RequestKey,
    },
    /// A client lives, about which a room had asked.
    Alive { place: Place, session: SessionId },
    /// A client is gone; `lost` says that it may not have meant to.
    Leave { place: Place, session: SessionId, lost: bool },
}

/// Queues into all workers.
pub(crate) type Workers = daemon::Workers<Input>;

/// Starts `count` workers for this life of the node. They write through io_uring if `together`.
pub(crate) fn start(
    count: usize,
    me: Incarnation,
    options: &Arc<Options>,
    together: bool,
    tasks: &Tasks,
) -> Workers {
    Workers::start(count, tasks, |number, inputs| {
        let hub = Hub::new(Arc::clone(options), Writes::new(together));
        Worker::new(number, me, hub).run(inputs, tasks.token())
    })
}

/// This end of a stream to a chat.
struct Link {
    name: NodeId,
    sender: Sender<ToOwner>,
    cut: CancellationToken,
}

struct Worker {
    number: usize,
    me: Incarnation,
    relays: Relays,
    hub: Hub,
    links: BTreeMap<Incarnation, Link>,
    effects: Vec<RelayEffect>,
    meters: Meters,
    start: Instant,
}

/// Handles to what is counted for every frame, so that no name is looked up there.
struct Meters {
    frames_in: Counter,
    frames_out: Counter,
    deliveries: Counter,
    /// For how long workers stood still, since they were behind.
    stood: Counter,
}

impl Meters {
    fn new() -> Self {
        Self {
            frames_in: counter!("tangelo_connector_frames_in_total"),
            frames_out: counter!("tangelo_connector_frames_out_total"),
            deliveries: counter!("tangelo_connector_deliveries_total"),
            stood: counter!("tangelo_connector_stood_still_microseconds_total"),
        }
    }
}

impl Worker {
    fn new(number: usize, me: Incarnation, hub: Hub) -> Self {
        Self {
            number,
            me,
            relays: Relays::new(me),
            hub,
            links: BTreeMap::new(),
            effects: Vec::new(),
            meters: Meters::new(),
            start: Instant::now(),
        }
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, token: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut gauges = tokio::time::interval(GAUGES);
        let mut alarm = Alarm::default();
        let mut walk = Alarm::default();
        let mut ends = pin!(token.cancelled());
        // How many turns others get before the next is told.
        let (mut turns, mut walk_due) = (0, None);
        loop {
            let moment = |at: Time| self.start + at.since_start();
            let timeout = self.relays.poll_timeout().map(moment);
            tokio::select! {
                taken = inputs.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return self.hub.finish();
                    }
                    for input in batch.drain(..) {
                        self.take(input);
                    }
                }
                () = alarm.rings(timeout) => self.handle(RelayEvent::Timeout),
                _ = gauges.tick() => self.gauges(),
                () = walk.rings(walk_due.map(moment)) => {}
                () = &mut ends => return self.hub.finish(),
            }
            if turns > 0 {
                // Other processes, too, and what all of them bring is told with the rest.
                std::thread::yield_now();
            }
            let mut left = BATCH;
            for _ in 0..turns {
                tokio::task::yield_now().await;
                while left > 0
                    && let Ok(input) = inputs.try_recv()
                {
                    self.take(input);
                    left -= 1;
                }
            }
            // What has arrived is told together, at once: nothing waits for company. A large room is
            // told in pieces, with the others' turns between them.
            let began = Instant::now();
            let told = self.flush();
            let stand = told.stand(began.elapsed());
            walk_due = self.hub.walk_due();
            let is_walking = walk_due.is_some_and(|due| due <= self.now());
            let is_busy = told.deliveries >= BUSY_DELIVERIES;
            turns = if is_walking { WALK_TURNS } else { usize::from(is_busy) };
            if is_walking {
                // Now, too: chats, other connectors and the kernel's own tasks would wait for the
                // rest of this thread's slice.
                std::thread::yield_now();
            } else if is_busy && !stand.is_zero() {
                // The thread itself: were it to read on meanwhile, each message would wake it, and
                // then its chat.
                std::thread::sleep(stand);
                self.meters.stood.increment(stand.as_micros() as u64);
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Room(event) => {
                if let RelayEvent::LinkDown(peer) = event {
                    self.links.remove(&peer);
                }
                self.handle(event);
            }
            Input::LinkUp { peer, name, sender, cut } => {
                self.links.insert(peer, Link { name, sender, cut });
                self.handle(RelayEvent::LinkUp(peer));
            }
            Input::Frames { from, frames } => {
                self.meters.frames_in.increment(frames.len() as u64);
                for frame in frames {
                    self.log_in(from, &frame);
                    self.handle(RelayEvent::Frame { from, frame });
                }
            }
            Input::Enter {
                place: Place { shard, room },
                session,
                user,
                ticket,
                key,
                dialect,
                outbound,
            } => {
                tracing::debug!(session = session.0, %room, %user, "enter");
                self.hub.enter(session, outbound, dialect, key);
                self.handle(RelayEvent::Enter { shard, room, session, user, ticket });
            }
            Input::Say { place, session, number, target, content, id, key } => {
                let Place { shard, room } = place;
                tracing::debug!(session = session.0, %room, number = number.0, "say");
                self.hub.say(session, number, key);
                let say = RelayEvent::Say { shard, room, session, number, target, content, id };
                self.handle(say);
            }
            Input::Alive { place: Place { shard, room }, session } => {
                counter!("tangelo_connector_probes_answered_total").increment(1);
                tracing::debug!(session = session.0, %room, "lives, and keeps its name");
                self.handle(RelayEvent::Alive { shard, room, session });
            }
            Input::Leave { place: Place { shard, room }, session, lost } => {
                tracing::debug!(session = session.0, %room, lost, "leave");
                self.hub.leave(session);
                self.handle(RelayEvent::Leave { shard, room, session, lost });
            }
        }
    }

    fn handle(&mut self, event: RelayEvent) {
        let now = self.now();
        let mut effects = std::mem::take(&mut self.effects);
        self.relays.handle(now, event, &mut effects);
        for effect in effects.drain(..) {
            self.apply(effect);
        }
        self.effects = effects;
    }

    fn apply(&mut self, effect: RelayEffect) {
        match effect {
            RelayEffect::Frame { to, frame } => self.send(to, frame),
            RelayEffect::Push { room, sessions, except, push, position, answered } => {
                self.hub.push(&room, &sessions, except, (push, position, answered));
            }
            RelayEffect::Said { session, number, position } => {
                tracing::debug!(session = session.0, number = number.0, %position, "said");
                self.hub.placed(session, number, position);
            }
            RelayEffect::SayRefused { session, number, code } => {
                counter!("tangelo_connector_says_refused_total", "code" => code.to_string())
                    .increment(1);
                tracing::debug!(session = session.0, number = number.0, %code, "say refused");
                self.hub.say_refused(session, number, code);
            }
            RelayEffect::Entered { session, users, position, welcome } => {
                let outcome = welcome.as_ref().map_or(Outcome::Joined, |it| it.outcome).name();
                counter!("tangelo_connector_entered_total", "outcome" => outcome).increment(1);
                tracing::debug!(session = session.0, users = users.len(), outcome, "entered");
                self.hub.entered(session, users, position, welcome);
            }
            RelayEffect::EnterRefused { session, code } => {
                counter!("tangelo_connector_enters_refused_total", "code" => code.to_string())
                    .increment(1);
                tracing::debug!(session = session.0, %code, "enter refused");
                self.hub.enter_refused(session, code);
            }
            RelayEffect::Expel { session } => {
                tracing::info!(session = session.0, "session lost its place in the room");
                self.hub.close(session, CloseReason::Expelled);
            }
            RelayEffect::Supersede { session } => {
                tracing::debug!(session = session.0, "came back as another session");
                self.hub.close(session, CloseReason::Superseded);
            }
            RelayEffect::Replace { session } => {
                counter!("tangelo_connector_replaced_total").increment(1);
                tracing::info!(session = session.0, "another session has its name now");
                self.hub.close(session, CloseReason::Replaced);
            }
            RelayEffect::Probe { session } => {
                counter!("tangelo_connector_probes_total").increment(1);
                tracing::debug!(session = session.0, "somebody wants its name: does it live?");
                self.hub.probe(session);
            }
            RelayEffect::CutLink(peer) => self.cut(peer, "an event is missing"),
            RelayEffect::StaleFrame { shard, from, term } => {
                counter!("tangelo_connector_stale_frames_total").increment(1);
                tracing::debug!(%shard, %term, chat = self.name(from), "frame of another term dropped");
            }
            RelayEffect::Attached { shard, owner, term } => {
                counter!("tangelo_connector_attached_total").increment(1);
                tracing::debug!(%shard, chat = self.name(owner), %term, "attached");
            }
        }
    }

    /// Tells members what was gathered for them.
    fn flush(&mut self) -> Told {
        let start = self.start;
        let told = self.hub.flush(|| Time::from_start(start.elapsed()));
        if told.deliveries > 0 {
            self.meters.deliveries.increment(told.deliveries as u64);
        }
        told
    }

    fn send(&mut self, to: Incarnation, frame: Frame<ToOwner>) {
        let Some(Link { sender, cut, .. }) = self.links.get(&to) else { return };
        if cut.is_cancelled() {
            // Something is missing on it already: what follows must not overtake the attach.
            return;
        }
        self.meters.frames_out.increment(1);
        if sender.send(frame).is_err() {
            self.cut(to, "its queue is full");
        }
    }

    /// Ends a link on which something is missing; the next one begins with an attach.
    fn cut(&mut self, peer: Incarnation, reason: &str) {
        if let Some(Link { name, cut, .. }) = self.links.get(&peer)
            && !cut.is_cancelled()
        {
            counter!("tangelo_connector_links_cut_total").increment(1);
            tracing::warn!(chat = %name, reason, "cutting a link; it attaches anew");
            cut.cancel();
        }
    }

    /// Tells what a chat says of a room: who and which, never the text.
    fn log_in(&self, chat: Incarnation, frame: &Frame<ToRelay>) {
        if let ToRelay::Event { room, event } = &frame.message {
            let (member, number) = event.send().unzip();
            // A session of another connector is one only together with that connector.
            let other = member.map(|member| member.connector).filter(|other| *other != self.me);
            tracing::debug!(
                session = member.map(|member| member.session.0), number = number.map(|it| it.0),
                from = other.map(|other| other.0), %room, position = %event.position, chat = self.name(chat), "event in"
            );
        }
    }

    /// The name of a chat, or, when its link is gone, the number of its life.
    fn name(&self, chat: Incarnation) -> String {
        let name = self.links.get(&chat).map(|link| link.name.to_string());
        name.unwrap_or_else(|| chat.to_string())
    }

    fn gauges(&self) {
        let worker = self.number.to_string();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let set = |name, value: usize| gauge!(name, "worker" => worker.clone()).set(value as f64);
        set("tangelo_connector_rooms", self.relays.rooms());
        set("tangelo_connector_members", self.hub.len());
    }
}
