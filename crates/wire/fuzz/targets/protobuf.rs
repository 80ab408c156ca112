//! A body that can be read is written again as the same body.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire::pomelo::{
    Encoding, Schema,
    protobuf::{EncodeError, Member},
};

const SOURCE: &str = r#"{
    "message Point": {"required int32 x": 1, "optional sInt32 y": 2},
    "all": {
        "optional uInt32 u": 1, "optional int32 i": 2, "optional float f": 3,
        "optional double d": 4, "optional string s": 5, "optional Point p": 6,
        "repeated uInt32 us": 7, "repeated string ss": 8, "repeated Point ps": 9,
        "optional Tree tree": 10
    },
    "message Tree": {"repeated Tree branches": 1}
}"#;
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(SOURCE).unwrap());

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = SCHEMA.decode("all", bytes) else {
        return;
    };
    let mut out = Vec::new();
    let members = body.iter().map(|(name, value)| (name.as_str(), Member::from(value)));
    match SCHEMA.encode("all", members, Encoding::Utf8, &mut out) {
        Ok(()) => {
            let again = SCHEMA.decode("all", &out).unwrap();
            // An empty list is not written.
            let body: serde_json::Map<_, _> = body
                .into_iter()
                .filter(|(_, value)| value.as_array().is_none_or(|list| !list.is_empty()))
                .collect();
            if !body.contains_key("tree") {
                assert_eq!(again, body);
            }
        }
        // Read: a number past 53 bits, a float that is none, or a point without its x.
        Err(error) => assert!(matches!(error, EncodeError::Type | EncodeError::Missing)),
    }
});
