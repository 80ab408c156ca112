//! Translates the types of module [`pb`] into those of crate `room` and back.

use std::sync::Arc;

use model::{
    Code, Content, Incarnation, MemberId, Position, RoomId, SendNumber, SessionId, Shard, Target,
    Term, UserName,
};
use room::message::{
    Body, Event, Frame, Member, OwnMember, RoomState, Snapshot, Spoken, ToOwner, ToRelay, Whisper,
};

use crate::{pb, resume, shared::Shared};

/// A message of a peer that does not say what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent a message without a valid {0}; are both of the same version?")]
pub struct Invalid(pub(crate) &'static str);

pub(crate) type Result<T> = std::result::Result<T, Invalid>;

pub(crate) fn required<T>(value: Option<T>, what: &'static str) -> Result<T> {
    value.ok_or(Invalid(what))
}

pub(crate) fn shard(number: u32) -> Result<Shard> {
    required(u16::try_from(number).ok().and_then(Shard::new), "shard")
}

fn room(name: &str) -> Result<RoomId> {
    RoomId::from_peer(name).map_err(|_| Invalid("room"))
}

fn user(name: &str) -> Result<UserName> {
    UserName::from_peer(name).map_err(|_| Invalid("user"))
}

fn code(number: u32) -> Result<Code> {
    required(u16::try_from(number).ok().and_then(Code::from_number), "code")
}

pub(crate) fn all<T, U>(values: Vec<T>, convert: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    values.into_iter().map(convert).collect()
}

/// Writes a frame for the owner of a shard.
#[must_use]
pub fn owner_frame(frame: Frame<ToOwner>) -> pb::OwnerFrame {
    use pb::owner_frame::Message;
    let message = match frame.message {
        ToOwner::State(state) => Message::State(room_state(state)),
        ToOwner::Attached { rooms, in_step, departed } => {
            let rooms = u32::try_from(rooms).unwrap_or(u32::MAX);
            Message::Attached(pb::Attached { rooms, in_step, departed })
        }
        ToOwner::Join { room, session, user, ticket } => Message::Join(pb::Join {
            room: room.to_string(),
            session: session.0,
            user: user.to_string(),
            ticket: ticket.map(resume::ticket_to),
        }),
        ToOwner::Leave { room, session } => {
            Message::Leave(pb::Leave { room: room.to_string(), session: session.0 })
        }
        ToOwner::Withdraw { room, session } => Message::Withdraw(session_in_room(&room, session)),
        ToOwner::Alive { room, session } => Message::Alive(session_in_room(&room, session)),
        ToOwner::Say { room, session, number, target, content, id } => Message::Say(pb::Say {
            id: resume::message_id_to(id.as_ref()),
            room: room.to_string(),
            session: session.0,
            number: number.0,
            content: Some(content_to(&content)),
            target: Some(match target {
                Target::Everyone { shown } => pb::say::Target::Everyone(content_to(&shown)),
                Target::One(user) => pb::say::Target::One(user.to_string()),
            }),
        }),
    };
    pb::OwnerFrame {
        shard: frame.shard.number().into(),
        term: frame.term.0,
        message: Some(message),
    }
}

/// Reads a frame from a connector.
///
/// # Errors
///
/// If something in it is missing or out of bounds.
pub fn owner_frame_from(frame: pb::OwnerFrame) -> Result<Frame<ToOwner>> {
    use pb::owner_frame::Message;
    let message = match required(frame.message, "frame")? {
        Message::State(state) => ToOwner::State(room_state_from(state)?),
        Message::Attached(attached) => ToOwner::Attached {
            rooms: usize::try_from(attached.rooms).unwrap_or(usize::MAX),
            in_step: attached.in_step,
            departed: attached.departed,
        },
        Message::Join(join) => ToOwner::Join {
            room: room(&join.room)?,
            session: SessionId(join.session),
            user: user(&join.user)?,
            ticket: join.ticket.map(resume::ticket_from).transpose()?,
        },
        Message::Leave(leave) => {
            ToOwner::Leave { room: room(&leave.room)?, session: SessionId(leave.session) }
        }
        Message::Withdraw(it) => {
            ToOwner::Withdraw { room: room(&it.room)?, session: SessionId(it.session) }
        }
        Message::Alive(it) => {
            ToOwner::Alive { room: room(&it.room)?, session: SessionId(it.session) }
        }
        Message::Say(say) => ToOwner::Say {
            room: room(&say.room)?,
            session: SessionId(say.session),
            number: SendNumber(say.number),
            target: match required(say.target, "target")? {
                pb::say::Target::Everyone(shown) => Target::Everyone { shown: content_from(shown) },
                pb::say::Target::One(name) => Target::One(user(&name)?),
            },
            content: content_from(required(say.content, "content")?),
            id: resume::message_id_from(&say.id)?,
        },
    };
    Ok(Frame { shard: shard(frame.shard)?, term: Term(frame.term), message })
}

/// Writes a frame for a connector, on a stream that has shared so much.
#[must_use]
pub(crate) fn connector_frame(frame: Frame<ToRelay>, shared: &mut Shared) -> pb::ConnectorFrame {
    use pb::connector_frame::Message;
    let message = match frame.message {
        ToRelay::Opened => Message::Opened(pb::Nothing {}),
        ToRelay::NotOwner => Message::NotOwner(pb::Nothing {}),
        ToRelay::Snapshot(snapshot) => Message::Snapshot(pb::Snapshot {
            room: snapshot.room.to_string(),
            position: Some(position_to(snapshot.position)),
            members: snapshot.members.iter().map(member_to).collect(),
            applied: snapshot.applied.iter().map(own_member_to).collect(),
            tail: snapshot.tail.iter().map(|event| event_to(event)).collect(),
        }),
        ToRelay::Event { room, event } => {
            Message::Event(pb::RoomEvent { room: room.to_string(), event: Some(event_to(&event)) })
        }
        ToRelay::Welcome { room, session, welcome } => {
            Message::Welcome(resume::welcome_to(&room, session, &welcome, shared))
        }
        ToRelay::Repeated { room, session, number, position } => Message::Repeated(pb::Repeated {
            room: room.to_string(),
            session: session.0,
            number: number.0,
            position: Some(position_to(position)),
        }),
        ToRelay::Probe { room, session } => Message::Probe(session_in_room(&room, session)),
        ToRelay::Withdrawn { room, session } => Message::Withdrawn(session_in_room(&room, session)),
        ToRelay::Probing { room, session } => Message::Probing(session_in_room(&room, session)),
        ToRelay::JoinRefused { room, session, code } => Message::JoinRefused(pb::JoinRefused {
            room: room.to_string(),
            session: session.0,
            code: code.number().into(),
        }),
        ToRelay::SayRefused { room, session, number, code } => {
            Message::SayRefused(pb::SayRefused {
                room: room.to_string(),
                session: session.0,
                number: number.0,
                code: code.number().into(),
            })
        }
    };
    pb::ConnectorFrame {
        shard: frame.shard.number().into(),
        term: frame.term.0,
        message: Some(message),
    }
}

/// Reads a frame from the owner of a shard, on a stream that has shared so much.
///
/// # Errors
///
/// If something in it is missing or out of bounds.
pub(crate) fn connector_frame_from(
    frame: pb::ConnectorFrame,
    shared: &mut Shared,
) -> Result<Frame<ToRelay>> {
    use pb::connector_frame::Message;
    let message = match required(frame.message, "frame")? {
        Message::Opened(pb::Nothing {}) => ToRelay::Opened,
        Message::NotOwner(pb::Nothing {}) => ToRelay::NotOwner,
        Message::Snapshot(snapshot) => ToRelay::Snapshot(Snapshot {
            room: room(&snapshot.room)?,
            position: position_from(required(snapshot.position, "position")?),
            members: all(snapshot.members, member_from)?,
            applied: all(snapshot.applied, own_member_from)?,
            tail: all(snapshot.tail, |event| event_from(event).map(Arc::new))?,
        }),
        Message::Event(event) => ToRelay::Event {
            room: room(&event.room)?,
            event: Arc::new(event_from(required(event.event, "event")?)?),
        },
        Message::Welcome(welcome) => {
            let (room, session) = (room(&welcome.room)?, SessionId(welcome.session));
            let welcome = resume::welcome_from(&room, welcome, shared)?;
            ToRelay::Welcome { room, session, welcome }
        }
        Message::Repeated(repeated) => ToRelay::Repeated {
            room: room(&repeated.room)?,
            session: SessionId(repeated.session),
            number: SendNumber(repeated.number),
            position: position_from(required(repeated.position, "position")?),
        },
        Message::Probe(it) => {
            ToRelay::Probe { room: room(&it.room)?, session: SessionId(it.session) }
        }
        Message::Withdrawn(it) => {
            ToRelay::Withdrawn { room: room(&it.room)?, session: SessionId(it.session) }
        }
        Message::Probing(it) => {
            ToRelay::Probing { room: room(&it.room)?, session: SessionId(it.session) }
        }
        Message::JoinRefused(refused) => ToRelay::JoinRefused {
            room: room(&refused.room)?,
            session: SessionId(refused.session),
            code: code(refused.code)?,
        },
        Message::SayRefused(refused) => ToRelay::SayRefused {
            room: room(&refused.room)?,
            session: SessionId(refused.session),
            number: SendNumber(refused.number),
            code: code(refused.code)?,
        },
    };
    Ok(Frame { shard: shard(frame.shard)?, term: Term(frame.term), message })
}

fn session_in_room(room: &RoomId, session: SessionId) -> pb::SessionInRoom {
    pb::SessionInRoom { room: room.to_string(), session: session.0 }
}

fn room_state(state: RoomState) -> pb::RoomState {
    pb::RoomState {
        room: state.room.to_string(),
        position: Some(position_to(state.position)),
        own: state.own.iter().map(own_member_to).collect(),
        entering: state.entering.iter().map(|session| session.0).collect(),
        members: state.members.iter().map(member_to).collect(),
        tail: state.tail.iter().map(|event| event_to(event)).collect(),
    }
}

fn room_state_from(state: pb::RoomState) -> Result<RoomState> {
    Ok(RoomState {
        room: room(&state.room)?,
        position: position_from(required(state.position, "position")?),
        own: all(state.own, own_member_from)?,
        entering: state.entering.into_iter().map(SessionId).collect(),
        members: all(state.members, member_from)?,
        tail: all(state.tail, |event| Ok(Arc::new(event_from(event)?)))?,
    })
}

pub(crate) fn position_to(position: Position) -> pb::Position {
    pb::Position { generation: position.generation.0, seq: position.seq }
}

pub(crate) fn position_from(position: pb::Position) -> Position {
    Position { generation: Term(position.generation), seq: position.seq }
}

fn member_to(member: &Member) -> pb::Member {
    pb::Member {
        connector: member.id.connector.0,
        session: member.id.session.0,
        user: member.user.to_string(),
    }
}

fn member_from(member: pb::Member) -> Result<Member> {
    Ok(Member {
        id: MemberId {
            connector: Incarnation(member.connector),
            session: SessionId(member.session),
        },
        user: user(&member.user)?,
    })
}

fn own_member_to(own: &OwnMember) -> pb::OwnMember {
    let stay = own.stay.map(resume::stay_to);
    pb::OwnMember { session: own.session.0, applied: own.applied.0, stay }
}

fn own_member_from(own: pb::OwnMember) -> Result<OwnMember> {
    Ok(OwnMember {
        session: SessionId(own.session),
        applied: SendNumber(own.applied),
        stay: own.stay.map(resume::stay_from).transpose()?,
    })
}

fn content_to(content: &Content) -> pb::Content {
    let kind = match content {
        Content::Text(text) => Some(pb::content::Kind::Text(text.to_string())),
        Content::Json(json) => Some(pb::content::Kind::Json(json.to_string())),
        Content::Missing => None,
    };
    pb::Content { kind }
}

fn content_from(content: pb::Content) -> Content {
    match content.kind {
        Some(pb::content::Kind::Text(text)) => Content::Text(text.into()),
        Some(pb::content::Kind::Json(json)) => Content::Json(json.into()),
        None => Content::Missing,
    }
}

pub(crate) fn event_to(event: &Event) -> pb::Event {
    use pb::event::Body as Pb;
    let body = match &event.body {
        Body::Joined(member) => Pb::Joined(member_to(member)),
        Body::Left(member) => Pb::Left(member_to(member)),
        Body::Replaced(member) => Pb::Replaced(member_to(member)),
        Body::SessionJoined(member) => Pb::SessionJoined(member_to(member)),
        Body::SessionLeft(member) => Pb::SessionLeft(member_to(member)),
        Body::Moved { from, to } => Pb::Moved(pb::Moved {
            from_connector: from.connector.0,
            from_session: from.session.0,
            to: Some(member_to(to)),
        }),
        Body::Said(spoken) => {
            let Spoken { from, number, shown, content, id } = &**spoken;
            Pb::Said(pb::Said {
                id: resume::message_id_to(id.as_ref()),
                from: Some(member_to(from)),
                number: number.0,
                shown: Some(content_to(shown)),
                content: Some(content_to(content)),
            })
        }
        Body::Whispered(whisper) => {
            let Whisper { spoken, to, also } = &**whisper;
            let Spoken { from, number, shown: _, content, id } = spoken;
            let also = also
                .iter()
                .map(|it| pb::MemberId { connector: it.connector.0, session: it.session.0 });
            Pb::Whispered(pb::Whispered {
                from: Some(member_to(from)),
                number: number.0,
                to: Some(member_to(to)),
                also: also.collect(),
                content: Some(content_to(content)),
                id: resume::message_id_to(id.as_ref()),
            })
        }
        Body::Hidden => Pb::Hidden(pb::Nothing {}),
    };
    pb::Event { position: Some(position_to(event.position)), body: Some(body) }
}

pub(crate) fn event_from(event: pb::Event) -> Result<Event> {
    use pb::event::Body as Pb;
    let body = match required(event.body, "event body")? {
        Pb::Joined(member) => Body::Joined(member_from(member)?),
        Pb::Left(member) => Body::Left(member_from(member)?),
        Pb::Replaced(member) => Body::Replaced(member_from(member)?),
        Pb::SessionJoined(member) => Body::SessionJoined(member_from(member)?),
        Pb::SessionLeft(member) => Body::SessionLeft(member_from(member)?),
        Pb::Said(said) => Body::Said(Box::new(Spoken {
            from: member_from(required(said.from, "sender")?)?,
            number: SendNumber(said.number),
            shown: content_from(required(said.shown, "target")?),
            content: content_from(required(said.content, "content")?),
            id: resume::message_id_from(&said.id)?,
        })),
        Pb::Moved(moved) => Body::Moved {
            from: MemberId {
                connector: Incarnation(moved.from_connector),
                session: SessionId(moved.from_session),
            },
            to: Box::new(member_from(required(moved.to, "member")?)?),
        },
        Pb::Whispered(whispered) => {
            let to = member_from(required(whispered.to, "target")?)?;
            let also = whispered.also.into_iter().map(|it| MemberId {
                connector: Incarnation(it.connector),
                session: SessionId(it.session),
            });
            let spoken = Spoken {
                from: member_from(required(whispered.from, "sender")?)?,
                number: SendNumber(whispered.number),
                shown: Content::Text(to.user.as_str().into()),
                content: content_from(required(whispered.content, "content")?),
                id: resume::message_id_from(&whispered.id)?,
            };
            Body::Whispered(Box::new(Whisper { spoken, to, also: also.collect() }))
        }
        Pb::Hidden(pb::Nothing {}) => Body::Hidden,
    };
    Ok(Event { position: position_from(required(event.position, "position")?), body })
}

#[cfg(test)]
mod tests {
    use model::{MessageId, Outcome, ResumeKey};
    use room::message::{Stay, Ticket, Welcome};

    use super::*;

    fn member(session: u64) -> Member {
        Member {
            id: MemberId { connector: Incarnation(7), session: SessionId(session) },
            user: UserName::from_peer("张三").unwrap(),
        }
    }

    fn stay() -> Stay {
        Stay { key: ResumeKey(u128::MAX / 3), since: 7 }
    }

    fn event(seq: u64, body: Body) -> Arc<Event> {
        Arc::new(Event { position: Position { generation: Term(3), seq }, body })
    }

    fn events() -> Vec<Arc<Event>> {
        let (number, content) = (SendNumber(9), Content::Json("[1]".into()));
        let shown = Content::Text("*".into());
        let id = Some(MessageId::new("k1").unwrap());
        let said = Spoken { from: member(1), number, shown, content, id };
        let own_name = Content::Text(member(2).user.as_str().into());
        let spoken = Spoken { shown: own_name, ..said.clone() };
        let also = [member(5).id, member(6).id].into();
        let whispered = Body::Whispered(Box::new(Whisper { spoken, to: member(2), also }));
        let moved = Body::Moved { from: member(1).id, to: Box::new(member(3)) };
        let bodies = [
            Body::Joined(member(1)),
            Body::Said(Box::new(said)),
            whispered,
            moved,
            Body::Hidden,
            Body::Left(member(1)),
            Body::Replaced(member(1)),
            Body::SessionJoined(member(1)),
            Body::SessionLeft(member(1)),
        ];
        (1..).zip(bodies).map(|(seq, body)| event(seq, body)).collect()
    }

    #[test]
    fn every_frame_for_an_owner_survives_the_way() {
        let room = RoomId::from_peer("r1").unwrap();
        let session = SessionId(4);
        let state = RoomState {
            room: room.clone(),
            position: Position { generation: Term(3), seq: 5 },
            own: vec![OwnMember { session, applied: SendNumber(2), stay: Some(stay()) }],
            entering: vec![SessionId(5)],
            members: vec![member(1), member(2)],
            tail: events(),
        };
        let say = |target| ToOwner::Say {
            room: room.clone(),
            session,
            number: SendNumber(1),
            target,
            content: Content::Missing,
            id: Some(MessageId::new("k1").unwrap()),
        };
        let join =
            |ticket| ToOwner::Join { room: room.clone(), session, user: member(4).user, ticket };
        let position = Position { generation: Term(3), seq: 5 };
        let messages = [
            ToOwner::State(state),
            ToOwner::Attached { rooms: 1, in_step: false, departed: true },
            ToOwner::Attached { rooms: 0, in_step: true, departed: false },
            join(None),
            join(Some(Ticket { key: stay().key, seen: None })),
            join(Some(Ticket { key: stay().key, seen: Some(position) })),
            ToOwner::Leave { room: room.clone(), session },
            ToOwner::Withdraw { room: room.clone(), session },
            ToOwner::Alive { room: room.clone(), session },
            say(Target::Everyone { shown: Content::Text("*".into()) }),
            say(Target::One(member(4).user)),
        ];
        for message in messages {
            let frame = Frame { shard: Shard::new(1023).unwrap(), term: Term(8), message };
            assert_eq!(owner_frame_from(owner_frame(frame.clone())), Ok(frame));
        }
    }

    #[test]
    fn every_frame_for_a_connector_survives_the_way() {
        let room = RoomId::from_peer("r1").unwrap();
        let session = SessionId(4);
        let snapshot = Snapshot {
            room: room.clone(),
            position: Position { generation: Term(3), seq: 5 },
            members: vec![member(1)],
            applied: vec![OwnMember { session, applied: SendNumber(2), stay: None }],
            tail: events(),
        };
        let position = Position { generation: Term(3), seq: 5 };
        let number = SendNumber(3);
        let welcome = Welcome { outcome: Outcome::Resumed, stay: stay(), events: events() };
        let mut messages = vec![
            ToRelay::Welcome { room: room.clone(), session, welcome },
            ToRelay::Repeated { room: room.clone(), session, number, position },
            ToRelay::Opened,
            ToRelay::NotOwner,
            ToRelay::Probe { room: room.clone(), session },
            ToRelay::Probing { room: room.clone(), session },
            ToRelay::Withdrawn { room: room.clone(), session },
            ToRelay::Snapshot(snapshot),
            ToRelay::JoinRefused { room: room.clone(), session, code: Code::NameTaken },
            ToRelay::SayRefused {
                room: room.clone(),
                session,
                number: SendNumber(3),
                code: Code::Absent,
            },
        ];
        let events = events().into_iter();
        messages.extend(events.map(|event| ToRelay::Event { room: room.clone(), event }));
        for message in messages {
            let frame = Frame { shard: Shard::new(0).unwrap(), term: Term(8), message };
            let written = connector_frame(frame.clone(), &mut Shared::default());
            assert_eq!(connector_frame_from(written, &mut Shared::default()), Ok(frame));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let frame = pb::OwnerFrame { shard: 1024, term: 1, message: None };
        assert_eq!(owner_frame_from(frame), Err(Invalid("frame")));
        let message = Some(pb::connector_frame::Message::Opened(pb::Nothing {}));
        let frame = pb::ConnectorFrame { shard: 1024, term: 1, message };
        let read = connector_frame_from(frame, &mut Shared::default());
        assert_eq!(read, Err(Invalid("shard")));
    }
}
