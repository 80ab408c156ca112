//! Rooms that nobody is in are kept for those who may come back, but not without bounds.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::time::Duration;

use model::{
    Content, Incarnation, Outcome, Position, ResumeKey, RoomId, SendNumber, SessionId, Shard,
    Target, Term, Time, UserName, limits,
};
use room::{
    LinkId, Owner, OwnerEffect, OwnerEvent,
    message::{Frame, Ticket, ToOwner, ToRelay, Welcome},
};

const CONNECTOR: Incarnation = Incarnation(1);
const LINK: LinkId = LinkId(1);
const TERM: Term = Term(1);

/// One owner, and one connector that is in step with it.
struct Chat {
    owner: Owner,
    now: Time,
}

impl Chat {
    fn new() -> Self {
        let mut chat = Self { owner: Owner::default(), now: Time::ZERO };
        chat.handle(OwnerEvent::LinkUp { connector: CONNECTOR, link: LINK });
        for shard in [0, 1] {
            let connectors = vec![CONNECTOR];
            let shard = Shard::new(shard).unwrap();
            chat.handle(OwnerEvent::Won { shard, term: TERM, connectors });
            chat.hear(shard, ToOwner::Attached { rooms: 0, in_step: true, departed: false });
        }
        chat
    }

    fn handle(&mut self, event: OwnerEvent) -> Vec<OwnerEffect> {
        let mut out = Vec::new();
        self.owner.handle(self.now, event, &mut out);
        out
    }

    fn hear(&mut self, shard: Shard, message: ToOwner) -> Vec<OwnerEffect> {
        let frame = Frame { shard, term: TERM, message };
        self.handle(OwnerEvent::Frame { connector: CONNECTOR, link: LINK, frame })
    }

    /// Somebody enters, and is told so; `seen` says that it comes back.
    fn enter(&mut self, number: usize, seen: Option<Position>) -> (Welcome, Position) {
        let (shard, room) = place(number);
        let user = UserName::from_peer("a").unwrap();
        let ticket = Some(Ticket { key: ResumeKey(7), seen });
        let effects = self.hear(shard, ToOwner::Join { room, session: SessionId(1), user, ticket });
        let (mut told, mut at) = (None, None);
        for effect in effects {
            let OwnerEffect::Frame { frame, .. } = effect else { continue };
            if let ToRelay::Welcome { welcome, .. } = &frame.message {
                told = Some(welcome.clone());
            }
            if let ToRelay::Event { event, .. } = frame.message {
                at = Some(event.position);
            }
        }
        (told.unwrap(), at.unwrap())
    }

    fn leave(&mut self, number: usize) {
        let (shard, room) = place(number);
        self.hear(shard, ToOwner::Leave { room, session: SessionId(1) });
    }

    fn say(&mut self, number: usize, count: u64, bytes: usize) {
        let (shard, room) = place(number);
        for number in 1..=count {
            let (session, number) = (SessionId(1), SendNumber(number));
            let target = Target::Everyone { shown: Content::Text("*".into()) };
            let content = Content::Text("x".repeat(bytes).into());
            let room = room.clone();
            self.hear(shard, ToOwner::Say { room, session, number, target, content, id: None });
        }
    }
}

fn place(number: usize) -> (Shard, RoomId) {
    let shard = Shard::new(u16::try_from(number % 2).unwrap()).unwrap();
    (shard, RoomId::from_peer(&format!("r{number}")).unwrap())
}

#[test]
fn the_oldest_of_too_many_begins_anew() {
    let mut chat = Chat::new();
    let mut seen = Vec::new();
    for number in 0..limits::EMPTY_ROOMS_MAX + 3 {
        seen.push(chat.enter(number, None).1);
        chat.leave(number);
        chat.now = chat.now + Duration::from_millis(1);
    }
    assert_eq!(chat.owner.empty_rooms(), limits::EMPTY_ROOMS_MAX);
    assert_eq!(chat.owner.empty_rooms_given_up(), 3);
    let (welcome, at) = chat.enter(0, Some(seen[0]));
    assert_eq!(welcome.outcome, Outcome::Reset);
    assert!(at > seen[0], "no position is used twice");
    let (welcome, _) = chat.enter(3, Some(seen[3]));
    assert_eq!(welcome.outcome, Outcome::Resumed);
    assert_eq!(chat.owner.empty_rooms(), limits::EMPTY_ROOMS_MAX - 1);
}

#[test]
fn large_rooms_are_fewer() {
    let mut chat = Chat::new();
    for number in 0..70 {
        chat.enter(number, None);
        chat.say(number, 150, 8_000);
        chat.leave(number);
        chat.now = chat.now + Duration::from_millis(1);
    }
    assert!(chat.owner.empty_rooms_bytes() <= limits::EMPTY_ROOMS_BYTES_MAX);
    let kept = chat.owner.empty_rooms();
    assert!((60..70).contains(&kept), "{kept} rooms are kept");
    assert_eq!(chat.owner.empty_rooms_given_up(), 70 - kept as u64);
}

#[test]
fn nothing_is_counted_when_all_are_gone() {
    let mut chat = Chat::new();
    for number in 0..10 {
        chat.enter(number, None);
        chat.leave(number);
    }
    chat.handle(OwnerEvent::Lost { shard: Shard::new(0).unwrap() });
    assert_eq!(chat.owner.empty_rooms(), 5);
    chat.now = chat.now + limits::RESUME_WINDOW;
    chat.handle(OwnerEvent::Timeout);
    assert_eq!((chat.owner.empty_rooms(), chat.owner.empty_rooms_bytes()), (0, 0));
    assert_eq!(chat.owner.empty_rooms_given_up(), 0);
}
