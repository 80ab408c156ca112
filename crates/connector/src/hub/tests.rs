//! Who hears what, in which order, whoever comes and goes meanwhile.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use frontend::{Delivery, Mailbox};
use futures_util::FutureExt as _;
use model::{NameRule, Term};
use proptest::prelude::*;
use session::Event as SessionEvent;

use super::*;

fn hub() -> Hub {
    Hub::new(Arc::new(Options::chat_connector()), Writes::new(false))
}

/// A clock that stands still, so that no walk has to rest.
const fn still() -> Time {
    Time::ZERO
}

/// A clock that each look at it takes so many milliseconds on.
fn ticking(now: &Cell<Duration>, millis: u64) -> impl Fn() -> Time + Copy {
    move || {
        now.set(now.get() + Duration::from_millis(millis));
        Time::from_start(now.get())
    }
}

fn audience(sessions: &[u64]) -> Arc<[SessionId]> {
    sessions.iter().copied().map(SessionId).collect()
}

fn crowd(sessions: std::ops::Range<u64>) -> Arc<[SessionId]> {
    sessions.map(SessionId).collect()
}

fn placed(user: &str) -> Placed {
    let user = UserName::parse(user, &NameRule::default()).unwrap();
    (Push::Add(user), Position { generation: Term(1), seq: 1 }, None)
}

fn add(hub: &mut Hub, room: &str, sessions: &Arc<[SessionId]>, newcomer: Option<u64>) {
    let room = RoomId::from_peer(room).unwrap();
    hub.push(&room, sessions, newcomer.map(SessionId), placed("alice"));
}

fn begins(room: &Gathered) -> Vec<usize> {
    room.audience.iter().map(|session| room.begins(*session)).collect()
}

/// How far each walk has come.
fn steps(hub: &Hub) -> Vec<usize> {
    hub.walks.iter().map(|walk| walk.next).collect()
}

/// Somebody who is there, and what it hears.
fn client(hub: &mut Hub, session: u64) -> Mailbox {
    let session = SessionId(session);
    let (outbound, mailbox) = Mailbox::new(session, 100_000, 100_000_000);
    hub.sessions.insert(session, Client::idle(outbound, Dialect::Modern));
    mailbox
}

#[test]
fn who_enters_meanwhile_hears_the_rest() {
    let mut hub = hub();
    add(&mut hub, "a", &audience(&[4]), Some(4));
    add(&mut hub, "a", &audience(&[2, 4]), Some(2));
    add(&mut hub, "b", &audience(&[1, 3]), Some(3));
    let all = audience(&[2, 4, 9]);
    add(&mut hub, "a", &all, Some(9));
    add(&mut hub, "a", &all, None);
    assert_eq!(hub.gathered.len(), 2);
    assert_eq!(hub.gathered[0].pushes.len(), 4);
    assert_eq!(begins(&hub.gathered[0]), [2, 1, 3]);
    assert_eq!(begins(&hub.gathered[1]), [0, 1]);
}

#[test]
fn who_left_and_who_came_unsaid_end_no_gathering() {
    let mut hub = hub();
    add(&mut hub, "a", &audience(&[2, 4]), None);
    hub.leave(SessionId(2));
    add(&mut hub, "a", &audience(&[4]), None);
    add(&mut hub, "a", &audience(&[4, 6]), None);
    assert_eq!((hub.gathered.len(), hub.gathered[0].pushes.len()), (1, 3));
    assert_eq!(begins(&hub.gathered[0]), [0, 2]);
}

#[test]
fn what_few_of_a_room_hear_comes_after_what_all_hear() {
    let mut hub = hub();
    let _all = [2, 4, 6].map(|session| client(&mut hub, session));
    add(&mut hub, "a", &audience(&[2, 4, 6]), None);
    add(&mut hub, "a", &audience(&[4]), None);
    assert_eq!((hub.gathered.len(), hub.told.deliveries), (1, 3), "all are told at once");
    add(&mut hub, "a", &audience(&[2, 4, 6]), None);
    assert_eq!(begins(&hub.gathered[0]), [1, 0, 1]);
}

#[test]
fn a_large_room_is_told_in_pieces_and_others_between_them() {
    let mut hub = hub();
    let (large, small) = (crowd(1000..1300), audience(&[1, 2]));
    add(&mut hub, "large", &large, None);
    hub.flush(still);
    assert_eq!((steps(&hub), hub.gathered.len()), (vec![PIECE_MEMBERS], 0));
    add(&mut hub, "large", &large, None);
    add(&mut hub, "small", &small, None);
    hub.flush(still);
    assert_eq!(steps(&hub), [2 * PIECE_MEMBERS]);
    assert_eq!(hub.gathered.len(), 1, "the small room has heard, the large one is not at its end");
    while !hub.gathered.is_empty() {
        assert_eq!(steps(&hub).len(), 1, "the second waits for the first");
        hub.flush(still);
    }
    assert_eq!(steps(&hub), [0], "and sets out with its end, though nobody else comes");
    hub.flush(still);
    assert_eq!((steps(&hub), hub.gathered.len()), (vec![PIECE_MEMBERS], 0), "the second sets out");
    hub.finish();
    assert!(hub.walk_due().is_none());
}

#[test]
fn large_rooms_take_turns() {
    let mut hub = hub();
    add(&mut hub, "a", &crowd(1000..1300), None);
    add(&mut hub, "b", &crowd(2000..2300), None);
    hub.flush(still);
    assert_eq!(steps(&hub), [0, PIECE_MEMBERS]);
    hub.flush(still);
    assert_eq!(steps(&hub), [PIECE_MEMBERS; 2]);
}

#[test]
fn a_busy_large_room_rests_and_small_rooms_do_not_wait_for_it() {
    let mut hub = hub();
    let large = crowd(1000..9000);
    let now = Cell::new(Duration::ZERO);
    // A piece takes 2 ms, too.
    let clock = ticking(&now, 2);
    add(&mut hub, "large", &large, None);
    while hub.walk_due().is_none_or(|due| due <= Time::from_start(now.get())) {
        hub.flush(clock);
    }
    let walked = steps(&hub);
    assert!(walked[0] > PIECE_MEMBERS, "it went without a rest at first: {walked:?}");
    add(&mut hub, "small", &audience(&[1, 2]), None);
    hub.flush(still);
    assert_eq!(
        (steps(&hub), hub.gathered.len()),
        (walked.clone(), 0),
        "only the small one is told"
    );
    for _ in 1..COMPANY_PUSHES {
        add(&mut hub, "large", &large, None);
    }
    hub.flush(still);
    assert_eq!(steps(&hub), walked, "few messages would go with the next walk");
    add(&mut hub, "large", &large, None);
    hub.flush(still);
    assert_eq!(steps(&hub), [walked[0] + PIECE_MEMBERS], "with enough for the next it goes on");
}

#[test]
fn each_large_room_rests_for_itself_and_does_not_forget_it() {
    let mut hub = hub();
    let now = Cell::new(Duration::ZERO);
    let (clock, stopped) = (ticking(&now, 2), ticking(&now, 0));
    let is_due = |hub: &Hub| hub.walk_due().is_some_and(|due| due <= stopped());
    // Some walks with hardly a pause between them, as it hears something whenever one is over.
    let large = crowd(1000..2000);
    add(&mut hub, "a", &large, None);
    hub.flush(clock);
    for _ in 0..1000 {
        if hub.walk_due().is_none() {
            add(&mut hub, "a", &large, None);
        } else if !is_due(&hub) {
            break;
        }
        hub.flush(clock);
    }
    assert!(!is_due(&hub), "it has walked for longer than it may");
    add(&mut hub, "b", &crowd(5000..5300), None);
    hub.flush(stopped);
    assert!(is_due(&hub), "another has not");
    while is_due(&hub) {
        hub.flush(stopped);
    }
    assert_eq!(hub.walks.len(), 1, "it is told while the first rests");
    now.set(now.get() + Duration::from_secs(5));
    hub.finish();
    add(&mut hub, "c", &crowd(5000..5300), None);
    hub.flush(clock);
    assert!(hub.resting.is_empty(), "who has rested is forgotten");
}

#[test]
fn who_comes_and_goes_does_not_hurry_a_walk() {
    let mut hub = hub();
    add(&mut hub, "a", &crowd(1000..1300), None);
    hub.flush(still);
    add(&mut hub, "a", &crowd(1000..1300), None);
    hub.leave(SessionId(1000));
    add(&mut hub, "a", &crowd(1001..1310), None);
    assert_eq!((steps(&hub), hub.gathered.len()), (vec![PIECE_MEMBERS], 1));
    hub.flush(still);
    assert_eq!(
        (steps(&hub), hub.gathered.len()),
        (vec![2 * PIECE_MEMBERS], 1),
        "what comes next waits for the walk, though the two begin with others"
    );
    hub.close(SessionId(1299), CloseReason::Expelled);
    assert!(hub.walk_due().is_none(), "whoever is closed hears all that came before");
}

#[test]
fn what_is_gathered_stays_bounded_while_a_room_is_told() {
    let mut hub = hub();
    let large = crowd(1000..1300);
    add(&mut hub, "a", &large, None);
    hub.flush(still);
    for _ in 0..GATHERED_MAX {
        add(&mut hub, "a", &large, None);
    }
    assert!(hub.walk_due().is_none() && hub.gathered.is_empty());
}

#[test]
fn only_many_messages_in_each_write_ask_the_worker_to_stand_still() {
    let mut hub = hub();
    let took = Duration::from_millis(1);
    let mailboxes: Vec<Mailbox> = (1..=300).map(|session| client(&mut hub, session)).collect();
    for (sessions, pushes, stand) in [(1..4, 15, 0), (1..4, 16, 2), (1..301, 16, 0)] {
        let audience = crowd(sessions);
        for _ in 0..pushes {
            add(&mut hub, "a", &audience, None);
        }
        // A large room rests for itself.
        assert_eq!(
            hub.flush(still).stand(took),
            Duration::from_millis(stand),
            "{pushes} to {}",
            audience.len()
        );
        hub.finish();
    }
    drop(mailboxes);
}

/// What happens in a room. The numbers choose who, among those for whom it can be.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody comes, and the others hear of it, as in rooms that are not crowded.
    Come(usize),
    ComeUnsaid(usize),
    /// Somebody goes, and the others hear of it.
    Go(usize),
    GoUnsaid(usize),
    Say,
    Whisper(usize),
    /// The room gives somebody up.
    Close(usize),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..1000_usize;
    prop_oneof![
        2 => who.clone().prop_map(Step::Come),
        1 => who.clone().prop_map(Step::ComeUnsaid),
        2 => who.clone().prop_map(Step::Go),
        1 => who.clone().prop_map(Step::GoUnsaid),
        6 => Just(Step::Say),
        1 => who.clone().prop_map(Step::Whisper),
        1 => who.prop_map(Step::Close),
        4 => Just(Step::Flush),
    ]
}

/// A room beside its hub, and what each of its members should hear.
struct Stage {
    hub: Hub,
    room: RoomId,
    members: BTreeSet<u64>,
    /// Who is no member and has never been one.
    strangers: Vec<u64>,
    mailboxes: BTreeMap<u64, Mailbox>,
    due: BTreeMap<u64, Vec<String>>,
    pushes: usize,
    now: Cell<Duration>,
}

impl Stage {
    fn new(members: u64) -> Self {
        let mut stage = Self {
            hub: hub(),
            room: RoomId::from_peer("r").unwrap(),
            // Every second number: others come between them.
            members: (0..members).map(|number| number * 2).collect(),
            strangers: (0..50).map(|number| number * 26 + 1).collect(),
            mailboxes: BTreeMap::new(),
            due: BTreeMap::new(),
            pushes: 0,
            now: Cell::default(),
        };
        for session in stage.members.clone() {
            stage.mailboxes.insert(session, client(&mut stage.hub, session));
        }
        stage
    }

    fn push(&mut self, members: &BTreeSet<u64>, except: Option<u64>) {
        self.pushes += 1;
        let text = format!("p{}", self.pushes);
        for member in members.iter().filter(|member| Some(**member) != except) {
            self.due.entry(*member).or_default().push(text.clone());
        }
        let audience = members.iter().copied().map(SessionId).collect();
        self.hub.push(&self.room, &audience, except.map(SessionId), placed(&text));
    }

    fn member(&self, which: usize) -> Option<u64> {
        self.members.iter().nth(which % self.members.len().max(1)).copied()
    }

    fn come(&mut self, which: usize) -> Option<u64> {
        (!self.strangers.is_empty()).then_some(())?;
        let session = self.strangers.swap_remove(which % self.strangers.len());
        self.mailboxes.insert(session, client(&mut self.hub, session));
        self.members.insert(session);
        Some(session)
    }

    fn go(&mut self, which: usize) -> Option<u64> {
        let session = self.member(which)?;
        self.members.remove(&session);
        self.hub.leave(SessionId(session));
        Some(session)
    }

    fn play(&mut self, step: Step) {
        let everybody = |stage: &Self| stage.members.clone();
        match step {
            Step::Come(which) => {
                if let Some(newcomer) = self.come(which) {
                    self.push(&everybody(self), Some(newcomer));
                }
            }
            Step::ComeUnsaid(which) => drop(self.come(which)),
            Step::Go(which) => {
                self.go(which);
                if !self.members.is_empty() {
                    self.push(&everybody(self), None);
                }
            }
            Step::GoUnsaid(which) => drop(self.go(which)),
            Step::Say if self.members.is_empty() => {}
            Step::Say => self.push(&everybody(self), None),
            Step::Whisper(which) => {
                if let Some(member) = self.member(which) {
                    self.push(&BTreeSet::from([member]), None);
                }
            }
            Step::Close(which) => {
                if let Some(member) = self.member(which) {
                    self.members.remove(&member);
                    self.hub.close(SessionId(member), CloseReason::Expelled);
                    let (heard, is_closed) = self.heard(member);
                    assert!(is_closed);
                    assert_eq!(heard, self.due(member), "whoever is closed has heard all");
                }
            }
            Step::Flush => {
                // Pieces take long, so that some walks rest.
                self.hub.flush(ticking(&self.now, 20));
                let is_due = self.hub.walk_due().is_some();
                assert!(is_due || self.hub.gathered.is_empty(), "nothing waits for somebody else");
            }
        }
    }

    /// What a session should have heard, in bytes.
    fn due(&self, session: u64) -> Vec<Bytes> {
        let texts = self.due.get(&session).map_or(&[][..], Vec::as_slice);
        texts.iter().map(|text| in_bytes(&placed(text), &self.hub.options)).collect()
    }

    /// What a session has heard, and whether it is closed.
    fn heard(&mut self, session: u64) -> (Vec<Bytes>, bool) {
        let Some(mailbox) = self.mailboxes.get_mut(&session) else { return (Vec::new(), false) };
        let deliveries = mailbox.take().now_or_never().unwrap_or_default();
        let mut heard = (Vec::new(), false);
        for delivery in deliveries {
            match delivery {
                Delivery::Unit(unit) => heard.0.push(unit),
                Delivery::Event(SessionEvent::Close(_)) => heard.1 = true,
                Delivery::Event(other) => panic!("{other:?}"),
            }
        }
        heard
    }
}

fn in_bytes((push, position, _): &Placed, options: &Options) -> Bytes {
    let stamp = Stamp { position: *position, id: None };
    let push = in_wire_terms(push).unwrap();
    Dialect::Modern.encode_push(&push, Some(stamp), options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everybody_hears_what_is_said_while_they_are_there_in_order_and_once(
        members in prop_oneof![0..4_u64, 280..300_u64],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut stage = Stage::new(members);
        for step in steps {
            stage.play(step);
        }
        stage.hub.finish();
        let sessions: Vec<u64> = stage.mailboxes.keys().copied().collect();
        for session in sessions {
            let (heard, _) = stage.heard(session);
            let due = stage.due(session);
            if stage.members.contains(&session) {
                prop_assert_eq!(heard, due);
            } else {
                prop_assert!(due.starts_with(&heard), "who has left heard it up to somewhere");
            }
        }
    }
}
