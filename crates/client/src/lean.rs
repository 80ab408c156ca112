//! What a server says, read in place: for load generators, which hear millions.

use wire::{
    RequestId,
    pomelo::{Message, Packet, RouteName, packet::Kind},
    route,
    socketio::{v1, v09},
};

use crate::connection::Unit;

/// What a server says, borrowed from its unit. Made by [`Heard::each`].
///
/// It takes for granted what the chat application announces and writes (`onChat` as protobuf with
/// the fields `msg`, `from`, `target`, everything else as JSON with its members in the server's
/// order, and no text that JSON would have to escape); use [`Client`](crate::Client) for servers
/// and texts that may be others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The answer to a request.
    Answer {
        /// The request's.
        id: RequestId,
        /// What it says of itself: [`Heard::OK`], unless it was refused.
        code: u64,
        /// Who is in the room, if it was to enter one and that was done.
        users: Names<'a>,
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
    /// The server ends the session.
    Kick,
    /// A heartbeat, or something else without words.
    Other,
}

impl<'a> Heard<'a> {
    /// The code of an answer that says no other.
    pub const OK: u64 = 200;

    /// Hands out what a unit says, in order: one thing or, in Socket.IO 0.9, several.
    pub fn each(unit: Unit<'a>, mut on_heard: impl FnMut(Self)) {
        let text = match unit {
            Unit::Package(packet) => return on_heard(Self::from_packet(packet)),
            Unit::Text(text) => text,
        };
        if let Some(array) = text.strip_prefix(b"3:::[") {
            let mut json = Json { rest: array, quote: b"\"" };
            loop {
                let Some(heard) = json.element() else { return on_heard(Self::Other) };
                on_heard(heard);
                if json.skip(b",").is_none() {
                    return;
                }
            }
        }
        if let Some(string) = text.strip_prefix(b"42[\"message\",\"") {
            // JSON within a JSON string: every quote is escaped.
            let mut json = Json { rest: string, quote: b"\\\"" };
            return on_heard(json.nested().unwrap_or(Self::Other));
        }
        let ends = [v09::KICK, v09::DISCONNECT, v1::DISCONNECT, v1::CLOSE];
        on_heard(if ends.iter().any(|end| end == text) { Self::Kick } else { Self::Other });
    }

    fn from_packet(packet: Packet<'a>) -> Self {
        match packet.kind {
            Kind::Data => Self::from_data(packet.body),
            Kind::Kick => Self::Kick,
            Kind::Handshake | Kind::HandshakeAck | Kind::Heartbeat => Self::Other,
        }
    }

    fn from_data(data: &'a [u8]) -> Self {
        match Message::decode(data) {
            Ok(Message::Response { id, body }) => {
                let mut json = Json { rest: body, quote: b"\"" };
                // Without the brace there is no body: then nothing is refused.
                let _ = json.skip(b"{");
                let (code, users) = json.answered();
                Self::Answer { id, code, users }
            }
            Ok(Message::Push { route: RouteName::Text(name), body }) => {
                let mut json = Json { rest: body, quote: b"\"" };
                let read = match &*name {
                    route::ON_CHAT => chat(body),
                    route::ON_ADD | route::ON_LEAVE => json.element(),
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

/// Names in a list, each as JSON writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(Json<'a>);

impl Names<'_> {
    const NONE: Self = Self(Json { rest: b"", quote: b"\"" });
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.string()?;
        // There is none behind the last name.
        let _ = self.0.skip(b",");
        Some(name)
    }
}

/// JSON as the server writes it, read from front to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Json<'a> {
    rest: &'a [u8],
    /// How a quote is written.
    quote: &'static [u8],
}

impl<'a> Json<'a> {
    /// A reply or a pushed object.
    fn element(&mut self) -> Option<Heard<'a>> {
        self.skip(b"{")?;
        let heard = match self.string()? {
            b"id" => return self.answer(),
            b"route" => {
                self.skip(b":")?;
                match self.string()? {
                    b"onChat" => {
                        let text = self.member(b"msg")?;
                        let from = self.member(b"from")?;
                        let target = self.member(b"target")?;
                        Heard::Chat { text, from, target }
                    }
                    b"onAdd" => Heard::Add(self.member(b"user")?),
                    b"onLeave" => Heard::Leave(self.member(b"user")?),
                    _ => return None,
                }
            }
            _ => return None,
        };
        self.skip(b"}")?;
        Some(heard)
    }

    /// A reply, or a pushed object as the member `body` of another.
    fn nested(&mut self) -> Option<Heard<'a>> {
        let whole = self.rest;
        self.skip(b"{")?;
        if self.string()? == b"route" {
            self.skip(b":")?;
            if self.string()? == b"onKick" {
                return Some(Heard::Kick);
            }
            self.skip(b",")?;
            let is_body = self.string()? == b"body";
            self.skip(b":").filter(|()| is_body)?;
        } else {
            self.rest = whole;
        }
        self.element()
    }

    /// What follows `{"id"`.
    fn answer(&mut self) -> Option<Heard<'a>> {
        self.skip(b":")?;
        let id = RequestId(self.number());
        self.skip(b",")?;
        let is_body = self.string()? == b"body";
        self.skip(b":{").filter(|()| is_body)?;
        let (code, users) = self.answered();
        // What else a body holds is of no interest, if it holds no other object.
        let end = self.rest.windows(2).position(|pair| pair == b"}}")?;
        self.rest = &self.rest[end + 2..];
        Some(Heard::Answer { id, code, users })
    }

    /// The first member of an answer's body: its code, or who is there.
    fn answered(&mut self) -> (u64, Names<'a>) {
        let (mut code, mut users) = (Heard::OK, Names::NONE);
        if let Some(name) = self.string()
            && self.skip(b":").is_some()
        {
            if name == b"code" {
                code = self.number();
            } else if name == b"users" && self.skip(b"[").is_some() {
                users = Names(*self);
            }
        }
        (code, users)
    }

    /// The string in a member of this name that follows another.
    fn member(&mut self, name: &[u8]) -> Option<&'a [u8]> {
        self.skip(b",")?;
        let is_it = self.string()? == name;
        self.skip(b":").filter(|()| is_it)?;
        self.string()
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.skip(self.quote)?;
        let quote = self.quote[0];
        let end = self.rest.iter().position(|byte| *byte == quote)?;
        let (inside, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip(self.quote)?;
        Some(inside)
    }

    fn number(&mut self) -> u64 {
        let mut number = 0_u64;
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.rest = rest;
        }
        number
    }

    fn skip(&mut self, what: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(what)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use model::{Code, Content, NameRule, UserName};
    use wire::{
        Push, Reply,
        pomelo::{Encoding, Options, packet},
    };

    use super::*;

    fn package(package: &[u8], check: impl FnOnce(Heard<'_>)) {
        let packet = packet::split(package, 1 << 16).next().unwrap().unwrap();
        let mut check = Some(check);
        Heard::each(Unit::Package(packet), |heard| check.take().unwrap()(heard));
    }

    fn texts(unit: &[u8]) -> Vec<Heard<'_>> {
        let mut all = Vec::new();
        Heard::each(Unit::Text(unit), |heard| all.push(heard));
        all
    }

    #[test]
    fn what_the_server_writes_is_heard() {
        let options = Options::chat_connector();
        let alice = UserName::parse("alice", &NameRule::default()).unwrap();
        let words = "x".repeat(300);
        let content = Content::Text(words.as_str().into());
        let target = Content::Text("*".into());
        let chat = Heard::Chat { text: words.as_bytes(), from: b"alice", target: b"*" };
        for (push, expected) in [
            (Push::Chat { content: &content, from: &alice, target: &target }, chat),
            (Push::Add { user: &alice }, Heard::Add(b"alice")),
            (Push::Leave { user: &alice }, Heard::Leave(b"alice")),
        ] {
            let unit = options.encode_push(&push, Encoding::Utf8).unwrap();
            package(&unit, |heard| assert_eq!(heard, expected));
            assert_eq!(texts(&v09::encode_push(&push)), [expected]);
            assert_eq!(texts(&v1::encode_push(&push)), [expected]);
        }
        let id = RequestId(300);
        let bob = UserName::parse("bob", &NameRule::default()).unwrap();
        for (reply, expected, users) in [
            (Reply::Done, Heard::OK, vec![]),
            // Whatever it is, as the original said.
            (Reply::Refused { code: Code::SlowDown, error: false }, 500, vec![]),
            (Reply::Refused { code: Code::SlowDown, error: true }, 500, vec![]),
            (Reply::Entry { host: "h".to_owned(), port: 1 }, Heard::OK, vec![]),
            (Reply::Users(vec![]), Heard::OK, vec![]),
            (Reply::Users(vec![alice, bob]), Heard::OK, vec![&b"alice"[..], b"bob"]),
        ] {
            let check = |heard: Heard<'_>| {
                let Heard::Answer { id: of, code, users: read } = heard else {
                    panic!("{heard:?} is no answer")
                };
                assert_eq!((of, code), (id, expected));
                assert_eq!(read.collect::<Vec<_>>(), users);
            };
            let unit = options.encode_reply(id, None, &reply, Encoding::Utf8).unwrap();
            package(&unit, check);
            for text in [v09::encode_reply(id, &reply), v1::encode_reply(id, &reply)] {
                let text = text.unwrap();
                let heard = texts(&text);
                assert_eq!(heard.len(), 1);
                check(heard[0]);
            }
        }
        package(&packet::HEARTBEAT, |heard| assert_eq!(heard, Heard::Other));
        package(b"\x04\0\0\x0a\x06\x06onChat\x0a\xff", |heard| assert_eq!(heard, Heard::Other));
    }

    #[test]
    fn a_frame_of_the_first_generation_says_several_things() {
        let alice = UserName::parse("alice", &NameRule::default()).unwrap();
        let add = v09::encode_push(&Push::Add { user: &alice });
        let done = v09::encode_reply(RequestId(7), &Reply::Done).unwrap();
        let joined = v09::join(&[add.clone(), done, add]);
        let (id, users) = (RequestId(7), Names::NONE);
        let answer = Heard::Answer { id, code: Heard::OK, users };
        let expected = [Heard::Add(b"alice"), answer, Heard::Add(b"alice")];
        assert_eq!(texts(&joined[0]), expected);
    }

    #[test]
    fn what_has_no_words_is_told_apart_from_the_end() {
        for end in [v09::KICK, v09::DISCONNECT, v1::encode_kick("x"), v1::DISCONNECT, v1::CLOSE] {
            assert_eq!(texts(&end), [Heard::Kick]);
        }
        for other in [v09::HEARTBEAT, v09::NOOP, v1::NOOP, v1::PONG, v1::CONNECT] {
            assert_eq!(texts(&other), [Heard::Other]);
        }
        assert_eq!(texts(b"3:::[{\"route\":\"onChat\"}]"), [Heard::Other]);
    }
}
