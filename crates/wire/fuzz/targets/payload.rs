//! Payloads of Engine.IO take any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{pomelo::text, socketio::v1::payload};

fuzz_target!(|bytes: &[u8]| {
    _ = payload::decode_binary(bytes).is_ok();
    let text = text::decode(bytes);
    _ = payload::decode_text(&text).is_ok();
    _ = payload::decode_form(&text).is_ok();
});
