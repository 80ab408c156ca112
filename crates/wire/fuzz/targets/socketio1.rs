//! Packets and requests of Socket.IO 1 take any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::socketio::{request::Request, v1};

fuzz_target!(|text: &str| {
    if let Ok(v1::Packet::Message(content)) = v1::Packet::decode(text) {
        let text = content.as_text().unwrap();
        _ = v1::decode_call(text);
        if let Some(request) = Request::decode(text) {
            let packet = v1::encode_request(&request).unwrap();
            assert!(v1::Packet::decode(str::from_utf8(&packet).unwrap()).is_ok());
        }
    }
});
