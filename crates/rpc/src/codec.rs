//! How batches of frames become the bytes of a gRPC message and back.
//!
//! Tonic's own codec would want a whole batch as the types of module [`pb`] first: two allocations
//! for each text, there and as ours, and of a batch of hundreds of frames all alive at once, which is
//! more than a processor's cache holds. Here one frame after another passes through them, in memory
//! that the last has just left: 4 % of what a saturated cluster takes (`docs/performance-log.md`).

use std::marker::PhantomData;

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

/// The fields of a batch in `proto/tangelo/v1/link.proto`, the same in both directions.
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
    type Encoder = LinkEncoder<O>;
    type Decoder = LinkDecoder<I>;

    fn encoder(&mut self) -> Self::Encoder {
        LinkEncoder { shared: Shared::default(), of: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        LinkDecoder { shared: Shared::default(), of: PhantomData }
    }
}

/// Writes batches of one stream.
#[derive(Debug)]
pub struct LinkEncoder<M> {
    /// What the other end has heard so far, and need not hear again.
    shared: Shared,
    of: PhantomData<M>,
}

impl<M: OnLink> Encoder for LinkEncoder<M> {
    type Item = Batch<M>;
    type Error = Status;

    fn encode(&mut self, batch: Batch<M>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(batch, &mut self.shared, buf);
        Ok(())
    }
}

/// Reads batches of one stream.
#[derive(Debug)]
pub struct LinkDecoder<M> {
    /// What the other end has said before, and does not say again.
    shared: Shared,
    of: PhantomData<M>,
}

impl<M: OnLink> Decoder for LinkDecoder<M> {
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

fn read<M: OnLink>(shared: &mut Shared, buf: &mut impl Buf) -> Result<Batch<M>, Status> {
    let mut batch = Batch { hello: None, frames: Vec::new() };
    while buf.has_remaining() {
        let (field, wire_type) = encoding::decode_key(buf).map_err(undecodable)?;
        match field {
            HELLO => batch.hello = Some(message(wire_type, buf)?),
            FRAMES => {
                let frame = M::from_pb(message(wire_type, buf)?, shared);
                let frame = frame.map_err(|it| Status::invalid_argument(it.to_string()))?;
                batch.frames.push(frame);
            }
            // Of a later version.
            _ => encoding::skip_field(wire_type, field, buf, DecodeContext::default())
                .map_err(undecodable)?,
        }
    }
    Ok(batch)
}

fn message<T: Message + Default>(wire_type: WireType, buf: &mut impl Buf) -> Result<T, Status> {
    let mut message = T::default();
    encoding::message::merge(wire_type, &mut message, buf, DecodeContext::default())
        .map_err(undecodable)?;
    Ok(message)
}

/// As tonic's own codec says it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn undecodable(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use model::{RoomId, SessionId, Shard, Term};
    use proptest::prelude::*;

    use super::*;

    /// A batch as `link.proto` has it, by which generated code would read and write it.
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

    fn leave(session: u64) -> Frame<ToOwner> {
        let (room, session) = (RoomId::from_peer("r1").unwrap(), SessionId(session));
        let message = ToOwner::Leave { room, session };
        Frame { shard: Shard::new(3).unwrap(), term: Term(5), message }
    }

    fn received(mut bytes: &[u8]) -> Result<Batch<ToOwner>, Status> {
        read(&mut Shared::default(), &mut bytes)
    }

    #[test]
    fn a_batch_is_what_the_schema_says() {
        let generated = Generated {
            hello: Some(hello()),
            frames: (0..3).map(|session| convert::owner_frame(leave(session))).collect(),
        };
        let frames: Vec<_> = (0..3).map(leave).collect();
        let mut written = Vec::new();
        let batch = Batch { hello: Some(hello()), frames: frames.clone() };
        write(batch, &mut Shared::default(), &mut written);
        assert_eq!(written, generated.encode_to_vec());
        let batch = received(&written).unwrap();
        assert_eq!((batch.hello, batch.frames), (Some(hello()), frames));
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
        let error = received(&bytes).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().contains("without a valid frame"), "{error}");
    }

    proptest! {
        /// Whatever a peer sends: a batch or an error, and as generated code would have it.
        #[test]
        fn bytes_that_are_cut_or_changed_are_read_or_refused(
            cut in 0_usize..90,
            changed in prop::option::of((0_usize..90, any::<u8>())),
        ) {
            let frames = (0..3).map(|session| convert::owner_frame(leave(session))).collect();
            let mut bytes = Generated { hello: Some(hello()), frames }.encode_to_vec();
            if let Some((at, byte)) = changed {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            let wanted = Generated::decode(&*bytes).ok().and_then(|batch| {
                let frames = batch.frames.into_iter().map(convert::owner_frame_from);
                frames.collect::<Result<Vec<_>, _>>().ok()
            });
            prop_assert_eq!(received(&bytes).ok().map(|batch| batch.frames), wanted);
        }
    }
}
