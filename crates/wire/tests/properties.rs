//! What must hold for any bytes and any values.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use model::{Content, UserName};
use proptest::prelude::*;
use serde_json::{Map, Value};
use wire::{
    Call, Dialect, Push, Reply, RequestId, Route, body,
    pomelo::{
        Dictionary, Encoding, Hello, Message, Options, RouteName, Schema,
        client::{Codec, Incoming, Kept},
        packet::{self, Decoder, Kind},
        protobuf::Member,
        text,
    },
    socketio::{
        request::Request,
        v1::{self, payload},
        v09,
    },
};

const LIMIT: usize = 4096;

/// A schema with every type, nested and repeated.
const SCHEMA: &str = r#"{
    "message Point": {"required int32 x": 1, "optional sInt32 y": 2},
    "all": {
        "optional uInt32 u": 1, "optional int32 i": 2, "optional double d": 4,
        "optional string s": 5, "optional Point p": 6, "repeated uInt32 us": 7,
        "repeated string ss": 8, "repeated Point ps": 16, "repeated Inner tree": 17,
        "message Inner": {"optional string name": 1, "repeated Point points": 2}
    }
}"#;

fn kind() -> impl Strategy<Value = Kind> {
    (1_u8..=5).prop_map(|byte| Kind::from_byte(byte).unwrap())
}

fn packages() -> impl Strategy<Value = Vec<(Kind, Vec<u8>)>> {
    prop::collection::vec((kind(), prop::collection::vec(any::<u8>(), 0..200)), 0..12)
}

fn stream_of(packages: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    packages.iter().flat_map(|(kind, body)| packet::encode(*kind, body).unwrap()).collect()
}

/// Feeds a decoder the pieces of a stream between these cuts, up to the first error.
fn decode_in_pieces(stream: &[u8], cuts: &[prop::sample::Index]) -> (Vec<(Kind, Vec<u8>)>, bool) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut decoder = Decoder::new(LIMIT);
    let (mut seen, mut from) = (Vec::new(), 0);
    for to in cuts {
        let mut input = &stream[from..to];
        from = to;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(packet)) => seen.push((packet.kind, packet.body.to_vec())),
                Ok(None) => break,
                Err(_) => return (seen, false),
            }
        }
        assert!(input.is_empty(), "a decoder takes all it is given");
    }
    (seen, true)
}

fn route_name() -> impl Strategy<Value = RouteName<'static>> {
    prop_oneof![
        any::<u16>().prop_map(RouteName::Code),
        "[a-z.张]{0,60}".prop_map(|name| RouteName::Text(name.into())),
    ]
}

fn message(body: &[u8]) -> impl Strategy<Value = Message<'_>> {
    let id = || (1..=u64::MAX).prop_map(RequestId);
    prop_oneof![
        (id(), route_name()).prop_map(move |(id, route)| Message::Request { id, route, body }),
        route_name().prop_map(move |route| Message::Notify { route, body }),
        id().prop_map(move |id| Message::Response { id, body }),
        route_name().prop_map(move |route| Message::Push { route, body }),
    ]
}

/// JSON values as JavaScript has them: numbers are doubles.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn content() -> impl Strategy<Value = Content> {
    json_value().prop_map(|value| match value {
        Value::String(text) => Content::Text(text.into()),
        other => Content::Json(other.to_string().into()),
    })
}

fn user() -> impl Strategy<Value = UserName> {
    ".{0,20}".prop_map(|name| UserName::from_peer(&name).unwrap())
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        ("[a-z0-9.]{0,30}", any::<u16>()).prop_map(|(host, port)| Reply::Entry { host, port }),
        prop::collection::vec(user(), 0..20).prop_map(Reply::Users),
        Just(Reply::Done),
        any::<bool>().prop_map(|error| Reply::Refused { code: model::Code::Absent, error }),
        Just(Reply::Busy { retry_after: std::time::Duration::ZERO }),
    ]
}

fn json_of(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut json = Vec::new();
    write(&mut json);
    serde_json::from_slice(&json).unwrap()
}

fn protobuf_body() -> impl Strategy<Value = Map<String, Value>> {
    let point = || {
        (any::<i32>(), prop::option::of(any::<i32>())).prop_map(|(x, y)| {
            let mut point = Map::from_iter([("x".to_owned(), Value::from(x))]);
            point.extend(y.map(|y| ("y".to_owned(), Value::from(y))));
            Value::Object(point)
        })
    };
    let list = |of| prop::collection::vec(of, 1..4).prop_map(Value::Array);
    let inner = (".{0,6}", prop::collection::vec(point(), 1..3)).prop_map(|(name, points)| {
        let members = [("name".to_owned(), name.into()), ("points".to_owned(), points.into())];
        Value::Object(Map::from_iter(members))
    });
    let member = prop_oneof![
        any::<u32>().prop_map(|u| ("u", Value::from(u))),
        any::<i32>().prop_map(|i| ("i", Value::from(i))),
        (-1e300..1e300).prop_map(|d: f64| ("d", Value::from(d))),
        ".{0,12}".prop_map(|s| ("s", Value::from(s))),
        point().prop_map(|p| ("p", p)),
        list(any::<u32>().prop_map(Value::from).boxed()).prop_map(|us| ("us", us)),
        list(".{0,4}".prop_map(Value::from).boxed()).prop_map(|ss| ("ss", ss)),
        list(point().boxed()).prop_map(|ps| ("ps", ps)),
        list(inner.boxed()).prop_map(|tree| ("tree", tree)),
    ];
    prop::collection::vec(member, 0..8).prop_map(|members| {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    })
}

fn codec() -> Codec {
    let hello = Hello { client_type: Some("js-websocket".to_owned()), ..Hello::default() };
    let answer = Options::chat_connector().answer(&hello);
    Codec::from_answer(&answer[packet::HEADER_BYTES..], &hello, &Kept::default()).unwrap()
}

proptest! {
    #[test]
    fn any_split_of_a_stream_yields_the_same_packages(
        packages in packages(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (seen, fine) = decode_in_pieces(&stream_of(&packages), &cuts);
        prop_assert!(fine);
        prop_assert_eq!(seen, packages);
    }

    #[test]
    fn a_damaged_stream_fails_at_the_same_place_however_it_is_split(
        packages in packages(),
        garbage in prop::collection::vec(any::<u8>(), 0..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut stream = stream_of(&packages);
        stream.extend(garbage);
        prop_assert_eq!(decode_in_pieces(&stream, &cuts), decode_in_pieces(&stream, &[]));
    }

    #[test]
    fn a_websocket_message_holds_what_a_stream_holds(packages in packages()) {
        let message = stream_of(&packages);
        let split: Result<Vec<_>, _> = packet::split(&message, LIMIT)
            .map(|packet| packet.map(|packet| (packet.kind, packet.body.to_vec())))
            .collect();
        prop_assert_eq!(split.ok(), Some(packages).filter(|packages| !packages.is_empty()));
    }

    #[test]
    fn messages_come_back(
        message in message(b"body"),
    ) {
        let mut out = Vec::new();
        message.encode(&mut out).unwrap();
        prop_assert_eq!(Message::decode(&out), Ok(message));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let options = Options::chat_connector();
        let codec = codec();
        for packet in packet::split(&bytes, LIMIT) {
            _ = packet.is_ok();
        }
        _ = options.decode_call(&bytes).is_ok();
        _ = codec.decode(&bytes).is_ok();
        _ = codec.decode_body("onChat", &bytes).is_ok();
        _ = Hello::parse(&bytes);
        _ = Codec::from_answer(&bytes, &Hello::default(), &Kept::default()).is_ok();
        _ = payload::decode_binary(&bytes).is_ok();
        let text = text::decode(&bytes);
        _ = payload::decode_text(&text).is_ok();
        _ = v09::decode_payload(&text).count();
    }

    #[test]
    fn any_text_is_read_without_panic(text in "[0-9a-z:+/,\\[\\]{}\"\\\\\u{0}-\u{3}\u{fffd}张😀]{0,60}") {
        _ = v09::Frame::decode(&text);
        _ = v09::decode_call(&text);
        _ = v09::decode_elements(&text);
        _ = v09::decode_form(&text);
        _ = v09::decode_payload(&text).count();
        _ = v1::Packet::decode(&text).is_ok();
        _ = v1::decode_call(&text);
        _ = payload::decode_text(&text).is_ok();
        _ = payload::decode_form(&text).is_ok();
        _ = Schema::parse(&text).is_ok();
        _ = Dictionary::with_application(&text).is_ok();
        for route in Route::ALL {
            _ = Call::from_json(route, body::first_argument(&text));
        }
    }

    #[test]
    fn text_survives_either_encoding(text in ".{0,60}") {
        for encoding in [Encoding::Utf8, Encoding::Cesu8] {
            let mut out = Vec::new();
            encoding.append(&mut out, &text);
            prop_assert_eq!(out.len(), encoding.len(&text));
            prop_assert_eq!(text::decode(&out), text.as_str());
        }
    }

    #[test]
    fn json_strings_are_what_serde_writes(text in any::<String>()) {
        let mut out = Vec::new();
        body::write_string(&mut out, &text);
        prop_assert_eq!(&out, &serde_json::to_vec(&text).unwrap());
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn numbers_come_back(number in any::<f64>()) {
        let mut out = Vec::new();
        body::write_value(&mut out, &Value::from(number));
        let read: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(read.as_f64(), Value::from(number).as_f64().map(|n| n + 0.0));
    }

    #[test]
    fn members_are_those_that_a_full_parse_finds(
        members in prop::collection::vec(("[abc]", json_value()), 0..5),
    ) {
        let object: Map<_, _> = members.into_iter().collect();
        let json = serde_json::to_string(&object).unwrap();
        let found = body::members(&json, ["a", "b"]);
        for (name, content) in ["a", "b"].into_iter().zip(found) {
            let read = match content {
                Content::Text(text) => Some(Value::String(text.to_string())),
                Content::Json(json) => Some(serde_json::from_str(&json).unwrap()),
                Content::Missing => None,
            };
            let expected = object.get(name).cloned();
            let as_double = |value: Option<Value>| value.map(|value| value.to_string());
            prop_assert_eq!(as_double(read), as_double(expected));
        }
    }

    #[test]
    fn protobuf_bodies_come_back(body in protobuf_body(), cesu in any::<bool>()) {
        let schema = Schema::parse(SCHEMA).unwrap();
        let encoding = if cesu { Encoding::Cesu8 } else { Encoding::Utf8 };
        let mut out = Vec::new();
        let members = body.iter().map(|(name, value)| (name.as_str(), Member::from(value)));
        schema.encode("all", members, encoding, &mut out).unwrap();
        prop_assert_eq!(schema.decode("all", &out), Ok(body));
    }

    #[test]
    fn any_protobuf_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        _ = Schema::parse(SCHEMA).unwrap().decode("all", &bytes).is_ok();
    }

    #[test]
    fn schemas_come_back_from_their_announcement(
        names in prop::collection::btree_map("[a-d]{1,3}", 1_u32..100, 0..6),
    ) {
        let fields: Map<String, Value> =
            names.iter().map(|(name, tag)| (format!("optional string {name}"), (*tag).into())).collect();
        let source = serde_json::json!({"route": fields}).to_string();
        let schema = Schema::parse(&source).unwrap();
        prop_assert_eq!(Schema::from_announcement(schema.json()).unwrap(), schema);
    }

    #[test]
    fn clients_hear_replies_as_they_were_said(id in 1..=u64::MAX, reply in reply()) {
        let (options, codec) = (Options::chat_connector(), codec());
        let expected = json_of(|out| reply.write_json(out));
        for dialect in [Dialect::Pomelo, Dialect::PomeloCesu8] {
            let package = dialect.encode_reply(RequestId(id), None, &reply, &options).unwrap();
            let heard = codec.decode(&package[packet::HEADER_BYTES..]);
            let Ok(Incoming::Response { id: heard, body }) = heard else {
                return Err(TestCaseError::fail("no response"));
            };
            prop_assert_eq!(heard, RequestId(id));
            prop_assert_eq!(codec.decode_body("", body).unwrap(), expected.clone());
        }
        let silent = Dialect::Pomelo.encode_reply(RequestId::NOTIFY, None, &reply, &options);
        prop_assert_eq!(silent, None);
    }

    #[test]
    fn clients_of_all_dialects_hear_the_same_chat(
        content in content(), from in user(), target in content(),
    ) {
        let (options, codec) = (Options::chat_connector(), codec());
        let push = Push::Chat { content: &content, from: &from, target: &target };
        let expected = json_of(|out| push.write_json(out));

        let unit = Dialect::SocketIo09.encode_push(&push, None, &options).unwrap();
        let elements = v09::decode_elements(str::from_utf8(&unit).unwrap()).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&elements[0]).unwrap(), expected.clone());

        let unit = Dialect::SocketIo1.encode_push(&push, None, &options).unwrap();
        let Ok(v1::Packet::Message(Content::Text(text))) =
            v1::Packet::decode(str::from_utf8(&unit).unwrap())
        else {
            return Err(TestCaseError::fail("no message"));
        };
        let json: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(json["body"].clone(), expected.clone());

        for dialect in [Dialect::Pomelo, Dialect::PomeloCesu8] {
            let package = dialect.encode_push(&push, None, &options);
            let is_text = content.as_text().is_some() && target.as_text().is_some();
            prop_assert_eq!(package.is_some(), is_text);
            let Some(package) = package else { continue };
            let Ok(Incoming::Push { body, .. }) = codec.decode(&package[packet::HEADER_BYTES..])
            else {
                return Err(TestCaseError::fail("no push"));
            };
            prop_assert_eq!(body["msg"].clone(), expected["msg"].clone());
            prop_assert_eq!(body["from"].clone(), expected["from"].clone());
        }
    }

    #[test]
    fn requests_are_read_as_said_in_every_dialect(
        id in any::<u32>(), content in ".{0,60}", target in ".{0,20}",
    ) {
        let id = RequestId(id.into());
        let said = serde_json::json!({"content": content, "target": target});
        let text = |text: &str| Content::Text(text.into());
        let call = Call::Send { content: text(&content), target: text(&target), id: Content::Missing };
        let read = Some((id, call));

        let (route, json) = (Route::Send.name(), &*said.to_string());
        let package = codec().encode_request(id, route, said.as_object().unwrap()).unwrap();
        let data = &package[packet::HEADER_BYTES..];
        prop_assert_eq!(Options::chat_connector().decode_call(data).unwrap(), read.clone());

        let request = Request { id, route, json };
        let frame = v09::encode_request(&request).unwrap();
        let v09::Frame::Message { text, .. } =
            v09::Frame::decode(str::from_utf8(&frame).unwrap())
        else {
            return Err(TestCaseError::fail("no message"));
        };
        prop_assert_eq!(v09::decode_call(text), read.clone());

        let packet = v1::encode_request(&request).unwrap();
        let Ok(v1::Packet::Message(Content::Text(text))) =
            v1::Packet::decode(str::from_utf8(&packet).unwrap())
        else {
            return Err(TestCaseError::fail("no message"));
        };
        prop_assert_eq!(v1::decode_call(&text), read);
    }

    #[test]
    fn polling_payloads_come_back(packets in prop::collection::vec("4.{0,30}", 1..6)) {
        let units: Vec<_> = packets.iter().map(|packet| bytes::Bytes::from(packet.clone())).collect();
        let binary = payload::encode_binary(&units);
        prop_assert_eq!(payload::decode_binary(&binary).unwrap(), packets.clone());
        let text = payload::encode_text(&units);
        let text = str::from_utf8(&text).unwrap();
        prop_assert_eq!(payload::decode_text(text).unwrap(), packets.clone());

        let frames: Vec<_> = packets.iter().map(String::as_str).collect();
        let payload = v09::encode_payload(&frames);
        let decoded: Vec<_> = v09::decode_payload(&payload).collect();
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn joined_frames_hold_all_in_order(
        pushes in prop::collection::vec((user(), any::<bool>()), 0..8),
    ) {
        let frames: Vec<_> = pushes
            .iter()
            .map(|(user, is_push)| match is_push {
                true => v09::encode_push(&Push::Add { user }),
                false => v09::HEARTBEAT,
            })
            .collect();
        let elements = |frames: &[bytes::Bytes]| -> Vec<String> {
            let texts = frames.iter().map(|frame| str::from_utf8(frame).unwrap());
            texts
                .flat_map(|text| match v09::decode_elements(text) {
                    Some(elements) => elements.into_iter().map(|it| it.into_owned()).collect(),
                    None => vec![text.to_owned()],
                })
                .collect()
        };
        let joined = v09::join(&frames);
        prop_assert_eq!(elements(&joined), elements(&frames));
        let is_array = |frame: &bytes::Bytes| frame.starts_with(b"3:::[");
        prop_assert!(!joined.windows(2).any(|pair| pair.iter().all(is_array)));
    }
}
