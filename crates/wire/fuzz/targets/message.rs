//! A message that can be read is written again as the same message.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire::pomelo::{Message, Options, RouteName};

static OPTIONS: LazyLock<Options> = LazyLock::new(Options::chat_connector);

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(data) {
        let mut out = Vec::new();
        let is_long = match &message {
            Message::Request { route, .. }
            | Message::Notify { route, .. }
            | Message::Push { route, .. } => {
                matches!(route, RouteName::Text(text) if text.len() > 255)
            }
            Message::Response { .. } => false,
        };
        // Broken text grows when it is replaced, past what a route can be.
        assert_eq!(message.encode(&mut out).is_err(), is_long);
        if !is_long {
            assert_eq!(Message::decode(&out), Ok(message));
        }
    }
    _ = OPTIONS.decode_call(data).is_ok();
});
