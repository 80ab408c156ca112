//! Rooms under faults, in virtual time: the real [`room::Owner`] and [`room::Relays`] on a
//! network, a registry and clients that are made up, all drawn from one seed.
//!
//! A run plays clients that enter, talk, whisper and leave, while chats are killed, streams cut,
//! nodes paused, connectors killed and shards moved. Then faults stop, everything comes to rest,
//! and [`history`](crate::history) judges what the clients saw. The same seed gives the same run,
//! event by event: [`Outcome::trace`] is a hash over all of them.

mod clients;
mod item;
mod network;
mod random;
mod trouble;
mod world;

use std::time::Duration;

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
    /// How long clients talk and faults happen.
    pub duration: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// A bug to plant, to see that the judge finds it.
    pub bug: Option<Bug>,
    /// Keeps the run as text in [`Outcome::story`].
    pub story: bool,
}

/// What goes wrong: for each fault the mean time between two, none if it never happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A chat is killed; another life of it starts soon.
    pub chat_killed: Option<Duration>,
    /// A connector is killed, its clients with it.
    pub connector_killed: Option<Duration>,
    /// A stream between a connector and a chat breaks; it is opened again.
    pub link_cut: Option<Duration>,
    /// A node stands still for a while, up to 6 s.
    pub paused: Option<Duration>,
    /// A shard is moved to another chat by plan.
    pub moved: Option<Duration>,
}

impl Faults {
    /// Everything, often.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            chat_killed: Some(Duration::from_secs(6)),
            connector_killed: Some(Duration::from_secs(20)),
            link_cut: Some(Duration::from_secs(3)),
            paused: Some(Duration::from_secs(10)),
            moved: Some(Duration::from_secs(4)),
        }
    }

    /// Only chats die, one at a time.
    #[must_use]
    pub const fn chats_only() -> Self {
        Self {
            chat_killed: Some(Duration::from_secs(8)),
            connector_killed: None,
            link_cut: None,
            paused: None,
            moved: None,
        }
    }
}

/// A bug that can be planted between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// One event in this many is lost on its way to a connector, and the gap is not noticed.
    DropEvents(u64),
    /// A connector takes every frame for one of the current term.
    ForgetTerms,
    /// An owner takes every repeated send for a new one.
    ForgetNumbers,
    /// A leave is taken for one of any session of the same name: it is lost.
    LoseLeaves,
}

/// How often things happened that a run must have seen to mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sends acknowledged.
    pub acked: u64,
    /// Messages that clients saw.
    pub deliveries: u64,
    /// Shards opened that had rooms.
    pub takeovers: u64,
    /// Rooms that started a new generation.
    pub resets: u64,
    /// Frames of another term that were dropped.
    pub stale_frames: u64,
    /// Sends that went out more than once.
    pub sent_again: u64,
    /// Sessions closed because they had missed something.
    pub expelled: u64,
    /// Streams cut.
    pub cuts: u64,
    /// Sends of live sessions without an answer at the end.
    pub unanswered: u64,
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
    /// The run as text, if asked for.
    pub story: Vec<String>,
}

/// Plays one run.
#[must_use]
pub fn run(config: &Config) -> Outcome {
    world::World::new(config).run()
}
