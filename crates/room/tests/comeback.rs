//! Clients that come and go, are lost and come back, whatever happens to links and owners between:
//! each sees all that is its business, once and in order, or is told that it did not.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod stage;

use std::time::Duration;

use model::{Outcome, Position, ResumeKey, SessionId, Target, UserName};
use proptest::prelude::*;
use room::{
    OwnerEvent, RelayEffect, RelayEvent,
    message::{Body, Event, Ticket},
};
use stage::{CHAT_A, CHAT_B, FRONT_1, FRONT_2, FRONT_3, Stage, room, shard, text};

const FRONTS: [model::Incarnation; 3] = [FRONT_1, FRONT_2, FRONT_3];
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A client enters, or comes back, by this connector.
    Enter(usize, usize),
    Say(usize),
    Whisper(usize, usize),
    /// A client hears nothing any more; its connector does not know yet.
    Deafen(usize),
    /// The connector learns that the connection is lost.
    Notice(usize),
    Leave(usize),
    /// Nothing moves from the owner to a connector.
    Hold(usize),
    Release,
    /// A link breaks and is opened again.
    Relink(usize),
    /// The other chat takes the shard over.
    Move,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..NAMES.len();
    let front = 0..FRONTS.len();
    prop_oneof![
        8 => (who.clone(), front.clone()).prop_map(|(who, front)| Act::Enter(who, front)),
        8 => who.clone().prop_map(Act::Say),
        3 => (who.clone(), who.clone()).prop_map(|(who, whom)| Act::Whisper(who, whom)),
        4 => who.clone().prop_map(Act::Deafen),
        3 => who.clone().prop_map(Act::Notice),
        1 => who.prop_map(Act::Leave),
        2 => front.clone().prop_map(Act::Hold),
        3 => Just(Act::Release),
        2 => front.prop_map(Act::Relink),
        1 => Just(Act::Move),
        3 => (0_u64..8_000).prop_map(Act::Pass),
    ]
}

/// One client, as it sees itself.
#[derive(Debug)]
struct Person {
    name: UserName,
    key: ResumeKey,
    /// Where its connector thinks it is.
    at: Option<(usize, SessionId)>,
    /// Connections that it has given up, and their connectors do not know.
    left_behind: Vec<(usize, SessionId)>,
    hears: bool,
    is_in: bool,
    /// What it saw since `since`, in order.
    seen: Vec<Position>,
    since: Position,
    last: Option<Position>,
    said: u64,
}

struct Play {
    stage: Stage,
    people: Vec<Person>,
    sessions: u64,
    owner: bool,
    term: u64,
    resumed: usize,
}

impl Play {
    fn new() -> Self {
        let people = NAMES.iter().zip(1..).map(|(name, key)| Person {
            name: UserName::from_peer(name).unwrap(),
            key: ResumeKey(key),
            at: None,
            left_behind: Vec::new(),
            hears: false,
            is_in: false,
            seen: Vec::new(),
            since: Position::default(),
            last: None,
            said: 0,
        });
        let people = people.collect();
        Self { stage: Stage::new(), people, sessions: 0, owner: false, term: 1, resumed: 0 }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Enter(who, front) => self.enter(who, front),
            Act::Say(who) => self.say(who, Target::Everyone { shown: text("*") }),
            Act::Whisper(who, whom) => {
                let target = Target::One(self.people[whom].name.clone());
                self.say(who, target);
            }
            Act::Deafen(who) => self.people[who].hears = false,
            Act::Notice(who) => self.end(who, true),
            Act::Leave(who) => {
                self.people[who].last = None;
                self.people[who].seen.clear();
                self.end(who, false);
            }
            Act::Hold(front) => {
                let chat = if self.owner { CHAT_B } else { CHAT_A };
                self.stage.held.insert((chat, FRONTS[front]));
            }
            Act::Release => self.stage.held.clear(),
            Act::Relink(front) => {
                for chat in [CHAT_A, CHAT_B] {
                    self.stage.relink(FRONTS[front], chat);
                }
            }
            Act::Move => {
                let (from, to) = if self.owner { (CHAT_B, CHAT_A) } else { (CHAT_A, CHAT_B) };
                self.owner = !self.owner;
                self.term += 1;
                self.stage.owner(from, OwnerEvent::Lost { shard: shard() });
                self.stage.own(to, self.term);
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

    fn enter(&mut self, who: usize, front: usize) {
        // A client has one connection at a time, as far as it knows.
        self.people[who].hears = true;
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let person = &mut self.people[who];
        person.left_behind.extend(person.at.replace((front, session)));
        person.is_in = false;
        person.said = 0;
        let (key, user) = (person.key, person.name.clone());
        let ticket = Some(Ticket { key, seen: person.last });
        let (shard, room) = (shard(), room());
        let enter = RelayEvent::Enter { shard, room, session, user, ticket };
        self.stage.relay(FRONTS[front], enter);
    }

    fn say(&mut self, who: usize, target: Target) {
        let person = &mut self.people[who];
        let Some((front, session)) = person.at.filter(|_| person.is_in && person.hears) else {
            return;
        };
        person.said += 1;
        self.stage.say_as(FRONTS[front], session.0, person.said, target, None);
    }

    fn end(&mut self, who: usize, lost: bool) {
        let person = &mut self.people[who];
        person.hears = false;
        let ended = person.left_behind.drain(..).map(|at| (at, true));
        let ended: Vec<_> = ended.chain(person.at.take().map(|at| (at, lost))).collect();
        for ((front, session), lost) in ended {
            let (shard, room) = (shard(), room());
            self.stage.relay(FRONTS[front], RelayEvent::Leave { shard, room, session, lost });
        }
    }

    fn hear(&mut self) {
        for (front, effect) in std::mem::take(&mut self.stage.effects) {
            match effect {
                RelayEffect::CutLink(chat) => self.stage.relink(front, chat),
                RelayEffect::Entered { session, position, welcome, .. } => {
                    let welcome = welcome.unwrap();
                    let Some(person) = self.of(front, session) else { continue };
                    person.is_in = true;
                    if welcome.outcome == Outcome::Resumed {
                        let missed = welcome.events.iter().map(|event| event.position);
                        person.seen.extend(missed);
                        self.resumed += 1;
                    } else {
                        person.seen.clear();
                        person.since = position;
                    }
                    let person = self.of(front, session).unwrap();
                    person.last = Some(position);
                }
                RelayEffect::Push { sessions, except, position, .. } => {
                    for session in sessions.iter().filter(|it| Some(**it) != except) {
                        if let Some(person) = self.of(front, *session) {
                            person.seen.push(position);
                            person.last = Some(position);
                        }
                    }
                }
                RelayEffect::Expel { session }
                | RelayEffect::Supersede { session }
                | RelayEffect::Replace { session }
                | RelayEffect::EnterRefused { session, .. } => {
                    if let Some(person) = self.of(front, session) {
                        person.hears = false;
                        person.is_in = false;
                        person.at = None;
                    }
                }
                RelayEffect::Frame { .. }
                | RelayEffect::Said { .. }
                | RelayEffect::SayRefused { .. }
                | RelayEffect::StaleFrame { .. }
                | RelayEffect::Probe { .. }
                | RelayEffect::Attached { .. } => {}
            }
        }
    }

    /// The client that hears this session.
    fn of(&mut self, front: model::Incarnation, session: SessionId) -> Option<&mut Person> {
        let is_its = |it: &&mut Person| {
            it.hears && it.at.is_some_and(|(at, its)| FRONTS[at] == front && its == session)
        };
        self.people.iter_mut().find(is_its)
    }

    /// What was this client's business since it is sure to have seen everything.
    fn due(&self, person: &Person) -> Vec<Position> {
        let Some(last) = person.last else { return Vec::new() };
        let is_due = |event: &&std::sync::Arc<Event>| match &event.body {
            Body::Joined(member) | Body::Left(member) | Body::Replaced(member) => {
                member.user != person.name
            }
            Body::Said(_) => true,
            Body::Whispered(whisper) => whisper.to.user == person.name,
            Body::SessionJoined(_) | Body::SessionLeft(_) | Body::Moved { .. } | Body::Hidden => {
                false
            }
        };
        let events = self
            .stage
            .events
            .values()
            .filter(|event| event.position > person.since && event.position <= last);
        events.filter(is_due).map(|event| event.position).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn everyone_sees_all_or_is_told(acts in prop::collection::vec(act(), 1..80)) {
        let mut play = Play::new();
        for act in &acts {
            play.act(*act);
            for person in &play.people {
                let due = play.due(person);
                prop_assert_eq!(
                    &person.seen, &due, "{} after {:?}; events {:?}",
                    person.name, act, play.stage.events
                );
            }
        }
        // Whoever comes back now, with everything mended, is told what it missed.
        play.act(Act::Release);
        for front in 0..FRONTS.len() {
            play.act(Act::Relink(front));
        }
        for who in 0..NAMES.len() {
            play.act(Act::Notice(who));
        }
        play.act(Act::Pass(20_000));
        for who in 0..NAMES.len() {
            play.act(Act::Enter(who, who));
            prop_assert!(play.people[who].is_in, "{} is in", play.people[who].name);
            prop_assert_eq!(&play.people[who].seen, &play.due(&play.people[who]));
        }
    }
}
