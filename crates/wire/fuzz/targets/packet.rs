//! A stream, cut in two anywhere, yields the same packages as in one piece.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::pomelo::packet::{Decoder, split};

fuzz_target!(|input: (u16, &[u8])| {
    const LIMIT: usize = 4096;
    let (cut, stream) = input;
    let (head, tail) = stream.split_at(usize::from(cut).min(stream.len()));
    let decode = |pieces: &[&[u8]]| {
        let mut decoder = Decoder::new(LIMIT);
        let mut seen = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(packet)) => seen.push(Ok((packet.kind, packet.body.to_vec()))),
                    Ok(None) => break,
                    Err(error) => {
                        seen.push(Err(error));
                        return seen;
                    }
                }
            }
        }
        seen
    };
    assert_eq!(decode(&[head, tail]), decode(&[stream]));
    assert!(split(stream, LIMIT).count() >= 1);
});
