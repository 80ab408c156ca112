//! The simulated network, as the nodes want theirs.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::Stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use rpc::{
    dial::{Connecting, Dial},
    ended::{Ended, Watched},
    link::Service,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// Opens connections over it, from one host.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    from: String,
    cuts: Cuts,
}

impl Simulated {
    pub(crate) fn new(from: &str, cuts: &Cuts) -> Self {
        Self { from: from.to_owned(), cuts: cuts.clone() }
    }

    async fn open(self, uri: Uri) -> io::Result<Opened> {
        let nowhere = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let authority = uri.authority().ok_or_else(nowhere)?;
        let stream = TcpStream::connect(authority.as_str()).await?;
        let cut = self.cuts.between(&self.from, authority.host());
        Ok(Opened { stream, cut: Box::pin(cut.cancelled_owned()) })
    }
}

impl Dial for Simulated {
    fn connect(&self, endpoint: Endpoint, ended: Ended) -> Connecting {
        let this = self.clone();
        let open = move |uri| {
            let (opening, ended) = (this.clone().open(uri), ended.clone());
            async { opening.await.map(|opened| TokioIo::new(Watched::new(opened, ended))) }
        };
        Box::pin(async move { endpoint.connect_with_connector(service_fn(open)).await })
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        let this = self.clone();
        let open = move |uri| {
            let opening = this.clone().open(uri);
            async { opening.await.map(TokioIo::new) }
        };
        endpoint.connect_with_connector_lazy(service_fn(open))
    }
}

/// Ends connections from without, as something on the way does that has forgotten them: to both
/// ends it looks as if the other one's system had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts(Arc<Mutex<BTreeMap<[String; 2], CancellationToken>>>);

impl Cuts {
    /// Ends all connections that one of these hosts has opened to the other.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        let opened = self.map().remove(&[from, to].map(str::to_owned));
        opened.into_iter().for_each(|opened| opened.cancel());
    }

    fn between(&self, from: &str, to: &str) -> CancellationToken {
        self.map().entry([from, to].map(str::to_owned)).or_default().clone()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<[String; 2], CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that was opened.
struct Opened {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Opened {
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_cut = self.cut.as_mut().poll(context).is_ready();
        if is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts connections at a port of the host that it is called on.
pub(crate) async fn listen(
    port: u16,
) -> io::Result<impl Stream<Item = io::Result<Watched<TcpStream>>> + Send> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let accepted = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    Ok(Service::watched(accepted))
}
