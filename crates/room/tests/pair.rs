//! Both ends wired together, step by step: what the simulation found, told as short stories.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod stage;

use model::{Incarnation, Target, Term, UserName, limits};
use room::{Owner, OwnerEvent, RelayEvent, Relays};
use stage::{CHAT_A, CHAT_B, FRONT_1, FRONT_2, FRONT_3, Stage, shard, text};

/// A client closes while it is still entering: whoever is alone beside it on its connector hears
/// of its join all the same, or its leave would come out of the blue.
#[test]
fn a_join_that_is_given_up_is_told_before_its_leave() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.held.insert((CHAT_A, FRONT_1));
    stage.enter(FRONT_1, 2, "b");
    stage.leave(FRONT_1, 2);
    stage.told();
    stage.held.clear();
    stage.settle();
    assert_eq!(stage.told(), ["1: +b", "1: -b"]);
}

/// A connector that has just got its first member knows where the room stands. What the others
/// missed is told to them by the next owner from there, too.
#[test]
fn a_newcomer_holds_what_the_others_have_missed() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.say(FRONT_1, 1, 1);
    // From here on nobody but the newcomer hears the first owner.
    stage.held.extend([(CHAT_A, FRONT_1), (CHAT_A, FRONT_2)]);
    stage.say(FRONT_1, 1, 2);
    stage.say(FRONT_2, 2, 1);
    stage.enter(FRONT_3, 3, "c");
    stage.told();
    stage.own(CHAT_B, 2);
    assert_eq!(
        stage.told(),
        ["1: 1/2", "1: 2/1", "1: +c", "2: 1/2", "2: 2/1", "2: +c"],
        "nothing is lost, nobody is sent away"
    );
    assert_eq!(stage.resets, 0);
    stage.say(FRONT_3, 3, 1);
    assert_eq!(stage.told(), ["1: 3/1", "2: 3/1", "3: 3/1"]);
}

/// A join is applied, and neither its answer nor what follows reaches the connector. If what
/// followed is not at hand any more, the session joins anew, rather than lack it.
#[test]
fn a_join_without_what_followed_is_taken_back() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.held.insert((CHAT_A, FRONT_2));
    stage.enter(FRONT_2, 2, "b");
    stage.say(FRONT_1, 1, 1);
    stage.told();
    stage.relink(FRONT_2, CHAT_A);
    stage.settle();
    assert_eq!(stage.told(), ["1: -b", "1: +b", "2: in with a b"]);
    stage.say(FRONT_1, 1, 2);
    assert_eq!(stage.told(), ["1: 1/2", "2: 1/2"]);
}

/// The same, but the connector knows the room well enough: it hears its join, and all after it.
#[test]
fn a_join_with_what_followed_is_made_good() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.held.insert((CHAT_A, FRONT_2));
    stage.enter(FRONT_2, 3, "c");
    stage.say(FRONT_1, 1, 1);
    stage.told();
    stage.relink(FRONT_2, CHAT_A);
    stage.settle();
    assert_eq!(stage.told(), ["3: in with a b c", "2: +c", "2: 1/1", "3: 1/1"]);
}

/// Two connectors are cut off from the owner, a third one gets its first member, hears what they do
/// not, and dies with the owner. Nobody knows then what was said there, so everybody is told.
#[test]
fn what_only_the_dead_have_heard_is_not_passed_over() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.unlink(FRONT_1, CHAT_A);
    stage.unlink(FRONT_2, CHAT_A);
    stage.enter(FRONT_3, 3, "c");
    stage.say(FRONT_3, 3, 1);
    stage.told();
    stage.lose(FRONT_3);
    stage.own(CHAT_B, 2);
    assert_eq!(stage.resets, 1);
    assert_eq!(stage.told(), ["1: out", "2: out"]);
}

/// The same, and the next owner is so young that it did not see the third one go: those that attach
/// say it.
#[test]
fn a_young_owner_learns_of_a_connector_that_is_gone() {
    for goes in [true, false] {
        let mut stage = Stage::new();
        stage.enter(FRONT_1, 1, "a");
        stage.enter(FRONT_2, 2, "b");
        stage.unlink(FRONT_1, CHAT_A);
        stage.unlink(FRONT_2, CHAT_A);
        if goes {
            stage.enter(FRONT_3, 3, "c");
            stage.say(FRONT_3, 3, 1);
            stage.lose(FRONT_3);
        }
        stage.told();
        // Before there is another chat, more time passes than a chat would remember.
        stage.pass(limits::DEPARTURE_DOUBT);
        stage.chats.insert(CHAT_B, Owner::default());
        for front in stage.connectors.keys().copied().collect::<Vec<_>>() {
            stage.relink(front, CHAT_B);
        }
        stage.own(CHAT_B, 2);
        let all_out = vec!["1: out".to_owned(), "2: out".to_owned()];
        assert_eq!((stage.resets, stage.told()), if goes { (1, all_out) } else { (0, vec![]) });
    }
}

/// The same, but those that stay could hear the owner to its end: the dead one knew no more.
#[test]
fn a_dead_connector_alone_resets_nothing() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.lose(FRONT_3);
    stage.told();
    stage.own(CHAT_B, 2);
    stage.say(FRONT_1, 1, 1);
    assert_eq!(stage.resets, 0);
    assert_eq!(stage.told(), ["1: 1/1", "2: 1/1"]);
}

/// A connector has just started beside one that is gone, and never got a word from the owner before
/// that gives the shard away: it cannot have missed what it never heard, and nothing is reset.
#[test]
fn a_new_connector_that_never_heard_the_owner_resets_nothing() {
    const NEW: Incarnation = Incarnation(14);
    let (shard, owner) = (shard(), Some(CHAT_A));
    // It has no link to the owner, or no answer; or it had one, and a link that broke.
    for case in ["no link", "no answer", "cut off"] {
        let mut stage = Stage::new();
        stage.enter(FRONT_1, 1, "a");
        stage.enter(FRONT_2, 2, "b");
        stage.lose(FRONT_3);
        stage.connectors.insert(NEW, Relays::new(NEW));
        stage.relay(NEW, RelayEvent::Owner { shard, owner, term: Term(1) });
        stage.link(NEW, CHAT_B);
        if case != "no link" {
            stage.link(NEW, CHAT_A);
        }
        if case == "no answer" {
            stage.held.insert((CHAT_A, NEW));
        }
        stage.enter(NEW, 3, "c");
        if case == "cut off" {
            stage.unlink(NEW, CHAT_A);
        }
        stage.told();
        stage.own(CHAT_B, 2);
        let told = stage.told();
        if case == "cut off" {
            assert_eq!(stage.resets, 1);
            assert_eq!(told, ["1: out", "2: out", "3: out"]);
            continue;
        }
        assert_eq!(stage.resets, 0, "{case}: {told:?}");
        assert_eq!(told, ["1: +c", "2: +c", "3: in with a b c"], "{case}");
        stage.say(NEW, 3, 1);
        assert_eq!(stage.told(), ["1: 3/1", "2: 3/1", "3: 3/1"], "{case}");
    }
}

/// A connector that lives, but does not attach within the time: what its clients have seen is not
/// known, so the room starts a new generation, and everybody is told.
#[test]
fn a_silent_connector_is_not_waited_for() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.held.insert((FRONT_2, CHAT_B));
    stage.told();
    stage.own(CHAT_B, 2);
    assert_eq!((stage.resets, stage.told()), (0, vec![]), "it is waited for");
    stage.now = stage.now + limits::ATTACH_TIMEOUT;
    stage.owner(CHAT_B, OwnerEvent::Timeout);
    stage.settle();
    assert_eq!((stage.resets, stage.told()), (1, vec!["1: out".to_owned()]));
    stage.held.clear();
    stage.settle();
    assert_eq!(stage.told(), ["2: out"]);
    stage.enter(FRONT_1, 3, "a");
    stage.enter(FRONT_2, 4, "b");
    assert_eq!(stage.told(), ["3: in with a", "3: +b", "4: in with a b"]);
}

/// An owner that slept goes on as if nothing had happened: nobody hears it.
#[test]
fn a_woken_owner_is_heard_by_nobody() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    // Asleep: what is sent to it is not read yet.
    stage.held.extend([(FRONT_1, CHAT_A), (FRONT_2, CHAT_A)]);
    stage.say(FRONT_1, 1, 1);
    stage.own(CHAT_B, 2);
    stage.say(FRONT_2, 2, 1);
    assert_eq!(
        stage.told(),
        ["1: in with a", "1: +b", "2: in with a b", "1: 1/1", "2: 1/1", "1: 2/1", "2: 2/1"]
    );
    stage.held.clear();
    stage.settle();
    assert_eq!(stage.told(), [""; 0], "what it orders now is dropped");
    assert_eq!(stage.stale, 2, "and counted: one frame at each connector");
    stage.say(FRONT_1, 1, 2);
    assert_eq!(stage.told(), ["1: 1/2", "2: 1/2"]);
}

/// A move by plan: the old owner lets go, the new one goes on. Clients notice nothing.
#[test]
fn a_planned_move_is_not_noticed() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.say(FRONT_1, 1, 1);
    stage.told();
    let (shard, term) = (shard(), Term(1));
    stage.owner(CHAT_A, OwnerEvent::Lost { shard });
    for front in [FRONT_1, FRONT_2, FRONT_3] {
        stage.relay(front, RelayEvent::Owner { shard, owner: None, term });
    }
    // Said while nobody owns the room.
    stage.say(FRONT_2, 2, 1);
    stage.own(CHAT_B, 2);
    assert_eq!(stage.told(), ["1: 2/1", "2: 2/1"]);
    assert_eq!(stage.resets, 0);
}

/// A connection is lost, and its client is back before the grace ends: on the same connector, then
/// on another. Nobody else hears of it, and it hears what it missed.
#[test]
fn a_quiet_return_is_heard_by_nobody() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.come(FRONT_1, 2, "b", 7, None);
    assert_eq!(stage.told(), ["1: in with a", "2: in with a b, joined:", "1: +b"]);
    stage.lost(FRONT_1, 2);
    stage.say(FRONT_1, 1, 1);
    stage.pass(limits::RETURN_GRACE / 2);
    stage.come(FRONT_1, 3, "b", 7, Some(2));
    assert_eq!(stage.told(), ["1: 1/1", "2: elsewhere", "3: in with a b, resumed: 1/1"]);
    stage.lost(FRONT_1, 3);
    stage.say(FRONT_1, 1, 2);
    stage.come(FRONT_2, 4, "b", 7, Some(4));
    assert_eq!(stage.told(), ["1: 1/2", "3: elsewhere", "4: in with a b, resumed: 1/2"]);
    stage.pass(limits::RETURN_GRACE);
    stage.say(FRONT_1, 1, 3);
    assert_eq!(stage.told(), ["1: 1/3", "4: 1/3"]);
}

/// Who is away for longer has left, and is told all the same what it missed, whispers to it while it
/// was a member included; but none to another of its name.
/// A return whose connection breaks before it is answered ends no grace, if it went well or not.
#[test]
fn a_return_that_is_cut_short_is_heard_by_nobody() {
    for is_applied in [true, false] {
        let mut stage = Stage::new();
        stage.enter(FRONT_1, 1, "a");
        stage.come(FRONT_1, 2, "b", 7, None);
        stage.lost(FRONT_1, 2);
        stage.told();
        stage.held.insert((CHAT_A, FRONT_2));
        if !is_applied {
            stage.unlink(FRONT_2, CHAT_A);
        }
        stage.come(FRONT_2, 3, "b", 7, Some(2));
        stage.lost(FRONT_2, 3);
        stage.come(FRONT_3, 4, "b", 7, Some(2));
        stage.say(FRONT_1, 1, 1);
        // What connector 2 asked for and was not answered, it does not ask for again.
        stage.relink(FRONT_2, CHAT_A);
        stage.settle();
        stage.pass(limits::RETURN_GRACE * 2);
        let told = stage.told();
        assert!(told.contains(&"4: in with a b, resumed:".to_owned()), "{told:?}");
        assert!(told.contains(&"4: 1/1".to_owned()), "{told:?}");
        let wrong = |it: &&String| ["1: -b", "1: +b", "4: elsewhere"].contains(&it.as_str());
        assert_eq!(told.iter().find(wrong), None, "{told:?}");
    }
}

#[test]
fn a_late_return_is_a_join_that_knows_what_it_missed() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.come(FRONT_2, 2, "b", 7, None);
    stage.lost(FRONT_2, 2);
    let b = Target::One(UserName::from_peer("b").unwrap());
    stage.say_as(FRONT_1, 1, 1, b.clone(), None);
    stage.pass(limits::RETURN_GRACE);
    stage.enter(FRONT_1, 3, "b");
    stage.say_as(FRONT_1, 1, 2, b, None);
    stage.leave(FRONT_1, 3);
    stage.told();
    stage.come(FRONT_3, 4, "b", 7, Some(2));
    assert_eq!(stage.told(), ["1: +b", "4: in with a b, resumed: 1/1"]);
}

/// Nobody gets in by a wrong key, by an old one, or back into what was before its own time.
#[test]
fn only_who_has_the_key_comes_back() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.say(FRONT_1, 1, 1);
    stage.come(FRONT_2, 2, "b", 7, None);
    stage.told();
    stage.come(FRONT_3, 3, "b", 8, Some(3));
    assert_eq!(stage.told(), ["3: refused 409"]);
    stage.enter(FRONT_3, 4, "b");
    assert_eq!(stage.told(), ["4: refused 409"]);
    stage.come(FRONT_3, 5, "b", 7, Some(1));
    assert_eq!(stage.told(), ["2: elsewhere", "5: in with a b, reset: 1/1"]);
    stage.leave(FRONT_3, 5);
    stage.pass(limits::RESUME_WINDOW);
    stage.told();
    stage.come(FRONT_3, 6, "b", 7, Some(4));
    assert_eq!(stage.told(), ["1: +b", "6: in with a b, reset: 1/1"]);
}

/// The room is kept for the last one that left and may come back, and no longer.
#[test]
fn an_empty_room_waits_for_who_may_come_back() {
    let mut stage = Stage::new();
    stage.come(FRONT_1, 1, "a", 7, None);
    stage.say(FRONT_1, 1, 1);
    stage.lost(FRONT_1, 1);
    stage.pass(limits::RETURN_GRACE);
    assert_eq!(stage.chats[&CHAT_A].rooms(), 0);
    stage.told();
    stage.come(FRONT_2, 2, "a", 7, Some(2));
    assert_eq!(stage.told(), ["2: in with a, resumed:"]);
    stage.leave(FRONT_2, 2);
    stage.pass(limits::RESUME_WINDOW);
    stage.pass(limits::RESUME_WINDOW);
    stage.told();
    stage.come(FRONT_2, 3, "a", 7, Some(4));
    assert_eq!(stage.told(), ["3: in with a, reset:"]);
}

/// The owner dies while a client is away: the next one knows it by its connector.
#[test]
fn the_way_back_survives_the_owner() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.come(FRONT_2, 2, "b", 7, None);
    stage.lost(FRONT_2, 2);
    stage.say(FRONT_1, 1, 1);
    stage.own(CHAT_B, 2);
    stage.told();
    stage.come(FRONT_3, 3, "b", 7, Some(2));
    assert_eq!(stage.told(), ["2: elsewhere", "3: in with a b, resumed: 1/1"]);
    assert_eq!(stage.resets, 0);
}

/// What is sent again under its name is applied once, by another session and another owner, too.
#[test]
fn a_named_message_is_applied_once() {
    let mut stage = Stage::new();
    let all = || Target::Everyone { shown: text("*") };
    stage.enter(FRONT_1, 1, "a");
    stage.come(FRONT_2, 2, "b", 7, None);
    stage.say_as(FRONT_2, 2, 1, all(), Some("k"));
    stage.lost(FRONT_2, 2);
    stage.come(FRONT_2, 3, "b", 7, Some(3));
    stage.told();
    stage.say_as(FRONT_2, 3, 1, all(), Some("k"));
    assert_eq!(stage.told(), ["3: 1 at 3"]);
    stage.own(CHAT_B, 2);
    stage.told();
    stage.say_as(FRONT_2, 3, 2, all(), Some("k"));
    assert_eq!(stage.told(), ["3: 2 at 3"]);
    // Another's message of that name is another message.
    stage.say_as(FRONT_1, 1, 1, all(), Some("k"));
    assert_eq!(stage.told(), ["1: 1/1", "3: 1/1"]);
}

/// A whisper that its target hears of by coming back is known to its new connector from then on: it
/// is not applied again when the owner is gone that alone had told of it.
#[test]
fn a_whisper_that_was_caught_up_on_is_not_said_again() {
    let mut stage = Stage::new();
    stage.enter(FRONT_3, 1, "a");
    stage.come(FRONT_3, 2, "c", 7, None);
    stage.held.insert((CHAT_A, FRONT_3));
    let c = Target::One(UserName::from_peer("c").unwrap());
    stage.say_as(FRONT_3, 1, 1, c, None);
    stage.told();
    stage.come(FRONT_1, 3, "c", 7, Some(2));
    assert_eq!(stage.told(), ["3: in with a c, resumed: 1/1"]);
    stage.own(CHAT_B, 2);
    assert_eq!(stage.told(), ["1: 1 at 3", "2: 1/1", "2: elsewhere"]);
}

/// A join is applied, but its answer gets lost, and then there is no owner for so long that it is given
/// up. The client asks again, by another name: it is not told that it is in by the first.
#[test]
fn a_join_that_was_given_up_is_not_taken_for_the_next() {
    // With somebody else on its connector, and without; given up before it attaches, and as it does.
    for case in 0..4 {
        let (has_company, is_attaching) = (case % 2 == 0, case / 2 == 0);
        let mut stage = Stage::new();
        stage.enter(FRONT_1, 1, "a");
        if has_company {
            stage.enter(FRONT_2, 2, "x");
        }
        stage.held.insert((CHAT_A, FRONT_2));
        stage.enter(FRONT_2, 3, "b");
        whisper(&mut stage, FRONT_1, 1, "b");
        stage.told();
        stage.unlink(FRONT_2, CHAT_A);
        if is_attaching {
            stage.held.insert((CHAT_B, FRONT_2));
            stage.own(CHAT_B, 2);
        }
        stage.pass(limits::OWNER_TIMEOUT);
        stage.enter(FRONT_2, 3, "c");
        let mut told = stage.told();
        assert_eq!(told.last().unwrap(), "3: refused 503", "{case}: now it waits for its turn");
        if is_attaching {
            stage.held.clear();
            stage.settle();
        } else {
            stage.own(CHAT_B, 2);
        }
        told.extend(stage.told());
        told.sort();
        let expected: &[&str] = if has_company {
            &["1: +c", "1: -b", "2: +b", "2: +c", "2: -b", "3: in with a x c", "3: refused 503"]
        } else {
            &["1: +c", "1: -b", "3: in with a c", "3: refused 503"]
        };
        assert_eq!(told, expected, "{case}");
        stage.say(FRONT_2, 3, 1);
        assert!(stage.told().contains(&"3: 3/1".to_owned()), "{case}");
        assert_eq!(stage.chats[&CHAT_B].members(), 2 + usize::from(has_company), "{case}");
    }
}

fn whisper(stage: &mut Stage, front: model::Incarnation, session: u64, to: &str) {
    let to = Target::One(UserName::from_peer(to).unwrap());
    stage.say_as(front, session, 1, to, Some("k"));
}

/// A whisper's connector dies with both whom it concerns, then the owner goes: the others know it
/// all the same.
#[test]
fn a_whisper_is_not_said_again_when_all_whom_it_concerns_are_gone() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.come(FRONT_3, 2, "b", 7, None);
    stage.enter(FRONT_3, 3, "c");
    whisper(&mut stage, FRONT_3, 2, "c");
    stage.lose(FRONT_3);
    stage.pass(limits::CONNECTOR_GRACE);
    stage.told();
    stage.own(CHAT_B, 2);
    stage.come(FRONT_2, 4, "b", 7, Some(4));
    stage.enter(FRONT_2, 5, "c");
    assert_eq!(stage.resets, 0);
    stage.told();
    whisper(&mut stage, FRONT_2, 4, "c");
    assert_eq!(stage.told(), ["4: 1 at 4"], "and not a second time to c");
}

/// When the owner dies, only a connector that has nobody whom a whisper concerns has got it: from
/// there the others get it, where it stands.
#[test]
fn a_whisper_that_only_others_hold_is_told_by_the_next_owner() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.enter(FRONT_2, 2, "b");
    stage.enter(FRONT_3, 3, "c");
    stage.told();
    stage.held.extend([(CHAT_A, FRONT_1), (CHAT_A, FRONT_2)]);
    whisper(&mut stage, FRONT_1, 1, "b");
    assert_eq!(stage.told(), [""; 0], "c is told nothing");
    stage.own(CHAT_B, 2);
    // What was still on its way to them when the owner died goes with it.
    let told = stage.told();
    assert!(told.ends_with(&["1: 1 at 4".to_owned(), "2: 1/1".to_owned()]), "{told:?}");
    assert_eq!(stage.resets, 0);
}

/// A connector that nobody of the room uses any more is told nothing of it, and remembers where it
/// stood. The room goes on at another one, which dies: what is remembered is older than what was
/// shown there. The room begins anew, as nobody is left in it, lest a position be used twice.
#[test]
fn a_room_that_went_on_elsewhere_is_not_continued_from_here() {
    let mut stage = Stage::new();
    stage.enter(FRONT_1, 1, "a");
    stage.leave(FRONT_1, 1);
    stage.enter(FRONT_2, 2, "b");
    stage.say(FRONT_2, 2, 1);
    stage.lose(FRONT_2);
    stage.own(CHAT_B, 2);
    // The stage itself sees to it that no two events have the same place.
    stage.enter(FRONT_1, 3, "c");
    stage.say(FRONT_1, 3, 1);
    let last = stage.events.last_key_value().map(|(position, _)| position.generation);
    assert_eq!(last, Some(Term(2)));
}
