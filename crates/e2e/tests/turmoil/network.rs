//! The simulated network, as the nodes want theirs.

use std::{
    io,
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use rpc::{
    dial::{Connecting, Dial},
    ended::Ended,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, server::Connected};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// Opens connections over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated;

impl Dial for Simulated {
    fn connect(&self, endpoint: Endpoint, _ended: Ended) -> Connecting {
        Box::pin(async move { endpoint.connect_with_connector(service_fn(open)).await })
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(service_fn(open))
    }
}

async fn open(uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let nowhere = || io::Error::from(io::ErrorKind::AddrNotAvailable);
    let authority = uri.authority().ok_or_else(nowhere)?;
    TcpStream::connect(authority.as_str()).await.map(TokioIo::new)
}

/// Accepts connections at a port of the host that it is called on.
pub(crate) async fn listen(
    port: u16,
) -> io::Result<impl Stream<Item = io::Result<Accepted>> + Send> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    Ok(futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    }))
}

/// A connection that was accepted.
pub(crate) struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
