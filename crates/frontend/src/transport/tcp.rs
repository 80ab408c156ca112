//! Raw TCP.

use std::{io, mem::MaybeUninit, sync::Arc};

use bytes::Bytes;
use session::{CloseReason, Event};
use tokio::net::TcpStream;

use super::{
    Arrival, Transport,
    line::{Line, READ_BYTES},
};

/// A stream of packages.
#[derive(Debug)]
pub(crate) struct Tcp {
    line: Line,
}

impl Tcp {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { line: Line::new(stream) }
    }
}

impl Transport for Tcp {
    fn ready(&mut self) -> impl Future<Output = ()> + Send {
        self.line.readable()
    }

    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
        match self.line.read(&mut room) {
            Ok([]) => Arrival::End(CloseReason::ClientLeft),
            Ok(bytes) => {
                take(Event::Received(bytes));
                Arrival::Bytes(bytes.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrival::Nothing,
            Err(_) => Arrival::End(CloseReason::ConnectionLost),
        }
    }

    async fn feed(&mut self, unit: Bytes) -> Result<(), CloseReason> {
        self.line.gathered().extend_from_slice(&unit);
        self.line.write_if_full().await.map_err(|_| CloseReason::ConnectionLost)
    }

    async fn feed_framed(&mut self, bytes: Bytes) -> Result<(), CloseReason> {
        self.feed(bytes).await
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.line.flush().await.map_err(|_| CloseReason::ConnectionLost)
    }

    /// No client answers anything at once.
    fn probe(&mut self) {}

    async fn close(&mut self, reason: CloseReason, rest: Option<Bytes>) -> io::Result<()> {
        if reason == CloseReason::ConnectionLost {
            return Ok(());
        }
        self.line.gathered().extend_from_slice(&rest.unwrap_or_default());
        self.line.end().await
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self.line.stream())
    }

    fn share(&self) -> Option<Arc<TcpStream>> {
        Some(self.line.share())
    }
}
