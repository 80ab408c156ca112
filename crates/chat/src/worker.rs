//! A fixed set of tasks, each of which drives the rooms of its shards.
//!
//! A shard belongs to one worker for the life of the process, so that rooms need no lock. Effects
//! are applied in order before the next event; a worker never waits for a peer.

use std::{collections::BTreeMap, pin::pin};

use daemon::{Alarm, Tasks};
use metrics::{Counter, counter, gauge};
use model::{Incarnation, NodeId, Time, limits};
use room::{
    Duplicates, LinkId, Owner, OwnerEffect, OwnerEvent, Standstill, Unheard,
    message::{Frame, ToOwner, ToRelay},
};
use rpc::link::Sender;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

/// Events taken from the queue at once: their answers go out in one message per connector.
const BATCH: usize = 256;

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something for the rooms.
    Room(OwnerEvent),
    /// A connector opened a stream.
    LinkUp {
        connector: Incarnation,
        name: NodeId,
        link: LinkId,
        sender: Sender<ToRelay>,
        cut: CancellationToken,
    },
    /// A batch from a connector, only frames of this worker's shards.
    Frames { connector: Incarnation, link: LinkId, frames: Vec<Frame<ToOwner>> },
}

/// Queues into all workers.
pub(crate) type Workers = daemon::Workers<Input>;

/// Starts `count` workers.
pub(crate) fn start(count: usize, duplicates: Duplicates, tasks: &Tasks) -> Workers {
    Workers::start(count, tasks, |number, inputs| {
        Worker::new(number, duplicates).run(inputs, tasks.token())
    })
}

/// This end of a connector's stream.
struct Link {
    name: NodeId,
    link: LinkId,
    sender: Sender<ToRelay>,
    cut: CancellationToken,
}

struct Worker {
    number: usize,
    owner: Owner,
    links: BTreeMap<Incarnation, Link>,
    effects: Vec<OwnerEffect>,
    opened: Opened,
    standstill: Standstill,
    frames_in: Counter,
    frames_out: Counter,
    start: Instant,
}

/// Shards opened since the last tick, told in one line.
#[derive(Debug, Default)]
struct Opened {
    shards: usize,
    rooms: usize,
    reset: usize,
    merged: usize,
}

impl Worker {
    fn new(number: usize, duplicates: Duplicates) -> Self {
        Self {
            number,
            owner: Owner::new(duplicates),
            links: BTreeMap::new(),
            effects: Vec::new(),
            opened: Opened::default(),
            standstill: Standstill::default(),
            frames_in: counter!("tangelo_chat_frames_in_total"),
            frames_out: counter!("tangelo_chat_frames_out_total"),
            start: Instant::now(),
        }
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, token: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut looks = tokio::time::interval(limits::STANDSTILL_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alarm = Alarm::default();
        let mut ends = pin!(token.cancelled());
        loop {
            let timeout = self.owner.poll_timeout().map(|at| self.start + at.since_start());
            tokio::select! {
                taken = inputs.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return self.end(inputs);
                    }
                    for input in batch.drain(..) {
                        self.take(input);
                    }
                }
                () = alarm.rings(timeout) => {
                    let now = self.look();
                    self.handle(now, OwnerEvent::Timeout);
                }
                _ = looks.tick() => {
                    let now = self.look();
                    self.cut_overdue(now);
                    self.tell_opened();
                    self.gauges();
                }
                () = &mut ends => return self.end(inputs),
            }
        }
    }

    /// Looks at the clock, and whether this worker stood still until now.
    fn look(&mut self) -> Time {
        let now = Time::from_start(self.start.elapsed());
        self.standstill.look(now, self.links.values().map(|link| link.link));
        now
    }

    /// Takes one input. Whether it was stopped in the middle of a batch matters, too: what follows
    /// then is not to be said over links that are over.
    fn take(&mut self, input: Input) {
        let now = self.look();
        match input {
            Input::Room(OwnerEvent::LinkDown { connector, link }) => {
                self.forget_closed(connector);
                self.handle(now, OwnerEvent::LinkDown { connector, link });
                let unheard = self.standstill.ended(link);
                self.tell_unheard(unheard);
            }
            Input::Room(event) => self.handle(now, event),
            Input::LinkUp { connector, name, link, sender, cut } => {
                self.link_up(now, connector, Link { name, link, sender, cut });
            }
            Input::Frames { connector, link, frames } => {
                self.frames_in.increment(frames.len() as u64);
                for frame in frames {
                    self.log_in(connector, &frame);
                    self.handle(now, OwnerEvent::Frame { connector, link, frame });
                }
            }
        }
    }

    /// A later stream replaces an earlier one; one that was overtaken on its way here is ended.
    fn link_up(&mut self, now: Time, connector: Incarnation, new: Link) {
        let link = new.link;
        if self.links.get(&connector).is_some_and(|known| known.link > link) {
            new.cut.cancel();
            return;
        }
        if let Some(earlier) = self.links.insert(connector, new) {
            earlier.cut.cancel();
        }
        self.handle(now, OwnerEvent::LinkUp { connector, link });
    }

    /// A stream that ended drops its half; a newer one of the same connector stays.
    fn forget_closed(&mut self, connector: Incarnation) {
        if self.links.get(&connector).is_some_and(|link| link.cut.is_cancelled()) {
            self.links.remove(&connector);
        }
    }

    /// Cuts the links that have not ended by themselves since this worker stood still.
    fn cut_overdue(&self, now: Time) {
        for link in self.standstill.overdue(now) {
            for known in self.links.values().filter(|known| known.link == link) {
                known.cut.cancel();
            }
        }
    }

    /// Ends. A chat that stood still may do so as soon as it has learnt that its lease is over:
    /// what its links have brought until then counts.
    fn end(mut self, mut inputs: mpsc::Receiver<Input>) {
        self.look();
        if self.standstill.has_links_over() {
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
        }
        let unheard = self.standstill.finish();
        self.tell_unheard(unheard);
    }

    fn handle(&mut self, now: Time, event: OwnerEvent) {
        let mut effects = std::mem::take(&mut self.effects);
        self.owner.handle(now, event, &mut effects);
        for effect in effects.drain(..) {
            self.apply(effect);
        }
        self.effects = effects;
    }

    fn apply(&mut self, effect: OwnerEffect) {
        match effect {
            OwnerEffect::Frame { to, frame } => self.send(to, frame),
            OwnerEffect::CutLink(connector) => {
                if let Some(link) = self.links.get(&connector)
                    && !link.cut.is_cancelled()
                {
                    tracing::info!(connector = %link.name, "cutting the link of a connector that is gone");
                    link.cut.cancel();
                }
            }
            OwnerEffect::Opened { shard, term, rooms, reset, merged } => {
                tracing::debug!(%shard, %term, rooms, reset, merged, "shard opened");
                self.opened.shards += 1;
                self.opened.rooms += rooms;
                self.opened.reset += reset;
                self.opened.merged += merged;
            }
            OwnerEffect::Repaired { shard, connector, events, snapshots } => {
                counter!("tangelo_chat_events_repaired_total").increment(events as u64);
                counter!("tangelo_chat_snapshots_total").increment(snapshots as u64);
                tracing::debug!(%shard, %connector, events, snapshots, "connector repaired");
            }
            OwnerEffect::Replaced { shard, room, user } => {
                counter!("tangelo_chat_replaced_total").increment(1);
                tracing::info!(%shard, %room, %user, "a name goes to another session");
            }
            OwnerEffect::Probed { shard, room, user, outcome } => {
                let outcome = outcome.name();
                counter!("tangelo_chat_probes_total", "outcome" => outcome).increment(1);
                tracing::debug!(%shard, %room, %user, outcome, "a name was wanted twice");
            }
            OwnerEffect::StaleFrame { shard, from, term } => {
                counter!("tangelo_chat_stale_frames_total").increment(1);
                tracing::debug!(
                    %shard, %term, connector = self.name(from), "frame of another term dropped"
                );
            }
        }
    }

    fn send(&mut self, to: Incarnation, frame: Frame<ToRelay>) {
        let standstill = &mut self.standstill;
        let known = self.links.get(&to);
        // An owner that slept may have much to say, and nobody to hear it.
        let Some(Link { name, sender, cut, .. }) =
            known.filter(|known| !standstill.drops(known.link) && !known.cut.is_cancelled())
        else {
            counter!("tangelo_chat_frames_unheard_total").increment(1);
            return;
        };
        self.log_out(name, &frame);
        self.frames_out.increment(1);
        if sender.send(frame).is_err() {
            // A frame is missing now: only a new attach can bring the connector back into step.
            counter!("tangelo_chat_links_cut_total").increment(1);
            tracing::warn!(connector = %name, "link is full: cutting it, the connector attaches anew");
            cut.cancel();
        }
    }

    /// Tells what a connector says: who and which, never the text.
    fn log_in(&self, connector: Incarnation, frame: &Frame<ToOwner>) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let connector = self.name(connector);
        match &frame.message {
            ToOwner::State(state) => {
                let members = state.own.len();
                tracing::debug!(room = %state.room, position = %state.position, members, connector, "state");
            }
            ToOwner::Attached { rooms, .. } => {
                tracing::debug!(shard = %frame.shard, term = %frame.term, rooms, connector, "attached");
            }
            ToOwner::Join { room, session, user, ticket } => {
                let comes_back = ticket.is_some_and(|ticket| ticket.seen.is_some());
                tracing::debug!(session = session.0, %room, %user, comes_back, connector, "join");
            }
            ToOwner::Leave { room, session } => {
                tracing::debug!(session = session.0, %room, connector, "leave");
            }
            ToOwner::Withdraw { room, session } => {
                tracing::debug!(session = session.0, %room, connector, "withdraw");
            }
            ToOwner::Alive { room, session } => {
                tracing::debug!(session = session.0, %room, connector, "alive");
            }
            ToOwner::Say { room, session, number, .. } => {
                tracing::debug!(session = session.0, number = number.0, %room, connector, "say");
            }
        }
    }

    /// Tells what a connector is told. Of an event, `from` is the connector of the session that
    /// said it.
    fn log_out(&self, connector: &NodeId, frame: &Frame<ToRelay>) {
        match &frame.message {
            ToRelay::Event { room, event } => {
                let (member, number) = event.send().unzip();
                tracing::debug!(
                    session = member.map(|member| member.session.0), number = number.map(|it| it.0),
                    from = member.map(|member| self.name(member.connector)),
                    %room, position = %event.position, %connector, "event out"
                );
            }
            ToRelay::Welcome { room, session, welcome } => {
                let (outcome, events) = (welcome.outcome.name(), welcome.events.len());
                tracing::debug!(session = session.0, %room, outcome, events, %connector, "welcome");
            }
            ToRelay::Repeated { room, session, number, position } => {
                tracing::debug!(
                    session = session.0, number = number.0, %room, %position, %connector,
                    "said before"
                );
            }
            ToRelay::Probe { room, session } => {
                tracing::debug!(session = session.0, %room, %connector, "probe");
            }
            ToRelay::Probing { room, session } => {
                tracing::debug!(session = session.0, %room, %connector, "waits for its name");
            }
            ToRelay::JoinRefused { room, session, code } => {
                tracing::debug!(session = session.0, %room, %code, %connector, "join refused");
            }
            ToRelay::SayRefused { room, session, number, code } => {
                tracing::debug!(
                    session = session.0, number = number.0, %room, %code, %connector, "say refused"
                );
            }
            ToRelay::Snapshot(snapshot) => {
                let (room, position) = (&snapshot.room, snapshot.position);
                tracing::debug!(%room, %position, %connector, "snapshot out");
            }
            ToRelay::Opened | ToRelay::NotOwner | ToRelay::Withdrawn { .. } => {}
        }
    }

    /// The name of a connector, or, when its link is gone, the number of its life.
    fn name(&self, connector: Incarnation) -> String {
        let name = self.links.get(&connector).map(|link| link.name.to_string());
        name.unwrap_or_else(|| connector.to_string())
    }

    fn tell_unheard(&self, unheard: Option<Unheard>) {
        let Some(Unheard { still, links, frames }) = unheard else { return };
        let (worker, seconds) = (self.number, format!("{:.1}", still.as_secs_f64()));
        tracing::warn!(
            worker, %seconds, links, frames,
            "this chat stood still: its links are over, and what it said since reached nobody"
        );
    }

    fn tell_opened(&mut self) {
        let Opened { shards, rooms, reset, merged } = std::mem::take(&mut self.opened);
        if shards == 0 {
            return;
        }
        counter!("tangelo_chat_shards_opened_total").increment(shards as u64);
        counter!("tangelo_chat_rooms_taken_over_total").increment(rooms as u64);
        counter!("tangelo_chat_rooms_reset_total").increment(reset as u64);
        counter!("tangelo_chat_rooms_merged_total").increment(merged as u64);
        if reset > 0 {
            tracing::warn!(shards, rooms, reset, "serving; some rooms lost their history");
        } else {
            tracing::info!(shards, rooms, "serving");
        }
    }

    fn gauges(&self) {
        let worker = self.number.to_string();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let set = |name, value: usize| gauge!(name, "worker" => worker.clone()).set(value as f64);
        set("tangelo_chat_rooms", self.owner.rooms());
        set("tangelo_chat_members", self.owner.members());
        set("tangelo_chat_shards_open", self.owner.open().count());
        set("tangelo_chat_empty_rooms", self.owner.empty_rooms());
        set("tangelo_chat_empty_rooms_bytes", self.owner.empty_rooms_bytes());
        counter!("tangelo_chat_empty_rooms_given_up_total", "worker" => worker.clone())
            .absolute(self.owner.empty_rooms_given_up());
    }
}
