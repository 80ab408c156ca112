//! Bytes recorded from the original servers and clients, against values.
//!
//! Each line of a file in `golden/` is one thing that was on the wire, and what it means. Both
//! ways are checked: the value gives exactly these bytes, and the bytes give the value.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use model::{Code, Content, UserName};
use serde_json::{Map, Value};
use wire::{
    Call, Dialect, Push, Reply, RequestId, Route, body,
    pomelo::{
        Dictionary, Hello, Options, Protos, Schema,
        client::{Codec, Incoming, Kept, kick_reason},
        handshake,
        packet::{self, Kind, Packet},
    },
    socketio::{request::Request, v1, v09},
};

/// The lines of a golden file that are no comments, by words.
fn lines<const N: usize>(file: &str) -> impl Iterator<Item = [&str; N]> {
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let mut words = line.splitn(N, ' ');
        std::array::from_fn(|_| words.next().unwrap_or_else(|| panic!("too short: {line}")))
    })
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn only_packet(bytes: &[u8], kind: Kind) -> Packet<'_> {
    let packets: Vec<_> = packet::split(bytes, usize::MAX).map(Result::unwrap).collect();
    let [packet] = packets[..] else { panic!("{} packages", packets.len()) };
    assert_eq!(packet.kind, kind);
    packet
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn user(value: &Value) -> UserName {
    UserName::from_peer(value.as_str().unwrap()).unwrap()
}

/// The reply that a body stands for.
fn reply(body: &Value) -> Option<Reply> {
    let body = body.as_object().unwrap();
    if let Some(users) = body.get("users") {
        return Some(Reply::Users(users.as_array()?.iter().map(user).collect()));
    }
    Some(match body.get("code").and_then(Value::as_u64) {
        Some(200) => Reply::Entry {
            host: body["host"].as_str()?.to_owned(),
            port: u16::try_from(body["port"].as_u64()?).ok()?,
        },
        Some(_) => Reply::Refused { code: Code::Absent, error: body.contains_key("error") },
        None if body.is_empty() => Reply::Done,
        None => return None,
    })
}

/// Hands over the push that a body stands for.
fn with_push<T>(route: &str, body: &Value, then: impl FnOnce(&Push<'_>) -> T) -> T {
    let content = |name: &str| match body.get(name) {
        Some(Value::String(text)) => Content::Text(text.as_str().into()),
        Some(other) => Content::Json(other.to_string().into()),
        None => Content::Missing,
    };
    match route {
        "onAdd" => then(&Push::Add { user: &user(&body["user"]) }),
        "onLeave" => then(&Push::Leave { user: &user(&body["user"]) }),
        "onChat" => then(&Push::Chat {
            content: &content("msg"),
            from: &body.get("from").map_or(UserName::from_peer("").unwrap(), user),
            target: &content("target"),
        }),
        other => panic!("no push {other}"),
    }
}

/// A client that has shaken hands with a server of these options.
fn codec(options: &Options) -> Codec {
    let hello = Hello::default();
    let answer = options.answer(&hello);
    let answer = only_packet(&answer, Kind::Handshake);
    Codec::from_answer(answer.body, &hello, &Kept::default()).unwrap()
}

const HANDSHAKES: &str = include_str!("golden/handshake.txt");
const POMELO: &str = include_str!("golden/pomelo.txt");
const SOCKET_IO_09: &str = include_str!("golden/socketio09.txt");
const SOCKET_IO_1: &str = include_str!("golden/socketio1.txt");

#[test]
fn handshakes_are_answered_byte_for_byte() {
    let (gate, connector) = (Options::chat_gate(), Options::chat_connector());
    for [role, hello, answer] in lines(HANDSHAKES) {
        let options = if role == "gate" { &gate } else { &connector };
        let answered = Hello::parse(&hex(hello))
            .map_or_else(handshake::refusal, |hello| options.answer(&hello));
        assert_eq!(answered, hex(answer), "{role} {hello}");
    }
}

#[test]
fn a_full_answer_is_as_long_as_the_originals() {
    let hello = Hello::default();
    assert_eq!(Options::chat_connector().answer(&hello).len(), 733);
    assert_eq!(Options::chat_gate().answer(&hello).len(), 343);
}

#[test]
fn versions_are_computed_as_the_original_did() {
    assert_eq!(Dictionary::chat().version(), "s2r1qfKDrbhWCkA6uf+PTA==");
    assert_eq!(Protos::chat().version(), "2zWPnSlRsRxjqgcU215Uxg==");
    let kept = codec(&Options::chat_connector()).kept;
    let mut hello = Hello::default();
    kept.introduce(&mut hello);
    let answer = Options::chat_connector().answer(&hello);
    let both_kept = br#"{"code":200,"sys":{"heartbeat":3,"useDict":true,"useProto":true}}"#;
    assert_eq!(answer[4..], both_kept[..]);
    let again = Codec::from_answer(&answer[4..], &hello, &kept).unwrap();
    assert_eq!(again.heartbeat, Some(Duration::from_secs(3)));
    let forgot = Codec::from_answer(&answer[4..], &hello, &Kept::default());
    assert!(forgot.is_err());
}

#[test]
fn pomelo_replies_and_pushes_have_the_originals_bytes() {
    let options = Options::chat_connector();
    let codec = codec(&options);
    for [what, bytes, rest] in lines(POMELO) {
        let bytes = hex(bytes);
        let (key, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "response" => {
                let (id, body) = (RequestId(key.parse().unwrap()), json(text));
                let reply = reply(&body).unwrap();
                let encoded = Dialect::Pomelo.encode_reply(id, None, &reply, &options);
                assert_eq!(encoded.unwrap(), bytes, "{text}");
                let data = only_packet(&bytes, Kind::Data).body;
                let Ok(Incoming::Response { id: decoded, body: raw }) = codec.decode(data) else {
                    panic!("no response: {text}");
                };
                assert_eq!(decoded, id);
                assert_eq!(codec.decode_body("", raw).unwrap(), body);
            }
            "push" => {
                let (route, body) = (key.to_owned(), json(text));
                let encoded = with_push(&route, &body, |push| {
                    Dialect::Pomelo.encode_push(push, None, &options).unwrap()
                });
                assert_eq!(encoded, bytes, "{text}");
                let data = only_packet(&bytes, Kind::Data).body;
                assert_eq!(codec.decode(data), Ok(Incoming::Push { route, body }));
            }
            "kick" => {
                let reason = kick_reason(only_packet(&bytes, Kind::Kick).body);
                assert_eq!(json(rest)["reason"], reason.as_str());
                assert_eq!(Dialect::Pomelo.encode_kick(&reason), [bytes]);
            }
            "call" => {}
            other => panic!("what is {other}?"),
        }
    }
}

/// The requests among the recordings: bytes, id, route, body.
fn calls() -> impl Iterator<Item = [&'static str; 4]> {
    let calls = POMELO.lines().filter_map(|line| line.strip_prefix("call "));
    calls.flat_map(lines)
}

#[test]
fn pomelo_calls_are_read_as_sent() {
    let options = Options::chat_connector();
    for [bytes, id, route, text] in calls() {
        let bytes = hex(bytes);
        let data = only_packet(&bytes, Kind::Data).body;
        let (decoded, call) = options.decode_call(data).unwrap().unwrap();
        assert_eq!(decoded.to_string(), id);
        let expected = match Route::from_name(route) {
            Some(route) => Call::from_json(route, body::first_argument(text)),
            None => Call::Unknown { route: route.to_owned() },
        };
        assert_eq!(call, expected, "{route} {text}");
    }
}

#[test]
fn pomelo_clients_say_what_the_originals_said() {
    let connector = codec(&Options::chat_connector());
    let gate = codec(&Options::chat_gate());
    let mut compared = 0;
    for [bytes, id, route, text] in calls() {
        let Ok(body) = serde_json::from_str::<Map<String, Value>>(text) else {
            continue;
        };
        let codec = if route.starts_with("gate.") { &gate } else { &connector };
        let id = RequestId(id.parse().unwrap());
        let encoded = codec.encode_request(id, route, &body).unwrap();
        // Some recordings are odd on purpose: plain routes, overlong ids, spaces in JSON.
        compared += usize::from(encoded == hex(bytes));
        let options = Options::chat_connector();
        let data = only_packet(&encoded, Kind::Data).body;
        let (decoded, call) = options.decode_call(data).unwrap().unwrap();
        assert_eq!(decoded, id);
        if let Some(route) = Route::from_name(route) {
            assert_eq!(call, Call::from_json(route, text));
        }
    }
    assert!(compared >= 10, "only {compared} requests are as recorded");
}

#[test]
fn emoji_reach_browsers_as_surrogates() {
    let options = Options::chat_connector();
    let (smile, everyone) = (Content::Text("😀".into()), Content::Text("*".into()));
    let from = UserName::from_peer("a😀").unwrap();
    let push = Push::Chat { content: &smile, from: &from, target: &everyone };
    let browser = Dialect::PomeloCesu8.encode_push(&push, None, &options).unwrap();
    let expected =
        b"\x04\0\0\x1c\x06\x06onChat\x0a\x06\xed\xa0\xbd\xed\xb8\x80\x12\x07a\xed\xa0\xbd\xed\xb8\x80\x1a\x01*";
    assert_eq!(browser, expected[..]);
    let add = Push::Add { user: &from };
    let browser = Dialect::PomeloCesu8.encode_push(&add, None, &options).unwrap();
    let text = b"{\"route\":\"onAdd\",\"user\":\"a\xed\xa0\xbd\xed\xb8\x80\"}";
    assert!(browser.ends_with(text));
}

#[test]
fn an_applications_dictionary_and_schemas_are_used_both_ways() {
    let dictionary = Dictionary::with_application(r#"["onChat", "onAdd"]"#).unwrap();
    let server = r#"{
        "onAdd": {"required string user": 1},
        "connector.entryHandler.enter": {"repeated string users": 1, "optional uInt32 code": 2}
    }"#;
    let client = r#"{"chat.chatHandler.send":
        {"required string content": 2, "optional string target": 1, "optional string from": 3}}"#;
    let protos =
        Protos { server: Schema::parse(server).unwrap(), client: Schema::parse(client).unwrap() };
    let options = Options::connector(Duration::from_secs(3), dictionary, protos);
    let codec = codec(&options);
    let alice = UserName::from_peer("alice").unwrap();

    let push = options.encode_push(&Push::Add { user: &alice }, wire::pomelo::Encoding::Utf8);
    let push = push.unwrap();
    assert_eq!(push, b"\x04\0\0\x0a\x07\0\x05\x0a\x05alice"[..]);
    let heard = codec.decode(&push[4..]).unwrap();
    let (route, body) = ("onAdd".to_owned(), serde_json::json!({"user": "alice"}));
    assert_eq!(heard, Incoming::Push { route, body });

    let (id, enter) = (RequestId(1), Some(Route::Enter));
    let users = Reply::Users(vec![alice.clone()]);
    let response = Dialect::Pomelo.encode_reply(id, enter, &users, &options).unwrap();
    assert_eq!(response, b"\x04\0\0\x09\x04\x01\x0a\x05alice"[..]);

    let body = serde_json::json!({"content": "hi", "target": "*", "unknown": []});
    let send = Route::Send.name();
    let request = codec.encode_request(id, send, body.as_object().unwrap()).unwrap();
    assert_eq!(request, b"\x04\0\0\x0b\x01\x01\0\x01\x12\x02hi\x0a\x01*"[..]);
    let text = |text: &str| Content::Text(Arc::from(text));
    let call = Call::Send { content: text("hi"), target: text("*"), id: Content::Missing };
    assert_eq!(options.decode_call(&request[4..]), Ok(Some((id, call))));
}

#[test]
fn pomelo_hears_nothing_of_content_its_schema_cannot_carry() {
    let options = Options::chat_connector();
    let (five, everyone) = (Content::Json("5".into()), Content::Text("*".into()));
    let from = UserName::from_peer("alice").unwrap();
    let odd = Push::Chat { content: &five, from: &from, target: &everyone };
    assert_eq!(Dialect::Pomelo.encode_push(&odd, None, &options), None);
    let missing = Push::Chat { content: &Content::Missing, from: &from, target: &everyone };
    let empty = Dialect::Pomelo.encode_push(&missing, None, &options).unwrap();
    assert_eq!(empty, b"\x04\0\0\x08\x06\x06onChat"[..]);
    let socket_io = Dialect::SocketIo09.encode_push(&odd, None, &options).unwrap();
    let expected = br#"3:::[{"route":"onChat","msg":5,"from":"alice","target":"*"}]"#;
    assert_eq!(socket_io, expected[..]);
}

/// The unit of a Socket.IO dialect that a reply or push in JSON stands for. `None` for what only
/// other applications send.
fn socket_io_unit(dialect: Dialect, element: &Value) -> Option<bytes::Bytes> {
    let options = Options::chat_connector();
    if let Some(id) = element.get("id").and_then(Value::as_i64) {
        // Signed 32 bits in the later generation.
        let id = RequestId(u64::try_from(id).unwrap_or((id & 0xffff_ffff).cast_unsigned()));
        return dialect.encode_reply(id, None, &reply(&element["body"])?, &options);
    }
    let route = element["route"].as_str().unwrap();
    if route == "onKick" {
        return None;
    }
    let body = element.get("body").unwrap_or(element);
    with_push(route, body, |push| dialect.encode_push(push, None, &options))
}

#[test]
fn socket_io_09_is_written_and_read_as_recorded() {
    for [direction, text] in lines(SOCKET_IO_09) {
        let frame = json(text);
        let frame = frame.as_str().unwrap();
        if direction == "c2s" {
            if let v09::Frame::Message { text, .. } = v09::Frame::decode(frame)
                && let Some(request) = Request::decode(text)
                && frame.starts_with("3:::")
                && !text.contains('È')
            {
                assert_eq!(v09::encode_request(&request).unwrap(), frame);
            }
            continue;
        }
        let Some(elements) = v09::decode_elements(frame) else {
            let known = [v09::CONNECT, v09::HEARTBEAT, v09::DISCONNECT, v09::UNKNOWN_SESSION];
            assert!(frame == "6:::1" || known.iter().any(|known| known == frame), "{frame}");
            continue;
        };
        let units: Option<Vec<_>> = elements
            .iter()
            .map(|element| socket_io_unit(Dialect::SocketIo09, &json(element)))
            .collect();
        match units {
            Some(units) => assert_eq!(v09::join(&units), [frame], "{frame}"),
            None => assert!(frame == v09::KICK || frame.contains("kicking"), "{frame}"),
        }
    }
}

#[test]
fn socket_io_1_is_written_and_read_as_recorded() {
    for [direction, text] in lines(SOCKET_IO_1) {
        let packet = json(text);
        let packet = packet.as_str().unwrap();
        let decoded = v1::Packet::decode(packet);
        let message = match &decoded {
            Ok(v1::Packet::Message(content)) => content.as_text(),
            _ => None,
        };
        match (direction, message) {
            ("c2s", Some(message)) => {
                if let Some(request) = Request::decode(message)
                    && packet.starts_with("42[")
                    && !message.contains('È')
                    && !packet.ends_with(r#","extra"]"#)
                {
                    assert_eq!(v1::encode_request(&request).unwrap(), packet);
                }
            }
            ("s2c", Some(message)) => {
                let element = json(message);
                match socket_io_unit(Dialect::SocketIo1, &element) {
                    Some(unit) => assert_eq!(unit, packet),
                    None => match element["reason"].as_str() {
                        Some(reason) => assert_eq!(v1::encode_kick(reason), packet),
                        None => assert!(message.contains("kick"), "{packet}"),
                    },
                }
            }
            ("s2c", None) => match decoded {
                Ok(v1::Packet::Open(open)) => {
                    let session = json(open)["sid"].as_str().unwrap().to_owned();
                    let upgrades: &[&str] =
                        if open.contains("websocket") { &["websocket"] } else { &[] };
                    assert_eq!(v1::open(&session, upgrades, 25_000, 60_000), packet);
                }
                Ok(v1::Packet::Error(_)) => assert_eq!(v1::invalid_namespace("/chat"), packet),
                _ => {
                    let known = [v1::CONNECT, v1::DISCONNECT, v1::PONG, v1::PONG_PROBE];
                    let namespace = v1::invalid_namespace("/chat");
                    let is_known = known.iter().any(|known| known == packet);
                    assert!(is_known || namespace == packet, "{packet}");
                }
            },
            _ => {}
        }
    }
}
