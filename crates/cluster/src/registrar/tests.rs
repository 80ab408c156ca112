use std::time::Duration;

use model::{Role, limits};

use super::*;
use crate::{
    claim::Outcome,
    map::{MapUpdate, Node},
    member::Member,
};

const FLOOR: u64 = 1_000_000;

/// A registrar and one follower of its map, which must always hold the same map.
struct Bench {
    now: Time,
    registrar: Registrar,
    follower: ClusterMap,
    out: Vec<Effect>,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let registrar = Registrar::new(Time::ZERO, Timing::default(), FLOOR);
        Self {
            now: Time::ZERO,
            follower: registrar.map().clone(),
            registrar,
            out: Vec::new(),
            next: 0,
        }
    }

    /// A bench whose registry has settled.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.now = Time::ZERO + limits::REGISTRY_SETTLE;
        bench
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.registrar.handle(self.now, event, &mut self.out);
        let out = std::mem::take(&mut self.out);
        for effect in &out {
            if let Effect::Publish(delta) = effect {
                let delta = MapUpdate::Delta((**delta).clone());
                self.follower.apply(delta).unwrap();
            }
        }
        assert_eq!(&self.follower, self.registrar.map());
        out
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn join(&mut self, join: Join) -> (StreamId, Vec<Effect>) {
        let stream = StreamId(self.number());
        let join = Box::new(join);
        let out = self.handle(Event::Joined { stream, join });
        (stream, out)
    }

    fn claim(&mut self, chat: u64, shards: &[(u16, u64)]) -> Answer {
        let call = CallId(self.number());
        let out = self.handle(Event::Claim {
            call,
            incarnation: Incarnation(chat),
            shards: with_terms(shards),
            floor: Term(FLOOR),
        });
        answer(&out, call)
    }

    fn release(&mut self, chat: u64, shards: &[(u16, u64)]) -> Answer {
        let call = CallId(self.number());
        let out = self.handle(Event::Release {
            call,
            incarnation: Incarnation(chat),
            shards: with_terms(shards),
        });
        answer(&out, call)
    }

    /// Lets time pass as the shell would, keeping the nodes on `streams` alive.
    fn pass(&mut self, span: Duration, streams: &[StreamId]) -> Vec<Effect> {
        let mut out = Vec::new();
        let end = self.now + span;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(100));
            for stream in streams {
                let state = NodeState::default();
                out.extend(self.handle(Event::Beat { stream: *stream, state }));
            }
            if self.registrar.poll_timeout().is_some_and(|at| at <= self.now) {
                out.extend(self.handle(Event::Timeout));
            }
        }
        out
    }

    fn ownership(&self, shard: u16) -> (Option<u64>, u64) {
        let ownership = self.follower.ownership(Shard::new(shard).unwrap());
        (ownership.owner.map(|owner| owner.0), ownership.term.0)
    }
}

fn with_terms(shards: &[(u16, u64)]) -> Vec<(Shard, Term)> {
    let with_term = |(shard, term): &(u16, u64)| (Shard::new(*shard).unwrap(), Term(*term));
    shards.iter().map(with_term).collect()
}

fn answer(out: &[Effect], call: CallId) -> Answer {
    let Some(Effect::Answer(named, answer)) = out.last() else {
        panic!("no answer in {out:?}");
    };
    assert_eq!(*named, call);
    answer.clone()
}

fn node(role: Role, number: u64) -> Node {
    Node::new(NodeId::new(&format!("{role}-{number}")).unwrap(), Incarnation(number), role)
}

fn fresh(role: Role, number: u64) -> Join {
    Member::new(node(role, number)).join()
}

fn won(answer: &Answer) -> Vec<u64> {
    let Answer::Claims(claims) = answer else {
        panic!("{answer:?}");
    };
    let term = |claim: &Claim| match claim.outcome {
        Outcome::Won { term, .. } => Some(term.0),
        Outcome::Lost(_) | Outcome::Settling { .. } => None,
    };
    claims.iter().filter_map(term).collect()
}

#[test]
fn a_claim_is_compare_and_swap_on_the_term() {
    let mut bench = Bench::settled();
    bench.join(fresh(Role::Chat, 1));
    bench.join(fresh(Role::Chat, 2));
    bench.join(fresh(Role::Connector, 7));

    let Answer::Claims(claims) = bench.claim(1, &[(0, 0), (1, 0), (2, 5)]) else {
        panic!();
    };
    let version = bench.follower.version;
    for claim in &claims[..2] {
        let connectors = [Incarnation(7)].into();
        let outcome = Outcome::Won { term: Term(FLOOR), connectors, map_version: version };
        assert_eq!(claim.outcome, outcome);
    }
    assert_eq!(claims[2].outcome, Outcome::Lost(Ownership::default()));
    assert_eq!(bench.ownership(0), (Some(1), FLOOR));

    let lost = Outcome::Lost(Ownership { owner: Some(Incarnation(1)), term: Term(FLOOR) });
    for seen in [0, FLOOR] {
        let Answer::Claims(claims) = bench.claim(2, &[(0, seen)]) else {
            panic!();
        };
        assert_eq!(claims[0].outcome, lost, "an owned shard is not for claiming");
    }
}

#[test]
fn the_owner_may_claim_again_and_gets_a_new_term() {
    let mut bench = Bench::settled();
    bench.join(fresh(Role::Chat, 1));
    assert_eq!(won(&bench.claim(1, &[(0, 0)])), [FLOOR]);
    assert_eq!(won(&bench.claim(1, &[(0, FLOOR)])), [FLOOR + 1]);
    assert_eq!(won(&bench.claim(1, &[(0, FLOOR)])), [], "a late repeat");
}

#[test]
fn a_release_needs_the_right_owner_and_term() {
    let mut bench = Bench::settled();
    bench.join(fresh(Role::Chat, 1));
    bench.join(fresh(Role::Chat, 2));
    bench.claim(1, &[(0, 0)]);
    assert_eq!(bench.release(2, &[(0, FLOOR)]), Answer::Released);
    assert_eq!(bench.release(1, &[(0, FLOOR - 1)]), Answer::Released);
    assert_eq!(bench.ownership(0), (Some(1), FLOOR));
    assert_eq!(bench.release(1, &[(0, FLOOR)]), Answer::Released);
    assert_eq!(bench.ownership(0), (None, FLOOR), "the term stays");
    assert_eq!(won(&bench.claim(2, &[(0, FLOOR)])), [FLOOR + 1]);
}

#[test]
fn only_live_chats_claim() {
    let mut bench = Bench::settled();
    bench.join(fresh(Role::Connector, 7));
    assert_eq!(bench.claim(7, &[(0, 0)]), Answer::NotLive);
    assert_eq!(bench.claim(1, &[(0, 0)]), Answer::NotLive);
    assert_eq!(bench.release(1, &[(0, 0)]), Answer::NotLive);
}

#[test]
fn a_silent_node_is_gone_and_its_shards_are_free_in_the_same_version() {
    let mut bench = Bench::settled();
    let (one, _) = bench.join(fresh(Role::Chat, 1));
    let (two, _) = bench.join(fresh(Role::Chat, 2));
    bench.claim(1, &[(0, 0), (9, 0)]);
    let out = bench.pass(limits::LEASE, &[two]);
    let free = Ownership { owner: None, term: Term(FLOOR) };
    let gone: Vec<_> = out.iter().filter(|e| matches!(e, Effect::Publish(_))).collect();
    let [Effect::Publish(delta)] = gone[..] else {
        panic!("{out:?}");
    };
    assert_eq!(delta.gone, [Incarnation(1)]);
    assert_eq!(delta.shards, [(Shard::new(0).unwrap(), free), (Shard::new(9).unwrap(), free)]);
    assert!(out.contains(&Effect::Dismiss(one, Gone::Silent)));

    let (stream, out) = bench.join(fresh(Role::Chat, 1));
    assert_eq!(out, [Effect::Dismiss(stream, Gone::Silent)]);
}

#[test]
fn a_broken_stream_is_evidence() {
    let mut bench = Bench::settled();
    let (stream, _) = bench.join(fresh(Role::Chat, 1));
    let (other, _) = bench.join(fresh(Role::Chat, 2));
    bench.handle(Event::Broke { stream });
    bench.pass(limits::LEASE_AFTER_BREAK / 2, &[other]);
    assert_eq!(bench.follower.nodes.len(), 2);
    bench.pass(limits::LEASE_AFTER_BREAK, &[other]);
    assert_eq!(bench.follower.nodes.len(), 1);
    let (stream, out) = bench.join(fresh(Role::Chat, 1));
    assert_eq!(out, [Effect::Dismiss(stream, Gone::Broken)]);
}

#[test]
fn a_node_that_comes_back_in_time_goes_on() {
    let mut bench = Bench::settled();
    let (old, _) = bench.join(fresh(Role::Chat, 1));
    bench.claim(1, &[(0, 0)]);
    bench.handle(Event::Broke { stream: old });
    bench.pass(limits::LEASE_AFTER_BREAK / 2, &[]);
    let (new, _) = bench.join(fresh(Role::Chat, 1));
    bench.pass(limits::LEASE_AFTER_BREAK * 2, &[new]);
    assert_eq!(bench.ownership(0), (Some(1), FLOOR));
}

#[test]
fn a_second_stream_of_one_incarnation_closes_the_first() {
    let mut bench = Bench::settled();
    let (old, _) = bench.join(fresh(Role::Chat, 1));
    let (new, out) = bench.join(fresh(Role::Chat, 1));
    assert!(out.contains(&Effect::Close(old)));
    bench.handle(Event::Broke { stream: old });
    bench.pass(limits::LEASE * 2, &[new]);
    assert_eq!(bench.follower.nodes.len(), 1, "the old stream says nothing");
}

#[test]
fn a_restarted_process_replaces_its_former_life_at_once() {
    let mut bench = Bench::settled();
    let (old, _) = bench.join(fresh(Role::Chat, 1));
    bench.claim(1, &[(0, 0)]);
    let mut reborn = fresh(Role::Chat, 1);
    reborn.node.incarnation = Incarnation(100);
    let (_, out) = bench.join(reborn);
    assert!(out.contains(&Effect::Dismiss(old, Gone::Replaced)));
    assert_eq!(bench.ownership(0), (None, FLOOR));
    let nodes: Vec<_> = bench.follower.nodes.keys().copied().collect();
    assert_eq!(nodes, [Incarnation(100)]);
}

#[test]
fn a_leave_is_at_once() {
    let mut bench = Bench::settled();
    let (stream, _) = bench.join(fresh(Role::Chat, 1));
    bench.claim(1, &[(0, 0)]);
    bench.handle(Event::Left { stream });
    assert!(bench.follower.nodes.is_empty());
    assert_eq!(bench.ownership(0), (None, FLOOR));
    assert_eq!(bench.registrar.poll_timeout(), None);
}

#[test]
fn loads_are_published_together_and_readiness_at_once() {
    let mut bench = Bench::settled();
    let streams: Vec<_> = (1..=3).map(|i| bench.join(fresh(Role::Connector, i)).0).collect();
    let beat = |bench: &mut Bench, stream: StreamId, load, ready| {
        let state = NodeState { load, ready, draining: false };
        bench.handle(Event::Beat { stream, state })
    };
    bench.now = bench.now + limits::REGISTRY_LOAD_INTERVAL;
    assert_eq!(beat(&mut bench, streams[0], 5, false).len(), 1, "nothing was published lately");
    assert_eq!(beat(&mut bench, streams[0], 6, false), []);
    assert_eq!(beat(&mut bench, streams[1], 7, false), []);
    assert_eq!(beat(&mut bench, streams[2], 1, true).len(), 1, "readiness does not wait");
    assert_eq!(bench.follower.nodes[&Incarnation(2)].load, 0);
    let due = bench.registrar.poll_timeout().unwrap();
    assert_eq!(due, bench.now + limits::REGISTRY_LOAD_INTERVAL);
    bench.now = due;
    assert_eq!(bench.handle(Event::Timeout).len(), 1, "one change for both");
    assert_eq!(bench.follower.nodes[&Incarnation(1)].load, 6);
    assert_eq!(bench.follower.nodes[&Incarnation(2)].load, 7);
}

// ---- restarts and pauses

/// What a chat says that has lived through `bench`.
fn rejoin(bench: &Bench, number: u64) -> Join {
    let mut member = Member::new(node(Role::Chat, number));
    let map = MapUpdate::Snapshot(bench.follower.clone());
    member.update(map).unwrap();
    let owned = bench.follower.owned_by(Incarnation(number)).collect();
    Join { owned, ..member.join() }
}

#[test]
fn after_a_restart_owners_are_believed_and_the_rest_waits() {
    let mut before = Bench::settled();
    before.join(fresh(Role::Chat, 1));
    before.join(fresh(Role::Chat, 2));
    before.claim(1, &[(0, 0)]);
    before.claim(2, &[(1, 0)]);

    let mut bench = Bench::new();
    let (one, out) = bench.join(rejoin(&before, 1));
    assert!(out.contains(&Effect::Welcome(one)));
    assert!(!out.contains(&Effect::Follow(one)), "the map is half filled");
    assert_eq!(bench.ownership(0), (Some(1), FLOOR));
    assert_eq!(bench.ownership(1), (None, FLOOR), "its owner is not back yet");
    assert!(bench.follower.version > before.follower.version);

    let (newcomer, out) = bench.join(fresh(Role::Connector, 7));
    assert!(out.contains(&Effect::Follow(newcomer)), "it has no map to keep");

    bench.pass(Duration::from_millis(500), &[one, newcomer]);
    let Answer::Claims(claims) = bench.claim(1, &[(1, FLOOR)]) else {
        panic!();
    };
    let retry_in = limits::REGISTRY_SETTLE - Duration::from_millis(500);
    assert_eq!(claims[0].outcome, Outcome::Settling { retry_in });

    let out = bench.pass(retry_in, &[one, newcomer]);
    assert!(out.contains(&Effect::Follow(one)));
    assert_eq!(won(&bench.claim(1, &[(1, FLOOR)])), [FLOOR + 1]);

    bench.join(rejoin(&before, 2));
    assert_eq!(bench.ownership(1), (Some(1), FLOOR + 1), "it came too late");
}

#[test]
fn the_highest_term_reported_wins() {
    let mut before = Bench::settled();
    let (one, _) = before.join(fresh(Role::Chat, 1));
    before.join(fresh(Role::Chat, 2));
    before.claim(1, &[(0, 0)]);
    let asleep = rejoin(&before, 1);
    before.handle(Event::Left { stream: one });
    before.claim(2, &[(0, FLOOR)]);

    for sleeper_first in [false, true] {
        let mut bench = Bench::new();
        if sleeper_first {
            bench.join(asleep.clone());
            bench.join(rejoin(&before, 2));
        } else {
            bench.join(rejoin(&before, 2));
            bench.join(asleep.clone());
        }
        assert_eq!(bench.ownership(0), (Some(2), FLOOR + 1));
    }
}

#[test]
fn a_term_seen_by_anyone_is_never_granted_again() {
    let mut before = Bench::settled();
    before.join(fresh(Role::Chat, 1));
    before.join(fresh(Role::Chat, 2));
    before.claim(1, &[(0, 0)]);
    before.claim(1, &[(0, FLOOR)]);
    let witness = rejoin(&before, 2);

    // The clock has gone back, the owner has died, and only another chat has seen the term.
    let mut bench =
        Bench { registrar: Registrar::new(Time::ZERO, Timing::default(), 5), ..Bench::new() };
    bench.follower = bench.registrar.map().clone();
    let (two, _) = bench.join(witness);
    bench.pass(limits::REGISTRY_SETTLE, &[two]);
    assert_eq!(bench.ownership(0), (None, FLOOR + 1));
    assert_eq!(won(&bench.claim(2, &[(0, FLOOR + 1)])), [FLOOR + 2]);
    assert!(bench.follower.version > before.follower.version);
}

#[test]
fn a_pause_of_the_registry_is_not_held_against_the_nodes() {
    let mut bench = Bench::settled();
    let (one, _) = bench.join(fresh(Role::Chat, 1));
    let (two, _) = bench.join(fresh(Role::Chat, 2));
    bench.now = bench.now + Duration::from_secs(60);
    bench.handle(Event::Timeout);
    bench.handle(Event::Broke { stream: one });
    bench.handle(Event::Broke { stream: two });
    assert_eq!(bench.follower.nodes.len(), 2);
    bench.pass(limits::REGISTRY_SETTLE - Duration::from_millis(100), &[]);
    let (one, _) = bench.join(fresh(Role::Chat, 1));
    bench.pass(limits::LEASE, &[one]);
    let nodes: Vec<_> = bench.follower.nodes.keys().copied().collect();
    assert_eq!(nodes, [Incarnation(1)], "the other had its time");
}

// ---- bounds

#[test]
fn a_full_cluster_takes_no_more() {
    let mut bench = Bench::settled();
    for number in 1..=limits::NODES_MAX as u64 {
        bench.join(fresh(Role::Connector, number));
    }
    let (stream, out) = bench.join(fresh(Role::Connector, 5000));
    assert_eq!(out, [Effect::Refuse(stream, Refusal::Full)]);
    let mut reborn = fresh(Role::Connector, 3);
    reborn.node.incarnation = Incarnation(5001);
    let (stream, out) = bench.join(reborn);
    assert!(out.contains(&Effect::Welcome(stream)), "it takes a place that it frees");
}

#[test]
fn the_memory_of_the_gone_is_bounded() {
    let mut departed = Departed::default();
    let last = limits::REGISTRY_GONE_MAX as u64 + 10;
    for number in 1..=last {
        departed.insert(Incarnation(number), Gone::Left);
    }
    assert_eq!(departed.get(Incarnation(10)), None);
    assert_eq!(departed.get(Incarnation(11)), Some(Gone::Left));
    assert_eq!(departed.get(Incarnation(last)), Some(Gone::Left));
}

#[test]
fn what_cannot_be_is_refused() {
    let good = fresh(Role::Chat, 1);
    let mut long = good.clone();
    long.node.admin = Some("x".repeat(limits::ADDRESS_BYTES_MAX + 1));
    let mut short_terms = good.clone();
    short_terms.terms_seen = vec![Term(1); 3];
    let mut endless_term = good.clone();
    endless_term.owned = vec![(Shard::new(0).unwrap(), Term(u64::MAX))];
    let mut endless_version = good.clone();
    endless_version.map_version = u64::MAX;
    let mut no_chat = fresh(Role::Gate, 2);
    no_chat.owned = vec![(Shard::new(0).unwrap(), Term(1))];
    let mut bench = Bench::settled();
    for join in [long, short_terms, endless_term, endless_version, no_chat] {
        let (stream, out) = bench.join(join);
        assert_eq!(out, [Effect::Refuse(stream, Refusal::Malformed)]);
    }
    let (_, out) = bench.join(good);
    assert_eq!(out.len(), 3);
    let mut other_name = fresh(Role::Chat, 2);
    other_name.node.incarnation = Incarnation(1);
    let (stream, out) = bench.join(other_name);
    assert_eq!(out, [Effect::Refuse(stream, Refusal::Malformed)]);
}
