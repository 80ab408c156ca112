//! WebSocket, as much as a benchmark's clients need: whole binary frames.

use tokio_tungstenite::tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};

/// A binary frame around a payload.
pub(crate) fn encode(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    // Memory takes what is written.
    let _ = header.format(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// One frame cut off the front: whether it is a message, its payload unmasked in place, and its
/// length with the header. Nothing while it is incomplete.
pub(crate) fn cut(bytes: &mut [u8]) -> Option<(bool, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mask_at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
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
            let mut frame = encode(&vec![7; length]);
            // What a client sends has a mask; this one changes nothing.
            frame[1] |= 0x80;
            let header = frame.len() - length;
            frame.splice(header..header, [0; 4]);
            assert!(cut(&mut frame.clone()[..header + 3 + length]).is_none());
            let (is_message, payload, used) = cut(&mut frame).unwrap();
            assert!(is_message);
            assert_eq!((payload.len(), used), (length, header + 4 + length));
        }
    }
}
