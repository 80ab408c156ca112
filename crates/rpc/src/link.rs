//! The link between a connector and a chat node, as typed senders and receivers.
//!
//! The connector [`dial()`]s; the chat serves a [`Service`] and gets an [`Incoming`] for every stream.
//! Either side ends the link by dropping its two halves.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use model::{Incarnation, NodeId, limits};
use room::message::{Frame, ToOwner, ToRelay};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming, service::interceptor::InterceptedService,
    transport::Endpoint,
};

use crate::{
    codec::Batch,
    convert::Invalid,
    dial::{self, Dial},
    ended::{Ended, Watched},
    local, pb,
    token::{AttachToken, ClusterToken, RequireToken},
};

/// Flow-control window of one stream and of one connection, in bytes: a burst of a full room
/// must not wait for a window update on a loaded machine.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Frames are put into one message until it has about this many bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// How long a connection to a chat may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the peer may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Who is at one end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The node's name.
    pub node: NodeId,
    /// The life of the node.
    pub incarnation: Incarnation,
}

/// Why there is no link, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address makes no sense.
    #[error("the address {0:?} is no http:// address")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// The stream broke.
    #[error("the stream broke: {}", innermost(.0))]
    Broken(Status),
    /// The peer did not say who it is, or said nonsense.
    #[error("the peer did not say hello")]
    NoHello,
    /// The peer sent something that makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let source = std::error::Error::source(&status);
        let invalid = source.and_then(|it| it.downcast_ref::<Invalid>()).copied();
        invalid.map_or(Self::Broken(status), Self::Invalid)
    }
}

/// The cause of a broken stream. What is around it tells about libraries.
fn innermost(status: &Status) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    let mut words = status.message().to_owned();
    while let Some(error) = cause {
        words = error.to_string();
        cause = error.source();
    }
    if words.is_empty() { status.code().to_string() } else { words }
}

/// A queue into a link. Holds [`limits::LINK_QUEUE_FRAMES_MAX`] frames.
#[derive(Debug)]
pub struct Sender<M> {
    queue: mpsc::Sender<Frame<M>>,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

/// The queue of a link is full, or the link is gone: cut it and attach anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link is full or gone")]
pub struct Overrun;

impl<M> Sender<M> {
    /// Queues a frame; never waits.
    ///
    /// # Errors
    ///
    /// If the queue is full or the link is gone. The link must be cut then: a frame is missing.
    pub fn send(&self, frame: Frame<M>) -> Result<(), Overrun> {
        self.queue.try_send(frame).map_err(|_| Overrun)
    }
}

/// What comes out of a link at the connector's end.
#[derive(Debug)]
pub struct FromOwner {
    stream: Streaming<Batch<ToRelay>>,
    ended: Ended,
    is_local: bool,
}

impl FromOwner {
    /// Whether the link goes past the network, to a process of this machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.is_local
    }

    /// Who has ended the connection.
    #[must_use]
    pub const fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Receives the next batch; `None` when the peer ended the link.
    ///
    /// # Errors
    ///
    /// If the stream breaks or the peer sends nonsense; the link is over then.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn receive(&mut self) -> Result<Option<Vec<Frame<ToRelay>>>, Error> {
        Ok(self.stream.message().await?.map(|batch| batch.frames))
    }
}

/// What comes out of a link at the chat's end.
#[derive(Debug)]
pub struct FromConnector {
    stream: Streaming<Batch<ToOwner>>,
    ended: Ended,
}

impl FromConnector {
    /// Who has ended the connection.
    #[must_use]
    pub const fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Receives the next batch; `None` when the peer ended the link.
    ///
    /// # Errors
    ///
    /// If the stream breaks or the peer sends nonsense; the link is over then.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn receive(&mut self) -> Result<Option<Vec<Frame<ToOwner>>>, Error> {
        Ok(self.stream.message().await?.map(|batch| batch.frames))
    }
}

/// Opens a link to the chat at `address`, such as `http://127.0.0.1:6050`, over a connection of
/// `dialer`; or past the network, if the chat of this incarnation is on the same machine and `dialer`
/// allows it.
///
/// # Errors
///
/// If the address makes no sense, nobody answers there, or it is no chat.
pub async fn dial(
    dialer: &dyn Dial,
    address: &str,
    chat: Incarnation,
    me: Hello,
    token: Option<&ClusterToken>,
) -> Result<(Sender<ToOwner>, FromOwner, Hello), Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|_| Error::Address(address.to_owned()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(limits::LINK_KEEPALIVE)
        .keep_alive_timeout(limits::LINK_KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let ended = Ended::default();
    let local = if dialer.has_local_links() { local::connect(chat).await } else { None };
    let is_local = local.is_some();
    let channel = match local {
        Some(connection) => dial::over(connection, endpoint, ended.clone()).await?,
        None => dialer.connect(endpoint, ended.clone()).await?,
    };
    let mut client =
        pb::link_client::LinkClient::with_interceptor(channel, AttachToken::new(token))
            .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
    let (queue, frames) = mpsc::channel(limits::LINK_QUEUE_FRAMES_MAX);
    let outgoing = Batches::new(me, frames, weight_to_owner);
    let incoming = tokio::time::timeout(HELLO_TIMEOUT, async {
        let mut incoming = client.attach(outgoing).await?.into_inner();
        let first = incoming.message().await?;
        let hello = hello_from(first.and_then(|batch| batch.hello))?;
        Ok::<_, Error>((incoming, hello))
    });
    let (incoming, peer) = incoming.await.map_err(|_| Error::NoHello)??;
    let receiver = FromOwner { stream: incoming, ended, is_local };
    Ok((Sender { queue }, receiver, peer))
}

/// A link that a connector has opened.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub peer: Hello,
    /// Towards the connector.
    pub sender: Sender<ToRelay>,
    /// From the connector.
    pub receiver: FromConnector,
}

/// The chat's end: hands every link that is opened to a queue.
#[derive(Debug)]
pub struct Service {
    me: Hello,
    incoming: mpsc::Sender<Incoming>,
}

/// The gRPC service around [`Service`].
pub type Server = InterceptedService<pb::link_server::LinkServer<Service>, RequireToken>;

impl Service {
    /// A service that says hello as `me`, lets in who brings `token` (everybody if there is none),
    /// and hands links to `incoming`.
    #[must_use]
    pub fn server(
        me: Hello,
        token: Option<ClusterToken>,
        incoming: mpsc::Sender<Incoming>,
    ) -> Server {
        let server = pb::link_server::LinkServer::new(Self { me, incoming })
            .max_decoding_message_size(limits::LINK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::LINK_MESSAGE_BYTES_MAX);
        InterceptedService::new(server, RequireToken::new(token))
    }

    /// Connections as this service wants them: each notes who has ended it.
    pub fn watched<C>(
        connections: impl Stream<Item = io::Result<C>>,
    ) -> impl Stream<Item = io::Result<Watched<C>>> {
        connections.map(|connection| Ok(Watched::new(connection?, Ended::default())))
    }

    /// The settings that a transport for this service needs.
    #[must_use]
    pub fn transport() -> tonic::transport::Server {
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keepalive_interval(Some(limits::LINK_KEEPALIVE))
            .http2_keepalive_timeout(Some(limits::LINK_KEEPALIVE_TIMEOUT))
    }
}

/// What a chat sends, as the generated service wants it.
#[derive(Debug)]
pub struct Outgoing(Batches<ToRelay>);

impl Stream for Outgoing {
    type Item = Result<Batch<ToRelay>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|batch| batch.map(Ok))
    }
}

#[tonic::async_trait]
impl pb::link_server::Link for Service {
    type AttachStream = Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<Batch<ToOwner>>>,
    ) -> Result<Response<Outgoing>, Status> {
        let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
        let mut receiver = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, receiver.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no hello"))??;
        let peer = hello_from(first.and_then(|batch| batch.hello))
            .map_err(|_| Status::invalid_argument("the first message must hold a hello"))?;
        let (queue, frames) = mpsc::channel(limits::LINK_QUEUE_FRAMES_MAX);
        let receiver = FromConnector { stream: receiver, ended };
        let incoming = Incoming { peer, sender: Sender { queue }, receiver };
        self.incoming
            .send(incoming)
            .await
            .map_err(|_| Status::unavailable("this chat is shutting down"))?;
        Ok(Response::new(Outgoing(Batches::new(self.me.clone(), frames, weight_to_relay))))
    }
}

fn hello_from(hello: Option<pb::Hello>) -> Result<Hello, Error> {
    let hello = hello.ok_or(Error::NoHello)?;
    let node = NodeId::new(&hello.node).map_err(|_| Error::NoHello)?;
    Ok(Hello { node, incarnation: Incarnation(hello.incarnation) })
}

/// Packs what is queued into as few messages as possible: what gathers while the transport is
/// busy goes out together, and nothing waits for company.
#[derive(Debug)]
struct Batches<M> {
    hello: Option<pb::Hello>,
    frames: mpsc::Receiver<Frame<M>>,
    weigh: fn(&M) -> usize,
}

impl<M> Batches<M> {
    fn new(me: Hello, frames: mpsc::Receiver<Frame<M>>, weigh: fn(&M) -> usize) -> Self {
        let Hello { node, incarnation } = me;
        let hello = pb::Hello { node: node.to_string(), incarnation: incarnation.0 };
        Self { hello: Some(hello), frames, weigh }
    }
}

impl<M> Stream for Batches<M> {
    type Item = Batch<M>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Batch<M>>> {
        let this = &mut *self;
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(Batch { hello: Some(hello), frames: Vec::new() }));
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        while frames.len() < limits::LINK_BATCH_FRAMES_MAX && bytes < BATCH_BYTES {
            match this.frames.poll_recv(cx) {
                Poll::Ready(Some(frame)) => {
                    bytes += (this.weigh)(&frame.message);
                    frames.push(frame);
                }
                Poll::Ready(None) if frames.is_empty() => return Poll::Ready(None),
                Poll::Pending if frames.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Batch { hello: None, frames }))
    }
}

/// Roughly how many bytes a frame will take. Only frames that can be large matter.
fn weight_to_owner(message: &ToOwner) -> usize {
    match message {
        ToOwner::State(state) => {
            let tail: usize = state.tail.iter().map(|event| event.weight()).sum();
            state.members.len() * 64 + tail
        }
        ToOwner::Say { content, .. } => content.len(),
        ToOwner::Attached { .. }
        | ToOwner::Join { .. }
        | ToOwner::Leave { .. }
        | ToOwner::Withdraw { .. }
        | ToOwner::Alive { .. } => 32,
    }
}

fn weight_to_relay(message: &ToRelay) -> usize {
    match message {
        ToRelay::Snapshot(snapshot) => {
            let tail: usize = snapshot.tail.iter().map(|event| event.weight()).sum();
            snapshot.members.len() * 64 + tail
        }
        ToRelay::Event { event, .. } => event.weight(),
        ToRelay::Welcome { welcome, .. } => {
            welcome.events.iter().map(|event| event.weight()).sum::<usize>() + 64
        }
        ToRelay::Opened
        | ToRelay::NotOwner
        | ToRelay::Repeated { .. }
        | ToRelay::Probe { .. }
        | ToRelay::Probing { .. }
        | ToRelay::Withdrawn { .. }
        | ToRelay::JoinRefused { .. }
        | ToRelay::SayRefused { .. } => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_stream_is_told_by_its_cause() {
        let mut status = Status::unknown("h2 protocol error: error reading a body");
        status.set_source(std::sync::Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        let error = Error::Broken(status);
        assert_eq!(error.to_string(), "the stream broke: connection reset");
        let error = Error::Broken(Status::unavailable("too busy"));
        assert_eq!(error.to_string(), "the stream broke: too busy");
    }
}
