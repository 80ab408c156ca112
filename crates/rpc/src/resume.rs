//! Translates what clients have that can come back.

use std::sync::Arc;

use model::{MessageId, Outcome, ResumeKey, RoomId, SessionId};
use room::message::{Stay, Ticket, Welcome};

use crate::{
    convert::{Invalid, Result, all, event_from, event_to, position_from, position_to, required},
    pb,
    shared::{Difference, Shared},
};

#[expect(clippy::cast_possible_truncation, reason = "the upper and the lower half")]
fn key_to(key: ResumeKey) -> pb::ResumeKey {
    pb::ResumeKey { high: (key.0 >> 64) as u64, low: key.0 as u64 }
}

fn key_from(key: Option<pb::ResumeKey>) -> Result<ResumeKey> {
    let key = required(key, "key")?;
    Ok(ResumeKey((u128::from(key.high) << 64) | u128::from(key.low)))
}

pub(crate) fn stay_to(stay: Stay) -> pb::Stay {
    pb::Stay { key: Some(key_to(stay.key)), since: stay.since }
}

pub(crate) fn stay_from(stay: pb::Stay) -> Result<Stay> {
    Ok(Stay { key: key_from(stay.key)?, since: stay.since })
}

pub(crate) fn ticket_to(ticket: Ticket) -> pb::Ticket {
    pb::Ticket { key: Some(key_to(ticket.key)), seen: ticket.seen.map(position_to) }
}

pub(crate) fn ticket_from(ticket: pb::Ticket) -> Result<Ticket> {
    Ok(Ticket { key: key_from(ticket.key)?, seen: ticket.seen.map(position_from) })
}

pub(crate) fn message_id_to(id: Option<&MessageId>) -> String {
    id.map(|id| id.as_str().to_owned()).unwrap_or_default()
}

pub(crate) fn message_id_from(text: &str) -> Result<Option<MessageId>> {
    if text.is_empty() {
        return Ok(None);
    }
    MessageId::new(text).map(Some).map_err(|_| Invalid("message id"))
}

pub(crate) fn welcome_to(
    room: &RoomId,
    session: SessionId,
    welcome: &Welcome,
    shared: &mut Shared,
) -> pb::RoomWelcome {
    let difference = shared.difference(room, &welcome.events);
    let outcome = match welcome.outcome {
        Outcome::Joined => pb::Outcome::Joined,
        Outcome::Resumed => pb::Outcome::Resumed,
        Outcome::Reset => pb::Outcome::Reset,
    };
    pb::RoomWelcome {
        room: room.to_string(),
        session: session.0,
        outcome: outcome.into(),
        stay: Some(stay_to(welcome.stay)),
        events: difference.more.iter().map(|event| event_to(event)).collect(),
        as_before: difference.is_as_before,
        without: difference.without,
    }
}

pub(crate) fn welcome_from(
    room: &RoomId,
    welcome: pb::RoomWelcome,
    shared: &mut Shared,
) -> Result<Welcome> {
    let outcome = match welcome.outcome() {
        pb::Outcome::Joined => Outcome::Joined,
        pb::Outcome::Resumed => Outcome::Resumed,
        pb::Outcome::Reset => Outcome::Reset,
        pb::Outcome::Unspecified => return Err(Invalid("outcome")),
    };
    let difference = Difference {
        is_as_before: welcome.as_before,
        without: welcome.without,
        more: all(welcome.events, |event| event_from(event).map(Arc::new))?,
    };
    Ok(Welcome {
        outcome,
        stay: stay_from(required(welcome.stay, "stay")?)?,
        events: shared.whole(room, difference)?,
    })
}
