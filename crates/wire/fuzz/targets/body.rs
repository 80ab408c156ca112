//! Bodies take any bytes; what is kept of them is sound JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use wire::{Call, Route, body, pomelo::text};

fuzz_target!(|bytes: &[u8]| {
    let json = text::decode(bytes);
    for route in Route::ALL {
        _ = Call::from_json(route, body::first_argument(&json));
    }
    for content in body::members(&json, ["a", "b"]) {
        _ = (body::as_name(&content), body::as_room(&content), body::as_uid(&content));
        let mut out = b"{\"x\":0".to_vec();
        body::write_member(&mut out, "m", &content);
        out.push(b'}');
        serde_json::from_slice::<&RawValue>(&out).unwrap();
    }
});
