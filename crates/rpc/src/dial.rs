//! How connections to other nodes are opened.

use std::{
    fmt,
    future::{Future, ready},
    io,
    pin::Pin,
    sync::Arc,
};

use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::{ServiceExt as _, service_fn};

use crate::ended::{Ended, Watched};

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, Error>> + Send>>;

/// Opens connections to other nodes. Processes have [`System`]; a simulation has a network of its
/// own.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Whether links to chats of this machine go past the network ([`crate::local`]).
    fn has_local_links(&self) -> bool {
        false
    }

    /// Connects now. `ended` is told if the other end's system ends the connection.
    fn connect(&self, endpoint: Endpoint, ended: Ended) -> Connecting;

    /// Connects when the first call wants it, and again whenever the connection is lost.
    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel;
}

/// Whoever opens the connections of a process.
pub type Dialer = Arc<dyn Dial>;

/// The sockets of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System {
    /// Whether links to chats of this machine go past the network.
    pub local_links: bool,
}

impl System {
    /// The network's, for whoever takes any.
    #[must_use]
    pub fn dialer() -> Dialer {
        Arc::new(Self::default())
    }
}

impl Dial for System {
    fn has_local_links(&self) -> bool {
        self.local_links
    }

    fn connect(&self, endpoint: Endpoint, ended: Ended) -> Connecting {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let connector = connector.map_response(move |connection| {
            TokioIo::new(Watched::new(TokioIo::into_inner(connection), ended.clone()))
        });
        Box::pin(async move { endpoint.connect_with_connector(connector).await })
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}

/// Speaks over a connection that is open. When it has ended, there is no other.
pub(crate) async fn over<C>(
    connection: C,
    endpoint: Endpoint,
    ended: Ended,
) -> Result<Channel, Error>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Some(TokioIo::new(Watched::new(connection, ended)));
    let once = service_fn(move |_: Uri| {
        ready(connection.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    endpoint.connect_with_connector(once).await
}
