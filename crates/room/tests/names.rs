//! A name that two want: what each policy makes of it, step by step.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod stage;

use std::{collections::BTreeMap, time::Duration};

use model::{SessionId, Target, UserName, limits};
use proptest::prelude::*;
use room::{Duplicates, OwnerEvent, ProbeOutcome, RelayEffect, RelayEvent};
use stage::{CHAT_A, CHAT_B, FRONT_1, FRONT_2, FRONT_3, Stage, room, shard};

/// A bit more than a newcomer waits at most.
const PATIENCE: Duration = Duration::from_millis(2600);

/// Somebody called `a` and its audience.
fn stage(duplicates: Duplicates) -> Stage {
    let mut stage = Stage::with(duplicates);
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_3, 9, "z");
    stage.told();
    stage
}

fn pass(stage: &mut Stage, time: Duration) -> Vec<String> {
    stage.pass(time);
    stage.told()
}

#[test]
fn a_member_that_answers_keeps_its_name() {
    let mut stage = stage(Duplicates::Reject);
    stage.enter(FRONT_2, 2, "a");
    assert_eq!(stage.told(), ["2: refused 409"]);
    // On the same connector, too.
    stage.enter(FRONT_1, 3, "a");
    assert_eq!(stage.told(), ["3: refused 409"]);
    assert_eq!(stage.probed, [ProbeOutcome::Answered; 2]);
    assert!(pass(&mut stage, PATIENCE).is_empty());
}

#[test]
fn a_member_that_is_silent_loses_its_name() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    // One who comes later does not wait any longer, and is late for it.
    assert!(pass(&mut stage, limits::PROBE_TIMEOUT / 2).is_empty());
    stage.enter(FRONT_2, 3, "a");
    assert!(stage.told().is_empty());
    let told = pass(&mut stage, limits::PROBE_TIMEOUT / 2);
    let expected =
        ["1: replaced", "9: -a", "9: +a", "2: in with z a", "3: refused 409"].map(str::to_owned);
    assert_eq!(sorted(told), sorted(expected.to_vec()));
    assert_eq!(stage.probed, [ProbeOutcome::Unanswered]);
    stage.say(FRONT_2, 2, 1);
    assert_eq!(sorted(stage.told()), ["2: 2/1", "9: 2/1"]);
}

fn sorted(mut told: Vec<String>) -> Vec<String> {
    told.sort();
    told
}

#[test]
fn whoever_leaves_meanwhile_leaves_its_name() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    stage.leave(FRONT_1, 1);
    assert_eq!(sorted(stage.told()), ["2: in with z a", "9: +a", "9: -a"]);
    assert_eq!(stage.probed, [ProbeOutcome::Left]);
}

#[test]
fn a_newcomer_that_goes_again_takes_nothing() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    stage.leave(FRONT_2, 2);
    assert!(pass(&mut stage, PATIENCE).is_empty());
    stage.say(FRONT_1, 1, 1);
    assert_eq!(stage.told(), ["1: 1/1", "9: 1/1"]);
}

/// Only so many can wait; a further one is refused unheard.
#[test]
fn who_waits_is_bounded() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    let count = limits::PROBE_NEWCOMERS_MAX as u64;
    for session in 0..count {
        stage.enter(FRONT_2, 100 + session, "a");
    }
    assert!(stage.told().is_empty());
    stage.enter(FRONT_2, 100 + count, "a");
    assert_eq!(stage.told(), [format!("{}: refused 409", 100 + count)]);
    assert_eq!(stage.probed, [ProbeOutcome::Full]);
    let told = pass(&mut stage, limits::PROBE_TIMEOUT);
    let refused = told.iter().filter(|it| it.ends_with("refused 409")).count();
    assert_eq!((refused, told.len()), (255, 259), "one is in");
}

/// It is back, so it lives; and it is its own key that says so.
#[test]
fn whoever_comes_back_meanwhile_keeps_its_name() {
    let mut stage = Stage::new();
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.lost(FRONT_1, 1);
    stage.enter(FRONT_2, 2, "a");
    stage.told();
    stage.come(FRONT_3, 3, "a", 7, Some(1));
    assert_eq!(stage.told(), ["1: elsewhere", "2: refused 409", "3: in with a, resumed:"]);
    assert_eq!(stage.probed, [ProbeOutcome::Answered]);
    assert!(pass(&mut stage, PATIENCE).is_empty());
}

/// A lost connection holds a name for as long as a probe, not for as long as it might come back.
#[test]
fn whoever_is_lost_does_not_answer() {
    let mut stage = Stage::new();
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.lost(FRONT_1, 1);
    stage.enter(FRONT_2, 2, "a");
    stage.told();
    assert_eq!(sorted(pass(&mut stage, limits::PROBE_TIMEOUT)), ["1: replaced", "2: in with a"]);
    // Its key is worth nothing any more.
    stage.come(FRONT_3, 3, "a", 7, Some(1));
    assert_eq!(stage.told(), ["3: refused 409"]);
}

/// The owner is lost while it waits: the next one asks anew, but nobody waits longer for that.
#[test]
fn a_newcomer_is_answered_in_time_whatever_becomes_of_the_owner() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    assert!(pass(&mut stage, limits::PROBE_TIMEOUT / 2).is_empty());
    stage.own(CHAT_B, 2);
    assert!(pass(&mut stage, limits::PROBE_TIMEOUT / 2).is_empty());
    assert_eq!(pass(&mut stage, Duration::from_millis(500)), ["2: refused 503"]);
    // The next owner's patience ends, and nobody wants the name.
    assert!(pass(&mut stage, PATIENCE).is_empty());
    stage.enter(FRONT_2, 3, "a");
    assert_eq!(pass(&mut stage, limits::PROBE_TIMEOUT).len(), 4);
}

#[test]
fn the_next_owner_hears_the_answer() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    stage.silent.clear();
    stage.own(CHAT_B, 2);
    assert_eq!(stage.told(), ["2: refused 409"]);
}

/// Nobody hears the owner: the newcomer is refused all the same, and becomes no ghost.
#[test]
fn a_newcomer_that_cannot_be_told_is_no_ghost() {
    let mut stage = stage(Duplicates::Reject);
    stage.silent.insert(1);
    stage.enter(FRONT_2, 2, "a");
    stage.held.insert((CHAT_A, FRONT_2));
    stage.pass(limits::PROBE_TIMEOUT);
    assert_eq!(stage.told(), ["1: replaced", "9: -a", "9: +a"]);
    assert_eq!(pass(&mut stage, Duration::from_millis(500)), ["2: refused 503", "9: -a"]);
    // It may ask again, and is not told what became of its first wish.
    stage.enter(FRONT_2, 2, "a");
    assert_eq!(stage.told(), ["9: +a"]);
    stage.held.clear();
    stage.settle();
    assert_eq!(stage.told(), ["2: in with z a"]);
}

/// The member's connector is cut off: it is asked when it is back, or has not answered.
#[test]
fn a_connector_that_is_away_is_asked_later() {
    let mut stage = stage(Duplicates::Reject);
    stage.held.insert((CHAT_A, FRONT_1));
    stage.enter(FRONT_2, 2, "a");
    stage.relink(FRONT_1, CHAT_A);
    stage.settle();
    assert_eq!(stage.told(), ["2: refused 409"]);

    stage.held.insert((CHAT_A, FRONT_1));
    stage.enter(FRONT_2, 3, "a");
    assert_eq!(
        sorted(pass(&mut stage, limits::PROBE_TIMEOUT)),
        ["3: in with z a", "9: +a", "9: -a"]
    );
    stage.relink(FRONT_1, CHAT_A);
    stage.settle();
    assert_eq!(stage.told(), ["1: replaced"]);
}

#[test]
fn a_newcomer_replaces_at_once() {
    let mut stage = stage(Duplicates::Replace);
    stage.enter(FRONT_2, 2, "a");
    assert_eq!(stage.told(), ["1: replaced", "2: in with z a", "9: -a", "9: +a"]);
    // The connector that nobody is left on knows that it is not to be told any more.
    stage.enter(FRONT_1, 3, "b");
    assert_eq!(sorted(stage.told()), ["2: +b", "3: in with z a b", "9: +b"]);
    stage.enter(FRONT_2, 4, "a");
    assert_eq!(
        sorted(stage.told()),
        ["2: replaced", "3: +a", "3: -a", "4: in with z b a", "9: +a", "9: -a"]
    );
    assert!(stage.probed.is_empty());
}

/// Two clients would chase each other away for ever.
#[test]
fn whoever_comes_back_by_itself_replaces_nobody() {
    let mut stage = Stage::with(Duplicates::Replace);
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.come(FRONT_2, 2, "a", 8, None);
    assert_eq!(stage.told()[1..], ["1: replaced", "2: in with a, joined:"]);
    stage.come(FRONT_1, 3, "a", 7, Some(1));
    assert_eq!(stage.told(), ["3: refused 409"]);
    // And once the name is free, what was meant for the other is not shown.
    let whisper = Target::One(UserName::from_peer("a").unwrap());
    stage.say_as(FRONT_2, 2, 1, whisper, None);
    stage.leave(FRONT_2, 2);
    stage.told();
    stage.come(FRONT_1, 4, "a", 7, Some(1));
    assert_eq!(stage.told(), ["4: in with a, reset:"]);
}

#[test]
fn whoever_comes_back_by_its_key_is_the_same() {
    let mut stage = Stage::with(Duplicates::Replace);
    stage.enter(FRONT_3, 9, "z");
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.told();
    stage.come(FRONT_2, 2, "a", 7, Some(2));
    assert_eq!(stage.told(), ["1: elsewhere", "2: in with z a, resumed:"]);
    assert_eq!(stage.probed.len(), 0);
}

/// The owner dies after it has put a member out and before anybody has heard of it.
#[test]
fn a_replacement_that_nobody_heard_of_happens_again() {
    let mut stage = stage(Duplicates::Replace);
    stage.held.extend([(CHAT_A, FRONT_1), (CHAT_A, FRONT_2), (CHAT_A, FRONT_3)]);
    stage.enter(FRONT_2, 2, "a");
    assert!(stage.told().is_empty());
    stage.own(CHAT_B, 2);
    assert_eq!(sorted(stage.told()), ["1: replaced", "2: in with z a", "9: +a", "9: -a"]);
}

#[test]
fn several_sessions_are_one_member() {
    let mut stage = stage(Duplicates::Multi);
    stage.enter(FRONT_2, 2, "a");
    stage.enter(FRONT_1, 3, "a");
    assert_eq!(stage.told(), ["2: in with a z", "3: in with a z"], "others hear nothing");
    stage.say(FRONT_2, 2, 1);
    assert_eq!(stage.told(), ["1: 2/1", "3: 2/1", "2: 2/1", "9: 2/1"]);
    let a = || Target::One(UserName::from_peer("a").unwrap());
    stage.say_as(FRONT_3, 9, 1, a(), None);
    assert_eq!(stage.told(), ["1: 9/1", "3: 9/1", "2: 9/1", "9: 1 at 6"]);
    stage.leave(FRONT_1, 1);
    assert!(stage.told().is_empty());
    stage.say_as(FRONT_3, 9, 2, a(), None);
    assert_eq!(stage.told(), ["3: 9/2", "2: 9/2", "9: 2 at 8"]);
    stage.leave(FRONT_2, 2);
    stage.leave(FRONT_1, 3);
    assert_eq!(stage.told(), ["9: -a"]);
    stage.enter(FRONT_1, 4, "a");
    assert_eq!(sorted(stage.told()), ["4: in with z a", "9: +a"]);
}

#[test]
fn sessions_of_one_member_outlive_the_owner() {
    let mut stage = stage(Duplicates::Multi);
    stage.enter(FRONT_2, 2, "a");
    stage.own(CHAT_B, 2);
    stage.told();
    stage.say(FRONT_3, 9, 1);
    assert_eq!(sorted(stage.told()), ["1: 9/1", "2: 9/1", "9: 9/1"]);
    stage.leave(FRONT_1, 1);
    assert!(stage.told().is_empty());
    stage.leave(FRONT_2, 2);
    assert_eq!(stage.told(), ["9: -a"]);
}

/// Each session of a member comes back to its own place.
#[test]
fn sessions_of_one_member_come_back_each_by_its_key() {
    let mut stage = Stage::with(Duplicates::Multi);
    stage.enter(FRONT_3, 9, "z");
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.come(FRONT_2, 2, "a", 8, None);
    stage.told();
    stage.come(FRONT_1, 3, "a", 8, Some(3));
    assert_eq!(sorted(stage.told()), ["2: elsewhere", "3: in with z a, resumed:"]);
    // One that has left is told what it missed, whispers too, as its name stayed here.
    stage.leave(FRONT_1, 1);
    stage.say_as(FRONT_3, 9, 1, Target::One(UserName::from_peer("a").unwrap()), None);
    stage.told();
    stage.come(FRONT_2, 4, "a", 7, Some(3));
    assert_eq!(stage.told(), ["4: in with z a, resumed: 9/1"]);
    // Once the name has gone, what is said to the next one of it is not for the former.
    stage.leave(FRONT_2, 4);
    stage.leave(FRONT_1, 3);
    stage.enter(FRONT_2, 5, "a");
    stage.say_as(FRONT_3, 9, 2, Target::One(UserName::from_peer("a").unwrap()), None);
    stage.told();
    stage.come(FRONT_1, 6, "a", 7, Some(6));
    assert_eq!(stage.told().len(), 1);
}

#[test]
fn sessions_of_one_member_are_bounded() {
    let mut stage = stage(Duplicates::Multi);
    for session in 0..limits::MEMBER_SESSIONS_MAX as u64 {
        stage.enter(FRONT_2, 100 + session, "a");
    }
    assert_eq!(stage.told().last().unwrap(), "131: refused 429");
}

const FRONTS: [model::Incarnation; 3] = [FRONT_1, FRONT_2, FRONT_3];

#[derive(Clone, Copy, Debug)]
enum Act {
    /// One more session wants one of two names.
    Enter(usize, bool),
    /// One that was refused tries again, or one that is in leaves.
    Other(prop::sample::Index),
    /// One falls silent, or comes to.
    Silence(prop::sample::Index),
    Hold(usize),
    Release,
    Relink(usize),
    /// The other chat takes the shard over.
    Move,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let front = 0..FRONTS.len();
    prop_oneof![
        6 => (front.clone(), any::<bool>()).prop_map(|(front, name)| Act::Enter(front, name)),
        6 => any::<prop::sample::Index>().prop_map(Act::Other),
        3 => any::<prop::sample::Index>().prop_map(Act::Silence),
        2 => front.clone().prop_map(Act::Hold),
        2 => Just(Act::Release),
        1 => front.prop_map(Act::Relink),
        1 => Just(Act::Move),
        4 => (0_u64..3_000).prop_map(Act::Pass),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waits,
    In,
    Refused,
    Gone,
}

/// Sessions that want two names, as they see themselves.
struct Play {
    stage: Stage,
    people: Vec<(usize, &'static str, Standing)>,
    owner: (bool, u64),
}

impl Play {
    fn new(duplicates: Duplicates) -> Self {
        Self { stage: Stage::with(duplicates), people: Vec::new(), owner: (false, 1) }
    }

    fn chats(&self) -> [model::Incarnation; 2] {
        if self.owner.0 { [CHAT_B, CHAT_A] } else { [CHAT_A, CHAT_B] }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Enter(front, name) => {
                self.people.push((front, if name { "a" } else { "b" }, Standing::Refused));
                self.ask(self.people.len() - 1);
            }
            Act::Other(which) if !self.people.is_empty() => {
                let which = which.index(self.people.len());
                match self.people[which].2 {
                    Standing::In => {
                        self.people[which].2 = Standing::Gone;
                        self.leave(which);
                    }
                    Standing::Refused => {
                        // As a connector does it, whatever its relay thinks of the first time.
                        self.leave(which);
                        self.ask(which);
                    }
                    Standing::Waits | Standing::Gone => {}
                }
            }
            Act::Silence(which) if !self.people.is_empty() => {
                let session = which.index(self.people.len()) as u64;
                if !self.stage.silent.remove(&session) {
                    self.stage.silent.insert(session);
                }
            }
            Act::Other(_) | Act::Silence(_) => {}
            Act::Hold(front) => {
                self.stage.held.insert((self.chats()[0], FRONTS[front]));
            }
            Act::Release => self.stage.held.clear(),
            Act::Relink(front) => {
                for chat in self.chats() {
                    self.stage.relink(FRONTS[front], chat);
                }
            }
            Act::Move => {
                let [from, to] = self.chats();
                self.owner = (!self.owner.0, self.owner.1 + 1);
                self.stage.owner(from, OwnerEvent::Lost { shard: shard() });
                self.stage.own(to, self.owner.1);
            }
            Act::Pass(millis) => {
                // A link on which nothing moves is cut in about a second.
                for (chat, front) in std::mem::take(&mut self.stage.held) {
                    self.stage.relink(front, chat);
                }
                self.stage.settle();
                self.stage.pass(Duration::from_millis(millis));
            }
        }
        self.stage.settle();
        self.hear();
    }

    fn ask(&mut self, which: usize) {
        let (front, name, _) = self.people[which];
        self.people[which].2 = Standing::Waits;
        let (shard, room, session) = (shard(), room(), SessionId(which as u64));
        let user = UserName::from_peer(name).unwrap();
        let enter = RelayEvent::Enter { shard, room, session, user, ticket: None };
        self.stage.relay(FRONTS[front], enter);
    }

    fn leave(&mut self, which: usize) {
        let (shard, room, session) = (shard(), room(), SessionId(which as u64));
        let leave = RelayEvent::Leave { shard, room, session, lost: false };
        self.stage.relay(FRONTS[self.people[which].0], leave);
    }

    fn hear(&mut self) {
        for (front, effect) in std::mem::take(&mut self.stage.effects) {
            let (session, standing) = match effect {
                RelayEffect::Entered { session, .. } => (session, Standing::In),
                RelayEffect::EnterRefused { session, .. } => (session, Standing::Refused),
                RelayEffect::Expel { session } | RelayEffect::Replace { session } => {
                    (session, Standing::Gone)
                }
                RelayEffect::CutLink(chat) => {
                    self.stage.relink(front, chat);
                    continue;
                }
                RelayEffect::Push { sessions, .. } => {
                    for session in sessions.iter() {
                        let person = self.people[usize::try_from(session.0).unwrap()];
                        assert_eq!(person.2, Standing::In, "{session:?} is told something");
                    }
                    continue;
                }
                RelayEffect::Frame { .. }
                | RelayEffect::Said { .. }
                | RelayEffect::SayRefused { .. }
                | RelayEffect::Supersede { .. }
                | RelayEffect::Probe { .. }
                | RelayEffect::StaleFrame { .. }
                | RelayEffect::Attached { .. } => continue,
            };
            let person = &mut self.people[usize::try_from(session.0).unwrap()];
            assert_ne!(person.2, Standing::Gone, "nothing is told to who has gone: {session:?}");
            person.2 = standing;
            if standing == Standing::Gone {
                // What a connector says of a session that it has closed.
                self.leave(usize::try_from(session.0).unwrap());
            }
        }
    }

    /// How many sessions are in, by name.
    fn inside(&self) -> BTreeMap<&'static str, usize> {
        let mut inside = BTreeMap::new();
        for (_, name, _) in self.people.iter().filter(|it| it.2 == Standing::In) {
            *inside.entry(*name).or_default() += 1;
        }
        inside
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever owners and links do: who asks is answered in time, and in the end a room lists
    /// exactly those who think that they are in, each name once.
    #[test]
    fn names_are_had_by_whom_the_policy_says(
        policy in prop::sample::select(&Duplicates::ALL[..]),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut play = Play::new(policy);
        for act in acts {
            play.act(act);
        }
        play.act(Act::Release);
        for front in 0..FRONTS.len() {
            play.act(Act::Relink(front));
        }
        play.act(Act::Pass(2_600));
        let waits = play.people.iter().find(|it| it.2 == Standing::Waits);
        prop_assert!(waits.is_none(), "{waits:?} has no answer");
        play.act(Act::Pass(20_000));
        let inside = play.inside();
        if policy != Duplicates::Multi {
            prop_assert!(inside.values().all(|count| *count == 1), "{inside:?}");
        }
        play.stage.told();
        play.stage.enter(FRONT_1, 9999, "witness");
        let told = play.stage.told();
        let told = told.iter().find_map(|it| it.strip_prefix("9999: in with ")).unwrap();
        let mut listed: Vec<&str> = told.split(' ').filter(|it| *it != "witness").collect();
        listed.sort_unstable();
        prop_assert_eq!(listed, inside.into_keys().collect::<Vec<_>>());
    }
}
