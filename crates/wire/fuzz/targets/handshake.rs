//! Both sides of a handshake take anything.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire::pomelo::{
    Hello, Options,
    client::{Codec, Kept, kick_reason},
};

static OPTIONS: LazyLock<Options> = LazyLock::new(Options::chat_connector);

fuzz_target!(|body: &[u8]| {
    if let Some(hello) = Hello::parse(body) {
        let again = Hello::parse(&hello.encode()[4..]);
        assert_eq!(again.map(|again| again.dialect()), Some(hello.dialect()));
        _ = OPTIONS.answer(&hello);
    }
    if let Ok(codec) = Codec::from_answer(body, &Hello::default(), &Kept::default()) {
        _ = codec.decode(body).is_ok();
    }
    _ = kick_reason(body);
});
