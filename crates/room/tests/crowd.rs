//! A room of more members than joins and leaves are told of: how many they are, and when.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod stage;

use std::time::Duration;

use model::{Time, limits};
use proptest::prelude::*;
use room::{Push, RelayEffect};
use stage::{CHAT_B, FRONT_1, FRONT_2, Stage};

const MAX: u64 = limits::PRESENCE_MEMBERS_MAX as u64;
const INTERVAL: Duration = limits::PRESENCE_COUNT_INTERVAL;
const MOMENT: Duration = Duration::from_millis(1);

/// As many members as each is told of, all but one at the second connector. What the one at the
/// first hears is of interest.
fn full() -> Stage {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 0, "first");
    for session in 1..MAX {
        stage.enter(FRONT_2, session, &format!("m{session}"));
    }
    stage.told();
    stage.effects.clear();
    stage
}

/// What the first has heard.
fn heard(stage: &mut Stage) -> Vec<String> {
    let told = stage.told();
    told.iter().filter_map(|told| told.strip_prefix("0: ").map(str::to_owned)).collect()
}

#[test]
fn a_crowd_is_told_how_many_it_is_now_and_then() {
    let mut stage = full();
    stage.enter(FRONT_2, 2001, "x");
    assert_eq!(heard(&mut stage), ["1001 here"], "it becomes a crowd");
    for session in 2002..2010 {
        stage.enter(FRONT_2, session, &format!("m{session}"));
    }
    stage.leave(FRONT_2, 2003);
    assert_eq!(heard(&mut stage), [""; 0]);
    stage.pass(INTERVAL - MOMENT);
    assert_eq!(heard(&mut stage), [""; 0]);
    stage.pass(MOMENT);
    assert_eq!(heard(&mut stage), ["1008 here"]);
    stage.pass(10 * INTERVAL);
    assert_eq!(heard(&mut stage), [""; 0], "nothing has changed");
    stage.leave(FRONT_2, 2004);
    assert_eq!(heard(&mut stage), ["1007 here"], "after so long at once");
    stage.say(FRONT_2, 1, 1);
    assert_eq!(heard(&mut stage), ["1/1"]);
}

#[test]
fn a_room_that_is_no_crowd_any_more_says_so_and_tells_of_each_again() {
    let mut stage = full();
    stage.enter(FRONT_2, 2001, "x");
    stage.enter(FRONT_2, 2002, "y");
    stage.leave(FRONT_2, 1);
    heard(&mut stage);
    stage.leave(FRONT_2, 2);
    assert_eq!(heard(&mut stage), ["1000 here"]);
    stage.leave(FRONT_2, 3);
    stage.enter(FRONT_2, 4001, "z");
    assert_eq!(heard(&mut stage), ["-m3", "+z"]);
    stage.pass(2 * INTERVAL);
    assert_eq!(heard(&mut stage), [""; 0], "nobody is owed a count");
}

#[test]
fn who_enters_a_crowd_is_told_by_that_and_later_by_the_count() {
    let mut stage = full();
    stage.leave(FRONT_1, 0);
    for session in 2001..2010 {
        stage.enter(FRONT_2, session, &format!("m{session}"));
    }
    stage.told();
    // Its connector has seen nothing of the room before.
    stage.enter(FRONT_1, 0, "first");
    assert!(heard(&mut stage)[0].starts_with("in with "));
    stage.enter(FRONT_2, 3001, "x");
    assert_eq!(heard(&mut stage), [""; 0]);
    stage.pass(INTERVAL);
    assert_eq!(heard(&mut stage), ["1010 here"]);
}

#[test]
fn a_new_owner_changes_nothing_about_it() {
    let mut stage = full();
    stage.enter(FRONT_2, 2001, "x");
    stage.enter(FRONT_2, 2002, "y");
    heard(&mut stage);
    stage.own(CHAT_B, 2);
    assert_eq!(heard(&mut stage), [""; 0]);
    stage.pass(INTERVAL);
    assert_eq!(heard(&mut stage), ["1002 here"]);
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Leave,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Join),
        3 => Just(Step::Leave),
        2 => (1_u64..15_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// Whoever adds up what it is told knows how many there are, within the interval; and between
    /// two counts is the interval, unless the room has just become a crowd, or none.
    #[test]
    fn what_is_told_adds_up(steps in steps()) {
        let mut stage = full();
        let (mut members, mut next) = (MAX, 5000);
        let mut known = MAX;
        let mut changed: Option<Time> = None;
        let mut counted: Option<Time> = None;
        for step in steps {
            let before = members;
            match step {
                Step::Join => {
                    next += 1;
                    members += 1;
                    stage.enter(FRONT_2, next, &format!("m{next}"));
                }
                Step::Leave => {
                    members -= 1;
                    stage.leave(FRONT_2, if next > 5000 { next } else { before - 1 });
                    next = (next - 1).max(5000);
                }
                Step::Pass(millis) => stage.pass(Duration::from_millis(millis)),
            }
            if members != before {
                changed.get_or_insert(stage.now);
            }
            for (_, effect) in std::mem::take(&mut stage.effects) {
                let RelayEffect::Push { sessions, push, .. } = effect else { continue };
                if sessions.iter().all(|session| session.0 != 0) {
                    continue;
                }
                match push {
                    Push::Add(_) => known += 1,
                    Push::Leave(_) => known -= 1,
                    Push::Count(count) => {
                        known = count as u64;
                        let crosses = (before > MAX) != (members > MAX);
                        let waited = counted.is_none_or(|at| stage.now - at >= INTERVAL);
                        prop_assert!(crosses || waited);
                        counted = Some(stage.now);
                    }
                    Push::Chat(_) => {}
                }
            }
            if known == members {
                changed = None;
            }
            let late = changed.is_some_and(|at| stage.now - at > INTERVAL);
            prop_assert!(!late, "{known} of {members}");
            prop_assert!(members > MAX || known == members);
        }
    }
}
