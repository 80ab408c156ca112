//! Both ends wired together, step by step: what the simulation found, told as short stories.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    Content, Incarnation, RoomId, SendNumber, SessionId, Shard, Target, Term, Time, UserName,
    limits,
};
use room::{
    LinkId, Owner, OwnerEffect, OwnerEvent, Push, RelayEffect, RelayEvent, Relays,
    message::{Body, Frame, ToOwner, ToRelay},
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
                RelayEffect::Entered { session, users } => {
                    let users: Vec<&str> = users.iter().map(UserName::as_str).collect();
                    self.told.push(format!("{}: in with {}", session.0, users.join(" ")));
                }
                RelayEffect::Push { sessions, except, push, .. } => {
                    for session in sessions.iter().filter(|session| Some(**session) != except) {
                        self.told.push(format!("{}: {}", session.0, pushed(&push)));
                    }
                }
                RelayEffect::Expel { session } => self.told.push(format!("{}: out", session.0)),
                RelayEffect::EnterRefused { .. }
                | RelayEffect::Said { .. }
                | RelayEffect::SayRefused { .. }
                | RelayEffect::Attached { .. } => {}
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
        self.relay(front, RelayEvent::Enter { shard: shard(), room: room(), session, user });
        self.settle();
    }

    fn leave(&mut self, front: Incarnation, session: u64) {
        let session = SessionId(session);
        self.relay(front, RelayEvent::Leave { shard: shard(), room: room(), session });
        self.settle();
    }

    fn say(&mut self, front: Incarnation, session: u64, number: u64) {
        let say = RelayEvent::Say {
            shard: shard(),
            room: room(),
            session: SessionId(session),
            number: SendNumber(number),
            target: Target::Everyone { shown: Content::Text("*".into()) },
            content: Content::Text(format!("{session}/{number}").into()),
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
            Body::Joined(_) | Body::Left(_) | Body::Hidden => "?".to_owned(),
        },
    }
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
