//! What clients get that know Tangelo: where each event stands, what they missed, what went wrong.
//!
//! They say so in the handshake, by `"user":{"tangelo":1}`, and are told of neither dictionary nor
//! schemas: every body is JSON. `docs/protocol.md` specifies it.

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
    match reply {
        Reply::Entered(entered) => write_entered(&mut package, entered),
        Reply::Placed(position) => {
            package.text("{\"code\":200,");
            write_position(&mut package, *position);
            package.text("}");
        }
        Reply::Refused { code, .. } => write_refusal(&mut package, *code, limits::RETRY_AFTER),
        Reply::Busy { retry_after } => write_refusal(&mut package, Code::NotApplied, *retry_after),
        Reply::Slot { host, port, after } => write_slot(&mut package, host, *port, *after),
        Reply::Done => package.text("{\"code\":200}"),
        Reply::Entry { .. } | Reply::Users(_) => reply.write_json(&mut package),
    }
    packet::finish(package).or_else(|| {
        // A list of members that no package can carry.
        encode_reply(id, &Reply::Refused { code: Code::NotApplied, error: true })
    })
}

fn write_entered(out: &mut Vec<u8>, entered: &Entered) {
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

fn write_slot(out: &mut Vec<u8>, host: &str, port: u16, after: Duration) {
    out.text("{\"code\":200,\"host\":");
    body::write_string(out, host);
    out.text(",\"port\":");
    body::write_number(out, port.into());
    out.text(",\"after\":");
    body::write_number(out, millis(after));
    out.text("}");
}

fn write_refusal(out: &mut Vec<u8>, code: Code, retry_after: Duration) {
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
