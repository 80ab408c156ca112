//! How connections to other nodes are opened.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tonic::transport::{Channel, Endpoint, Error};
use tower::ServiceExt as _;

use crate::ended::{Ended, Watched};

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, Error>> + Send>>;

/// Opens connections to other nodes. Processes have [`Tcp`]; a simulation has a network of its own.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects now. `ended` is told if the other end's system ends the connection.
    fn connect(&self, endpoint: Endpoint, ended: Ended) -> Connecting;

    /// Connects when the first call wants it, and again whenever the connection is lost.
    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel;
}

/// Whoever opens the connections of a process.
pub type Dialer = Arc<dyn Dial>;

/// The sockets of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Tcp {
    /// These, for whoever takes any.
    #[must_use]
    pub fn dialer() -> Dialer {
        Arc::new(Self)
    }
}

impl Dial for Tcp {
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
