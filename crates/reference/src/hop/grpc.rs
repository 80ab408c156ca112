//! The same hop by tonic and prost: one stream each way over a Unix socket, as a link is, and
//! nothing else: no batches, no rooms.

use std::{
    convert::Infallible,
    future::{self, Ready, ready},
    io,
    os::{fd::OwnedFd, unix},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{StreamExt as _, stream};
use http::{Request, Response, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use rpc::{
    ended::{Ended, Watched},
    local::Socket,
};
use tokio::{net::UnixStream, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    body::Body,
    server::{NamedService, StreamingService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// A protobuf message with some bytes in it.
type Message = Vec<u8>;

/// The end that asks.
pub(super) struct Caller {
    runtime: Runtime,
    sender: mpsc::Sender<Message>,
    receiver: Streaming<Message>,
}

impl Caller {
    /// Opens a stream each way.
    pub(super) fn new(socket: OwnedFd) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, messages) = mpsc::channel(1);
        let receiver = runtime.block_on(async {
            let mut client = tonic::client::Grpc::new(connect(open(socket)?).await?);
            client.ready().await?;
            let path = PathAndQuery::from_static("/reference.Echo/Stream");
            let codec = ProstCodec::<Message, Message>::default();
            let asked = tonic::Request::new(ReceiverStream::new(messages));
            anyhow::Ok(client.streaming(asked, path, codec).await?.into_inner())
        })?;
        Ok(Self { runtime, sender, receiver })
    }

    /// Says something, and hears it.
    pub(super) fn trip(&mut self, message: Message) -> io::Result<Message> {
        let Self { runtime, sender, receiver } = self;
        runtime.block_on(async {
            sender.send(message).await.map_err(io::Error::other)?;
            let heard = receiver.message().await.map_err(io::Error::other)?;
            heard.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }
}

/// Answers what comes in at a socket, for ever.
pub(super) fn answer(socket: OwnedFd) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connection = stream::iter([open(socket)]).chain(stream::pending());
        Ok(Server::builder().add_service(Echo).serve_with_incoming(connection).await?)
    })
}

/// As links are: woken for what is to be read only.
fn open(socket: OwnedFd) -> io::Result<Watched<Socket>> {
    let socket = unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(Watched::new(Socket::new(UnixStream::from_std(socket)?)?, Ended::default()))
}

async fn connect(socket: Watched<Socket>) -> Result<Channel, tonic::transport::Error> {
    let mut socket = Some(TokioIo::new(socket));
    let once = service_fn(move |_| {
        ready(socket.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    // The name is for the header only.
    Endpoint::from_static("http://localhost").connect_with_connector(once).await
}

/// Sends back what it hears.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "reference.Echo";
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            let codec = ProstCodec::<Message, Message>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(Echo, request).await)
        })
    }
}

impl StreamingService<Message> for Echo {
    type Response = Message;
    type ResponseStream = Streaming<Message>;
    type Future = Ready<Result<tonic::Response<Streaming<Message>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Message>>) -> Self::Future {
        future::ready(Ok(tonic::Response::new(request.into_inner())))
    }
}
