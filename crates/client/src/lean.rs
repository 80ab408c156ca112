//! What a server says, read in place: for load generators, which hear millions.

use wire::{
    RequestId,
    pomelo::{Message, Packet, RouteName, packet::Kind},
    route,
};

/// What a package says, borrowed from it. Made by [`Heard::from_packet`].
///
/// It takes for granted what the chat application announces (`onChat` as protobuf with the
/// fields `msg`, `from`, `target`, everything else JSON as the server writes it); use
/// [`Client`](crate::Client) for servers that may be others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The answer to a request.
    Answer {
        /// The request's.
        id: RequestId,
        /// Whether it was refused.
        refused: bool,
    },
    /// Somebody spoke.
    Chat {
        /// What was said.
        text: &'a [u8],
        /// Who said it.
        from: &'a [u8],
        /// To whom.
        target: &'a [u8],
    },
    /// Somebody entered; the name as JSON writes it.
    Add(&'a [u8]),
    /// Somebody left; the name as JSON writes it.
    Leave(&'a [u8]),
    /// The server ends the connection.
    Kick,
    /// A heartbeat, or something else without words.
    Other,
}

impl<'a> Heard<'a> {
    /// Reads a package.
    #[must_use]
    pub fn from_packet(packet: Packet<'a>) -> Self {
        match packet.kind {
            Kind::Data => Self::from_data(packet.body),
            Kind::Kick => Self::Kick,
            Kind::Handshake | Kind::HandshakeAck | Kind::Heartbeat => Self::Other,
        }
    }

    fn from_data(data: &'a [u8]) -> Self {
        match Message::decode(data) {
            Ok(Message::Response { id, body }) => {
                let has_code = body.starts_with(b"{\"code\":");
                let refused = has_code && !body.starts_with(b"{\"code\":200");
                Self::Answer { id, refused }
            }
            Ok(Message::Push { route: RouteName::Text(name), body }) => {
                let read = match &*name {
                    route::ON_CHAT => chat(body),
                    route::ON_ADD => user(body).map(Self::Add),
                    route::ON_LEAVE => user(body).map(Self::Leave),
                    _ => None,
                };
                read.unwrap_or(Self::Other)
            }
            Ok(Message::Push { .. } | Message::Request { .. } | Message::Notify { .. })
            | Err(_) => Self::Other,
        }
    }
}

fn chat(body: &[u8]) -> Option<Heard<'_>> {
    let (text, rest) = field(0x0a, body)?;
    let (from, rest) = field(0x12, rest)?;
    let (target, _) = field(0x1a, rest)?;
    Some(Heard::Chat { text, from, target })
}

/// A string field with this tag byte, and what follows it.
fn field(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (first == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn user(body: &[u8]) -> Option<&[u8]> {
    const MEMBER: &[u8] = b"\"user\":\"";
    let at = body.windows(MEMBER.len()).position(|window| window == MEMBER)?;
    let rest = &body[at + MEMBER.len()..];
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use model::{Code, Content, NameRule, UserName};
    use wire::{
        Push, Reply,
        pomelo::{Encoding, Options, packet},
    };

    use super::*;

    fn heard(package: &[u8], check: impl FnOnce(Heard<'_>)) {
        let packet = packet::split(package, 1 << 16).next().unwrap().unwrap();
        check(Heard::from_packet(packet));
    }

    #[test]
    fn what_the_server_writes_is_heard() {
        let options = Options::chat_connector();
        let alice = UserName::parse("alice", &NameRule::default()).unwrap();
        let words = "x".repeat(300);
        let content = Content::Text(words.as_str().into());
        let target = Content::Text("*".into());
        let push = |push: &Push<'_>| options.encode_push(push, Encoding::Utf8).unwrap();
        heard(&push(&Push::Chat { content: &content, from: &alice, target: &target }), |heard| {
            let text = words.as_bytes();
            assert_eq!(heard, Heard::Chat { text, from: b"alice", target: b"*" });
        });
        heard(&push(&Push::Add { user: &alice }), |heard| {
            assert_eq!(heard, Heard::Add(b"alice"));
        });
        heard(&push(&Push::Leave { user: &alice }), |heard| {
            assert_eq!(heard, Heard::Leave(b"alice"));
        });
        let id = RequestId(300);
        for (reply, refused) in [
            (Reply::Done, false),
            (Reply::Refused { code: Code::SlowDown, error: false }, true),
            (Reply::Entry { host: "h".to_owned(), port: 1 }, false),
        ] {
            let package = options.encode_reply(id, None, &reply, Encoding::Utf8).unwrap();
            heard(&package, |heard| assert_eq!(heard, Heard::Answer { id, refused }));
        }
        heard(&packet::HEARTBEAT, |heard| assert_eq!(heard, Heard::Other));
        heard(b"\x04\0\0\x0a\x06\x06onChat\x0a\xff", |heard| assert_eq!(heard, Heard::Other));
    }
}
