//! Both ends wired together, step by step: what the simulation found, told as short stories.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    Content, Incarnation, MessageId, Position, ResumeKey, RoomId, SendNumber, SessionId, Shard,
    Target, Term, Time, UserName, limits,
};
use room::{
    LinkId, Owner, OwnerEffect, OwnerEvent, Push, RelayEffect, RelayEvent, Relays,
    message::{Body, Frame, Ticket, ToOwner, ToRelay, Welcome},
};

type Way = (Incarnation, Incarnation);

/// Chats and connectors whose frames are delivered when a test says so.
#[derive(Default)]
struct Stage {
    now: Time,
    chats: BTreeMap<Incarnation, Owner>,
    connectors: BTreeMap<Incarnation, Relays>,
    up: BTreeMap<Way, VecDeque<Frame<ToOwner>>>,
    down: BTreeMap<Way, VecDeque<Frame<ToRelay>>>,
    /// Ways on which nothing moves.
    held: BTreeSet<Way>,
    link_of: BTreeMap<Way, LinkId>,
    /// What clients were told, as `session: what`.
    told: Vec<String>,
    resets: usize,
    /// Frames that connectors dropped, as they came from a former owner.
    stale: usize,
}

fn shard() -> Shard {
    Shard::new(0).unwrap()
}

fn room() -> RoomId {
    RoomId::from_peer("r").unwrap()
}

const CHAT_A: Incarnation = Incarnation(1);
const CHAT_B: Incarnation = Incarnation(2);
const FRONT_1: Incarnation = Incarnation(11);
const FRONT_2: Incarnation = Incarnation(12);
const FRONT_3: Incarnation = Incarnation(13);

impl Stage {
    /// All nodes linked; the first chat owns the shard.
    fn new() -> Self {
        let fronts = [FRONT_1, FRONT_2, FRONT_3];
        let mut stage = Self {
            chats: [CHAT_A, CHAT_B].map(|chat| (chat, Owner::default())).into(),
            connectors: fronts.map(|front| (front, Relays::new(front))).into(),
            ..Self::default()
        };
        for front in fronts {
            for chat in [CHAT_A, CHAT_B] {
                stage.link(front, chat);
            }
        }
        stage.own(CHAT_A, 1);
        stage
    }

    fn link(&mut self, front: Incarnation, chat: Incarnation) {
        self.up.insert((front, chat), VecDeque::new());
        self.down.insert((chat, front), VecDeque::new());
        self.held.remove(&(chat, front));
        let link = LinkId(self.link_of.get(&(front, chat)).map_or(0, |link| link.0) + 1);
        self.link_of.insert((front, chat), link);
        self.owner(chat, OwnerEvent::LinkUp { connector: front, link });
        self.relay(front, RelayEvent::LinkUp(chat));
    }

    /// A link breaks, with what is on its way, and is opened again.
    fn relink(&mut self, front: Incarnation, chat: Incarnation) {
        let link = self.link_of[&(front, chat)];
        self.owner(chat, OwnerEvent::LinkDown { connector: front, link });
        self.relay(front, RelayEvent::LinkDown(chat));
        self.link(front, chat);
    }

    /// A link breaks, and cannot be opened again.
    fn unlink(&mut self, front: Incarnation, chat: Incarnation) {
        self.down.remove(&(chat, front));
        self.relay(front, RelayEvent::LinkDown(chat));
    }

    /// A connector dies, and everybody hears of it.
    fn lose(&mut self, front: Incarnation) {
        self.connectors.remove(&front);
        self.down.retain(|(_, to), _| *to != front);
        self.up.retain(|(from, _), _| *from != front);
        for chat in [CHAT_A, CHAT_B] {
            self.owner(chat, OwnerEvent::ConnectorGone(front));
        }
    }

    /// The registry grants the shard at a term, and everybody hears of it.
    fn own(&mut self, chat: Incarnation, term: u64) {
        let connectors = self.connectors.keys().copied().collect();
        let (shard, term) = (shard(), Term(term));
        self.owner(chat, OwnerEvent::Won { shard, term, connectors });
        for front in self.connectors.keys().copied().collect::<Vec<_>>() {
            self.relay(front, RelayEvent::Owner { shard, owner: Some(chat), term });
        }
        self.settle();
    }

    fn owner(&mut self, chat: Incarnation, event: OwnerEvent) {
        let mut effects = Vec::new();
        self.chats.get_mut(&chat).unwrap().handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                OwnerEffect::Frame { to, frame } => {
                    self.down.entry((chat, to)).or_default().push_back(frame);
                }
                OwnerEffect::Opened { reset, .. } => self.resets += reset,
                OwnerEffect::Repaired { .. }
                | OwnerEffect::CutLink(_)
                | OwnerEffect::StaleFrame { .. } => {}
            }
        }
    }

    fn relay(&mut self, front: Incarnation, event: RelayEvent) {
        let mut effects = Vec::new();
        self.connectors.get_mut(&front).unwrap().handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                RelayEffect::Frame { to, frame } => {
                    self.up.entry((front, to)).or_default().push_back(frame);
                }
                RelayEffect::CutLink(_) => self.told.push("cut".to_owned()),
                RelayEffect::Entered { session, users, welcome, .. } => {
                    let users: Vec<&str> = users.iter().map(UserName::as_str).collect();
                    let welcome = welcome.map(|it| welcomed(&it)).unwrap_or_default();
                    self.told.push(format!("{}: in with {}{welcome}", session.0, users.join(" ")));
                }
                RelayEffect::Supersede { session } => {
                    self.told.push(format!("{}: elsewhere", session.0));
                }
                RelayEffect::Said { session, number, position } => {
                    let number = number.0;
                    self.told.push(format!("{}: {number} at {}", session.0, position.seq));
                }
                RelayEffect::Push { sessions, except, push, .. } => {
                    for session in sessions.iter().filter(|session| Some(**session) != except) {
                        self.told.push(format!("{}: {}", session.0, pushed(&push)));
                    }
                }
                RelayEffect::Expel { session } => self.told.push(format!("{}: out", session.0)),
                RelayEffect::EnterRefused { session, code } => {
                    self.told.push(format!("{}: refused {code}", session.0));
                }
                RelayEffect::SayRefused { .. } | RelayEffect::Attached { .. } => {}
                RelayEffect::StaleFrame { .. } => self.stale += 1,
            }
        }
    }

    /// Delivers until nothing moves any more.
    fn settle(&mut self) {
        loop {
            let held = &self.held;
            let is_free = |way: &Way| !held.contains(way);
            let up = self.up.iter_mut().find(|(way, queue)| is_free(way) && !queue.is_empty());
            if let Some(((front, chat), frame)) =
                up.map(|(way, queue)| (*way, queue.pop_front().unwrap()))
            {
                let link = self.link_of[&(front, chat)];
                self.owner(chat, OwnerEvent::Frame { connector: front, link, frame });
                continue;
            }
            let down = self.down.iter_mut().find(|(way, queue)| is_free(way) && !queue.is_empty());
            let Some(((chat, front), frame)) =
                down.map(|(way, queue)| (*way, queue.pop_front().unwrap()))
            else {
                return;
            };
            self.relay(front, RelayEvent::Frame { from: chat, frame });
        }
    }

    fn enter(&mut self, front: Incarnation, session: u64, user: &str) {
        let user = UserName::from_peer(user).unwrap();
        let session = SessionId(session);
        let (shard, room) = (shard(), room());
        self.relay(front, RelayEvent::Enter { shard, room, session, user, ticket: None });
        self.settle();
    }

    /// A client that can come back enters by this key; `seen` says that it does come back.
    fn come(&mut self, front: Incarnation, session: u64, user: &str, key: u128, seen: Option<u64>) {
        let user = UserName::from_peer(user).unwrap();
        let session = SessionId(session);
        let seen = seen.map(|seq| Position { generation: Term(1), seq });
        let ticket = Some(Ticket { key: ResumeKey(key), seen });
        self.relay(
            front,
            RelayEvent::Enter { shard: shard(), room: room(), session, user, ticket },
        );
        self.settle();
    }

    /// A connection is lost.
    fn lost(&mut self, front: Incarnation, session: u64) {
        let (shard, room, session) = (shard(), room(), SessionId(session));
        self.relay(front, RelayEvent::Leave { shard, room, session, lost: true });
        self.settle();
    }

    /// Time passes, and everybody who wanted to be woken is.
    fn pass(&mut self, time: std::time::Duration) {
        self.now = self.now + time;
        for front in [FRONT_1, FRONT_2, FRONT_3] {
            if self.connectors.get(&front).is_some_and(|it| it.poll_timeout() <= Some(self.now)) {
                self.relay(front, RelayEvent::Timeout);
            }
        }
        self.settle();
        for chat in [CHAT_A, CHAT_B] {
            if self.chats.get(&chat).is_some_and(|it| it.poll_timeout() <= Some(self.now)) {
                self.owner(chat, OwnerEvent::Timeout);
            }
        }
        self.settle();
    }

    fn leave(&mut self, front: Incarnation, session: u64) {
        let session = SessionId(session);
        let (shard, room) = (shard(), room());
        self.relay(front, RelayEvent::Leave { shard, room, session, lost: false });
        self.settle();
    }

    fn say(&mut self, front: Incarnation, session: u64, number: u64) {
        self.say_as(front, session, number, Target::Everyone { shown: text("*") }, None);
    }

    fn say_as(
        &mut self,
        front: Incarnation,
        session: u64,
        number: u64,
        target: Target,
        id: Option<&str>,
    ) {
        let say = RelayEvent::Say {
            shard: shard(),
            room: room(),
            session: SessionId(session),
            number: SendNumber(number),
            target,
            content: Content::Text(format!("{session}/{number}").into()),
            id: id.map(|id| MessageId::new(id).unwrap()),
        };
        self.relay(front, say);
        self.settle();
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

fn pushed(push: &Push) -> String {
    match push {
        Push::Add(user) => format!("+{user}"),
        Push::Leave(user) => format!("-{user}"),
        Push::Chat(event) => match &event.body {
            Body::Said { content, .. } | Body::Whispered { content, .. } => {
                content.as_text().unwrap().to_owned()
            }
            Body::Joined(_) | Body::Left(_) | Body::Moved { .. } | Body::Hidden => "?".to_owned(),
        },
    }
}

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

fn welcomed(welcome: &Welcome) -> String {
    let told = welcome.events.iter().map(|event| match &event.body {
        Body::Joined(member) => format!(" +{}", member.user),
        Body::Left(member) => format!(" -{}", member.user),
        Body::Said { content, .. } | Body::Whispered { content, .. } => {
            format!(" {}", content.as_text().unwrap())
        }
        Body::Moved { .. } | Body::Hidden => " ?".to_owned(),
    });
    format!(", {}:{}", welcome.outcome.name(), told.collect::<String>())
}

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
