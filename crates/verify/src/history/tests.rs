//! A clean history is green; every planted bug turns it red, and is called by its name.

use super::*;

/// A small room run by the book, from which tests take things away.
struct Scene {
    names: Names,
    room: Name,
    logs: Vec<Log>,
    presence: Presence,
}

impl Scene {
    fn new() -> Self {
        let mut names = Names::default();
        let room = names.intern("r1");
        Self { names, room, logs: Vec::new(), presence: Presence::Announced }
    }

    fn is_member(log: &Log) -> bool {
        log.joined && log.end == End::Alive
    }

    fn members(&mut self) -> impl Iterator<Item = &mut Log> {
        let room = self.room;
        self.logs.iter_mut().filter(move |log| Self::is_member(log) && log.room == room)
    }

    fn enter(&mut self, user: &str) -> usize {
        let user = self.names.intern(user);
        let mut users: Vec<Name> = self.members().map(|log| log.user).collect();
        for log in self.members() {
            log.saw_add(user);
        }
        users.push(user);
        let mut log = Log::new(self.room, user);
        log.joined(users);
        self.logs.push(log);
        self.logs.len() - 1
    }

    fn leave(&mut self, session: usize) {
        self.logs[session].gone();
        let user = self.logs[session].user;
        for log in self.members() {
            log.saw_leave(user);
        }
    }

    fn say(&mut self, session: usize) -> TextId {
        let number = self.logs[session].sent(To::Everyone);
        let id = text_id(session, number);
        let from = self.logs[session].user;
        for log in self.members() {
            log.saw(from, id, false);
        }
        self.logs[session].acked(number);
        id
    }

    fn whisper(&mut self, session: usize, target: usize) -> TextId {
        let to = self.logs[target].user;
        let number = self.logs[session].sent(To::One(to));
        let id = text_id(session, number);
        let from = self.logs[session].user;
        self.logs[target].saw(from, id, true);
        self.logs[session].acked(number);
        id
    }

    fn check(self) -> Report {
        let mut history = History::new(self.names, self.presence);
        for log in self.logs {
            history.push(log);
        }
        history.check()
    }

    /// Where in a session's log a message is.
    fn place(&self, session: usize, id: TextId) -> usize {
        let is_it = |event: &Event| matches!(event, Event::Saw { id: seen, .. } if *seen == id);
        self.logs[session].events.iter().position(is_it).unwrap()
    }
}

fn text_id(session: usize, number: u32) -> TextId {
    TextId { sender: SessionKey(index_u32(session)), number }
}

/// Six come and go, and speak in between.
fn busy() -> Scene {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    for _ in 0..50 {
        scene.say(a);
        scene.say(b);
    }
    let c = scene.enter("c");
    let d = scene.enter("d");
    for round in 0..50 {
        scene.say(b);
        scene.say(c);
        scene.whisper(c, a);
        if round == 20 {
            scene.leave(d);
        }
        if round == 30 {
            scene.enter("e");
        }
    }
    scene.leave(a);
    let again = scene.enter("a");
    scene.say(again);
    scene.enter("late");
    scene
}

#[test]
fn text_ids_survive_their_text() {
    let id = text_id(7, 12);
    assert_eq!(TextId::parse(&id.to_string()), Some(id));
    assert_eq!(TextId::parse("m:7:12 padding"), Some(id));
    for odd in ["", "m:", "m:7", "m:7:", "m:7:0", "m:x:1", "hello"] {
        assert_eq!(TextId::parse(odd), None, "{odd}");
    }
}

#[test]
fn a_clean_history_is_green() {
    let report = busy().check();
    assert!(report.is_clean(), "{report}");
    assert!(report.deliveries > 500);
    assert_eq!(report.sends, report.acked);
}

#[test]
fn whoever_leaves_in_the_middle_is_no_loss() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.say(a);
    scene.say(a);
    // b's connection broke before it could read the second message and before a's answer.
    let last = scene.logs[b].events.len() - 1;
    scene.logs[b].events.truncate(last);
    scene.leave(b);
    scene.say(a);
    let report = scene.check();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn one_delivery_in_a_thousand_dropped_is_found() {
    let clean = busy();
    let deliveries: usize = clean.logs.iter().map(|log| log.events.len()).sum();
    // Every single delivery in turn: each loss is found, wherever it is.
    let mut found = 0;
    for session in 0..clean.logs.len() {
        for place in 0..clean.logs[session].events.len() {
            let Event::Saw { whisper, .. } = clean.logs[session].events[place] else {
                continue;
            };
            // Who is gone may have missed the last it was sent.
            let rest = &clean.logs[session].events[place + 1..];
            let is_public = |event: &Event| matches!(event, Event::Saw { whisper: false, .. });
            let gone = clean.logs[session].end == End::Gone;
            if gone && (whisper || !rest.iter().any(is_public)) {
                continue;
            }
            let mut scene = busy();
            scene.logs[session].events.remove(place);
            let report = scene.check();
            assert!(report.count(Kind::Lost) > 0, "session {session}, event {place}: {report}");
            assert_eq!(report.violations[0].session.0 as usize, session, "{report}");
            found += 1;
        }
    }
    assert!(found * 3 > deliveries, "{found} of {deliveries}");
}

#[test]
fn a_loss_for_everyone_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.say(a);
    let id = scene.say(b);
    scene.say(a);
    for session in [a, b] {
        let place = scene.place(session, id);
        scene.logs[session].events.remove(place);
    }
    assert_eq!(scene.check().count(Kind::Lost), 1);

    // Also if its sender has left since: somebody was there all the time.
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let id = scene.say(b);
    scene.leave(b);
    for session in [a, b] {
        let place = scene.place(session, id);
        scene.logs[session].events.remove(place);
    }
    assert_eq!(scene.check().count(Kind::Lost), 1);
}

#[test]
fn a_message_unanswered_and_seen_by_nobody_is_no_loss() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    scene.enter("b");
    scene.logs[a].sent(To::Everyone);
    let report = scene.check();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_message_unanswered_and_seen_by_some_is_a_gap() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let number = scene.logs[a].sent(To::Everyone);
    let from = scene.logs[a].user;
    scene.logs[b].saw(from, text_id(a, number), false);
    scene.say(a);
    let report = scene.check();
    assert_eq!(report.count(Kind::Gap), 1, "{report}");
    assert_eq!(report.violations[0].session.0 as usize, a);
}

#[test]
fn a_duplicate_is_found() {
    let mut scene = busy();
    let place = scene.logs[1].events.len() / 2;
    let event = scene.logs[1].events[place..]
        .iter()
        .find(|event| matches!(event, Event::Saw { .. }))
        .copied()
        .unwrap();
    scene.logs[1].events.push(event);
    let report = scene.check();
    assert_eq!(report.count(Kind::Twice), 1, "{report}");
}

#[test]
fn a_swap_of_two_senders_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let c = scene.enter("c");
    scene.say(a);
    let first = scene.say(a);
    let second = scene.say(b);
    scene.say(a);
    let (first, second) = (scene.place(c, first), scene.place(c, second));
    scene.logs[c].events.swap(first, second);
    let report = scene.check();
    assert!(report.count(Kind::RoomOrder) > 0, "{report}");
    assert_eq!(report.count(Kind::Lost), 0, "{report}");
}

#[test]
fn a_swap_of_one_sender_is_found_even_if_all_see_it() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let first = scene.say(a);
    let second = scene.say(a);
    for session in [a, b] {
        let (first, second) = (scene.place(session, first), scene.place(session, second));
        scene.logs[session].events.swap(first, second);
    }
    let report = scene.check();
    assert_eq!(report.count(Kind::SenderOrder), 2, "{report}");
}

#[test]
fn two_halves_of_a_split_room_are_found() {
    let mut scene = Scene::new();
    let sessions = ["a", "b", "c", "d"].map(|user| scene.enter(user));
    scene.say(sessions[0]);
    for round in 0..10 {
        for (speaker, half) in [(0, [0, 1]), (2, [2, 3])] {
            let session = sessions[speaker];
            let number = scene.logs[session].sent(To::Everyone);
            let from = scene.logs[session].user;
            for reader in half {
                scene.logs[sessions[reader]].saw(from, text_id(session, number), false);
            }
            if round % 2 == 0 {
                scene.logs[session].acked(number);
            }
        }
    }
    let report = scene.check();
    assert!(report.count(Kind::Lost) > 0, "{report}");
}

#[test]
fn a_ghost_is_found() {
    // The leave of d was never announced to c.
    let mut scene = Scene::new();
    scene.enter("a");
    scene.enter("b");
    let c = scene.enter("c");
    let d = scene.enter("d");
    scene.leave(d);
    let leave = scene.logs[c].events.pop();
    assert_eq!(leave, Some(Event::SawLeave(scene.names.intern("d"))));
    let report = scene.check();
    assert_eq!(report.count(Kind::Ghost), 1, "{report}");

    // Nor to anybody.
    let mut scene = Scene::new();
    scene.enter("a");
    let d = scene.enter("d");
    scene.logs[d].gone();
    let report = scene.check();
    assert_eq!(report.count(Kind::Ghost), 1, "{report}");
}

#[test]
fn a_missing_member_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    scene.enter("b");
    scene.logs[a].events.pop();
    let report = scene.check();
    assert_eq!(report.count(Kind::Unlisted), 1, "{report}");
}

#[test]
fn a_join_at_another_place_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.say(a);
    scene.enter("c");
    let id = scene.say(a);
    let place = scene.place(b, id);
    scene.logs[b].events.swap(place, place - 1);
    let report = scene.check();
    assert!(report.count(Kind::Presence) > 0, "{report}");
}

#[test]
fn speaking_before_joining_or_after_leaving_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.leave(b);
    let number = scene.logs[b].sent(To::Everyone);
    let from = scene.logs[b].user;
    scene.logs[a].saw(from, text_id(b, number), false);
    let report = scene.check();
    assert_eq!(report.count(Kind::NotMember), 1, "{report}");
}

#[test]
fn what_nobody_sent_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let from = scene.logs[a].user;
    scene.logs[a].saw(from, text_id(a, 1), false);
    scene.logs[a].saw(from, text_id(99, 1), false);
    scene.logs[a].saw_foreign();
    assert_eq!(scene.check().count(Kind::NeverSent), 3);

    let mut scene = Scene::new();
    let a = scene.enter("a");
    scene.say(a);
    scene.logs[a].refused(1);
    assert_eq!(scene.check().count(Kind::NeverSent), 1);
}

#[test]
fn what_was_meant_for_another_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let c = scene.enter("c");
    let id = scene.whisper(a, b);
    let from = scene.logs[a].user;
    scene.logs[c].saw(from, id, true);
    assert_eq!(scene.check().count(Kind::Misdelivered), 1);

    // A forged sender.
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    let number = scene.logs[a].sent(To::Everyone);
    let forged = scene.logs[b].user;
    scene.logs[b].saw(forged, text_id(a, number), false);
    assert_eq!(scene.check().count(Kind::Misdelivered), 1);

    // Another room.
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let id = scene.say(a);
    scene.room = scene.names.intern("r2");
    let b = scene.enter("b");
    let from = scene.logs[a].user;
    scene.logs[b].saw(from, id, false);
    assert!(scene.check().count(Kind::Misdelivered) == 1);
}

#[test]
fn a_lost_whisper_is_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.whisper(a, b);
    scene.logs[b].events.pop();
    let report = scene.check();
    assert_eq!(report.count(Kind::Lost), 1, "{report}");
}

#[test]
fn what_was_missed_right_after_joining_is_found() {
    for missed in 1..4 {
        let mut scene = Scene::new();
        let a = scene.enter("a");
        scene.say(a);
        let b = scene.enter("b");
        let ids: Vec<TextId> = (0..4).map(|_| scene.say(a)).collect();
        scene.logs[b].events.drain(1..=missed);
        let report = scene.check();
        assert_eq!(report.count(Kind::Lost), 1, "{report}");
        assert_eq!(report.violations[0].message, Some(ids[0]), "{report}");
    }
}

#[test]
fn one_name_twice_is_found() {
    let mut scene = Scene::new();
    scene.enter("a");
    let b = scene.enter("b");
    scene.logs[b].user = scene.names.intern("a");
    assert_eq!(scene.check().count(Kind::NameTwice), 1);
}

#[test]
fn pushes_before_the_answer_are_found() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.say(a);
    scene.logs[b].events.swap(0, 1);
    assert!(scene.check().count(Kind::BeforeJoin) > 0);
}

#[test]
fn without_presence_only_messages_count() {
    let mut scene = busy();
    scene.presence = Presence::Silent;
    for log in &mut scene.logs {
        log.events.retain(|event| !matches!(event, Event::SawAdd(_) | Event::SawLeave(_)));
    }
    let report = scene.check();
    assert!(report.is_clean(), "{report}");

    let mut scene = busy();
    scene.presence = Presence::Silent;
    let place = scene.logs[1].events.len() / 2;
    let is_saw = |event: &Event| matches!(event, Event::Saw { .. });
    let place = place + scene.logs[1].events[place..].iter().position(is_saw).unwrap();
    scene.logs[1].events.remove(place);
    assert_eq!(scene.check().count(Kind::Lost), 1);
}

#[test]
fn an_unwatched_session_accuses_nobody() {
    let mut scene = Scene::new();
    let a = scene.enter("a");
    let b = scene.enter("b");
    scene.say(a);
    scene.logs[b].events.pop();
    scene.logs[b].unwatched();
    let report = scene.check();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn millions_of_deliveries_are_quick_enough_to_run_in_a_test() {
    let mut scene = Scene::new();
    for user in 0..200 {
        scene.enter(&format!("u{user}"));
    }
    for round in 0..10_000 {
        scene.say(round % 200);
    }
    let report = scene.check();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.deliveries, 2_000_000);
}

fn position(seq: u64) -> Position {
    Position { generation: model::Term(1), seq }
}

#[test]
fn one_position_for_two_messages_is_found() {
    let mut scene = Scene::new();
    let (a, b) = (scene.enter("a"), scene.enter("b"));
    let (x, y) = (scene.say(a), scene.say(b));
    for log in [a, b] {
        scene.logs[log].positions = vec![(position(3), x), (position(4), y)];
    }
    let clean = History { names: scene.names.clone(), ..History::default() };
    let mut history = clean;
    history.logs = scene.logs.clone();
    assert!(history.check().is_clean());
    history.logs[b].positions[1].0 = position(5);
    assert!(history.check().is_clean(), "a whisper may stand between");
    history.logs[b].positions[0] = (position(4), x);
    let report = history.check();
    assert_eq!(report.count(Kind::Fork), 1, "{report}");
    history.logs[b].positions = vec![(position(3), x), (position(3), y)];
    assert!(history.check().count(Kind::Fork) > 0, "positions grow");
}

#[test]
fn a_leave_that_comes_late_is_found() {
    let seconds = Duration::from_secs;
    let report = |seen_after: u64, joined_after: u64| {
        let mut scene = Scene::new();
        let (a, b) = (scene.enter("a"), scene.enter("b"));
        scene.logs[a].at(seconds(100));
        scene.logs[a].gone();
        scene.logs[b].at(seconds(100 + seen_after));
        scene.leave(a);
        // Another life of the same user, much later, explains nothing.
        scene.enter("a");
        let c = scene.enter("c");
        scene.logs[c].times.joined = Some(seconds(100 + joined_after));
        let a = scene.names.intern("gone");
        scene.logs[c].members.push(a);
        let mut gone = Log::new(scene.room, a);
        gone.times.gone = Some(seconds(100));
        gone.end = End::Gone;
        scene.logs.push(gone);
        let mut history = History::new(scene.names, Presence::Silent);
        history.leave_within(seconds(10));
        history.logs = scene.logs;
        history.check()
    };
    assert!(report(9, 8).is_clean(), "{}", report(9, 8));
    assert_eq!(report(9, 8).leave_latest, Some(seconds(9)));
    assert_eq!(report(11, 8).count(Kind::Late), 1, "seen too late");
    assert_eq!(report(9, 12).count(Kind::Late), 1, "listed for too long");
}

#[test]
fn a_whisper_to_who_left_is_no_loss() {
    let mut scene = Scene::new();
    let (a, b) = (scene.enter("a"), scene.enter("b"));
    let id = scene.whisper(a, b);
    let at = scene.place(b, id);
    scene.logs[b].events.remove(at);
    let b_name = scene.logs[b].user;
    scene.logs[a].saw_leave(b_name);
    scene.logs[a].saw_add(b_name);
    let report = scene.check();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_whisper_before_a_join_as_told_is_no_loss() {
    // Where the whisper stands, where its target was told that it joined, and how many are lost.
    let after_a_reset = Position { generation: model::Term(2), seq: 2 };
    for (whisper, joined, lost) in [
        (Some(position(3)), Some(after_a_reset), 0),
        (Some(position(3)), Some(position(4)), 0),
        // The target sees what comes after its join.
        (Some(position(5)), Some(position(4)), 1),
        (Some(after_a_reset), Some(position(4)), 1),
        // One of the two was told no position: nothing excuses the loss.
        (None, Some(position(4)), 1),
        (Some(position(3)), None, 1),
    ] {
        let mut scene = Scene::new();
        let (a, b) = (scene.enter("a"), scene.enter("b"));
        scene.logs[b].joined_at = joined;
        scene.say(a);
        let user = scene.logs[b].user;
        let number = scene.logs[a].sent(To::One(user));
        match whisper {
            Some(at) => scene.logs[a].acked_at(number, at),
            None => scene.logs[a].acked(number),
        }
        let report = scene.check();
        assert_eq!(report.count(Kind::Lost), lost, "{whisper:?}, {joined:?}: {report}");
    }
}

/// One is away while the others talk, come and go, and comes back to all of it. Others see it leave
/// and join again, if it is away for long.
fn a_return(is_long: bool) -> (Scene, usize) {
    let mut scene = Scene::new();
    let (a, b) = (scene.enter("a"), scene.enter("b"));
    scene.say(a);
    scene.say(b);
    let user = scene.logs[b].user;
    let seconds = Duration::from_secs;
    scene.logs[b].at(seconds(10));
    scene.logs[b].lost();
    scene.say(a);
    if is_long {
        scene.logs[a].at(seconds(15));
        scene.logs[a].saw_leave_at(position(5), user);
    }
    scene.say(a);
    // What it was told when it was back stands in its log like all the rest.
    let c = scene.enter("c");
    if is_long {
        scene.logs[c].members.retain(|member| *member != user);
    }
    scene.say(c);
    for log in [a, c] {
        if is_long {
            scene.logs[log].saw_add(user);
        }
    }
    let members: Vec<Name> = scene.members().map(|log| log.user).collect();
    scene.logs[b].at(seconds(if is_long { 20 } else { 12 }));
    scene.logs[b].resumed(members, position(4), position(9));
    scene.say(b);
    scene.say(a);
    (scene, b)
}

#[test]
fn a_return_to_everything_is_clean() {
    for is_long in [false, true] {
        let report = a_return(is_long).0.check();
        assert!(report.is_clean(), "{report}");
    }
}

#[test]
fn what_a_return_skips_or_repeats_is_found() {
    for is_long in [false, true] {
        let (clean, b) = a_return(is_long);
        let places = 0..clean.logs[b].events.len();
        let back = |event: &Event| matches!(event, Event::Resumed(_));
        let back = clean.logs[b].events.iter().position(back).unwrap();
        let (mut skipped, mut repeated) = (0, 0);
        for place in places.filter(|place| *place < back) {
            let event = clean.logs[b].events[place];
            if matches!(event, Event::Saw { .. } | Event::SawAdd(_)) {
                let mut scene = a_return(is_long).0;
                scene.logs[b].events.remove(place);
                assert!(!scene.check().is_clean(), "without {event:?}");
                skipped += 1;
                let mut scene = a_return(is_long).0;
                scene.logs[b].events.insert(back, event);
                let kinds = scene.check();
                let found = kinds.count(Kind::Twice) + kinds.count(Kind::Repeated);
                assert!(found > 0, "{event:?} twice: {kinds}");
                repeated += 1;
            }
        }
        assert!(skipped > 4 && repeated > 4);
    }
}

#[test]
fn other_members_at_a_return_are_found() {
    let (mut scene, b) = a_return(false);
    let returns = scene.logs[b].returns.as_mut().unwrap();
    returns.all[0].members.pop();
    assert_eq!(scene.check().count(Kind::Presence), 1);
}

/// The others may have seen the leave of nobody but of one who was away.
#[test]
fn who_was_away_explains_no_other_difference() {
    let (mut scene, b) = a_return(false);
    let a = scene.names.intern("a");
    let back = |event: &Event| matches!(event, Event::Resumed(_));
    let back = scene.logs[b].events.iter().position(back).unwrap();
    scene.logs[b].events.insert(back, Event::SawAdd(a));
    scene.logs[b].events.insert(back, Event::SawLeave(a));
    assert!(scene.check().count(Kind::Presence) > 0);
}

#[test]
fn a_return_that_others_notice_is_found() {
    let noticed = |is_long, within, asked: Option<u64>| {
        let (mut scene, b) = a_return(is_long);
        let mut other = Log::new(scene.room, scene.logs[b].user);
        other.at(Duration::from_secs(asked.unwrap_or(100)));
        other.asks();
        scene.logs.push(other);
        let mut history = History::new(scene.names, Presence::Announced);
        history.logs = scene.logs;
        history.quiet_within(Duration::from_secs(within));
        history.check().count(Kind::Noticed)
    };
    assert_eq!(noticed(true, 5, None), 0, "it was away for longer");
    assert_eq!(noticed(true, 11, None), 1);
    assert_eq!(noticed(true, 11, Some(12)), 0, "another wanted its name");
    assert_eq!(noticed(false, 11, None), 0);
}

#[test]
fn a_reset_begins_another_log() {
    for is_told in [true, false] {
        let mut scene = Scene::new();
        let (a, b) = (scene.enter("a"), scene.enter("b"));
        scene.say(a);
        scene.logs[b].gone();
        scene.say(a);
        // It was in all the time, and nobody heard of its return.
        let mut log = Log::new(scene.room, scene.logs[b].user);
        if is_told {
            log.began_by_reset();
        }
        log.joined(scene.logs[a].members.clone().into_iter().chain([scene.logs[b].user]));
        scene.logs.push(log);
        scene.say(a);
        scene.say(a);
        let report = scene.check();
        assert_eq!(report.is_clean(), is_told, "{report}");
    }
}

#[test]
fn what_is_sent_again_may_come_later() {
    for again_after in 1..=3 {
        let mut scene = Scene::new();
        let (a, b) = (scene.enter("a"), scene.enter("b"));
        scene.say(b);
        for number in 1..=3 {
            scene.logs[a].sent(To::Everyone);
            if number == again_after {
                scene.logs[a].sent_again(1);
            }
        }
        let from = scene.logs[a].user;
        for number in [2, 1, 3] {
            for log in [a, b] {
                scene.logs[log].saw(from, text_id(a, number), false);
            }
        }
        let report = scene.check();
        assert_eq!(report.count(Kind::SenderOrder), if again_after == 1 { 2 } else { 0 });
    }
}

#[test]
fn a_whisper_missed_between_what_was_seen_is_found() {
    // Seen before and after it, or told after it was back.
    for (is_away, is_wanted) in [(false, false), (true, false), (true, true)] {
        let mut scene = Scene::new();
        let (a, b) = (scene.enter("a"), scene.enter("b"));
        let (from, user) = (scene.logs[a].user, scene.logs[b].user);
        scene.logs[b].joined_at(position(2));
        let number = scene.logs[a].sent(To::One(user));
        scene.logs[a].acked_at(number, position(3));
        if is_away {
            let members: Vec<Name> = scene.members().map(|log| log.user).collect();
            scene.logs[b].lost();
            scene.logs[b].resumed(members, position(2), position(4));
        }
        let number = scene.logs[a].sent(To::Everyone);
        for log in [a, b] {
            scene.logs[log].saw_at(position(5), from, text_id(a, number), false);
        }
        // Others of its name are none the wiser.
        let mut other = Log::new(scene.room, user);
        other.at(Duration::from_secs(if is_wanted { 0 } else { 9 }));
        other.asks();
        other.unwatched();
        scene.logs.push(other);
        let report = scene.check();
        assert_eq!(report.count(Kind::Lost), u64::from(!is_wanted), "{report}");
    }
}
