//! Frames, requests and payloads of Socket.IO 0.9 take any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::socketio::v09;

fuzz_target!(|text: &str| {
    for frame in v09::decode_payload(text) {
        if let v09::Frame::Message { text, .. } = v09::Frame::decode(frame) {
            _ = v09::decode_call(text);
        }
        _ = v09::decode_elements(frame);
    }
    let frames = [text, "2::"];
    let payload = v09::encode_payload(&frames);
    assert!(v09::decode_payload(&payload).eq(frames));
    _ = v09::decode_form(text);
    let script = v09::encode_html_file(text);
    assert_eq!(script.matches("</script").count(), 1);
});
