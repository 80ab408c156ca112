//! What goes wrong, and when: from a seed.

use std::{collections::BTreeMap, time::Duration};

use model::limits::LEASE_AFTER_BREAK;

use verify::sim::Random;

use crate::{
    nodes::{REGISTRY, chat_name, connector_name},
    world::{FAULTS, HEALED},
};

/// How long a claim takes that the registry does not live to answer, one way.
const SLOW_CLAIM: Duration = Duration::from_millis(300);

/// What a set of runs plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) faults: Faults,
    pub(crate) registry: Kind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Everything, on top of each other.
    All,
    /// Chats are killed and told to leave.
    Chats,
    /// The registry is killed.
    Registry,
}

/// Which registry the nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The one that gates host.
    Embedded,
    Etcd,
}

impl Mix {
    pub(crate) const fn name(self) -> &'static str {
        match (self.registry, self.faults) {
            (Kind::Embedded, Faults::All) => "all",
            (Kind::Embedded, Faults::Chats) => "chats",
            (Kind::Embedded, Faults::Registry) => "registry",
            (Kind::Etcd, Faults::All) => "etcd-all",
            (Kind::Etcd, Faults::Chats) => "etcd-chats",
            (Kind::Etcd, Faults::Registry) => "etcd-registry",
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        let all = [Kind::Embedded, Kind::Etcd].into_iter().flat_map(|registry| {
            let faults = [Faults::All, Faults::Chats, Faults::Registry];
            faults.map(|faults| Self { faults, registry })
        });
        let found = all.into_iter().find(|it| it.name() == name);
        found.unwrap_or_else(|| panic!("no mix of faults is called {name:?}"))
    }
}

/// A cluster and what is done to it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) chats: usize,
    pub(crate) connectors: usize,
    pub(crate) seats: usize,
    pub(crate) rooms: usize,
    /// The longest that a message of a link takes that is well.
    pub(crate) latency: Duration,
    /// What is done, in the order of time.
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// A host, by name.
pub(crate) type Host = String;

/// What is done to the hosts and their network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All processes of a host are killed.
    Crash(Host),
    /// They are started again.
    Start(Host),
    /// A chat is told to leave.
    Leave(usize),
    /// Two hosts do not reach each other: what is sent is lost.
    Part(Host, Host),
    /// The second does not hear the first.
    PartOneWay(Host, Host),
    /// They reach each other again.
    Join(Host, Host),
    /// What two hosts send each other waits.
    Hold(Host, Host),
    /// It arrives, all at once.
    Release(Host, Host),
    /// The connections end that the first has opened to the second.
    Cut(Host, Host),
    /// Messages between two hosts take this long.
    Slow(Host, Host, Duration),
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(mix: Mix, seed: u64) -> Self {
        let mut random = Random::of(seed, 0);
        let mut plan = Self {
            chats: 2 + random.index(2),
            connectors: 2 + random.index(2),
            seats: 8,
            rooms: 3,
            latency: [Duration::from_millis(2), Duration::from_millis(25)][random.index(2)],
            steps: Vec::new(),
        };
        let mut busy = BTreeMap::new();
        for _ in 0..4 + random.index(9) {
            plan.add_fault(mix.faults, &mut random, &mut busy);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Adds something that begins and ends. A host or a link has one trouble at a time.
    fn add_fault(
        &mut self,
        faults: Faults,
        random: &mut Random,
        busy: &mut BTreeMap<String, Duration>,
    ) {
        let at = FAULTS + random.millis(0, 12_000);
        let over = (at + random.millis(100, 5_000)).min(HEALED);
        let chat = random.index(self.chats);
        let (one, other) = self.link(random);
        let slow = random.millis(100, 900);
        let kind = match faults {
            Faults::All => random.below(17),
            Faults::Chats => [0, 1, 4][random.index(3)],
            Faults::Registry => 3,
        };
        let mut claim = |what: String| {
            let is_free = busy.get(&what).is_none_or(|until| *until < at);
            if is_free {
                busy.insert(what, over);
            }
            is_free
        };
        let host = match kind {
            0..=1 => Some(chat_name(chat)),
            2 => Some(connector_name(random.index(self.connectors))),
            3 => Some(REGISTRY.to_owned()),
            _ => None,
        };
        if let Some(host) = host {
            if claim(host.clone()) {
                self.steps.push((at, Step::Crash(host.clone())));
                self.steps.push((over, Step::Start(host)));
            }
            return;
        }
        if kind > 14 {
            self.steps.push((at, Step::Cut(one, other)));
            return;
        }
        if kind > 11 {
            let other = chat_name((chat + 1) % self.chats);
            if claim(REGISTRY.to_owned()) && claim(format!("{other}~{REGISTRY}")) {
                self.add_lost_claims(random, chat_name(chat), other, at, over);
            }
            return;
        }
        if kind == 4 {
            self.steps.push((at, Step::Leave(chat)));
            return;
        }
        if !claim(format!("{one}~{other}")) {
            return;
        }
        let (begin, end) = match kind {
            5..=6 => (Step::Part(one.clone(), other.clone()), Step::Join(one, other)),
            7 => (Step::PartOneWay(one.clone(), other.clone()), Step::Join(one, other)),
            8 => (Step::PartOneWay(other.clone(), one.clone()), Step::Join(one, other)),
            9..=10 => (Step::Hold(one.clone(), other.clone()), Step::Release(one, other)),
            _ => {
                let latency = self.latency;
                (Step::Slow(one.clone(), other.clone(), slow), Step::Slow(one, other, latency))
            }
        };
        self.steps.push((at, begin));
        self.steps.push((over, end));
    }

    /// A chat is killed, and then the registry, on which another chat claims the shards over a slow
    /// link: what becomes of the claims is not known there.
    fn add_lost_claims(
        &mut self,
        random: &mut Random,
        dead: Host,
        other: Host,
        at: Duration,
        over: Duration,
    ) {
        let registry = || REGISTRY.to_owned();
        let amid = at + LEASE_AFTER_BREAK + SLOW_CLAIM + random.millis(0, 600);
        let (back, over) = (amid + random.millis(100, 1_000), over.max(amid));
        self.steps.extend([
            (at, Step::Slow(other.clone(), registry(), SLOW_CLAIM)),
            (at, Step::Crash(dead.clone())),
            (amid, Step::Crash(registry())),
            (back, Step::Start(registry())),
            (over, Step::Start(dead)),
            (over, Step::Slow(other, registry(), self.latency)),
        ]);
    }

    /// Two hosts that speak to each other.
    fn link(&self, random: &mut Random) -> (Host, Host) {
        let chat = chat_name(random.index(self.chats));
        let connector = connector_name(random.index(self.connectors));
        match random.below(4) {
            0 => (chat, REGISTRY.to_owned()),
            1 => (connector, REGISTRY.to_owned()),
            _ => (connector, chat),
        }
    }
}
