//! How batches of frames become the bytes of a gRPC message and back.
//!
//! Tonic's own codec would want a whole batch as the types of module [`pb`], so that all its texts
//! are alive twice. Here one frame after another passes through them, in memory that the last has
//! just left (measured in `docs/performance-log.md`, "One frame after another").

use std::{marker::PhantomData, sync::Arc};

use bytes::{Buf, BufMut};
use prost::{
    Message,
    encoding::{self, DecodeContext, WireType},
};
use room::message::{Frame, ToOwner, ToRelay};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    convert::{self, Invalid},
    pb,
    shared::Shared,
};

/// The fields of a batch in `proto/tangelo/v1/link.proto`, the same in both directions, to which
/// `build.rs` holds it.
const HELLO: u32 = 1;
const FRAMES: u32 = 2;

/// One message on a link: who is there, or frames in their order.
#[derive(Debug)]
pub struct Batch<M> {
    pub(crate) hello: Option<pb::Hello>,
    pub(crate) frames: Vec<Frame<M>>,
}

/// What a connector sends.
pub type BatchToOwner = Batch<ToOwner>;
/// What a chat sends.
pub type BatchToConnector = Batch<ToRelay>;

/// What frames on a link may hold.
pub(crate) trait OnLink: Sized + Send + 'static {
    /// Such a frame in the types of module [`pb`].
    type Pb: Message + Default;

    /// Writes a frame, on a stream that has shared so much.
    fn to_pb(frame: Frame<Self>, shared: &mut Shared) -> Self::Pb;

    /// Reads a frame, on a stream that has shared so much.
    ///
    /// # Errors
    ///
    /// If something in it is missing or out of bounds.
    fn from_pb(frame: Self::Pb, shared: &mut Shared) -> Result<Frame<Self>, Invalid>;
}

impl OnLink for ToOwner {
    type Pb = pb::OwnerFrame;

    fn to_pb(frame: Frame<Self>, _: &mut Shared) -> Self::Pb {
        convert::owner_frame(frame)
    }

    fn from_pb(frame: Self::Pb, _: &mut Shared) -> Result<Frame<Self>, Invalid> {
        convert::owner_frame_from(frame)
    }
}

impl OnLink for ToRelay {
    type Pb = pb::ConnectorFrame;

    fn to_pb(frame: Frame<Self>, shared: &mut Shared) -> Self::Pb {
        convert::connector_frame(frame, shared)
    }

    fn from_pb(frame: Self::Pb, shared: &mut Shared) -> Result<Frame<Self>, Invalid> {
        convert::connector_frame_from(frame, shared)
    }
}

/// Sends batches of `O` and receives batches of `I`.
#[derive(Debug)]
pub struct LinkCodec<O, I>(PhantomData<(O, I)>);

impl<O, I> Default for LinkCodec<O, I> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<O: OnLink, I: OnLink> Codec for LinkCodec<O, I> {
    type Encode = Batch<O>;
    type Decode = Batch<I>;
    type Encoder = Direction<O>;
    type Decoder = Direction<I>;

    fn encoder(&mut self) -> Self::Encoder {
        Direction::new()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Direction::new()
    }
}

/// One end of one direction of a stream: writes its batches, or reads them.
#[derive(Debug)]
pub struct Direction<M> {
    /// What was said before, and is not said again.
    shared: Shared,
    of: PhantomData<M>,
}

impl<M> Direction<M> {
    fn new() -> Self {
        Self { shared: Shared::default(), of: PhantomData }
    }
}

impl<M: OnLink> Encoder for Direction<M> {
    type Item = Batch<M>;
    type Error = Status;

    fn encode(&mut self, batch: Batch<M>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(batch, &mut self.shared, buf);
        Ok(())
    }
}

impl<M: OnLink> Decoder for Direction<M> {
    type Item = Batch<M>;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Batch<M>>, Status> {
        read(&mut self.shared, buf).map(Some)
    }
}

fn write<M: OnLink>(batch: Batch<M>, shared: &mut Shared, buf: &mut impl BufMut) {
    if let Some(hello) = &batch.hello {
        encoding::message::encode(HELLO, hello, buf);
    }
    for frame in batch.frames {
        encoding::message::encode(FRAMES, &M::to_pb(frame, shared), buf);
    }
}

/// After an error the link is over: what was read before it is in `shared`, and nobody has seen it.
fn read<M: OnLink>(shared: &mut Shared, buf: &mut impl Buf) -> Result<Batch<M>, Status> {
    let mut batch = Batch { hello: None, frames: Vec::new() };
    while buf.has_remaining() {
        let (field, wire_type) = encoding::decode_key(buf).map_err(undecodable)?;
        match field {
            HELLO => merge(wire_type, batch.hello.get_or_insert_default(), buf)?,
            FRAMES => {
                let mut frame = M::Pb::default();
                merge(wire_type, &mut frame, buf)?;
                batch.frames.push(M::from_pb(frame, shared).map_err(refused)?);
            }
            // Of a later version.
            _ => encoding::skip_field(wire_type, field, buf, DecodeContext::default())
                .map_err(undecodable)?,
        }
    }
    Ok(batch)
}

fn merge(wire_type: WireType, into: &mut impl Message, buf: &mut impl Buf) -> Result<(), Status> {
    encoding::message::merge(wire_type, into, buf, DecodeContext::default()).map_err(undecodable)
}

/// With its cause, by which [`crate::link::Error`] knows it from a stream that broke.
fn refused(invalid: Invalid) -> Status {
    let mut status = Status::invalid_argument(invalid.to_string());
    status.set_source(Arc::new(invalid));
    status
}

/// As tonic's own codec says it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn undecodable(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use model::{
        Content, Incarnation, MemberId, Outcome, Position, ResumeKey, RoomId, SendNumber,
        SessionId, Shard, Term, UserName,
    };
    use proptest::prelude::*;
    use room::message::{Body, Event, Member, Spoken, Stay, Welcome};

    use super::*;

    /// A batch as generated code would have it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(message, optional, tag = "1")]
        hello: Option<pb::Hello>,
        #[prost(message, repeated, tag = "2")]
        frames: Vec<pb::OwnerFrame>,
    }

    fn hello() -> pb::Hello {
        pb::Hello { node: "chat-1".into(), incarnation: 7 }
    }

    fn room() -> RoomId {
        RoomId::from_peer("r1").unwrap()
    }

    fn frame<M>(message: M) -> Frame<M> {
        Frame { shard: Shard::new(3).unwrap(), term: Term(5), message }
    }

    fn leave(session: u64) -> Frame<ToOwner> {
        frame(ToOwner::Leave { room: room(), session: SessionId(session) })
    }

    fn generated() -> Generated {
        let frames = (0..3).map(|session| convert::owner_frame(leave(session))).collect();
        Generated { hello: Some(hello()), frames }
    }

    fn received(mut bytes: &[u8]) -> Result<Batch<ToOwner>, Status> {
        read(&mut Shared::default(), &mut bytes)
    }

    #[test]
    fn a_batch_is_as_generated_code_has_it() {
        let frames: Vec<_> = (0..3).map(leave).collect();
        let mut written = Vec::new();
        let batch = Batch { hello: Some(hello()), frames: frames.clone() };
        write(batch, &mut Shared::default(), &mut written);
        assert_eq!(written, generated().encode_to_vec());
        let batch = received(&written).unwrap();
        assert_eq!((batch.hello, batch.frames), (Some(hello()), frames));
    }

    fn said(seq: u64) -> Arc<Event> {
        let id = MemberId { connector: Incarnation(3), session: SessionId(seq) };
        let from = Member { id, user: UserName::from_peer("alice").unwrap() };
        let (shown, content) = (Content::Text("*".into()), Content::Text("x".repeat(99).into()));
        let spoken = Spoken { from, number: SendNumber(1), shown, content, id: None };
        let position = Position { generation: Term(1), seq };
        Arc::new(Event { position, body: Body::Said(Box::new(spoken)) })
    }

    /// Two enter one after the other: the second is told what the first was, and one thing more.
    #[test]
    fn what_one_batch_has_said_the_next_does_not_say_again() {
        let welcome = |session, last| {
            let events = (1..=last).map(said).collect();
            let stay = Stay { key: ResumeKey(7), since: 1 };
            let welcome = Welcome { outcome: Outcome::Joined, stay, events };
            frame(ToRelay::Welcome { room: room(), session: SessionId(session), welcome })
        };
        let event = frame(ToRelay::Event { room: room(), event: said(10) });
        let (mut here, mut there) = (Shared::default(), Shared::default());
        let mut pass = |frames: Vec<Frame<ToRelay>>| {
            let mut bytes = Vec::new();
            write(Batch { hello: None, frames: frames.clone() }, &mut here, &mut bytes);
            let batch = read::<ToRelay>(&mut there, &mut &*bytes).unwrap();
            assert_eq!(batch.frames, frames);
            bytes.len()
        };
        let first = pass(vec![welcome(1, 10), event]);
        let second = pass(vec![welcome(2, 11)]);
        assert!(first > 1000 && second < 300, "{first} and {second} bytes");
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let mut bytes = Vec::new();
        encoding::string::encode(3, &"news".to_owned(), &mut bytes);
        encoding::message::encode(FRAMES, &convert::owner_frame(leave(1)), &mut bytes);
        encoding::uint64::encode(4, &9, &mut bytes);
        assert_eq!(received(&bytes).unwrap().frames, [leave(1)]);
    }

    #[test]
    fn a_frame_that_makes_no_sense_is_named() {
        let frame = pb::OwnerFrame { shard: 3, term: 5, message: None };
        let bytes = Generated { hello: None, frames: vec![frame] }.encode_to_vec();
        let error = crate::link::Error::from(received(&bytes).unwrap_err());
        let words = "the peer sent a message without a valid frame; are both of the same version?";
        assert_eq!(error.to_string(), words);
    }

    proptest! {
        /// Whatever a peer sends, this is a batch where it is one for generated code, and the same.
        #[test]
        fn bytes_that_are_cut_or_changed_are_read_or_refused(
            cut in 0_usize..90,
            changed in prop::collection::vec((0_usize..90, any::<u8>()), 0..4),
        ) {
            let mut bytes = generated().encode_to_vec();
            // A hello in two parts is one.
            bytes.extend([0x0a, 0x02, 0x10, 0x09]);
            for (at, byte) in changed {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            let wanted = Generated::decode(&*bytes).ok().and_then(|batch| {
                let frames = batch.frames.into_iter().map(convert::owner_frame_from);
                Some((batch.hello, frames.collect::<Result<Vec<_>, _>>().ok()?))
            });
            prop_assert_eq!(received(&bytes).ok().map(|it| (it.hello, it.frames)), wanted);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = read::<ToRelay>(&mut Shared::default(), &mut &*bytes);
            prop_assert!(read.is_err() || read.is_ok_and(|it| it.frames.len() <= bytes.len()));
        }
    }
}
