//! How what a server says becomes events.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use wire::{
    RequestId, Route,
    pomelo::{
        client::{Incoming, kick_reason},
        packet::{Kind, Packet},
    },
    socketio::client::{Said, read_frame, read_packet},
};

use crate::{
    codec::{Codec, Speech},
    connection::Unit,
    error::{Closed, Error, Result},
    event::Queued,
    push::Placed,
};

/// A request not yet answered.
pub(crate) struct Pending {
    pub(crate) id: RequestId,
    pub(crate) route: Route,
}

/// Turns what a server says into events.
pub(crate) struct Ear<'a> {
    pub(crate) codec: &'a Codec,
    pub(crate) pending: &'a mut VecDeque<Pending>,
    pub(crate) events: &'a mut VecDeque<Queued>,
    /// How the server ended the session.
    pub(crate) end: Option<Closed>,
}

impl Ear<'_> {
    // What this client does not understand is none of its business.
    pub(crate) fn hear(&mut self, unit: Unit<'_>) {
        match (unit, &self.codec.speech) {
            (Unit::Package(packet), _) => self.hear_package(packet),
            (Unit::Text(frame), Speech::SocketIo09) => {
                let frame = String::from_utf8_lossy(frame);
                read_frame(&frame).into_iter().for_each(|said| self.hear_said(said));
            }
            (Unit::Text(packet), Speech::SocketIo1) => {
                let packet = String::from_utf8_lossy(packet);
                read_packet(&packet).into_iter().for_each(|said| self.hear_said(said));
            }
            (Unit::Text(_), Speech::Pomelo(_)) => {}
        }
    }

    fn hear_package(&mut self, packet: Packet<'_>) {
        let Speech::Pomelo(codec) = &self.codec.speech else {
            return;
        };
        match packet.kind {
            Kind::Data => match codec.decode(packet.body) {
                Ok(Incoming::Response { id, body }) => {
                    if let Some(route) = self.take_pending(id) {
                        let result = codec.decode_body(route.name(), body);
                        self.answered(id, result.map_err(Error::from));
                    }
                }
                Ok(Incoming::Push { route, body }) => {
                    self.events.push_back(Queued::Push(Placed::read(route, body)));
                }
                Err(_) => {}
            },
            Kind::Kick => self.end = Some(Closed::Kicked(kick_reason(packet.body))),
            Kind::Heartbeat | Kind::Handshake | Kind::HandshakeAck => {}
        }
    }

    fn hear_said(&mut self, said: Said) {
        match said {
            Said::Answer { id, body } => {
                if self.take_pending(id).is_some() {
                    self.answered(id, Ok(body));
                }
            }
            Said::Push { route, body } => {
                self.events.push_back(Queued::Push(Placed::read(route, body)));
            }
            Said::Kick(reason) => self.end = Some(Closed::Kicked(reason)),
            Said::End => self.end = self.end.take().or(Some(Closed::ByServer)),
            Said::Opened(_) | Said::Connected => {}
        }
    }

    fn take_pending(&mut self, id: RequestId) -> Option<Route> {
        // Nearly always the oldest.
        let place = self.pending.iter().position(|request| request.id == id)?;
        self.pending.remove(place).map(|request| request.route)
    }

    fn answered(&mut self, id: RequestId, result: Result<Value>) {
        let result = result.and_then(|body| match body.get("code").and_then(Value::as_u64) {
            None | Some(200) => Ok(body),
            Some(code) => {
                let retry_after = body.get("retryAfter").and_then(Value::as_u64);
                let retry_after = retry_after.map(Duration::from_millis);
                Err(Error::Refused { code, retry_after })
            }
        });
        self.events.push_back(Queued::Answer { id, result });
    }
}
