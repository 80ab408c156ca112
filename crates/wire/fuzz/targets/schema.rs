//! A schema that can be read is read again from its announcement.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::pomelo::{Dictionary, Schema};

fuzz_target!(|source: &str| {
    if let Ok(schema) = Schema::parse(source) {
        _ = Schema::from_announcement(schema.json()).is_ok();
    }
    if let Ok(dictionary) = Dictionary::with_application(source) {
        let announced = serde_json::from_str(&dictionary.to_json()).unwrap();
        assert!(Dictionary::from_announcement(&announced).is_ok());
    }
});
