//! What clients get that know Tangelo: where each event stands, what they missed, what went wrong.
//!
//! Those of the binary protocol say so in the handshake, by `"user":{"tangelo":1}`, and are told of
//! neither dictionary nor schemas: every body is JSON. Those of Socket.IO, which has no handshake,
//! put it into what they ask first. `docs/protocol.md` specifies it.

use std::time::Duration;

use bytes::Bytes;
use model::{Code, Content, Position, Resume, ResumeKey, Term, limits};

use super::{
    Message, RouteName, message,
    packet::{self, Kind},
};
use crate::{
    Entered, Push, Reply, RequestId, Stamp,
    body::{self, Sink},
    route,
};

/// Whether a call asks for the modern fields.
#[must_use]
pub fn is_wanted(tangelo: &Content) -> bool {
    *tangelo == Content::Json("1".into())
}

/// Writes the body of the handshake's answer.
pub(super) fn write_answer(out: &mut Vec<u8>, heartbeat: Option<Duration>) {
    out.text("{\"code\":200,\"sys\":{");
    if let Some(heartbeat) = heartbeat {
        out.text("\"heartbeat\":");
        body::write_number(out, heartbeat.as_secs());
    }
    out.text("},\"user\":{\"tangelo\":1}}");
}

/// Encodes a push as a finished DATA package.
#[must_use]
pub fn encode_push(push: &Push<'_>, stamp: Option<Stamp<'_>>) -> Option<Bytes> {
    let mut package = packet::begin(Kind::Data, 64 + push.json_len_hint());
    let head = Message::Push { route: RouteName::Text(push.route().into()), body: b"" };
    head.encode(&mut package).ok()?;
    write_push(&mut package, push, stamp);
    packet::finish(package)
}

/// Writes the pushed object as JSON, with where it stands.
pub fn write_push(out: &mut impl Sink, push: &Push<'_>, stamp: Option<Stamp<'_>>) {
    push.write_open(out);
    if let Some(Stamp { position, id }) = stamp {
        if let Some(id) = id {
            out.text(",\"id\":");
            body::write_string(out, id.as_str());
        }
        out.text(",");
        write_position(out, position);
    }
    out.text("}");
}

/// Encodes a response as a finished DATA package. `None` for a notify.
pub(crate) fn encode_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    if id.is_notify() {
        return None;
    }
    let mut package = packet::begin(Kind::Data, 96 + reply.json_len_hint());
    message::response_head(&mut package, id);
    write_reply(&mut package, reply);
    packet::finish(package).or_else(|| {
        // A list of members that no package can carry.
        encode_reply(id, &Reply::Refused { code: Code::NotApplied, error: true })
    })
}

/// Writes the body of a reply as JSON.
pub(crate) fn write_reply(out: &mut impl Sink, reply: &Reply) {
    match reply {
        Reply::Entered(entered) => write_entered(out, entered),
        Reply::Placed(position) => {
            out.text("{\"code\":200,");
            write_position(out, *position);
            out.text("}");
        }
        Reply::Refused { code, .. } => write_refusal(out, *code, limits::RETRY_AFTER),
        Reply::Busy { retry_after } => write_refusal(out, Code::NotApplied, *retry_after),
        Reply::Slot { host, port, after } => write_slot(out, host, *port, *after),
        Reply::Done => out.text("{\"code\":200}"),
        Reply::Entry { .. } | Reply::Users(_) => reply.write_json(out),
    }
}

fn write_entered(out: &mut impl Sink, entered: &Entered) {
    out.text("{\"code\":200,\"outcome\":\"");
    out.text(entered.outcome.name());
    out.text("\",\"users\":");
    route::write_users(out, &entered.users);
    out.text(",");
    write_position(out, entered.position);
    out.text(",\"token\":\"");
    out.text(&entered.key.text());
    out.text("\",\"events\":");
    out.text(&entered.events);
    out.text("}");
}

fn write_slot(out: &mut impl Sink, host: &str, port: u16, after: Duration) {
    out.text("{\"code\":200,\"host\":");
    body::write_string(out, host);
    out.text(",\"port\":");
    body::write_number(out, port.into());
    out.text(",\"after\":");
    body::write_number(out, millis(after));
    out.text("}");
}

fn write_refusal(out: &mut impl Sink, code: Code, retry_after: Duration) {
    out.text("{\"code\":");
    body::write_number(out, code.number().into());
    out.text(",\"error\":true,\"text\":");
    body::write_string(out, code.text());
    if code.retry_is_safe() {
        out.text(",\"retryAfter\":");
        body::write_number(out, millis(retry_after));
    }
    out.text("}");
}

/// Whole milliseconds, rounded up: who waits for so long does not come too early.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn write_position(out: &mut impl Sink, position: Position) {
    out.text("\"gen\":");
    body::write_number(out, position.generation.0);
    out.text(",\"seq\":");
    body::write_number(out, position.seq);
}

/// Reads what a client shows that comes back. Nothing if it does not say what it must.
#[must_use]
pub fn resume(shown: &Content) -> Option<Resume> {
    let Content::Json(json) = shown else { return None };
    let [token, generation, seq] = body::members(json, ["token", "gen", "seq"]);
    let number = |content: &Content| match content {
        Content::Json(json) => json.parse::<u64>().ok(),
        Content::Text(_) | Content::Missing => None,
    };
    Some(Resume {
        key: ResumeKey::parse(token.as_text()?)?,
        position: Position { generation: Term(number(&generation)?), seq: number(&seq)? },
    })
}

#[cfg(test)]
mod tests {
    use model::{MessageId, Outcome, UserName};

    use super::*;
    use crate::{Dialect, pomelo::Options, socketio::v09};

    fn at(seq: u64) -> Position {
        Position { generation: Term(7), seq }
    }

    fn body(package: &Bytes, skip: usize) -> &str {
        str::from_utf8(&package[4 + skip..]).unwrap()
    }

    #[test]
    fn pushes_say_where_they_stand() {
        let (from, target) = (UserName::from_peer("a").unwrap(), Content::Text("*".into()));
        let content = Content::Text("😀".into());
        let id = MessageId::new("k\"3").unwrap();
        let push = Push::Chat { content: &content, from: &from, target: &target };
        let package = encode_push(&push, Some(Stamp { position: at(4), id: Some(&id) })).unwrap();
        let json =
            r#"{"route":"onChat","msg":"😀","from":"a","target":"*","id":"k\"3","gen":7,"seq":4}"#;
        assert_eq!(body(&package, 8), json);
        let push = Push::Leave { user: &from };
        let package = encode_push(&push, Some(Stamp { position: at(5), id: None })).unwrap();
        assert_eq!(body(&package, 9), r#"{"route":"onLeave","user":"a","gen":7,"seq":5}"#);
        let package = encode_push(&Push::Count { members: 1001 }, None).unwrap();
        assert_eq!(body(&package, 9), r#"{"route":"onCount","count":1001}"#);
    }

    #[test]
    fn replies_say_what_became_of_it() {
        let reply = |reply| encode_reply(RequestId(1), &reply).unwrap();
        let entered = Entered {
            outcome: Outcome::Resumed,
            users: vec![UserName::from_peer("a").unwrap()],
            position: at(9),
            key: ResumeKey(10),
            events: "[]".into(),
        };
        let expected = concat!(
            r#"{"code":200,"outcome":"resumed","users":["a"],"gen":7,"seq":9,"#,
            r#""token":"0000000000000000000000000000000a","events":[]}"#
        );
        assert_eq!(body(&reply(Reply::Entered(Box::new(entered))), 2), expected);
        assert_eq!(body(&reply(Reply::Placed(at(3))), 2), r#"{"code":200,"gen":7,"seq":3}"#);
        let refused = |code| reply(Reply::Refused { code, error: false });
        let taken = r#"{"code":409,"error":true,"text":"that name is taken in this room"}"#;
        assert_eq!(body(&refused(Code::NameTaken), 2), taken);
        assert!(body(&refused(Code::SlowDown), 2).ends_with(r#""retryAfter":500}"#));
        let retry_after = Duration::from_micros(1_499_001);
        assert!(body(&reply(Reply::Busy { retry_after }), 2).ends_with(r#""retryAfter":1500}"#));
        let slot = |after| Reply::Slot { host: "h".to_owned(), port: 3050, after };
        let expected = r#"{"code":200,"host":"h","port":3050,"after":0}"#;
        assert_eq!(body(&reply(slot(Duration::ZERO)), 2), expected);
        let expected = r#"{"code":200,"host":"h","port":3050,"after":250}"#;
        assert_eq!(body(&reply(slot(Duration::from_millis(250))), 2), expected);
        assert_eq!(encode_reply(RequestId::NOTIFY, &Reply::Done), None);
    }

    #[test]
    fn socket_io_carries_the_same() {
        let bob = UserName::from_peer("bob").unwrap();
        let stamp = Some(Stamp { position: at(5), id: None });
        let (push, reply) = (Push::Add { user: &bob }, Reply::Placed(at(3)));
        let (old, options) = (Dialect::SocketIo09, Options::chat_connector());
        let new = old.with_fields(true);
        let frame = new.encode_push(&push, stamp, &options).unwrap();
        assert_eq!(frame, r#"3:::[{"route":"onAdd","user":"bob","gen":7,"seq":5}]"#);
        let frame = new.encode_reply(RequestId(9), None, &reply, &options).unwrap();
        assert_eq!(frame, r#"3:::[{"id":9,"body":{"code":200,"gen":7,"seq":3}}]"#);
        assert_eq!(old.encode_push(&push, stamp, &options), Some(v09::encode_push(&push)));

        let new = Dialect::SocketIo1.with_fields(true);
        let packet = new.encode_push(&push, stamp, &options).unwrap();
        let inner = r#"{\"route\":\"onAdd\",\"user\":\"bob\",\"gen\":7,\"seq\":5}"#;
        assert_eq!(packet, format!(r#"42["message","{{\"route\":\"onAdd\",\"body\":{inner}}}"]"#));
        let packet = new.encode_reply(RequestId(9), None, &reply, &options).unwrap();
        let inner = r#"{\"code\":200,\"gen\":7,\"seq\":3}"#;
        assert_eq!(packet, format!(r#"42["message","{{\"id\":9,\"body\":{inner}}}"]"#));
    }

    #[test]
    fn who_says_how_many_are_here_says_it_to_those_who_know() {
        let options = Options::chat_connector();
        let push = Push::Count { members: 1001 };
        for dialect in [Dialect::Pomelo, Dialect::PomeloCesu8, Dialect::Pitaya] {
            assert_eq!(dialect.encode_push(&push, None, &options), None);
            assert_eq!(dialect.with_fields(true), dialect);
        }
        for dialect in [Dialect::SocketIo09, Dialect::SocketIo1] {
            assert_eq!(dialect.encode_push(&push, None, &options), None);
            let modern = dialect.with_fields(true);
            assert!(modern.is_modern() && modern.encode_push(&push, None, &options).is_some());
            assert_eq!(modern.with_fields(false), dialect);
        }
    }

    #[test]
    fn only_one_generation_is_wanted() {
        assert!(is_wanted(&Content::Json("1".into())));
        for other in [Content::Missing, Content::Text("1".into()), Content::Json("2".into())] {
            assert!(!is_wanted(&other), "{other:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_or_refused() {
        let shown = |json: &str| resume(&Content::Json(json.into()));
        let token = "0000000000000000000000000000000a";
        let good = format!(r#"{{"token":"{token}","gen":7,"seq":4,"more":[]}}"#);
        assert_eq!(shown(&good), Some(Resume { key: ResumeKey(10), position: at(4) }));
        for bad in ["{}", "[]", "7", r#"{"token":"x","gen":1,"seq":1}"#] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        assert_eq!(shown(&good.replace(":4", ":-4")), None);
        assert_eq!(shown(&good.replace(":4", ":4.5")), None);
        assert_eq!(resume(&Content::Missing), None);
    }
}
