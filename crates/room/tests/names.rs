//! A name that two want: what each policy makes of it, step by step.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod stage;

use std::time::Duration;

use model::{Target, UserName, limits};
use room::{Duplicates, ProbeOutcome};
use stage::{CHAT_A, CHAT_B, FRONT_1, FRONT_2, FRONT_3, Stage};

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
    // It may ask again once it is settled which of its wishes was heard.
    stage.enter(FRONT_2, 2, "a");
    assert_eq!(stage.told(), ["2: refused 503"]);
    stage.held.clear();
    stage.settle();
    assert!(stage.told().is_empty());
    stage.enter(FRONT_2, 2, "a");
    assert_eq!(sorted(stage.told()), ["2: in with z a", "9: +a"]);
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
