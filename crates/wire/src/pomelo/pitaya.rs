//! What differs for clients of Pitaya, a descendant of Pomelo with the same packages.
//!
//! They name themselves by `sys.libVersion` or `sys.clientVersion` where Pomelo's have `sys.type`.
//! Their C library aborts when it is told of a dictionary, so they are told of none to use; their Go
//! client takes one that is only listed. Bodies are JSON. They may compress what they send, and
//! mark it with a bit of the message's flag; a refusal is marked with another. Source: the clients
//! of Pitaya 3 and libpitaya 1.

use std::{borrow::Cow, io::Read as _, time::Duration};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use model::{Code, limits};

use super::{
    Dictionary, message,
    packet::{self, Kind},
    text::{Encoder, Encoding},
};
use crate::{
    Reply, RequestId,
    body::{self, Sink},
};

/// Writes the body of the handshake's answer.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    heartbeat: Option<Duration>,
    dictionary: Option<&Dictionary>,
) {
    out.text("{\"code\":200,\"sys\":{");
    if let Some(heartbeat) = heartbeat {
        out.text("\"heartbeat\":");
        body::write_number(out, heartbeat.as_secs());
        out.text(",");
    }
    if let Some(dictionary) = dictionary {
        out.text("\"dict\":");
        out.text(&dictionary.to_json());
        out.text(",");
    }
    out.text("\"serializer\":\"json\"}}");
}

/// Encodes a response as a finished DATA package. `None` for a notify.
pub(crate) fn encode_reply(id: RequestId, reply: &Reply) -> Option<Bytes> {
    if id.is_notify() {
        return None;
    }
    let mut package = packet::begin(Kind::Data, 64 + reply.json_len_hint());
    match reply {
        Reply::Refused { code, .. } => {
            message::error_head(&mut package, id);
            write_error(&mut package, *code);
        }
        Reply::Busy { .. } => {
            message::error_head(&mut package, id);
            write_error(&mut package, Code::NotApplied);
        }
        Reply::Entry { .. }
        | Reply::Slot { .. }
        | Reply::Users(_)
        | Reply::Entered(_)
        | Reply::Placed(_)
        | Reply::Done => {
            message::response_head(&mut package, id);
            reply.write_json(&mut Encoder { out: &mut package, encoding: Encoding::Utf8 });
        }
    }
    packet::finish(package).or_else(|| {
        // A list of members that no package can carry.
        encode_reply(id, &Reply::Refused { code: Code::NotApplied, error: true })
    })
}

fn write_error(out: &mut Vec<u8>, code: Code) {
    out.text("{\"code\":\"PIT-");
    body::write_number(out, code.number().into());
    out.text("\",\"msg\":");
    body::write_string(out, code.text());
    out.text("}");
}

/// The body of a client's message whose flag says that it is compressed. What does not look so is
/// taken as it is: Pomelo ignored the flag. What does not come apart, or into more than a message
/// may have, counts as empty.
pub(super) fn inflate(body: &[u8]) -> Cow<'_, [u8]> {
    let most = limits::MESSAGE_BYTES_MAX;
    let mut plain = Vec::new();
    let read = match body {
        [0x1f, 0x8b, ..] => GzDecoder::new(body).take(most as u64 + 1).read_to_end(&mut plain),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
            ZlibDecoder::new(body).take(most as u64 + 1).read_to_end(&mut plain)
        }
        _ => return Cow::Borrowed(body),
    };
    match read {
        Ok(bytes) if bytes <= most => Cow::Owned(plain),
        Ok(_) | Err(_) => Cow::Borrowed(b""),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use model::{Content, UserName};

    use super::*;
    use crate::{Dialect, Push, pomelo::Options};

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn refusals_are_marked_and_say_what_is_wrong() {
        let refused = Reply::Refused { code: Code::NameTaken, error: true };
        let package = encode_reply(RequestId(3), &refused).unwrap();
        let json = br#"{"code":"PIT-409","msg":"#;
        assert_eq!(package[4..6], [0x24, 3]);
        assert!(package[6..].starts_with(json), "{package:?}");
        let done = encode_reply(RequestId(300), &Reply::Done).unwrap();
        assert_eq!(done, b"\x04\0\0\x05\x04\xac\x02{}"[..]);
        assert_eq!(encode_reply(RequestId::NOTIFY, &Reply::Done), None);
    }

    #[test]
    fn pushes_are_json_by_their_names() {
        let (from, target) = (UserName::from_peer("a").unwrap(), Content::Text("*".into()));
        let content = Content::Text("hi".into());
        let push = Push::Chat { content: &content, from: &from, target: &target };
        let json = br#"{"route":"onChat","msg":"hi","from":"a","target":"*"}"#;
        let package = Dialect::Pitaya.encode_push(&push, None, &Options::chat_connector()).unwrap();
        assert_eq!(package[4..12], *b"\x06\x06onChat");
        assert_eq!(package[12..], json[..]);
    }

    #[test]
    fn bodies_come_apart_in_both_forms() {
        let json = br#"{"username":"alice","rid":"r"}"#;
        assert_eq!(*inflate(&zlib(json)), json[..]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(json).unwrap();
        assert_eq!(*inflate(&encoder.finish().unwrap()), json[..]);
        assert_eq!(*inflate(json), json[..]);
        assert_eq!(*inflate(b""), b""[..]);
    }

    #[test]
    fn what_would_grow_without_end_counts_as_empty() {
        let most = zlib(&vec![b' '; limits::MESSAGE_BYTES_MAX]);
        assert_eq!(inflate(&most).len(), limits::MESSAGE_BYTES_MAX);
        let bomb = zlib(&vec![b' '; 100 * limits::MESSAGE_BYTES_MAX]);
        assert!(inflate(&bomb).is_empty());
        assert!(inflate(&bomb[..bomb.len() / 2]).is_empty());
        assert!(inflate(b"\x78\x9cnonsense").is_empty());
    }
}
