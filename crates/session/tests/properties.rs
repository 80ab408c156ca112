//! Whatever clients and roles do, in whatever order.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::{sync::Arc, time::Duration};

use model::{Code, SendNumber, Time};
use proptest::prelude::*;
use session::{Call, CloseReason, Config, Effect, Event, Protocol, RequestKey, Session, Transport};
use wire::{
    Reply, RequestId,
    pomelo::{
        Message, RouteName,
        packet::{self, Kind},
    },
    socketio::{request::Request, v1, v09},
};

#[derive(Clone, Debug)]
enum Act {
    Receive(Vec<u8>),
    /// Answer one of the calls that wait.
    Answer(usize, Reply),
    /// Let time pass, and wake the session if it wants that.
    Wait(u64),
    Kick(String),
    Drain,
    /// Somebody wants to know whether the client lives.
    Probe,
    /// The client answers a ping.
    Pong,
    Disconnect,
}

fn package() -> impl Strategy<Value = Vec<u8>> {
    let route = prop_oneof![
        (0_u16..5).prop_map(RouteName::Code),
        "[a-z.]{0,12}".prop_map(|text| RouteName::Text(text.into())),
        Just(RouteName::Text("gate.gateHandler.queryEntry".into())),
        Just(RouteName::Text("a.b.constructor".into())),
    ];
    let body = prop_oneof![
        Just(r#"{"username":"alice","rid":"r","uid":"a"}"#.to_owned()),
        Just(r#"{"content":"hi","target":"*"}"#.to_owned()),
        Just(r#"{"content":"hi","target":"bob"}"#.to_owned()),
        "[\\[{\"a-z:,}\\]]{0,20}",
    ];
    let data = (0_u64..4, route, body).prop_map(|(id, route, body)| {
        let body = body.as_bytes();
        let message = match id {
            0 => Message::Notify { route, body },
            _ => Message::Request { id: RequestId(id), route, body },
        };
        let mut data = Vec::new();
        message.encode(&mut data).unwrap();
        data
    });
    prop_oneof![
        4 => data.prop_map(|data| (Kind::Data, data)),
        2 => Just((Kind::Heartbeat, Vec::new())),
        1 => Just((Kind::HandshakeAck, Vec::new())),
        1 => Just((Kind::Handshake, br#"{"sys":{"type":"js-websocket"}}"#.to_vec())),
        1 => any::<Vec<u8>>().prop_map(|data| (Kind::Data, data)),
    ]
    .prop_map(|(kind, body)| packet::encode(kind, &body).unwrap().to_vec())
}

fn act() -> impl Strategy<Value = Act> {
    let reply = prop_oneof![
        Just(Reply::Done),
        Just(Reply::Users(Vec::new())),
        Just(Reply::Refused { code: Code::NameTaken, error: false }),
        Just(Reply::Entry { host: "h".to_owned(), port: 1 }),
    ];
    prop_oneof![
        12 => package().prop_map(Act::Receive),
        2 => prop::collection::vec(package(), 0..80).prop_map(|it| Act::Receive(it.concat())),
        1 => any::<Vec<u8>>().prop_map(Act::Receive),
        6 => (any::<usize>(), reply).prop_map(|(which, reply)| Act::Answer(which, reply)),
        3 => (0_u64..8000).prop_map(Act::Wait),
        1 => any::<String>().prop_map(Act::Kick),
        1 => Just(Act::Drain),
        2 => Just(Act::Probe),
        1 => Just(Act::Pong),
        1 => Just(Act::Disconnect),
    ]
}

/// Frames or packets of one generation of Socket.IO, most of them requests.
fn unit(protocol: Protocol) -> impl Strategy<Value = Vec<u8>> {
    let route = prop_oneof![
        "[a-z.]{0,12}",
        Just("gate.gateHandler.queryEntry".to_owned()),
        Just("connector.entryHandler.enter".to_owned()),
        Just("chat.chatHandler.send".to_owned()),
        Just("a.b.constructor".to_owned()),
    ];
    let body = prop_oneof![
        Just(r#"{"username":"alice","rid":"r","uid":"a"}"#.to_owned()),
        Just(r#"{"content":"hi","target":"*"}"#.to_owned()),
        "[\\[{\"a-z:,}\\]]{0,20}",
    ];
    let request = (0_u64..4, route, body).prop_map(move |(id, route, json)| {
        let request = Request { id: RequestId(id), route: &route, json: &json };
        let unit = match protocol {
            Protocol::SocketIo09 => v09::encode_request(&request),
            Protocol::SocketIo1 | Protocol::Pomelo => v1::encode_request(&request),
        };
        unit.unwrap().to_vec()
    });
    prop_oneof![
        6 => request,
        2 => "[0-9:]{0,5}[a-z\\[\"\\]/,+]{0,9}".prop_map(String::into_bytes),
        1 => any::<Vec<u8>>(),
    ]
}

/// What clients of Socket.IO do, and the role.
fn acts_of_socketio() -> impl Strategy<Value = (Protocol, Transport, Vec<Act>)> {
    let protocol = prop_oneof![Just(Protocol::SocketIo09), Just(Protocol::SocketIo1)];
    let transport = prop_oneof![Just(Transport::WebSocket), Just(Transport::Polling)];
    (protocol, transport).prop_flat_map(|(protocol, transport)| {
        let act = prop_oneof![
            12 => unit(protocol).prop_map(Act::Receive),
            12 => act().prop_filter("no packages", |it| !matches!(it, Act::Receive(_))),
        ];
        (Just(protocol), Just(transport), prop::collection::vec(act, 0..60))
    })
}

fn config(connector: bool) -> Arc<Config> {
    let mut config = if connector { Config::connector() } else { Config::gate() };
    // Small, so that the limits are met.
    config.limits.unanswered_max = 3;
    config.limits.calls.burst = 10;
    Arc::new(config)
}

/// Puts a greeting before most conversations, else few would come far.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    (any::<bool>(), prop::collection::vec(act(), 0..60)).prop_map(|(greets, mut acts)| {
        if greets {
            let hello = packet::encode(Kind::Handshake, br#"{"sys":{}}"#).unwrap();
            acts.insert(0, Act::Receive([hello, packet::HANDSHAKE_ACK].concat()));
        }
        acts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_session_keeps_its_promises(
        connector: bool,
        stream: bool,
        acts in acts(),
    ) {
        let transport = if stream { Transport::Tcp } else { Transport::WebSocket };
        keeps_its_promises(connector, Protocol::Pomelo, transport, acts)?;
    }

    #[test]
    fn a_session_of_socketio_keeps_them_too(
        connector: bool,
        (protocol, transport, acts) in acts_of_socketio(),
    ) {
        keeps_its_promises(connector, protocol, transport, acts)?;
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(
        packages in prop::collection::vec(package(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let hello = packet::encode(Kind::Handshake, br#"{"sys":{}}"#).unwrap().to_vec();
        let stream = [vec![hello, packet::HANDSHAKE_ACK.to_vec()], packages].concat().concat();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let config = config(true);
        let mut session = Session::new(Time::ZERO, config.clone(), Protocol::Pomelo, Transport::Tcp);
        session.handle(Time::ZERO, Event::Received(&stream), &mut whole);
        let mut session = Session::new(Time::ZERO, config, Protocol::Pomelo, Transport::Tcp);
        let mut from = 0;
        for to in ends {
            session.handle(Time::ZERO, Event::Received(&stream[from..to]), &mut pieces);
            from = to;
        }
        prop_assert_eq!(whole, pieces);
    }
}

/// What holds for every session, whatever it speaks.
fn keeps_its_promises(
    connector: bool,
    protocol: Protocol,
    transport: Transport,
    acts: Vec<Act>,
) -> Result<(), TestCaseError> {
    let config = config(connector);
    let new = || Session::new(Time::ZERO, Arc::clone(&config), protocol, transport);
    // The other one's sends are answered past it, and nobody can tell.
    let (mut session, mut other) = (new(), new());
    let mut watch = Watch { is_text: protocol != Protocol::Pomelo, ..Watch::default() };
    let mut now = Time::ZERO;
    for act in acts {
        let (mut effects, mut others) = (Vec::new(), Vec::new());
        let mut most = 4;
        let mut both = |now, event: Event<'_>| {
            session.handle(now, event.clone(), &mut effects);
            other.handle(now, event, &mut others);
        };
        match act {
            Act::Receive(bytes) => {
                most += 2 * (bytes.len() / 4 + 1);
                both(now, Event::Received(&bytes));
            }
            Act::Answer(which, reply) => match watch.answer(which) {
                None => continue,
                Some((request, false)) => both(now, Event::Reply { request, reply }),
                Some((request, true)) => {
                    let unit = request.encode(&reply, other.dialect(), &config.pomelo);
                    if other.poll_timeout().is_some() {
                        others.extend(unit.map(Effect::Transmit));
                    }
                    other.handle(now, Event::Replied(1), &mut others);
                    session.handle(now, Event::Reply { request, reply }, &mut effects);
                }
            },
            Act::Wait(millis) => {
                now = now + Duration::from_millis(millis);
                if session.poll_timeout().is_some_and(|at| at <= now) {
                    session.handle(now, Event::Timeout, &mut effects);
                    other.handle(now, Event::Timeout, &mut others);
                    // The moment is over: a shell that sleeps until the next is not woken at once.
                    prop_assert!(session.poll_timeout().is_none_or(|at| at > now));
                }
            }
            Act::Kick(reason) => both(now, Event::Kick { reason }),
            Act::Drain => both(now, Event::Drain),
            Act::Disconnect => both(now, Event::Disconnected),
            Act::Probe => {
                watch.probed = true;
                both(now, Event::Probe);
            }
            Act::Pong => both(now, Event::Answered),
        }
        prop_assert_eq!(&effects, &others);
        prop_assert!(effects.len() <= most, "{} effects", effects.len());
        watch.see(&effects)?;
        prop_assert_eq!(session.poll_timeout().is_none(), watch.closed.is_some());
    }
    Ok(())
}

/// What a role and a client see of a session.
#[derive(Default)]
struct Watch {
    is_text: bool,
    closed: Option<CloseReason>,
    said: SendNumber,
    waiting: Vec<(RequestKey, bool)>,
    is_in: bool,
    probed: bool,
}

impl Watch {
    fn answer(&mut self, which: usize) -> Option<(RequestKey, bool)> {
        let at = which.checked_rem(self.waiting.len())?;
        Some(self.waiting.remove(at))
    }

    fn see(&mut self, effects: &[Effect]) -> Result<(), TestCaseError> {
        for effect in effects {
            prop_assert_eq!(self.closed, None, "nothing after a close");
            match effect {
                Effect::Transmit(bytes) => {
                    if self.is_text {
                        prop_assert!(str::from_utf8(bytes).is_ok(), "text");
                    } else {
                        let mut packages = packet::split(bytes, usize::MAX);
                        prop_assert!(packages.all(|packet| packet.is_ok()), "whole packages");
                    }
                }
                Effect::Call { key, call } => self.call(*key, call)?,
                Effect::Count(_) | Effect::Probe => {}
                Effect::Alive => {
                    prop_assert!(self.probed, "it says that it lives if it is asked");
                    self.probed = false;
                }
                Effect::Close(reason) => self.closed = Some(*reason),
            }
        }
        Ok(())
    }

    fn call(&mut self, key: RequestKey, call: &Call) -> Result<(), TestCaseError> {
        let is_say = match call {
            Call::QueryEntry { uid, .. } => {
                prop_assert!(!uid.is_empty());
                false
            }
            Call::Enter { .. } => {
                let entering = self.waiting.iter().any(|(_, is_say)| !is_say);
                prop_assert!(!entering, "one enter at a time");
                self.is_in = true;
                false
            }
            Call::Say { number, .. } => {
                prop_assert!(self.is_in, "a send follows an enter");
                prop_assert_eq!(*number, self.said.next(), "no gap");
                self.said = *number;
                true
            }
        };
        self.waiting.push((key, is_say));
        let unanswered = self.waiting.iter().filter(|(_, is_say)| *is_say).count();
        prop_assert!(unanswered <= 3, "sends without an answer are bounded");
        Ok(())
    }
}
