//! What those who enter a room are told of what was said before, written once for all who are told
//! the same.

use std::sync::Arc;

use room::message::{Body, Event, Member};
use wire::{Stamp, pomelo::modern};

use super::chat;

/// The events that an entrant was told, in JSON: those who enter a room together are told the same,
/// and it is written once.
#[derive(Debug, Default)]
pub(super) struct ToldLast {
    events: Vec<Arc<Event>>,
    json: Arc<str>,
}

impl ToldLast {
    /// Writes them down, unless they are those of the last time.
    pub(super) fn in_json(&mut self, events: Vec<Arc<Event>>) -> Arc<str> {
        let is_same = |(one, other): (&Arc<Event>, &Arc<Event>)| Arc::ptr_eq(one, other);
        let is_known = !events.is_empty()
            && self.events.len() == events.len()
            && self.events.iter().zip(&events).all(is_same);
        if !is_known {
            self.json = in_json(&events).into();
            self.events = events;
        }
        Arc::clone(&self.json)
    }
}

/// Events as the pushes that a client would have had, in a JSON array.
fn in_json(events: &[Arc<Event>]) -> String {
    let mut json = b"[".to_vec();
    for event in events {
        let push = match &event.body {
            Body::Joined(Member { user, .. }) => Some(wire::Push::Add { user }),
            Body::Left(Member { user, .. }) | Body::Replaced(Member { user, .. }) => {
                Some(wire::Push::Leave { user })
            }
            Body::Said(_) | Body::Whispered(_) => chat(event),
            Body::SessionJoined(_) | Body::SessionLeft(_) | Body::Moved { .. } | Body::Hidden => {
                None
            }
        };
        let Some(push) = push else { continue };
        if json.len() > 1 {
            json.push(b',');
        }
        let id = event.message_id().map(|(_, id)| id);
        let stamp = Stamp { position: event.position, id };
        modern::write_push(&mut json, &push, Some(stamp));
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_else(|_| "[]".to_owned())
}

#[cfg(test)]
mod tests {
    use model::{Content, Incarnation, MemberId, Position, SendNumber, SessionId, Term, UserName};
    use room::message::Spoken;

    use super::*;

    fn said(seq: u64) -> Arc<Event> {
        let id = MemberId { connector: Incarnation(3), session: SessionId(1) };
        let from = Member { id, user: UserName::from_peer("alice").unwrap() };
        let (shown, content) = (Content::Text("*".into()), Content::Text("hi".into()));
        let number = SendNumber(1);
        let body = Body::Said(Box::new(Spoken { from, number, shown, content, id: None }));
        Arc::new(Event { position: Position { generation: Term(1), seq }, body })
    }

    #[test]
    fn what_many_are_told_is_written_once_and_only_for_them() {
        let mut told = ToldLast::default();
        let (one, two, three) = (said(1), said(2), said(3));
        let events = vec![one, Arc::clone(&two)];
        let first = told.in_json(events.clone());
        assert_eq!(&*first, in_json(&events));
        assert!(Arc::ptr_eq(&first, &told.in_json(events.clone())));
        for events in [vec![two, three], Vec::new(), events, vec![said(1), said(2)]] {
            let json = told.in_json(events.clone());
            assert_eq!(&*json, in_json(&events));
            assert!(!Arc::ptr_eq(&first, &json), "written for other events");
        }
    }
}
