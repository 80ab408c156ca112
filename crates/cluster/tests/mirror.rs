//! However a node came to know what is stored, it sees the same map.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::{collections::BTreeMap, sync::Arc};

use cluster::{
    ClusterMap, Mirror, Node, Timing,
    mirror::{Change, Effect, Event, Holding, What},
};
use model::{Incarnation, NodeId, Role, Shard, Term, Time};
use proptest::prelude::*;

/// The node that looks; it is always there.
const ME: u64 = 100;

/// What somebody does to the store.
#[derive(Clone, Debug)]
enum Act {
    /// Joins, or stores its load anew.
    Put {
        node: u64,
        load: u32,
    },
    Remove {
        node: u64,
    },
    Show {
        node: u64,
    },
    Doubt {
        node: u64,
    },
    Expire {
        node: u64,
    },
    Own {
        shard: u16,
        node: u64,
    },
    Free {
        shard: u16,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let (node, shard) = (1..8_u64, 0..6_u16);
    prop_oneof![
        (node.clone(), 0..3_u32).prop_map(|(node, load)| Act::Put { node, load }),
        node.clone().prop_map(|node| Act::Remove { node }),
        node.clone().prop_map(|node| Act::Show { node }),
        node.clone().prop_map(|node| Act::Doubt { node }),
        node.clone().prop_map(|node| Act::Expire { node }),
        (shard.clone(), node).prop_map(|(shard, node)| Act::Own { shard, node }),
        shard.prop_map(|shard| Act::Free { shard }),
    ]
}

fn record(number: u64, load: u32) -> Box<Node> {
    // Three names for eight lives: they replace each other.
    let name = if number == ME { "gate-1".to_owned() } else { format!("chat-{}", number % 3) };
    Box::new(Node {
        load,
        ready: true,
        ..Node::new(
            NodeId::new(&name).unwrap(),
            Incarnation(number),
            if number == ME { Role::Gate } else { Role::Chat },
        )
    })
}

/// A store as simple as can be.
#[derive(Clone, Default)]
struct Store {
    revision: u64,
    nodes: BTreeMap<u64, (Box<Node>, u64, u64)>,
    /// When each was put, and whether as a doubt.
    alive: BTreeMap<u64, (u64, bool)>,
    shards: BTreeMap<u16, (Holding, u64)>,
}

impl Store {
    fn new() -> Self {
        let mut store = Self::default();
        store.act(&Act::Put { node: ME, load: 0 });
        store.act(&Act::Show { node: ME });
        store
    }

    fn act(&mut self, act: &Act) -> Option<Change> {
        let revision = self.revision + 1;
        let what = match *act {
            Act::Put { node, load } => {
                let created = self.nodes.get(&node).map_or(revision, |(_, created, _)| *created);
                self.nodes.insert(node, (record(node, load), created, revision));
                What::Node { node: record(node, load), created }
            }
            Act::Remove { node } => {
                self.nodes.remove(&node)?;
                What::NodeGone(Incarnation(node))
            }
            Act::Show { node } => {
                self.alive.insert(node, (revision, false));
                What::Alive(Incarnation(node))
            }
            Act::Doubt { node } => {
                *self.alive.get_mut(&node)? = (revision, true);
                What::Doubted(Incarnation(node))
            }
            Act::Expire { node } => {
                self.alive.remove(&node)?;
                What::NotAlive(Incarnation(node))
            }
            Act::Own { shard, node } => {
                let holding = Holding::Owned(Incarnation(node));
                self.shards.insert(shard, (holding, revision));
                What::Shard(Shard::new(shard).unwrap(), holding)
            }
            Act::Free { shard } => {
                let last = match self.shards.get(&shard)? {
                    (Holding::Owned(_), revision) => Term(*revision),
                    (Holding::Free { last }, _) => *last,
                };
                let holding = Holding::Free { last };
                self.shards.insert(shard, (holding, revision));
                What::Shard(Shard::new(shard).unwrap(), holding)
            }
        };
        self.revision = revision;
        Some(Change { revision, what })
    }

    fn snapshot(&self) -> Event {
        let nodes = self.nodes.values().map(|(node, created, revision)| Change {
            revision: *revision,
            what: What::Node { node: node.clone(), created: *created },
        });
        let alive = self.alive.iter().map(|(node, (revision, is_doubted))| {
            let node = Incarnation(*node);
            let what = if *is_doubted { What::Doubted(node) } else { What::Alive(node) };
            Change { revision: *revision, what }
        });
        let shards = self.shards.iter().map(|(shard, (holding, revision))| Change {
            revision: *revision,
            what: What::Shard(Shard::new(*shard).unwrap(), *holding),
        });
        let changes = nodes.chain(alive).chain(shards).collect();
        Event::Snapshot { revision: self.revision, changes }
    }
}

struct Follower {
    mirror: Mirror,
    map: Arc<ClusterMap>,
}

impl Follower {
    fn new(store: &Store) -> Self {
        let name = NodeId::new("gate-1").unwrap();
        let mirror = Mirror::new(Incarnation(ME), name, Timing::default());
        let mut follower = Self { mirror, map: Arc::default() };
        follower.hear(store.snapshot());
        follower
    }

    fn hear(&mut self, event: Event) {
        let mut out = Vec::new();
        self.mirror.handle(Time::ZERO, event, &mut out);
        for effect in out {
            if let Effect::Publish(map) = effect {
                assert!(map.version >= self.map.version, "versions grow");
                let terms = self.map.shards.iter().zip(&map.shards);
                assert!(terms.clone().all(|(before, now)| before.term <= now.term), "terms grow");
                self.map = map;
            }
        }
    }

    /// The map with all loads, which may wait.
    fn settle(&mut self) -> Arc<ClusterMap> {
        let mut out = Vec::new();
        let later = Time::ZERO + Timing::default().load_interval;
        self.mirror.handle(later, Event::Timeout, &mut out);
        if let Some(Effect::Publish(map)) = out.pop() {
            self.map = map;
        }
        Arc::clone(&self.map)
    }
}

proptest! {
    #[test]
    fn following_and_reading_anew_lead_to_the_same_map(
        acts in prop::collection::vec((act(), any::<bool>()), 1..80),
        reads_anew in any::<prop::sample::Index>(),
    ) {
        let mut store = Store::new();
        let (mut steady, mut batches) = (Follower::new(&store), Follower::new(&store));
        let mut waiting = Vec::new();
        let reads_anew = reads_anew.index(acts.len());
        for (step, (act, batch_ends)) in acts.iter().enumerate() {
            if let Some(change) = store.act(act) {
                steady.hear(Event::Changed(vec![change.clone()]));
                waiting.push(change);
            }
            if step == reads_anew {
                // It missed some, and reads everything instead.
                waiting.clear();
                batches.hear(store.snapshot());
            } else if *batch_ends && !waiting.is_empty() {
                batches.hear(Event::Changed(std::mem::take(&mut waiting)));
            }
        }
        if !waiting.is_empty() {
            batches.hear(Event::Changed(waiting));
        }
        let (map, fresh) = (steady.settle(), Follower::new(&store).settle());
        prop_assert_eq!(&map, &batches.settle());
        prop_assert_eq!(map.version, store.revision);
        prop_assert_eq!(&map, &fresh);
        for (_, shard) in Shard::all().zip(&map.shards) {
            prop_assert!(shard.owner.is_none_or(|owner| map.nodes.contains_key(&owner)));
        }
    }
}
