//! What we do otherwise than the original on purpose, and why.

use std::{collections::BTreeMap, fmt::Write as _};

use e2e::transcript::Difference;

/// What the connectors are told so that the names in the recordings are allowed.
pub(crate) const CONNECTOR_ARGS: [&str; 1] = ["--any-names"];

/// Differences with one reason.
struct Meant {
    /// Why.
    reason: &'static str,
    /// Transcript, connection, what differs.
    differences: &'static [(&'static str, &'static str, &'static str)],
}

const TABLE: &[Meant] = &[
    Meant {
        reason: "Connections that shake no hands are closed after 5 s; the original kept them for ever. A gate asks nothing more of a client that has, and keeps it.",
        differences: &[
            (
                "hybrid-idle-timeouts",
                "connector-ws-upgrade-only",
                "closes, where the original keeps it open",
            ),
            ("hybrid-idle-timeouts", "tcp-gate-handshaken-idle", "does not close"),
            ("hybrid-idle-timeouts", "ws-upgrade-only", "closes, where the original keeps it open"),
        ],
    },
    Meant {
        reason: "The same port serves the page and plain HTTP: requests that the original never answered are.",
        differences: &[
            ("hybrid-first-bytes", "post", r#"sends "HTTP/1.1 405 Method Not Allowed""#),
            ("hybrid-first-bytes", "options", r#"sends "HTTP/1.1 405 Method Not Allowed""#),
            ("hybrid-first-bytes", "get-plain", r#"sends "HTTP/1.1 200 OK""#),
        ],
    },
    Meant {
        reason: "Compression is never agreed on: it costs memory for every connection.",
        differences: &[
            (
                "ws-http-upgrade-raw",
                "with-deflate-and-protocol",
                r#"does not send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n""#,
            ),
            (
                "ws-http-upgrade-raw",
                "with-deflate-and-protocol",
                r#"sends "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n""#,
            ),
        ],
    },
    Meant {
        reason: "Packages that arrive together are read one after the other, whatever carries them.",
        differences: &[
            ("tcp-fragmented", "coalesced", r#"sends answer 1 {"code":200,"host":"H","port":1}"#),
            ("ws-two-packages-one-write", "c", r#"sends answer 1 {"users":["two"]}"#),
            ("ws-two-packages-one-write", "c", "sends heartbeat"),
        ],
    },
    Meant {
        reason: "The recorded application had a route for kicking of its own, and its dictionary said so. `onAdd` for oneself is a quirk of the original's cold links.",
        differences: &[
            (
                "tcp-kick-by-application",
                "alice",
                r#"does not send handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"connector.testHandl…"#,
            ),
            ("tcp-kick-by-application", "alice", r#"does not send kick {"reason":"kick"}"#),
            (
                "tcp-kick-by-application",
                "alice",
                r#"sends handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"gate.gateHandler.qu…"#,
            ),
            ("tcp-kick-by-application", "bob", r#"does not send answer 2 {"kicking":"alice*k"}"#),
            (
                "tcp-kick-by-application",
                "bob",
                r#"does not send handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"connector.testHandl…"#,
            ),
            (
                "tcp-kick-by-application",
                "bob",
                r#"does not send push onAdd {"route":"onAdd","user":"bob"}"#,
            ),
            ("tcp-kick-by-application", "bob", r#"sends answer 2 {"code":500}"#),
            (
                "tcp-kick-by-application",
                "bob",
                r#"sends handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"gate.gateHandler.qu…"#,
            ),
            (
                "ws-kick-by-application",
                "alice",
                r#"does not send handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"connector.testHandl…"#,
            ),
            ("ws-kick-by-application", "alice", r#"does not send kick {"reason":"kick"}"#),
            (
                "ws-kick-by-application",
                "alice",
                r#"sends handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"gate.gateHandler.qu…"#,
            ),
            ("ws-kick-by-application", "bob", r#"does not send answer 2 {"kicking":"alice*k"}"#),
            (
                "ws-kick-by-application",
                "bob",
                r#"does not send handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"connector.testHandl…"#,
            ),
            (
                "ws-kick-by-application",
                "bob",
                r#"does not send push onAdd {"route":"onAdd","user":"bob"}"#,
            ),
            ("ws-kick-by-application", "bob", r#"sends answer 2 {"code":500}"#),
            (
                "ws-kick-by-application",
                "bob",
                r#"sends handshake {"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"connector.entryHandler.enter":2,"gate.gateHandler.qu…"#,
            ),
        ],
    },
    Meant {
        reason: "Text beyond the basic plane arrives as it was sent: browsers' surrogate pairs are understood, and clients of that kind are sent such.",
        differences: &[
            (
                "tcp-unicode-astral",
                "emoji",
                r#"sends push onLeave {"route":"onLeave","user":"c\xed\xa0\xbd\xed\xb8\x80"}"#,
            ),
            ("tcp-unicode-astral", "emoji", r#"does not send answer 1 {"users":["😀"]}"#),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"does not send push onAdd {"route":"onAdd","user":"c������"}"#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"does not send push onChat "cesu ������ end" from "😀" to "*""#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"does not send push onChat "smile 😀 end" from "😀" to "*""#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"does not send push onLeave {"route":"onLeave","user":"c������"}"#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"sends answer 1 {"users":["\xed\xa0\xbd\xed\xb8\x80"]}"#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"sends push onAdd {"route":"onAdd","user":"c\xed\xa0\xbd\xed\xb8\x80"}"#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"sends push onChat "cesu \xed\xa0\xbd\xed\xb8\x80 end" from "\xed\xa0\xbd\xed\xb8\x80" to "*""#,
            ),
            (
                "tcp-unicode-astral",
                "emoji",
                r#"sends push onChat "smile \xed\xa0\xbd\xed\xb8\x80 end" from "\xed\xa0\xbd\xed\xb8\x80" to "*""#,
            ),
            (
                "tcp-unicode-astral",
                "emoji-cesu",
                r#"does not send answer 1 {"users":["😀","c������"]}"#,
            ),
            (
                "tcp-unicode-astral",
                "emoji-cesu",
                r#"sends answer 1 {"users":["\xed\xa0\xbd\xed\xb8\x80","c\xed\xa0\xbd\xed\xb8\x80"]}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"sends push onLeave {"route":"onLeave","user":"c\xed\xa0\xbd\xed\xb8\x80"}"#,
            ),
            ("ws-unicode-astral", "emoji", r#"does not send answer 1 {"users":["😀"]}"#),
            (
                "ws-unicode-astral",
                "emoji",
                r#"does not send push onAdd {"route":"onAdd","user":"c������"}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"does not send push onChat "cesu ������ end" from "😀" to "*""#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"does not send push onChat "smile 😀 end" from "😀" to "*""#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"does not send push onLeave {"route":"onLeave","user":"c������"}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"sends answer 1 {"users":["\xed\xa0\xbd\xed\xb8\x80"]}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"sends push onAdd {"route":"onAdd","user":"c\xed\xa0\xbd\xed\xb8\x80"}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"sends push onChat "cesu \xed\xa0\xbd\xed\xb8\x80 end" from "\xed\xa0\xbd\xed\xb8\x80" to "*""#,
            ),
            (
                "ws-unicode-astral",
                "emoji",
                r#"sends push onChat "smile \xed\xa0\xbd\xed\xb8\x80 end" from "\xed\xa0\xbd\xed\xb8\x80" to "*""#,
            ),
            (
                "ws-unicode-astral",
                "emoji-cesu",
                r#"does not send answer 1 {"users":["😀","c������"]}"#,
            ),
            (
                "ws-unicode-astral",
                "emoji-cesu",
                r#"sends answer 1 {"users":["\xed\xa0\xbd\xed\xb8\x80","c\xed\xa0\xbd\xed\xb8\x80"]}"#,
            ),
        ],
    },
    Meant {
        reason: "A connection survives what stopped the original's: requests and heartbeats after it are answered.",
        differences: &[
            (
                "tcp-wedge-after-exception",
                "alice-again",
                r#"does not send answer 1 {"users":["alice","alice"]}"#,
            ),
            ("tcp-wedge-after-exception", "alice-again", r#"sends answer 1 {"users":["alice"]}"#),
            ("ws-body-variants", "v1", "sends heartbeat"),
            ("ws-body-variants", "v8", "sends heartbeat"),
            ("ws-body-variants", "v9", "sends heartbeat"),
            ("ws-enter-odd-values", "u1", "sends heartbeat"),
            ("ws-enter-odd-values", "u5", "sends heartbeat"),
            ("ws-id-2pow31-hangs-connector", "victim", "sends heartbeat"),
            (
                "ws-wedge-after-exception",
                "alice",
                r#"sends answer 3 {"users":["alice"]} instead of nothing"#,
            ),
            ("ws-wedge-after-exception", "alice", "sends heartbeat"),
        ],
    },
    Meant {
        reason: "Arguments that the original tripped over are read as it read others: arrays are spread, and whatever stands for a name is turned into text.",
        differences: &[
            (
                "ws-body-variants",
                "gate",
                r#"sends answer 5 {"code":200,"host":"H","port":1} instead of nothing"#,
            ),
            (
                "ws-body-variants",
                "gate",
                r#"sends answer 7 {"code":200,"host":"H","port":1} instead of nothing"#,
            ),
            (
                "ws-gate-query-variants",
                "g",
                r#"sends answer 13 {"code":200,"host":"H","port":1} instead of nothing"#,
            ),
            (
                "ws-gate-query-variants",
                "g",
                r#"sends answer 14 {"code":200,"host":"H","port":1} instead of nothing"#,
            ),
        ],
    },
    Meant {
        reason: "A name is taken once in a room, on whichever connectors its members are.",
        differences: &[
            ("ws-enter-dup-other-connector", "alice-c1", r#"does not send answer 4 {"code":500}"#),
            (
                "ws-enter-dup-other-connector",
                "alice-c1",
                r#"does not send push onAdd {"route":"onAdd","user":"alice"}"#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c1",
                r#"does not send push onLeave {"route":"onLeave","user":"alice"}"#,
            ),
            ("ws-enter-dup-other-connector", "alice-c1", "sends answer 4 {}"),
            (
                "ws-enter-dup-other-connector",
                "alice-c1",
                r#"sends push onChat "to alice after dup left" from "alice" to "alice""#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c1",
                r#"sends push onChat "to alice" from "alice" to "alice""#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c2",
                r#"does not send answer 1 {"users":["alice","alice"]}"#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c2",
                r#"does not send push onChat "to alice" from "alice" to "alice""#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c2",
                r#"does not send push onChat "to star" from "alice" to "*""#,
            ),
            (
                "ws-enter-dup-other-connector",
                "alice-c2",
                r#"sends answer 1 {"code":500,"error":true}"#,
            ),
        ],
    },
    Meant {
        reason: "Entering without a name is refused.",
        differences: &[
            (
                "ws-enter-missing-username",
                "anon",
                r#"does not send answer 1 {"users":["undefined"]}"#,
            ),
            ("ws-enter-missing-username", "anon", "does not send answer 2 {}"),
            (
                "ws-enter-missing-username",
                "anon",
                r#"does not send push onChat "hi" from "undefined" to "*""#,
            ),
            ("ws-enter-missing-username", "anon", r#"sends answer 1 {"code":500,"error":true}"#),
            ("ws-enter-missing-username", "anon", r#"sends answer 2 {"code":500}"#),
        ],
    },
    Meant {
        reason: "A connection enters once.",
        differences: &[
            ("ws-enter-twice", "late", r#"sends answer 1 {"users":["watcher","late"]}"#),
            ("ws-enter-twice", "alice", r#"does not send answer 3 {"users":["alice"]}"#),
            ("ws-enter-twice", "alice", r#"does not send answer 5 {"users":["alice","bob"]}"#),
            (
                "ws-enter-twice",
                "alice",
                r#"does not send push onAdd {"route":"onAdd","user":"bob"}"#,
            ),
            ("ws-enter-twice", "alice", r#"sends answer 3 {"code":500,"error":true}"#),
            ("ws-enter-twice", "alice", r#"sends answer 5 {"code":500,"error":true}"#),
            ("ws-enter-twice", "alice", r#"sends push onChat "where am I" from "alice" to "*""#),
            (
                "ws-enter-twice",
                "late",
                r#"does not send answer 1 {"users":["bob","watcher","late"]}"#,
            ),
            (
                "ws-enter-twice",
                "watcher",
                r#"does not send answer 1 {"users":["alice","bob","watcher"]}"#,
            ),
            (
                "ws-enter-twice",
                "watcher",
                r#"does not send push onLeave {"route":"onLeave","user":"alice"}"#,
            ),
            ("ws-enter-twice", "watcher", r#"sends answer 1 {"users":["alice","watcher"]}"#),
            (
                "ws-enter-twice",
                "watcherB",
                r#"does not send answer 1 {"users":["alice","watcherB"]}"#,
            ),
            ("ws-enter-twice", "watcherB", r#"sends answer 1 {"users":["watcherB"]}"#),
        ],
    },
    Meant {
        reason: "Rooms may be called like members of JavaScript objects.",
        differences: &[
            ("ws-proto-names", "alice/__proto__", r#"does not send answer 2 {"code":500}"#),
            (
                "ws-proto-names",
                "alice/__proto__",
                r#"sends answer 1 {"users":["alice"]} instead of an exception's text"#,
            ),
            ("ws-proto-names", "alice/__proto__", "sends answer 2 {}"),
            ("ws-proto-names", "alice/__proto__", r#"sends push onChat "hi" from "alice" to "*""#),
            ("ws-proto-names", "alice/constructor", r#"does not send answer 2 {"code":500}"#),
            (
                "ws-proto-names",
                "alice/constructor",
                r#"sends answer 1 {"users":["alice"]} instead of an exception's text"#,
            ),
            ("ws-proto-names", "alice/constructor", "sends answer 2 {}"),
            (
                "ws-proto-names",
                "alice/constructor",
                r#"sends push onChat "hi" from "alice" to "*""#,
            ),
            ("ws-proto-names", "alice/hasOwnProperty", r#"does not send answer 2 {"code":500}"#),
            (
                "ws-proto-names",
                "alice/hasOwnProperty",
                r#"sends answer 1 {"users":["alice"]} instead of an exception's text"#,
            ),
            ("ws-proto-names", "alice/hasOwnProperty", "sends answer 2 {}"),
            (
                "ws-proto-names",
                "alice/hasOwnProperty",
                r#"sends push onChat "hi" from "alice" to "*""#,
            ),
            ("ws-proto-names", "alice/toString", r#"does not send answer 2 {"code":500}"#),
            (
                "ws-proto-names",
                "alice/toString",
                r#"sends answer 1 {"users":["alice"]} instead of an exception's text"#,
            ),
            ("ws-proto-names", "alice/toString", "sends answer 2 {}"),
            ("ws-proto-names", "alice/toString", r#"sends push onChat "hi" from "alice" to "*""#),
        ],
    },
    Meant {
        reason: "Names are names, whatever is in them: `*` does not cut them. (Unless told otherwise, names of more than letters, digits, `_` and `-` are refused.)",
        differences: &[
            ("ws-star-in-name", "w", r#"sends push onChat "from a*b" from "a*b" to "*""#),
            ("ws-star-in-name", "evil", r#"sends push onChat "from a*b" from "a*b" to "*""#),
            ("ws-star-in-name", "collide", r#"does not send answer 1 {"code":500,"error":true}"#),
            ("ws-star-in-name", "collide", r#"sends answer 1 {"users":["a"]}"#),
            ("ws-star-in-name", "evil", r#"does not send answer 1 {"users":["a"]}"#),
            ("ws-star-in-name", "evil", r#"does not send push onChat "from a*b" from "a" to "*""#),
            ("ws-star-in-name", "evil", r#"sends answer 1 {"users":["a*b"]}"#),
            ("ws-star-in-name", "w", r#"does not send answer 1 {"users":["a","w"]}"#),
            ("ws-star-in-name", "w", r#"does not send push onChat "from a*b" from "a" to "*""#),
            (
                "ws-star-in-name",
                "w",
                r#"does not send push onLeave {"route":"onLeave","user":"a"}"#,
            ),
            ("ws-star-in-name", "w", r#"sends answer 1 {"users":["a*b","w"]}"#),
            ("ws-star-in-name", "w", r#"sends push onLeave {"route":"onLeave","user":"a*b"}"#),
        ],
    },
];

/// What is meant to differ in a transcript.
pub(crate) fn meant(transcript: &str) -> impl Iterator<Item = Difference> {
    let all = TABLE.iter().flat_map(|meant| meant.differences);
    all.filter(move |(of, ..)| *of == transcript).map(|(_, connection, what)| Difference {
        connection: (*connection).to_owned(),
        what: (*what).to_owned(),
    })
}

/// `docs/compatibility.md`.
///
/// `found`: what differs in each transcript that could be played; nothing for one that could not.
pub(crate) fn page(found: &BTreeMap<String, Option<Vec<Difference>>>) -> String {
    let mut page = String::from(HEAD);
    let mut scenarios: BTreeMap<&str, BTreeMap<&str, Option<&[Difference]>>> = BTreeMap::new();
    for (name, differences) in found {
        let (dialect, scenario) = name.split_once('-').unwrap_or((name, ""));
        scenarios.entry(scenario).or_default().insert(dialect, differences.as_deref());
    }
    for (scenario, dialects) in scenarios {
        let cell = |dialect: &str| match dialects.get(dialect) {
            None => "",
            Some(None) => "not played",
            Some(Some([])) => "equal",
            Some(Some(differences))
                if differences.iter().all(Difference::is_refusal_instead_of_silence) =>
            {
                "answers"
            }
            Some(Some(_)) => "differs",
        };
        let (ws, tcp, hybrid) = (cell("ws"), cell("tcp"), cell("hybrid"));
        let _ = writeln!(page, "| {scenario} | {ws} | {tcp} | {hybrid} |");
    }
    page.push_str("\n## What differs, and why\n");
    for meant in TABLE {
        let _ = writeln!(page, "\n**{}**\n", meant.reason);
        for (transcript, connection, what) in meant.differences {
            let what = what.replace('|', "\\|");
            let _ = writeln!(page, "- `{transcript}`, {connection}: {what}");
        }
    }
    page
}

const HEAD: &str = "\
# Compatibility

Generated by `cargo test -p e2e --test transcripts` from what it saw; do not edit.

Recorded clients of the original server, played against a cluster of real processes. *equal*: every
byte from the server is the original's (ports aside). *answers*: equal, and where the original left
a request unanswered, it is refused with `{\"code\":500}`. *differs*: see below. *not played*: the
recording tells about messages of up to 4 MiB but does not hold them; here a message may have 64 KiB
and a text 8 KiB, and one that is larger closes the connection or is refused.

| scenario | WebSocket | TCP | both on one port |
| --- | --- | --- | --- |
";
