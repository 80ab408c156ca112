//! What a client asks, and what it is told.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use model::{Content, NameRule, UserName};
use wire::{
    Call, Push, Reply, RequestId, Route,
    pomelo::{
        Dictionary, Encoding, Hello, Options, Protos,
        packet::{self, Kind},
    },
};

/// Largest package, in bytes.
const PACKAGE_BYTES_MAX: usize = 64 * 1024;

/// What a message of a client asks for.
pub(crate) enum Ask {
    /// To be told this.
    Answer(Bytes),
    /// To be told where the clients of this room go.
    Entry { id: RequestId, room: String },
    /// To be let into a room.
    Enter { id: RequestId, user: UserName, room: String },
    /// To have this told to everybody in its room.
    Say { id: RequestId, content: Content, target: Content },
}

/// How the chat is spoken.
pub(crate) struct Speech {
    options: Options,
}

impl Speech {
    /// As the original's connectors speak, but for the heartbeat.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { options: Options::connector(heartbeat, Dictionary::chat(), Protos::chat()) }
    }

    /// Reads one WebSocket message.
    pub(crate) fn read(&self, message: &[u8]) -> Vec<Ask> {
        let packets = packet::split(message, PACKAGE_BYTES_MAX).filter_map(Result::ok);
        packets
            .filter_map(|packet| match packet.kind {
                Kind::Handshake => {
                    Some(Ask::Answer(self.options.answer(&Hello::parse(packet.body)?)))
                }
                Kind::HandshakeAck | Kind::Heartbeat => Some(Ask::Answer(packet::HEARTBEAT)),
                Kind::Data => self.call(packet.body),
                Kind::Kick => None,
            })
            .collect()
    }

    fn call(&self, data: &[u8]) -> Option<Ask> {
        let (id, call) = self.options.decode_call(data).ok()??;
        match call {
            Call::QueryEntry { rid, .. } => {
                Some(Ask::Entry { id, room: rid.as_text().unwrap_or_default().to_owned() })
            }
            Call::Enter { username: Content::Text(user), rid: Content::Text(room), .. } => {
                let user = UserName::parse(&user, &NameRule::default()).ok()?;
                Some(Ask::Enter { id, user, room: room.to_string() })
            }
            Call::Send { content, target, .. } => Some(Ask::Say { id, content, target }),
            Call::Enter { .. } | Call::Unknown { .. } => None,
        }
    }

    fn reply(&self, id: RequestId, route: Route, reply: &Reply) -> Option<Bytes> {
        self.options.encode_reply(id, Some(route), reply, Encoding::Utf8)
    }

    /// The answer to who asked where to go.
    pub(crate) fn entry(&self, id: RequestId, connector: SocketAddr) -> Bytes {
        let (host, port) = (connector.ip().to_string(), connector.port());
        self.reply(id, Route::QueryEntry, &Reply::Entry { host, port }).unwrap_or_default()
    }

    /// The answer to who entered.
    pub(crate) fn entered(&self, id: RequestId, users: Vec<UserName>) -> Bytes {
        self.reply(id, Route::Enter, &Reply::Users(users)).unwrap_or_default()
    }

    /// The answer to who said something.
    pub(crate) fn said(&self, id: RequestId) -> Bytes {
        self.reply(id, Route::Send, &Reply::Done).unwrap_or_default()
    }

    /// What everybody hears of it.
    pub(crate) fn chat(&self, from: &UserName, content: &Content, target: &Content) -> Bytes {
        let push = Push::Chat { content, from, target };
        self.options.encode_push(&push, Encoding::Utf8).unwrap_or_default()
    }

    /// What the others hear of who entered.
    pub(crate) fn add(&self, user: &UserName) -> Bytes {
        self.options.encode_push(&Push::Add { user }, Encoding::Utf8).unwrap_or_default()
    }
}
