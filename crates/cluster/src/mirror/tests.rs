use std::time::Duration;

use super::*;
use crate::{claim::Outcome, map::Ownership};

const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    beat: Duration::from_millis(750),
    after_break: Duration::from_millis(700),
    settle: Duration::from_secs(2),
    load_interval: Duration::from_millis(250),
    retry_max: Duration::from_millis(500),
    call_timeout: Duration::from_secs(1),
};

/// This node's own incarnation; smaller ones are witnesses before it.
const ME: Incarnation = Incarnation(50);

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn node(number: u64, name: &str) -> Node {
    let (role, _) = name.split_once('-').unwrap();
    let roles = [Role::Gate, Role::Connector, Role::Chat];
    Node {
        ready: true,
        ..Node::new(
            NodeId::new(name).unwrap(),
            Incarnation(number),
            roles.into_iter().find(|known| known.name() == role).unwrap(),
        )
    }
}

fn shard(number: u16) -> Shard {
    Shard::new(number).unwrap()
}

fn change(revision: u64, what: What) -> Change {
    Change { revision, what }
}

/// A record and its sign of life.
fn present(revision: u64, node: Node) -> [Change; 2] {
    let incarnation = node.incarnation;
    [
        change(revision, What::Node { node: Box::new(node), created: revision }),
        change(revision, What::Alive(incarnation)),
    ]
}

fn owned(revision: u64, number: u16, owner: u64) -> Change {
    change(revision, What::Shard(shard(number), Holding::Owned(Incarnation(owner))))
}

/// A mirror and the effects of its last event.
struct Bench {
    mirror: Mirror,
    out: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        Self { mirror: Mirror::new(ME, NodeId::new("chat-5").unwrap(), TIMING), out: Vec::new() }
    }

    /// Joined at revision 100 and time 0, beside chat-1 who owns shard 1 at term 90.
    fn joined() -> Self {
        let mut bench = Self::new();
        let mut stored = present(80, node(10, "chat-1")).to_vec();
        stored.push(owned(90, 1, 10));
        bench.event(0, Event::Snapshot { revision: 99, changes: stored });
        assert_eq!(bench.out, [], "nothing is shown to a node that is not in it");
        bench.event(0, Event::Enlisted { revision: 100 });
        bench.event(0, Event::Heard);
        bench.changed(0, present(100, node(ME.0, "chat-5")));
        assert_eq!(bench.map().version, 100);
        bench
    }

    fn event(&mut self, millis: u64, event: Event) -> &[Effect] {
        self.out.clear();
        self.mirror.handle(at(millis), event, &mut self.out);
        &self.out
    }

    fn changed(&mut self, millis: u64, changes: impl Into<Vec<Change>>) -> &[Effect] {
        self.event(millis, Event::Changed(changes.into()))
    }

    /// Beats on time, from one moment to another.
    fn beat(&mut self, from: u64, to: u64) {
        for millis in (from..=to).step_by(750) {
            self.event(millis, Event::Heard);
            assert_eq!(self.out, [], "at {millis} ms");
        }
    }

    fn map(&self) -> &ClusterMap {
        let Some(Effect::Publish(map)) = self.out.last() else {
            panic!("no map in {:?}", self.out);
        };
        map
    }

    fn claim(&self, millis: u64, number: u16, seen: u64) -> Result<u64, Outcome> {
        self.mirror.claim(at(millis), shard(number), Term(seen))
    }
}

fn gone(nodes: &[u64]) -> Vec<Effect> {
    let doomed =
        |number: &u64| Doomed { role: Role::Chat, node: Incarnation(*number), doubt: None };
    vec![Effect::Remove(nodes.iter().map(doomed).collect())]
}

// ---- the map

#[test]
fn the_first_map_shows_the_node_itself_and_all_others() {
    let bench = Bench::joined();
    let map = bench.map();
    assert_eq!(map.nodes.keys().copied().collect::<Vec<_>>(), [Incarnation(10), ME]);
    let expected = Ownership { owner: Some(Incarnation(10)), term: Term(90) };
    assert_eq!(map.ownership(shard(1)), expected);
    assert_eq!(map.ownership(shard(2)), Ownership::default());
}

#[test]
fn who_goes_leaves_its_shards_in_the_same_version() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.changed(10, [change(120, What::NodeGone(id)), change(120, What::NotAlive(id))]);
    let map = bench.map();
    assert_eq!(map.version, 120);
    assert!(!map.nodes.contains_key(&id));
    assert_eq!(map.ownership(shard(1)), Ownership { owner: None, term: Term(90) });
}

#[test]
fn a_release_keeps_the_term() {
    let mut bench = Bench::joined();
    let free = Holding::Free { last: Term(90) };
    bench.changed(10, [change(120, What::Shard(shard(1), free))]);
    assert_eq!(bench.map().ownership(shard(1)), Ownership { owner: None, term: Term(90) });
    assert_eq!(bench.claim(10, 1, 90), Ok(120), "the entry is newer than the term");
}

#[test]
fn an_entry_that_somebody_removed_does_not_take_its_term_along() {
    let mut bench = Bench::joined();
    bench.changed(10, [change(120, What::ShardGone(shard(1)))]);
    assert_eq!(bench.map().ownership(shard(1)), Ownership { owner: None, term: Term(90) });
    assert_eq!(bench.claim(10, 1, 90), Ok(0));
    let everybody = [present(80, node(10, "chat-1")), present(100, node(ME.0, "chat-5"))].concat();
    bench.event(20, Event::Snapshot { revision: 130, changes: everybody });
    assert_eq!(bench.map().ownership(shard(1)), Ownership { owner: None, term: Term(90) });
}

#[test]
fn loads_wait_and_all_else_does_not() {
    let mut bench = Bench::joined();
    let put = |revision, load, ready| {
        let node = Node { load, ready, ..node(10, "chat-1") };
        [change(revision, What::Node { node: Box::new(node), created: 80 })]
    };
    assert_eq!(bench.changed(10, put(110, 3, true)), []);
    assert_eq!(bench.changed(20, put(111, 4, true)), []);
    assert_eq!(bench.mirror.poll_timeout(), Some(at(250)));
    bench.event(250, Event::Timeout);
    assert_eq!(bench.map().nodes[&Incarnation(10)].load, 4);
    assert_eq!(bench.mirror.poll_timeout(), None);
    bench.changed(260, put(112, 5, false));
    assert_eq!(bench.map().nodes[&Incarnation(10)].load, 5);
}

// ---- who lives

#[test]
fn a_lease_that_ends_is_acted_on_by_one_witness_after_the_other() {
    let mut bench = Bench::joined();
    bench.beat(750, 9750);
    let id = Incarnation(20);
    bench.changed(9800, present(150, node(20, "chat-2")));
    bench.changed(9900, [change(160, What::NotAlive(id))]);
    assert!(bench.map().nodes.contains_key(&id), "no verdict yet");
    // Of those alive, only chat-1 comes before.
    assert_eq!(bench.mirror.poll_timeout(), Some(at(10_000)));
    assert_eq!(bench.event(9999, Event::Timeout), []);
    assert_eq!(bench.event(10_000, Event::Timeout), gone(&[20]));
    assert_eq!(bench.event(10_100, Event::Timeout), [], "once is enough");
    bench.event(10_500, Event::Heard);
    assert_eq!(bench.event(11_100, Event::Timeout), gone(&[20]), "unless nothing comes of it");
    bench.changed(11_200, [change(170, What::NodeGone(id))]);
    assert_eq!(bench.mirror.poll_timeout(), None);
}

#[test]
fn who_comes_back_in_time_has_never_been_gone() {
    let mut bench = Bench::joined();
    bench.beat(750, 9750);
    bench.changed(9900, [change(160, What::NotAlive(Incarnation(10)))]);
    bench.changed(9950, [change(161, What::Alive(Incarnation(10)))]);
    assert_eq!(bench.mirror.poll_timeout(), None);
    assert_eq!(bench.event(10_100, Event::Timeout), []);
}

#[test]
fn a_store_that_was_away_is_no_witness() {
    let mut bench = Bench::joined();
    bench.beat(750, 9000);
    bench.event(10_500, Event::Silent);
    bench.changed(60_000, [change(160, What::NotAlive(Incarnation(10)))]);
    assert_eq!(bench.mirror.poll_timeout(), None);
    bench.event(60_100, Event::Heard);
    // A whole lease from now on.
    bench.beat(60_850, 62_350);
    assert_eq!(bench.mirror.poll_timeout(), Some(at(63_100)));
    assert_eq!(bench.event(63_099, Event::Timeout), []);
    assert_eq!(bench.event(63_100, Event::Timeout), gone(&[10]));
}

#[test]
fn a_store_or_a_process_that_slept_is_no_witness_either() {
    let mut bench = Bench::joined();
    bench.beat(750, 9000);
    bench.changed(9100, [change(160, What::NotAlive(Incarnation(10)))]);
    // Whoever wakes up late must not act on what it saw before.
    assert_eq!(bench.event(30_000, Event::Timeout), []);
    assert_eq!(bench.mirror.poll_timeout(), None);
    assert_eq!(bench.event(30_100, Event::Heard), []);
    assert_eq!(bench.mirror.poll_timeout(), None, "first it must be heard until then");
    bench.beat(30_850, 32_350);
    assert_eq!(bench.mirror.poll_timeout(), Some(at(33_100)));
}

fn doubt(revision: u64) -> Effect {
    Effect::Doubt { node: Incarnation(10), revision }
}

#[test]
fn who_does_not_answer_a_doubt_is_removed_if_the_doubt_still_stands() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.beat(750, 9750);
    assert_eq!(bench.event(9800, Event::Broken(id)), [doubt(80)]);
    bench.changed(9810, [change(160, What::Doubted(id))]);
    assert!(bench.map().nodes.contains_key(&id), "no verdict yet");
    assert_eq!(bench.event(9820, Event::Broken(id)), [], "somebody has doubted it");
    // Half the time later the store must be there.
    assert_eq!(bench.mirror.poll_timeout(), Some(at(10_160)));
    assert_eq!(bench.event(10_160, Event::Timeout), [Effect::Ask]);
    assert_eq!(bench.mirror.poll_timeout(), None, "it is asked once");
    assert_eq!(bench.event(10_170, Event::Heard), []);
    // Whoever is doubted has no turn of its own.
    assert_eq!(bench.mirror.poll_timeout(), Some(at(10_520)));
    assert_eq!(bench.event(10_519, Event::Timeout), []);
    let doomed = Doomed { role: Role::Chat, node: id, doubt: Some(160) };
    assert_eq!(bench.event(10_520, Event::Timeout), [Effect::Remove(vec![doomed])]);
    // Its lease has ended before that, so that the doubt did not stand any more.
    bench.changed(10_530, [change(170, What::NotAlive(id))]);
    assert_eq!(bench.out.last(), gone(&[10]).last());
}

#[test]
fn who_answers_a_doubt_has_never_been_gone_and_can_be_doubted_again() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.beat(750, 9750);
    bench.changed(9810, [change(160, What::Doubted(id))]);
    bench.changed(9820, [change(161, What::Alive(id))]);
    assert_eq!(bench.mirror.poll_timeout(), None);
    assert_eq!(bench.event(10_520, Event::Timeout), []);
    assert_eq!(bench.event(10_530, Event::Broken(id)), [doubt(161)]);
    bench.changed(10_540, [change(170, What::Doubted(id))]);
    assert_eq!(bench.mirror.poll_timeout(), Some(at(10_890)), "a time of its own");
}

/// A store that hangs for less than it takes to notice has given nobody time to answer.
#[test]
fn a_doubt_counts_only_if_the_store_was_heard_in_between() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.beat(750, 9750);
    bench.changed(9800, [change(160, What::Doubted(id))]);
    assert_eq!(bench.event(10_150, Event::Timeout), [Effect::Ask]);
    assert_eq!(bench.event(10_600, Event::Timeout), [], "the time is over, and nothing was heard");
    assert_eq!(bench.event(11_000, Event::Heard), []);
    assert_eq!(bench.mirror.poll_timeout(), Some(at(11_350)));
    bench.changed(11_010, [change(161, What::Alive(id))]);
    assert_eq!(bench.mirror.poll_timeout(), None);
}

/// It has answered a doubt of before, and died.
#[test]
fn whose_answer_may_be_from_before_is_doubted_again() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.beat(750, 9750);
    bench.changed(9800, [change(160, What::Doubted(id))]);
    assert_eq!(bench.event(9810, Event::Broken(id)), []);
    bench.changed(9820, [change(161, What::Alive(id))]);
    assert!(bench.out.contains(&doubt(161)));

    // The same, if the other one's doubt came before its own.
    let mut bench = Bench::joined();
    bench.beat(750, 9750);
    assert_eq!(bench.event(9810, Event::Broken(id)), [doubt(80)]);
    bench.changed(9820, [change(160, What::Doubted(id))]);
    bench.changed(9830, [change(161, What::Alive(id))]);
    assert!(bench.out.contains(&doubt(161)));
    bench.changed(9840, [change(162, What::Doubted(id))]);
    bench.changed(9850, [change(163, What::Alive(id))]);
    assert!(!bench.out.contains(&doubt(163)), "this one lives");
}

#[test]
fn a_doubt_waits_for_a_store_that_was_away() {
    let mut bench = Bench::joined();
    bench.event(100, Event::Silent);
    bench.event(150, Event::Heard);
    bench.changed(160, present(110, node(10, "chat-1")));
    bench.changed(200, [change(160, What::Doubted(Incarnation(10)))]);
    bench.beat(900, 2400);
    // As with the end of a lease: a whole lease from when it was heard again.
    assert_eq!(bench.mirror.poll_timeout(), Some(at(3150)));
}

#[test]
fn who_has_just_joined_doubts_at_once_and_lets_the_others_come_back() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    assert_eq!(bench.event(300, Event::Broken(id)), [doubt(80)]);
    bench.changed(310, [change(160, What::Doubted(id))]);
    assert_eq!(bench.event(750, Event::Heard), []);
    // The store may have been away until this node came.
    assert_eq!(bench.mirror.poll_timeout(), Some(at(2000)));
    assert_eq!(bench.event(1500, Event::Heard), []);
    assert_eq!(bench.event(1999, Event::Timeout), []);
    let doomed = Doomed { role: Role::Chat, node: id, doubt: Some(160) };
    assert_eq!(bench.event(2000, Event::Timeout), [Effect::Remove(vec![doomed])]);
}

#[test]
fn whom_the_store_has_heard_since_this_node_joined_has_no_more_time_than_others() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.changed(200, [owned(110, 2, 10)]);
    assert_eq!(bench.event(300, Event::Broken(id)), [doubt(80)]);
    bench.changed(310, [change(160, What::Doubted(id))]);
    assert_eq!(bench.event(660, Event::Timeout), [Effect::Ask]);
    assert_eq!(bench.event(661, Event::Heard), []);
    let doomed = Doomed { role: Role::Chat, node: id, doubt: Some(160) };
    assert_eq!(bench.event(1011, Event::Timeout), [Effect::Remove(vec![doomed])]);
}

#[test]
fn a_store_that_goes_away_as_a_node_joins_makes_no_witness_of_it() {
    let mut bench = Bench::joined();
    bench.event(10, Event::Silent);
    bench.event(5000, Event::Heard);
    assert_eq!(bench.event(5010, Event::Broken(Incarnation(10))), []);
    // Nor if the process has slept.
    let mut bench = Bench::joined();
    bench.event(5000, Event::Heard);
    assert_eq!(bench.event(5010, Event::Broken(Incarnation(10))), []);
}

#[test]
fn builds_that_do_not_answer_are_not_doubted() {
    let mut bench = Bench::joined();
    let id = Incarnation(10);
    bench.beat(750, 9750);
    bench.changed(9800, [change(160, What::Mute(id))]);
    assert_eq!(bench.event(9810, Event::Broken(id)), []);
    assert_eq!(bench.mirror.poll_timeout(), None);
    bench.changed(9820, [change(161, What::NotAlive(id))]);
    assert_eq!(bench.out.last(), gone(&[10]).last(), "the end of its lease tells");
    // A doubt by such a build does not say that this node answers, which does.
    bench.changed(9830, [change(162, What::Mute(ME))]);
    assert_eq!(bench.out.last(), Some(&Effect::AnswerDoubt));
    assert!(bench.mirror.is_doubted());
}

#[test]
fn a_process_that_slept_doubts_nobody() {
    let mut bench = Bench::joined();
    bench.beat(750, 9000);
    assert_eq!(bench.event(19_000, Event::Broken(Incarnation(10))), []);
    assert_eq!(bench.event(19_100, Event::Heard), []);
    assert_eq!(bench.event(19_200, Event::Broken(Incarnation(10))), [], "it found them so");
    bench.beat(19_850, 22_100);
    assert_eq!(bench.event(22_100, Event::Broken(Incarnation(10))), [doubt(80)]);
}

#[test]
fn strangers_and_the_dead_are_not_doubted() {
    let mut bench = Bench::joined();
    assert_eq!(bench.event(10, Event::Broken(Incarnation(99))), []);
    assert_eq!(bench.event(10, Event::Broken(ME)), []);
    bench.changed(20, [change(160, What::NotAlive(Incarnation(10)))]);
    assert_eq!(bench.event(30, Event::Broken(Incarnation(10))), []);
}

#[test]
fn a_doubt_of_this_node_is_answered_once() {
    let mut bench = Bench::joined();
    bench.changed(10, [change(120, What::Doubted(ME))]);
    assert_eq!(bench.out.last(), Some(&Effect::AnswerDoubt));
    assert!(bench.mirror.is_doubted());
    bench.changed(20, present(121, node(20, "chat-2")));
    assert!(!bench.out.contains(&Effect::AnswerDoubt), "the answer is on its way");
    bench.changed(30, [change(122, What::Alive(ME))]);
    assert!(!bench.mirror.is_doubted());
    bench.changed(40, [change(130, What::Doubted(ME))]);
    assert_eq!(bench.out.last(), Some(&Effect::AnswerDoubt));
}

#[test]
fn a_life_ends_with_its_record() {
    let mut bench = Bench::joined();
    bench.changed(10, [change(120, What::NodeGone(ME))]);
    assert_eq!(bench.out, [Effect::Over(Gone::Silent)]);
    assert!(!bench.mirror.is_live());
    assert_eq!(bench.changed(20, present(121, node(60, "chat-6"))), []);
}

#[test]
fn a_newer_life_of_the_same_name_replaces_it() {
    let mut bench = Bench::joined();
    let changes =
        [present(120, node(60, "chat-5")).to_vec(), vec![change(120, What::NodeGone(ME))]];
    bench.changed(10, changes.concat());
    assert_eq!(bench.out, [Effect::Over(Gone::Replaced)]);

    // Two that joined at once and did not see each other: the later one.
    let mut bench = Bench::joined();
    bench.changed(10, present(120, node(60, "chat-5")));
    assert_eq!(bench.out, [Effect::Over(Gone::Replaced)]);
    let mut bench = Bench::joined();
    bench.changed(10, present(120, node(60, "chat-1")));
    let live: Vec<_> = bench.map().nodes.keys().copied().collect();
    assert_eq!(live, [ME, Incarnation(60)]);
    assert_eq!(bench.map().ownership(shard(1)).owner, None);
}

#[test]
fn former_lives_are_known_before_joining() {
    let mut bench = Bench::new();
    bench.event(0, Event::Snapshot { revision: 9, changes: present(8, node(7, "chat-5")).into() });
    assert_eq!(bench.mirror.former_lives(), [(Role::Chat, Incarnation(7))]);
    assert!(!bench.mirror.is_full());
}

#[test]
fn a_lost_sign_of_life_is_put_anew_once() {
    let mut bench = Bench::joined();
    bench.changed(10, [change(120, What::NotAlive(ME))]);
    assert_eq!(bench.out.last(), Some(&Effect::Enlist));
    // Put anew before the news of the loss came.
    let mut bench = Bench::joined();
    bench.event(10, Event::Enlisted { revision: 121 });
    bench.changed(20, [change(120, What::NotAlive(ME))]);
    assert!(!bench.out.contains(&Effect::Enlist));
    bench.changed(30, [change(121, What::Alive(ME))]);
    assert!(!bench.out.contains(&Effect::Enlist));
}

#[test]
fn another_past_is_not_believed() {
    let mut bench = Bench::joined();
    assert_eq!(bench.mirror.recognise(1, 500), Ok(()));
    assert_eq!(bench.mirror.recognise(2, 500), Err(Estranged::Other));
    let behind = Estranged::Behind { now: 99, seen: 100 };
    assert_eq!(bench.mirror.recognise(1, 99), Err(behind));
}

// ---- claims

#[test]
fn in_a_cluster_that_runs_a_newcomer_claims_at_once() {
    let bench = Bench::joined();
    assert_eq!(bench.claim(0, 2, 0), Ok(0));
    let owner = Ownership { owner: Some(Incarnation(10)), term: Term(90) };
    assert_eq!(bench.claim(0, 1, 90), Err(Outcome::Lost(owner)));
    let free = Ownership { owner: None, term: Term(0) };
    assert_eq!(bench.claim(0, 2, 5), Err(Outcome::Lost(free)));
}

#[test]
fn a_cluster_that_starts_waits_for_those_who_start_with_it() {
    let mut bench = Bench::new();
    bench.event(0, Event::Snapshot { revision: 99, changes: Vec::new() });
    bench.event(0, Event::Enlisted { revision: 100 });
    bench.event(500, Event::Heard);
    // From when the store has taken its record.
    let retry_in = Duration::from_millis(1400);
    assert_eq!(bench.claim(600, 2, 0), Err(Outcome::Settling { retry_in }));
    bench.beat(1250, 2000);
    assert_eq!(bench.claim(2000, 2, 0), Ok(0));
}

#[test]
fn after_a_return_nobody_claims_before_the_settle_time_but_what_is_its_own() {
    let mut bench = Bench::joined();
    bench.changed(10, [owned(120, 2, ME.0)]);
    bench.event(20, Event::Silent);
    bench.event(60_000, Event::Heard);
    let retry_in = TIMING.settle;
    assert_eq!(bench.claim(60_000, 3, 0), Err(Outcome::Settling { retry_in }));
    assert_eq!(bench.claim(60_000, 2, 120), Ok(120));
    bench.beat(60_750, 61_500);
    assert_eq!(bench.claim(62_000, 3, 0), Ok(0));
}

#[test]
fn answers_are_known_before_their_changes_come() {
    let mut bench = Bench::joined();
    let connectors = vec![Incarnation(70)];
    let lost = Swap::Lost { holding: Holding::Owned(Incarnation(10)), revision: 119 };
    let answer = Swapped { revision: 120, connectors, swaps: vec![Swap::Done, lost] };
    let claims = bench.mirror.claimed(&[shard(2), shard(3)], answer);
    let won =
        Outcome::Won { term: Term(120), connectors: [Incarnation(70)].into(), map_version: 120 };
    assert_eq!(claims[0].outcome, won);
    let current = Ownership { owner: Some(Incarnation(10)), term: Term(119) };
    assert_eq!(claims[1].outcome, Outcome::Lost(current));
    assert_eq!(bench.claim(0, 2, 120), Ok(120), "again, at a higher term");
    assert_eq!(bench.mirror.release(shard(2), Term(119)), None);
    assert_eq!(bench.mirror.release(shard(2), Term(120)), Some(120));

    let answer = Swapped { revision: 130, connectors: Vec::new(), swaps: vec![Swap::Done] };
    bench.mirror.released(&[(shard(2), Term(120))], &answer);
    assert_eq!(bench.mirror.release(shard(2), Term(120)), None, "once is enough");
    assert_eq!(bench.claim(0, 2, 120), Ok(130));
    // The changes come late, and say nothing new.
    bench.changed(10, [owned(120, 2, ME.0)]);
    assert_eq!(bench.claim(10, 2, 120), Ok(130));
    bench.changed(20, [change(130, What::Shard(shard(2), Holding::Free { last: Term(120) }))]);
    assert_eq!(bench.map().ownership(shard(2)), Ownership { owner: None, term: Term(120) });
    assert!(!bench.mirror.answered.contains_key(&shard(2)));
}
