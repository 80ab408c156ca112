//! What the frames and packets of Socket.IO mean to a session.

use model::Time;
use wire::{
    pomelo::text,
    socketio::{
        v1::{self, Packet},
        v09::{self, Frame},
    },
};

use crate::{CloseReason, Effect, Oddity, client::Client};

/// The reason that the original gave a client that had just said that it leaves.
const LEFT: &str = "client namespace disconnect";

/// Takes one frame of Socket.IO 0.9.
pub(crate) fn take_frame(client: &mut Client, now: Time, bytes: &[u8], out: &mut Vec<Effect>) {
    let frame = text::decode(bytes);
    match Frame::decode(&frame) {
        Frame::Disconnect => {
            out.push(Effect::Transmit(v09::DISCONNECT));
            client.close(CloseReason::ClientLeft, out);
        }
        Frame::Connect => out.push(Effect::Transmit(v09::CONNECT)),
        Frame::Heartbeat => client.beaten(now),
        Frame::Message { text, ack } => {
            out.extend(ack.map(|id| Effect::Transmit(v09::acknowledgement(id))));
            match v09::decode_call(text) {
                Some((id, call)) => client.call(now, id, call, out),
                None => out.push(Effect::Count(Oddity::MalformedMessage)),
            }
        }
        Frame::Other => out.push(Effect::Count(Oddity::ForeignMessage)),
    }
}

/// Takes one packet of Engine.IO.
///
/// # Errors
///
/// If it is none: the session is to be closed.
pub(crate) fn take_packet(
    client: &mut Client,
    now: Time,
    bytes: &[u8],
    out: &mut Vec<Effect>,
) -> Result<(), CloseReason> {
    let packet = text::decode(bytes);
    match Packet::decode(&packet).map_err(|_| CloseReason::Malformed)? {
        Packet::Ping { is_probe } => {
            let pong = if is_probe { v1::PONG_PROBE } else { v1::PONG };
            out.push(Effect::Transmit(pong));
        }
        Packet::Message(content) => match content.as_text().and_then(v1::decode_call) {
            Some((id, call)) => client.call(now, id, call, out),
            None => out.push(Effect::Count(Oddity::MalformedMessage)),
        },
        Packet::Connect { namespace: "/" } => {}
        Packet::Connect { namespace } => {
            out.push(Effect::Count(Oddity::ForeignMessage));
            out.push(Effect::Transmit(v1::invalid_namespace(namespace)));
        }
        Packet::Disconnect => {
            out.push(Effect::Transmit(v1::encode_kick(LEFT)));
            client.close(CloseReason::ClientLeft, out);
        }
        Packet::Close => client.close(CloseReason::ClientLeft, out),
        Packet::Error(json) => {
            client.kick(&v1::error_reason(json), CloseReason::Kicked, out);
        }
        // What only servers send, or what belongs to an upgrade that is over.
        Packet::Open(_) | Packet::Pong | Packet::Upgrade | Packet::Noop => {
            out.push(Effect::Count(Oddity::OutOfPlace));
        }
        Packet::Other => out.push(Effect::Count(Oddity::ForeignMessage)),
    }
    Ok(())
}
