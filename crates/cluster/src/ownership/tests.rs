use std::time::Duration;

use model::{NodeId, Role};

use super::*;
use crate::map::Node;

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);

/// One machine and the map it sees, changed by hand.
struct Bench {
    now: Time,
    map: ClusterMap,
    shards: Shards,
    out: Vec<Effect>,
}

impl Bench {
    /// A chat that holds its lease, in a map with the given chats, all taking work.
    fn new(chats: &[Incarnation]) -> Self {
        let mut map = ClusterMap { version: 1, ..ClusterMap::default() };
        for chat in chats {
            map.nodes.insert(*chat, node(Role::Chat, *chat));
        }
        let shards = Shards::new(ME);
        let mut bench = Self { now: Time::ZERO, map, shards, out: Vec::new() };
        bench.event(Event::LeaseChanged(Lease::Held));
        bench
    }

    /// A chat that owns every shard at term 10, alone.
    fn owning_all() -> Self {
        let mut bench = Self::new(&[ME]);
        bench.change(|_| {});
        bench.win_all(10);
        bench
    }

    fn win_all(&mut self, term: u64) -> Vec<Effect> {
        let claims = Shard::all().map(|shard| won(shard, term, 2, &[])).collect();
        for ownership in &mut self.map.shards {
            *ownership = Ownership { owner: Some(ME), term: Term(term) };
        }
        self.map.version = 2;
        let mut out = self.event(Event::ClaimAnswered(claims));
        out.extend(self.event(Event::MapChanged(Arc::new(self.map.clone()))));
        out
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        self.shards.handle(self.now, event, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn change(&mut self, change: impl FnOnce(&mut ClusterMap)) -> Vec<Effect> {
        change(&mut self.map);
        self.map.version += 1;
        self.event(Event::MapChanged(Arc::new(self.map.clone())))
    }

    fn pass(&mut self, span: Duration) -> Vec<Effect> {
        let end = self.now + span;
        let mut out = Vec::new();
        while let Some(due) = self.shards.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            out.extend(self.event(Event::Timeout));
        }
        self.now = end;
        out
    }
}

fn node(role: Role, incarnation: Incarnation) -> Node {
    Node {
        ready: true,
        ..Node::new(NodeId::new(&format!("{role}-{incarnation}")).unwrap(), incarnation, role)
    }
}

fn won(shard: Shard, term: u64, map_version: u64, connectors: &[Incarnation]) -> Claim {
    let connectors = connectors.into();
    Claim { shard, outcome: Outcome::Won { term: Term(term), connectors, map_version } }
}

fn released(out: &[Effect]) -> Vec<Shard> {
    let batch = |effect: &Effect| match effect {
        Effect::Release(batch) => batch.iter().map(|(shard, _)| *shard).collect(),
        Effect::Claim(_) | Effect::Own { .. } | Effect::Disown(_) => Vec::new(),
    };
    out.iter().flat_map(batch).collect()
}

fn claimed(out: &[Effect]) -> Vec<Shard> {
    let batch = |effect: &Effect| match effect {
        Effect::Claim(batch) => batch.iter().map(|(shard, _)| *shard).collect(),
        Effect::Release(_) | Effect::Own { .. } | Effect::Disown(_) => Vec::new(),
    };
    out.iter().flat_map(batch).collect()
}

fn disowned(out: &[Effect]) -> usize {
    out.iter().filter(|effect| matches!(effect, Effect::Disown(_))).count()
}

#[test]
fn free_shards_are_claimed_at_once_and_in_one_batch() {
    let mut bench = Bench::new(&[ME]);
    let out = bench.change(|_| {});
    let all = Shard::all().map(|shard| (shard, Term(0))).collect();
    assert_eq!(out, [Effect::Claim(all)]);
    let out = bench.win_all(10);
    assert_eq!(out.len(), 1024);
    assert_eq!(bench.shards.held(), 1024);
    assert_eq!(bench.shards.poll_timeout(), None, "nothing is left to do");
}

#[test]
fn only_the_shares_of_the_ring_are_claimed() {
    let mut bench = Bench::new(&[ME, OTHER]);
    let mut owners = Owners::default();
    owners.update(&bench.map);
    let mine: Vec<_> = Shard::all().filter(|s| owners.preferred(*s) == Some(ME)).collect();
    assert_eq!(claimed(&bench.change(|_| {})), mine);
}

#[test]
fn nothing_is_claimed_without_the_lease() {
    for lease in [Lease::Silent, Lease::Lost] {
        let mut bench = Bench::new(&[ME]);
        bench.event(Event::LeaseChanged(lease));
        assert_eq!(bench.change(|_| {}), []);
        assert_eq!(bench.pass(Duration::from_secs(9)), []);
        let held = bench.event(Event::LeaseChanged(Lease::Held));
        assert_eq!(claimed(&held).len(), 1024);
    }
}

#[test]
fn silence_gives_nothing_up() {
    let mut bench = Bench::owning_all();
    bench.event(Event::LeaseChanged(Lease::Silent));
    assert_eq!(bench.pass(Duration::from_secs(60)), []);
    assert_eq!(bench.event(Event::LeaseChanged(Lease::Held)), []);
}

#[test]
fn a_shard_opens_when_the_map_shows_the_claim() {
    let (here, left) = (Incarnation(7), Incarnation(8));
    let shard = Shard::new(0).unwrap();
    let mut bench = Bench::new(&[ME]);
    bench.change(|_| {});
    let version = bench.map.version + 2;
    let claims = vec![won(shard, 10, version, &[here, left])];
    assert_eq!(bench.event(Event::ClaimAnswered(claims)), [], "the map is older than the claim");
    bench.change(|_| {});
    let out = bench.change(|map| {
        map.nodes.insert(here, node(Role::Connector, here));
        map.shards[0] = Ownership { owner: Some(ME), term: Term(10) };
    });
    assert_eq!(out[0], Effect::Own { shard, term: Term(10), connectors: vec![here] });
}

#[test]
fn a_shard_opens_without_the_map_in_the_end() {
    let mut bench = Bench::new(&[ME]);
    bench.change(|_| {});
    let connector = Incarnation(7);
    let claims = vec![won(Shard::new(0).unwrap(), 10, 99, &[connector])];
    bench.event(Event::ClaimAnswered(claims));
    bench.event(Event::LeaseChanged(Lease::Silent));
    let out = bench.pass(limits::MOVE_TIMEOUT);
    let own =
        Effect::Own { shard: Shard::new(0).unwrap(), term: Term(10), connectors: vec![connector] };
    assert_eq!(out, [own]);
}

#[test]
fn a_refused_claim_waits_for_the_map_or_a_while() {
    let mut bench = Bench::new(&[ME]);
    bench.change(|_| {});
    let lost =
        |shard| Claim { shard, outcome: Outcome::Lost(Ownership { owner: None, term: Term(5) }) };
    let out = bench.event(Event::ClaimAnswered(Shard::all().map(lost).collect()));
    assert_eq!(out, [], "the same claim would fail again");
    let out = bench.change(|map| map.shards[3].term = Term(5));
    assert_eq!(claimed(&out), [Shard::new(3).unwrap()]);
    bench.event(Event::ClaimFailed);
    let out = bench.pass(limits::CLAIM_RETRY);
    assert_eq!(claimed(&out).len(), 1024);
}

#[test]
fn a_settling_registry_is_asked_again_when_it_says() {
    let mut bench = Bench::new(&[ME]);
    bench.change(|_| {});
    let retry_in = Duration::from_millis(1300);
    let settling = |shard| Claim { shard, outcome: Outcome::Settling { retry_in } };
    bench.event(Event::ClaimAnswered(Shard::all().map(settling).collect()));
    assert_eq!(bench.pass(Duration::from_millis(1299)), []);
    assert_eq!(claimed(&bench.pass(Duration::from_millis(1))).len(), 1024);
}

#[test]
fn a_lost_answer_is_made_good() {
    let mut bench = Bench::new(&[ME]);
    bench.change(|_| {});
    bench.event(Event::ClaimFailed);
    let out = bench.change(|map| {
        map.shards[0] = Ownership { owner: Some(ME), term: Term(10) };
    });
    let again = (Shard::new(0).unwrap(), Term(10));
    assert_eq!(out, [Effect::Claim(vec![again])]);
}

#[test]
fn what_the_map_takes_away_is_disowned() {
    let mut bench = Bench::owning_all();
    let out = bench.change(|map| {
        map.nodes.insert(OTHER, node(Role::Chat, OTHER));
        map.shards[0] = Ownership { owner: Some(OTHER), term: Term(11) };
        map.shards[1] = Ownership { owner: None, term: Term(12) };
        // A map from before the claim says nothing about it.
        map.shards[2] = Ownership { owner: None, term: Term(9) };
    });
    let gone = [0, 1].map(|number| Effect::Disown(Shard::new(number).unwrap()));
    assert_eq!(out[..2], gone);
    assert_eq!(disowned(&out), 2);
}

#[test]
fn planned_moves_wait_and_are_paced() {
    let mut bench = Bench::owning_all();
    let join = |map: &mut ClusterMap| {
        map.nodes.insert(OTHER, node(Role::Chat, OTHER));
    };
    assert_eq!(bench.change(join), []);
    assert_eq!(bench.pass(limits::MOVE_SETTLE - Duration::from_millis(1)), []);
    let batch = released(&bench.pass(Duration::from_millis(1)));
    assert_eq!(batch.len(), limits::MOVE_SHARDS_MAX);

    let out = bench.event(Event::Released);
    assert_eq!(disowned(&out), batch.len());
    assert_eq!(released(&out), [], "these are still on their way");
    // One finds its owner: one more may go.
    let out = bench.change(|map| {
        for shard in &batch {
            map.shards[shard.index()].owner = None;
        }
        map.shards[batch[0].index()] = Ownership { owner: Some(OTHER), term: Term(11) };
    });
    assert_eq!(released(&out).len(), 1);
    bench.event(Event::Released);
    // The others do not in time: go on.
    assert_eq!(released(&bench.pass(limits::MOVE_TIMEOUT)).len(), limits::MOVE_SHARDS_MAX);
}

#[test]
fn a_node_that_comes_and_goes_moves_nothing() {
    let mut bench = Bench::owning_all();
    for _ in 0..10 {
        assert_eq!(bench.change(|map| drop(map.nodes.insert(OTHER, node(Role::Chat, OTHER)))), []);
        assert_eq!(bench.pass(limits::MOVE_SETTLE / 2), []);
        assert_eq!(bench.change(|map| drop(map.nodes.remove(&OTHER))), []);
        assert_eq!(bench.pass(limits::MOVE_SETTLE / 2), []);
    }
}

#[test]
fn a_failed_release_keeps_the_shards_and_is_repeated() {
    let mut bench = Bench::owning_all();
    bench.change(|map| drop(map.nodes.insert(OTHER, node(Role::Chat, OTHER))));
    let batch = released(&bench.pass(limits::MOVE_SETTLE));
    assert_eq!(bench.event(Event::ReleaseFailed), []);
    assert_eq!(bench.shards.held(), 1024);
    assert_eq!(released(&bench.pass(limits::CLAIM_RETRY)), batch);
}

#[test]
fn a_draining_chat_gives_everything_away_without_waiting() {
    let mut bench = Bench::owning_all();
    bench.change(|map| drop(map.nodes.insert(OTHER, node(Role::Chat, OTHER))));
    let drain = |map: &mut ClusterMap| map.nodes.get_mut(&ME).unwrap().draining = true;
    let mut batch = released(&bench.change(drain));
    let mut batches = 0;
    while !batch.is_empty() {
        assert!(batch.len() <= limits::DRAIN_SHARDS_MAX);
        batches += 1;
        bench.event(Event::Released);
        batch = released(&bench.change(|map| {
            for shard in &batch {
                map.shards[shard.index()] = Ownership { owner: Some(OTHER), term: Term(11) };
            }
        }));
    }
    assert_eq!(batches, 4);
    assert_eq!(bench.shards.held(), 0);
}

#[test]
fn the_last_chat_gives_everything_away_at_once() {
    let mut bench = Bench::owning_all();
    let drain = |map: &mut ClusterMap| map.nodes.get_mut(&ME).unwrap().draining = true;
    assert_eq!(released(&bench.change(drain)).len(), 1024);
    bench.event(Event::Released);
    assert_eq!(bench.shards.held(), 0);
}

#[test]
fn an_unwanted_shard_that_only_the_map_knows_of_is_returned() {
    let mut bench = Bench::new(&[OTHER]);
    let mut me = node(Role::Chat, ME);
    me.ready = false;
    let out = bench.change(|map| {
        map.nodes.insert(ME, me);
        map.shards[5] = Ownership { owner: Some(ME), term: Term(4) };
    });
    assert_eq!(out, [Effect::Release(vec![(Shard::new(5).unwrap(), Term(4))])]);
    assert_eq!(bench.event(Event::Released), [], "it was never open");
    assert_eq!(bench.shards.held(), 0);
    // The map is not there yet: it is neither returned again nor claimed.
    assert_eq!(bench.change(|_| {}), []);
}
