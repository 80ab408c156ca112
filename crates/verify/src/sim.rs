//! Rooms under faults, in virtual time: the real [`room::Owner`] and [`room::Relays`] on a
//! network, a registry and clients that are made up, all drawn from one seed.
//!
//! A run plays clients that enter, talk, whisper, fall silent and leave, some of them under one
//! name, while chats are killed, streams cut,
//! nodes paused, connectors killed, shards moved and the registry gone. Most of them can come back
//! when their connections are lost, and do: soon or late, elsewhere, sometimes twice at once or while
//! nobody knows that they were gone. What was not answered they send again. Then faults stop,
//! everything comes to rest, and [`history`](crate::history) judges what the clients saw. The same
//! seed gives the same run, event by event: [`Outcome::trace`] is a hash over all of them. A run
//! that fails is made small by [`shrink`], so that its story can be read.
//!
//! [`Bug`]s are planted between the real machines, by mangling what passes: the machines
//! themselves know nothing of them.

mod bug;
mod clients;
mod clock;
mod faults;
mod item;
mod network;
mod nodes;
mod plan;
mod random;
mod returns;
mod shrink;
mod trouble;
mod world;

use std::{collections::BTreeSet, time::Duration};

pub use random::Random;
use room::Duplicates;
pub use shrink::{shrink, shrink_by};

use crate::history::Report;

/// What to play.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many chats.
    pub chats: usize,
    /// How many connectors.
    pub connectors: usize,
    /// How many clients at any time.
    pub clients: usize,
    /// How many rooms, spread over four shards.
    pub rooms: usize,
    /// What becomes of a name that two want.
    pub duplicates: Duplicates,
    /// How long clients talk and faults happen.
    pub duration: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Decides anew how long things take, with the same clients and faults.
    pub luck: u64,
    /// Of the faults that the seed plans, the only ones to happen; all if none are named.
    pub only: Option<BTreeSet<FaultId>>,
    /// How long after its end a session may be listed, if that is to be judged.
    pub leave_within: Option<Duration>,
    /// How soon a client must be back so that nobody sees it leave, if that is to be judged.
    pub quiet_within: Option<Duration>,
    /// A bug to plant, to see that the judge finds it.
    pub bug: Option<Bug>,
    /// Keeps the run as text in [`Outcome::story`].
    pub story: bool,
}

/// One of the faults that a seed plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(u32);

/// What goes wrong: for each fault the mean time between two, none if it never happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A chat is killed; another life of it starts soon.
    pub chat_killed: Option<Duration>,
    /// A connector is killed, its clients with it.
    pub connector_killed: Option<Duration>,
    /// A stream between a connector and a chat breaks; it is opened again.
    pub link_cut: Option<Duration>,
    /// One direction of a stream carries nothing for a while; if it is long, the stream breaks.
    pub one_way: Option<Duration>,
    /// A connector and a chat cannot reach each other for a while, up to 12 s.
    pub parted: Option<Duration>,
    /// A node stands still for a while, up to 6 s.
    pub paused: Option<Duration>,
    /// Whatever goes to a node takes long, for a while.
    pub slow: Option<Duration>,
    /// A shard is moved to another chat by plan.
    pub moved: Option<Duration>,
    /// The registry is silent for a while, up to 10 s: nobody is given up, nothing is claimed.
    pub registry_away: Option<Duration>,
    /// A connection of a client that can come back is lost.
    pub connection_lost: Option<Duration>,
    /// Two of three clients can come back, and do so when their connections are lost.
    pub modern: bool,
    /// Some sends go out twice, as from a connector that is impatient.
    pub repeats: bool,
    /// Every node's clock begins anywhere and is up to 5 % wrong.
    pub skew: bool,
}

impl Faults {
    /// Everything, often.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            chat_killed: Some(Duration::from_secs(6)),
            connector_killed: Some(Duration::from_secs(15)),
            link_cut: Some(Duration::from_secs(3)),
            one_way: Some(Duration::from_secs(4)),
            parted: Some(Duration::from_secs(12)),
            paused: Some(Duration::from_secs(8)),
            slow: Some(Duration::from_secs(6)),
            moved: Some(Duration::from_secs(4)),
            registry_away: Some(Duration::from_secs(20)),
            connection_lost: Some(Duration::from_millis(700)),
            modern: true,
            repeats: true,
            skew: true,
        }
    }

    /// Nothing but repeated sends, and clocks that are wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            chat_killed: None,
            connector_killed: None,
            link_cut: None,
            one_way: None,
            parted: None,
            paused: None,
            slow: None,
            moved: None,
            registry_away: None,
            connection_lost: None,
            modern: false,
            repeats: true,
            skew: true,
        }
    }

    /// Only chats die and shards move: no session may notice.
    #[must_use]
    pub const fn chats_only() -> Self {
        Self {
            chat_killed: Some(Duration::from_secs(8)),
            moved: Some(Duration::from_secs(4)),
            connection_lost: Some(Duration::from_millis(700)),
            modern: true,
            ..Self::none()
        }
    }

    /// Only connectors die: the others see their members go in time.
    #[must_use]
    pub const fn connectors_only() -> Self {
        Self { connector_killed: Some(Duration::from_secs(6)), modern: true, ..Self::none() }
    }

    /// Only the network between connectors and chats fails.
    #[must_use]
    pub const fn network_only() -> Self {
        Self {
            link_cut: Some(Duration::from_secs(3)),
            one_way: Some(Duration::from_secs(2)),
            parted: Some(Duration::from_secs(6)),
            slow: Some(Duration::from_secs(4)),
            connection_lost: Some(Duration::from_millis(700)),
            modern: true,
            ..Self::none()
        }
    }
}

/// A bug that can be planted between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// One push in this many is lost on its way to a client.
    DropDeliveries(u64),
    /// A connector takes every frame for one of the owner, at its term.
    ForgetTerms,
    /// An owner takes every repeated send for a new one.
    ForgetNumbers,
    /// A leave is taken for one of whoever has the session's name in the room.
    LeaveByName,
    /// A leave is lost, and its member listed for ever.
    LoseLeaves,
    /// Whoever comes back is not told the last event that it missed.
    SkipMissed,
    /// Whoever comes back is not told the whispers to it.
    SkipWhispers,
    /// An owner does not look at message ids, and takes what is sent again for something new.
    ForgetIds,
    /// A connector takes every lost connection for a leave.
    EndGrace,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::DropDeliveries(1000),
        Self::ForgetTerms,
        Self::ForgetNumbers,
        Self::LeaveByName,
        Self::LoseLeaves,
        Self::SkipMissed,
        Self::SkipWhispers,
        Self::ForgetIds,
        Self::EndGrace,
    ];
}

/// How often things happened that runs must have seen to mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sends acknowledged.
    pub acked: u64,
    /// Messages that clients saw.
    pub deliveries: u64,
    /// Joins refused.
    pub refused_joins: u64,
    /// Names that a newcomer got as their sessions did not answer.
    pub probed_replaced: u64,
    /// Names that their sessions kept as they answered.
    pub probed_refused: u64,
    /// Sessions closed as a newcomer took their names.
    pub replaced: u64,
    /// Sessions that joined one of the same name.
    pub shared: u64,
    /// Shards opened that had rooms.
    pub takeovers: u64,
    /// Rooms rebuilt from views that had seen different amounts.
    pub merges: u64,
    /// Events sent again to a connector that had missed them.
    pub repaired_events: u64,
    /// Rooms that started a new generation.
    pub resets: u64,
    /// Frames of another term that were dropped.
    pub stale_frames: u64,
    /// Sends that went out more than once.
    pub sent_again: u64,
    /// Sends that came again after they had got a position.
    pub recognised: u64,
    /// Sessions closed because they had missed something.
    pub expelled: u64,
    /// Streams broken.
    pub cuts: u64,
    /// Directions of streams that carried nothing for a while.
    pub one_way: u64,
    /// Pairs of nodes that could not reach each other for a while.
    pub parted: u64,
    /// Nodes killed.
    pub killed: u64,
    /// Nodes that stood still.
    pub pauses: u64,
    /// Lives that the registry gave up although they went on.
    pub given_up: u64,
    /// Nodes that were slow to reach.
    pub slow: u64,
    /// Shards moved by plan.
    pub moved: u64,
    /// Silences of the registry.
    pub registry_away: u64,
    /// Sends of live sessions without an answer at the end.
    pub unanswered: u64,
    /// Connections lost of clients that can come back.
    pub connections_lost: u64,
    /// Clients that came back and were told all that they had missed.
    pub resumed: u64,
    /// Those of them that came back by another connector.
    pub resumed_elsewhere: u64,
    /// Events that they were told so.
    pub caught_up: u64,
    /// Clients that came back and were told that it cannot be told.
    pub reset_returns: u64,
    /// Members that went on as other sessions, so that nobody heard of their absence.
    pub quiet_returns: u64,
    /// Those of them whose connectors still took the old sessions for alive.
    pub half_open: u64,
    /// Clients that tried to come back once more while they had a connection.
    pub tried_twice: u64,
    /// Sessions closed as their clients came back by others.
    pub superseded: u64,
    /// Sends that came again in another session, and were recognised by their ids.
    pub ids_recognised: u64,
    /// Clients that were on their way back at the end, and had no answer.
    pub stranded: u64,
}

impl Counters {
    /// What a set of runs under all faults must have seen, each at least once, with its name.
    #[must_use]
    pub const fn sometimes(&self) -> [(u64, &'static str); 34] {
        [
            (self.acked, "acknowledged sends"),
            (self.deliveries, "deliveries"),
            (self.refused_joins, "refused joins"),
            (self.probed_replaced, "names lost for silence"),
            (self.probed_refused, "names kept by an answer"),
            (self.replaced, "replaced sessions"),
            (self.shared, "shared names"),
            (self.takeovers, "takeovers"),
            (self.merges, "merged rooms"),
            (self.repaired_events, "repaired events"),
            (self.resets, "resets"),
            (self.stale_frames, "stale frames"),
            (self.sent_again, "repeated sends"),
            (self.recognised, "recognised sends"),
            (self.expelled, "expelled sessions"),
            (self.cuts, "cut streams"),
            (self.one_way, "one-way cuts"),
            (self.parted, "parted nodes"),
            (self.killed, "killed nodes"),
            (self.pauses, "paused nodes"),
            (self.given_up, "lives given up"),
            (self.slow, "slow nodes"),
            (self.moved, "moved shards"),
            (self.registry_away, "silences of the registry"),
            (self.connections_lost, "lost connections"),
            (self.resumed, "resumed returns"),
            (self.resumed_elsewhere, "returns to another connector"),
            (self.caught_up, "events told to who came back"),
            (self.reset_returns, "reset returns"),
            (self.quiet_returns, "quiet returns"),
            (self.half_open, "returns before the old connector knew"),
            (self.tried_twice, "second tries"),
            (self.superseded, "superseded sessions"),
            (self.ids_recognised, "recognised message ids"),
        ]
    }

    /// Adds what another run counted.
    pub const fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.deliveries += other.deliveries;
        self.refused_joins += other.refused_joins;
        self.probed_replaced += other.probed_replaced;
        self.probed_refused += other.probed_refused;
        self.replaced += other.replaced;
        self.shared += other.shared;
        self.takeovers += other.takeovers;
        self.merges += other.merges;
        self.repaired_events += other.repaired_events;
        self.resets += other.resets;
        self.stale_frames += other.stale_frames;
        self.sent_again += other.sent_again;
        self.recognised += other.recognised;
        self.expelled += other.expelled;
        self.cuts += other.cuts;
        self.one_way += other.one_way;
        self.parted += other.parted;
        self.killed += other.killed;
        self.pauses += other.pauses;
        self.given_up += other.given_up;
        self.slow += other.slow;
        self.moved += other.moved;
        self.registry_away += other.registry_away;
        self.unanswered += other.unanswered;
        self.connections_lost += other.connections_lost;
        self.resumed += other.resumed;
        self.resumed_elsewhere += other.resumed_elsewhere;
        self.caught_up += other.caught_up;
        self.reset_returns += other.reset_returns;
        self.quiet_returns += other.quiet_returns;
        self.half_open += other.half_open;
        self.tried_twice += other.tried_twice;
        self.superseded += other.superseded;
        self.ids_recognised += other.ids_recognised;
        self.stranded += other.stranded;
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The judgement.
    pub report: Report,
    /// What happened how often.
    pub counters: Counters,
    /// A hash over every event of the run.
    pub trace: u64,
    /// The faults that happened.
    pub faults: Vec<FaultId>,
    /// The run as text, if asked for.
    pub story: Vec<String>,
}

/// Plays one run.
#[must_use]
pub fn run(config: &Config) -> Outcome {
    world::World::new(config).run()
}
