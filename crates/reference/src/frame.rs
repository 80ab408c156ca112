//! WebSocket, as much as a benchmark's clients need: whole binary frames.

use tokio_tungstenite::tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};

/// The bit of a frame's second byte that says that there is a mask.
const MASKED: u8 = 0x80;

/// A binary frame around a payload.
pub(crate) fn encode(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    // Memory takes what is written.
    let _ = header.format(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// A binary message as a client sends it, under a mask that changes nothing.
pub(crate) fn encode_masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = encode(payload);
    frame[1] |= MASKED;
    let header = frame.len() - payload.len();
    frame.splice(header..header, [0; 4]);
    frame
}

/// One frame cut off the front: whether it is a message, its payload, unmasked in place if it had
/// a mask, and its length with the header. Nothing while it is incomplete.
pub(crate) fn cut(bytes: &mut [u8]) -> Option<(bool, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mask_at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    if second & MASKED == 0 {
        let payload = bytes.get_mut(mask_at..mask_at + length)?;
        return Some((first & 0x0f <= 2, payload, mask_at + length));
    }
    let begin = mask_at + 4;
    let mask: [u8; 4] = bytes.get(mask_at..begin)?.try_into().ok()?;
    let payload = bytes.get_mut(begin..begin + length)?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some((first & 0x0f <= 2, payload, begin + length))
}

/// The answer to an upgrade whose head is complete, and the head's length.
pub(crate) fn upgrade(bytes: &[u8]) -> Option<(String, usize)> {
    const KEY: &str = "sec-websocket-key:";
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.lines();
    let line = lines.find(|line| line.to_ascii_lowercase().starts_with(KEY))?;
    let accept = derive_accept_key(line[KEY.len()..].trim().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some((answer, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_cut() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut plain = encode(&vec![7; length]);
            let (is_message, payload, used) = cut(&mut plain).unwrap();
            assert_eq!((is_message, payload.len()), (true, length));
            let header = used - length;
            let mut frame = encode_masked(&vec![7; length]);
            assert!(cut(&mut frame.clone()[..header + 3 + length]).is_none());
            let (is_message, payload, used) = cut(&mut frame).unwrap();
            assert!(is_message);
            assert_eq!((payload.len(), used), (length, header + 4 + length));
        }
    }
}
