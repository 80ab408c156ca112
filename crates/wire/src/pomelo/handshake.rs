//! The handshake: who the client is, and what the server tells it.

use std::time::Duration;

use bytes::Bytes;
use model::limits;
use serde_json::Value;

use super::{
    Dictionary, Encoding, Protos,
    packet::{self, Kind},
    text,
};
use crate::{
    Dialect,
    body::{self, Sink, depth_is_within},
};

/// The `sys.type` of the browser library, which cannot read true UTF-8.
pub const BROWSER: &str = "js-websocket";

/// The `sys.type` of the .NET library for Unity.
const UNITY: &str = "unity-socket";

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// `sys.type`: which library it is.
    pub client_type: Option<String>,
    /// `sys.version`: of that library.
    pub version: Option<String>,
    /// Whether it is a client of Pitaya: it says what Pitaya's say, and no `sys.type`.
    pub is_pitaya: bool,
    /// Whether it knows Tangelo: `user.tangelo` is 1.
    pub is_modern: bool,
    /// The version of the dictionary it has kept.
    pub dict_version: Option<String>,
    /// The version of the schemas it has kept.
    pub proto_version: Option<String>,
    /// `user`: whatever an application agreed on; null if it was not there.
    pub user: Value,
}

impl Hello {
    /// Reads the body of a client's HANDSHAKE. `None` if it is to be answered with [`refusal`]:
    /// it is no JSON object, is nested too deeply, or has no `sys`.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let json = text::decode(body);
        if !depth_is_within(&json, limits::JSON_DEPTH_MAX) {
            return None;
        }
        let mut hello: Value = serde_json::from_str(&json).ok()?;
        let sys = hello.get("sys").filter(|sys| is_true(sys))?;
        let text = |member| sys.get(member).and_then(Value::as_str).map(str::to_owned);
        let is_pitaya = ["libVersion", "clientVersion"].into_iter().any(|it| text(it).is_some());
        Some(Self {
            is_pitaya: is_pitaya && sys.get("type").is_none(),
            is_modern: hello.pointer("/user/tangelo").and_then(Value::as_u64) == Some(1),
            client_type: text("type"),
            version: text("version"),
            dict_version: text("dictVersion"),
            proto_version: text("protoVersion"),
            user: hello.get_mut("user").map(Value::take).unwrap_or_default(),
        })
    }

    /// How this client wants its bytes.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        if self.is_modern {
            return Dialect::Modern;
        }
        match self.encoding() {
            Encoding::Utf8 if self.is_pitaya => Dialect::Pitaya,
            Encoding::Utf8 => Dialect::Pomelo,
            Encoding::Cesu8 => Dialect::PomeloCesu8,
        }
    }

    /// Whether this library ignores an answer that comes before it has noted that it waits for one.
    #[must_use]
    pub fn misses_quick_answers(&self) -> bool {
        self.client_type.as_deref() == Some(UNITY)
    }

    /// How this client wants its text.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if self.client_type.as_deref() == Some(BROWSER) { Encoding::Cesu8 } else { Encoding::Utf8 }
    }

    /// The HANDSHAKE package of a client, members in the order of the originals.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut package = packet::begin(Kind::Handshake, 128);
        package.text("{\"sys\":{");
        let mut separator = "";
        for (name, value) in [
            ("type", &self.client_type),
            ("version", &self.version),
            ("protoVersion", &self.proto_version),
            ("dictVersion", &self.dict_version),
        ] {
            let Some(value) = value else { continue };
            package.text(separator);
            body::write_string(&mut package, name);
            package.text(":");
            body::write_string(&mut package, value);
            separator = ",";
        }
        package.text("}");
        if !self.user.is_null() {
            package.text(",\"user\":");
            body::write_value(&mut package, &self.user);
        }
        package.text("}");
        packet::finish(package).unwrap_or_default()
    }
}

/// The HANDSHAKE package for a client whose own was unusable. The connection is closed after it.
#[must_use]
pub fn refusal() -> Bytes {
    packet::encode(Kind::Handshake, br#"{"code":500}"#).unwrap_or_default()
}

/// The server's answers, one for each combination of what clients may have kept.
#[derive(Debug)]
pub(super) struct Answers {
    dict_version: Option<String>,
    proto_version: String,
    /// By whether the client has the dictionary, then by whether it has the schemas.
    packages: [[Bytes; 2]; 2],
    /// For clients of Pitaya.
    pitaya: Bytes,
    /// For clients that know Tangelo.
    modern: Bytes,
}

impl Answers {
    pub(super) fn new(
        heartbeat: Option<Duration>,
        dictionary: Option<&Dictionary>,
        protos: &Protos,
    ) -> Self {
        let answer = |has_dict: bool, has_protos: bool| {
            let mut package = packet::begin(Kind::Handshake, 1024);
            write_answer(
                &mut package,
                heartbeat,
                dictionary.map(|dictionary| (!has_dict).then_some(dictionary)),
                (!has_protos).then_some(protos),
            );
            packet::finish(package).unwrap_or_default()
        };
        let mut pitaya = packet::begin(Kind::Handshake, 256);
        super::pitaya::write_answer(&mut pitaya, heartbeat, dictionary);
        let mut modern = packet::begin(Kind::Handshake, 64);
        super::modern::write_answer(&mut modern, heartbeat);
        Self {
            modern: packet::finish(modern).unwrap_or_default(),
            pitaya: packet::finish(pitaya).unwrap_or_default(),
            dict_version: dictionary.map(Dictionary::version),
            proto_version: protos.version(),
            packages: [
                [answer(false, false), answer(false, true)],
                [answer(true, false), answer(true, true)],
            ],
        }
    }

    pub(super) fn to(&self, hello: &Hello) -> Bytes {
        match hello.dialect() {
            Dialect::Pitaya => return self.pitaya.clone(),
            Dialect::Modern => return self.modern.clone(),
            Dialect::Pomelo
            | Dialect::PomeloCesu8
            | Dialect::SocketIo09
            | Dialect::SocketIo1
            | Dialect::ModernSocketIo09
            | Dialect::ModernSocketIo1 => {}
        }
        let has_dict = self.dict_version.is_some() && hello.dict_version == self.dict_version;
        let has_protos = hello.proto_version.as_ref() == Some(&self.proto_version);
        self.packages[usize::from(has_dict)][usize::from(has_protos)].clone()
    }
}

/// Writes an answer's body. The dictionary is absent at a gate, and present but left out for a
/// client that has it.
fn write_answer(
    out: &mut Vec<u8>,
    heartbeat: Option<Duration>,
    dictionary: Option<Option<&Dictionary>>,
    protos: Option<&Protos>,
) {
    out.text("{\"code\":200,\"sys\":{");
    if let Some(heartbeat) = heartbeat {
        out.text("\"heartbeat\":");
        body::write_number(out, heartbeat.as_secs());
        out.text(",");
    }
    if let Some(dictionary) = dictionary {
        if let Some(dictionary) = dictionary {
            let routes = dictionary.to_json();
            for (name, json) in [
                ("dict", &routes),
                ("routeToCode", &routes),
                ("codeToRoute", &dictionary.codes_to_json()),
            ] {
                body::write_string(out, name);
                out.text(":");
                out.text(json);
                out.text(",");
            }
            out.text("\"dictVersion\":");
            body::write_string(out, &dictionary.version());
            out.text(",");
        }
        out.text("\"useDict\":true,");
    }
    if let Some(protos) = protos {
        out.text("\"protos\":{\"server\":");
        out.text(protos.server.json());
        out.text(",\"client\":");
        out.text(protos.client.json());
        out.text(",\"version\":");
        body::write_string(out, &protos.version());
        out.text("},");
    }
    out.text("\"useProto\":true}}");
}

/// Whether JavaScript takes a value for true.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_needs_a_sys() {
        for bad in [
            "",
            " ",
            "hello",
            "null",
            "[]",
            "{}",
            r#"{"sys":null}"#,
            r#"{"sys":0}"#,
            r#"{"sys":""}"#,
        ] {
            assert_eq!(Hello::parse(bad.as_bytes()), None, "{bad}");
        }
        let deep = format!(r#"{{"sys":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(Hello::parse(deep.as_bytes()), None);
        for good in [r#"{"sys":{}}"#, r#"{"sys":"x"}"#, r#"{"sys":[]}"#] {
            let hello = Hello::parse(good.as_bytes());
            assert_eq!(hello, Some(Hello::default()), "{good}");
        }
    }

    #[test]
    fn versions_that_are_no_text_match_nothing() {
        let hello = Hello::parse(br#"{"sys":{"protoVersion":0,"dictVersion":[]}}"#).unwrap();
        assert_eq!((hello.proto_version, hello.dict_version), (None, None));
    }

    #[test]
    fn only_the_browser_library_gets_surrogates() {
        let dialect = |json: &str| Hello::parse(json.as_bytes()).unwrap().dialect();
        let browser = r#"{"sys":{"type":"js-websocket","version":"0.0.1"}}"#;
        assert_eq!(dialect(browser), Dialect::PomeloCesu8);
        let native = r#"{"sys":{"type":"unity-socket"},"user":{}}"#;
        assert_eq!(dialect(native), Dialect::Pomelo);
        assert_eq!(dialect(r#"{"sys":{}}"#), Dialect::Pomelo);
    }

    #[test]
    fn clients_of_pitaya_are_known_by_what_they_say() {
        let dialect = |json: &str| Hello::parse(json.as_bytes()).unwrap().dialect();
        let libpitaya = r#"{"sys":{"platform":"mac","libVersion":"1","clientVersion":"2"}}"#;
        assert_eq!(dialect(libpitaya), Dialect::Pitaya);
        assert_eq!(dialect(r#"{"sys":{"clientVersion":"2"},"user":{}}"#), Dialect::Pitaya);
        let both = r#"{"sys":{"type":"js-websocket","libVersion":"1"}}"#;
        assert_eq!(dialect(both), Dialect::PomeloCesu8);
        let answer = |dictionary: Option<&Dictionary>, heartbeat| {
            let hello = Hello::parse(libpitaya.as_bytes()).unwrap();
            let answers = Answers::new(heartbeat, dictionary, &Protos::chat());
            String::from_utf8(answers.to(&hello)[4..].to_vec()).unwrap()
        };
        assert_eq!(answer(None, None), r#"{"code":200,"sys":{"serializer":"json"}}"#);
        let dictionary = Dictionary::chat();
        let full = answer(Some(&dictionary), Some(Duration::from_secs(3)));
        let start = r#"{"code":200,"sys":{"heartbeat":3,"dict":{"chat.chatHandler.send":1,"#;
        assert!(full.starts_with(start) && !full.contains("useDict"), "{full}");
    }

    #[test]
    fn what_a_client_says_comes_back() {
        let hello = Hello {
            client_type: Some("x\"y".to_owned()),
            version: Some("1".to_owned()),
            is_pitaya: false,
            is_modern: true,
            dict_version: None,
            proto_version: Some("z".to_owned()),
            user: serde_json::json!({"tangelo": 1}),
        };
        let package = hello.encode();
        assert_eq!(Hello::parse(&package[4..]), Some(hello));
    }
}
