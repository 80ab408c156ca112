//! How the benchmark's few words are said to each server: be in a room, say something, hear it.

use bytes::Bytes;
use client::{Heard as Spoken, Unit};
use wire::{
    RequestId, Route,
    pomelo::{Message, RouteName, packet},
};

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// The minimal server, with one write per delivery
    Epoll,
    /// The minimal server, which writes once per socket and turn
    Coalesce,
    /// A whole cluster
    Tangelo,
    /// tokio-tungstenite as its examples show it
    Textbook,
    /// nats-server, subjects over WebSocket
    Nats,
    /// mosquitto, topics at QoS 0 over WebSocket
    Mosquitto,
    /// nginx with nchan, channels over WebSocket
    Nchan,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Epoll => "epoll",
            Self::Coalesce => "coalesce",
            Self::Tangelo => "tangelo",
            Self::Textbook => "textbook",
            Self::Nats => "nats",
            Self::Mosquitto => "mosquitto",
            Self::Nchan => "nchan",
        })
    }
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// That the client is in its room.
    Joined,
    /// What a member of the room said.
    Said(&'a [u8]),
}

impl Peer {
    /// The path that a client of this room asks for.
    pub(super) fn path(self, room: usize) -> String {
        if self == Self::Nchan { format!("/room/r{room}") } else { "/".to_owned() }
    }

    /// The subprotocol of WebSocket.
    pub(super) fn protocol(self) -> Option<&'static str> {
        (self == Self::Mosquitto).then_some("mqtt")
    }

    /// Whether a client is in its room as soon as its WebSocket stands.
    pub(super) fn joins_by_path(self) -> bool {
        self == Self::Nchan
    }

    /// What a client sends to be in a room, each in a message of its own.
    pub(super) fn join(self, client: usize, room: usize) -> Vec<Vec<u8>> {
        match self {
            Self::Epoll | Self::Coalesce | Self::Tangelo | Self::Textbook => {
                let hello = packet::encode(packet::Kind::Handshake, br#"{"sys":{"type":"bench"}}"#);
                let body = format!(r#"{{"username":"u{client}","rid":"r{room}"}}"#);
                let enter = request(1, Route::Enter, &body);
                vec![hello.unwrap_or_default().to_vec(), packet::HANDSHAKE_ACK.to_vec(), enter]
            }
            Self::Nats => {
                let options = r#"{"verbose":false,"pedantic":false,"echo":true}"#;
                vec![format!("CONNECT {options}\r\nSUB r{room} 1\r\nPING\r\n").into_bytes()]
            }
            Self::Mosquitto => vec![mqtt_connect(client), mqtt_subscribe(room)],
            Self::Nchan => Vec::new(),
        }
    }

    /// What a client sends to have a text said in its room.
    pub(super) fn say(self, room: usize, text: &str) -> Vec<u8> {
        match self {
            Self::Epoll | Self::Coalesce | Self::Tangelo | Self::Textbook => {
                request(2, Route::Send, &format!(r#"{{"content":"{text}","target":"*"}}"#))
            }
            Self::Nats => format!("PUB r{room} {}\r\n{text}\r\n", text.len()).into_bytes(),
            Self::Mosquitto => mqtt_publish(room, text),
            Self::Nchan => text.as_bytes().to_vec(),
        }
    }

    /// Takes what is whole off the front of what came in messages, and hands it out. Returns how
    /// many bytes that were; nothing if it makes no sense.
    pub(super) fn hear(self, bytes: &[u8], mut each: impl FnMut(Heard<'_>)) -> Option<usize> {
        let cut = match self {
            Self::Epoll | Self::Coalesce | Self::Tangelo | Self::Textbook => pomelo,
            Self::Nats => nats,
            Self::Mosquitto => mqtt,
            Self::Nchan => plain,
        };
        let mut used = 0;
        while used < bytes.len() {
            let (length, heard) = cut(&bytes[used..])?;
            if length == 0 {
                break;
            }
            if let Some(heard) = heard {
                each(heard);
            }
            used += length;
        }
        Some(used)
    }
}

/// The length of the first unit, 0 if it is not whole, and what it says; nothing at all for what
/// makes no sense.
type Cut<'a> = Option<(usize, Option<Heard<'a>>)>;

fn request(id: u64, route: Route, body: &str) -> Vec<u8> {
    let route = RouteName::Text(route.name().into());
    let mut data = Vec::new();
    let message = Message::Request { id: RequestId(id), route, body: body.as_bytes() };
    // Routes of the chat are short, and so is what is said.
    let _ = message.encode(&mut data);
    packet::encode(packet::Kind::Data, &data)
        .map(|package: Bytes| package.to_vec())
        .unwrap_or_default()
}

fn pomelo(bytes: &[u8]) -> Cut<'_> {
    let Some(&[_, high, middle, low]) = bytes.first_chunk() else { return Some((0, None)) };
    let length = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
    let Some(package) = bytes.get(..length) else { return Some((0, None)) };
    let packet = packet::split(package, length).next()?.ok()?;
    let mut heard = None;
    Spoken::each(Unit::Package(packet), |spoken| match spoken {
        Spoken::Answer { id: RequestId(1), code: Spoken::OK, .. } => heard = Some(Heard::Joined),
        Spoken::Chat { text, .. } => heard = Some(Heard::Said(text)),
        Spoken::Answer { .. }
        | Spoken::Add(_)
        | Spoken::Leave(_)
        | Spoken::Kick
        | Spoken::Other => {}
    });
    Some((length, heard))
}

fn nats(bytes: &[u8]) -> Cut<'_> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Some((0, None));
    };
    let line = str::from_utf8(&bytes[..end]).ok()?;
    let begin = end + 2;
    if line == "PONG" {
        return Some((begin, Some(Heard::Joined)));
    }
    let Some(head) = line.strip_prefix("MSG ") else { return Some((begin, None)) };
    let length: usize = head.rsplit(' ').next()?.parse().ok()?;
    let whole = begin + length + 2;
    if bytes.len() < whole {
        return Some((0, None));
    }
    Some((whole, Some(Heard::Said(&bytes[begin..begin + length]))))
}

/// A control packet of MQTT 3.1.1 with this first byte.
fn mqtt_packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).unwrap_or_default();
        rest /= 128;
        packet.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn mqtt_text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn mqtt_connect(client: usize) -> Vec<u8> {
    // MQTT, level 4, a clean session, no keep-alive.
    let head = b"\x00\x04MQTT\x04\x02\x00\x00";
    mqtt_packet(0x10, &[&head[..], &mqtt_text(&format!("c{client}"))].concat())
}

fn mqtt_subscribe(room: usize) -> Vec<u8> {
    mqtt_packet(0x82, &[&[0, 1][..], &mqtt_text(&format!("r{room}")), &[0]].concat())
}

fn mqtt_publish(room: usize, text: &str) -> Vec<u8> {
    mqtt_packet(0x30, &[&mqtt_text(&format!("r{room}"))[..], text.as_bytes()].concat())
}

fn mqtt(bytes: &[u8]) -> Cut<'_> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let Some(digit) = bytes.get(at) else { return Some((0, None)) };
        length |= usize::from(digit & 0x7f) << (7 * (at - 1));
        at += 1;
        if digit & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return None;
        }
    }
    let Some(body) = bytes.get(at..at + length) else { return Some((0, None)) };
    let heard = match bytes[0] >> 4 {
        3 => {
            let topic = usize::from(u16::from_be_bytes(*body.first_chunk()?));
            Some(Heard::Said(body.get(2 + topic..)?))
        }
        9 => Some(Heard::Joined),
        _ => None,
    };
    Some((at + length, heard))
}

/// A message is what was said, and is read whole: a stream of them cannot be told apart, so that
/// the crowd hands each over by itself.
fn plain(bytes: &[u8]) -> Cut<'_> {
    Some((bytes.len(), Some(Heard::Said(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(peer: Peer, bytes: &[u8]) -> (usize, Vec<String>) {
        let mut all = Vec::new();
        let used = peer.hear(bytes, |heard| match heard {
            Heard::Joined => all.push("joined".to_owned()),
            Heard::Said(text) => all.push(String::from_utf8_lossy(text).into_owned()),
        });
        (used.unwrap(), all)
    }

    #[test]
    fn what_is_not_whole_waits() {
        let stream = b"INFO {}\r\nPONG\r\nMSG r1 1 2\r\nhi\r\nMSG r1 1 2\r\nh";
        assert_eq!(heard(Peer::Nats, stream), (31, vec!["joined".to_owned(), "hi".to_owned()]));
        let said = mqtt_publish(1, &"x".repeat(200));
        let stream = [&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0][..], &said, &said[..9]].concat();
        let (used, all) = heard(Peer::Mosquitto, &stream);
        assert_eq!((used, all), (9 + said.len(), vec!["joined".to_owned(), "x".repeat(200)]));
    }

    #[test]
    fn a_package_tells_what_was_said() {
        let speech = crate::speech::Speech::new(model::limits::POMELO_HEARTBEAT);
        let user = model::UserName::parse("u1", &model::NameRule::default()).unwrap();
        let text = |text: &str| model::Content::Text(text.into());
        let stream = [
            speech.entered(RequestId(1), vec![user.clone()]),
            speech.chat(&user, &text("hi"), &text("*")),
        ]
        .concat();
        let (used, all) = heard(Peer::Epoll, &stream);
        assert_eq!((used, all), (stream.len(), vec!["joined".to_owned(), "hi".to_owned()]));
    }
}
