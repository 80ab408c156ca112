//! Bytes in and out, without a meaning.

mod frames;
mod line;
mod pieces;
mod polling;
mod tcp;
mod websocket;

use std::{io, sync::Arc};

use bytes::Bytes;
use session::{CloseReason, Event};
use tokio::net::TcpStream;

pub(crate) use pieces::{Pieces, pieces};
pub(crate) use polling::{Polling, Request};
pub(crate) use tcp::Tcp;
pub(crate) use websocket::WebSocket;

/// A client's connection, as the task that owns it sees it.
pub(crate) trait Transport: Send {
    /// Waits until there is something to [read](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn ready(&mut self) -> impl Future<Output = ()> + Send;

    /// Reads one piece, if there is one, and hands it to `take`. Never waits.
    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival;

    /// Adds a finished unit to what is to be written. May write some of it.
    ///
    /// # Errors
    ///
    /// If the connection is lost, or its client does not come for what waits.
    fn feed(&mut self, unit: Bytes) -> impl Future<Output = Result<(), CloseReason>> + Send;

    /// Adds bytes that have their headers already: whole units, or the rest of one that somebody
    /// else has begun to write.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    fn feed_framed(&mut self, bytes: Bytes)
    -> impl Future<Output = Result<(), CloseReason>> + Send;

    /// Writes what was fed.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    fn flush(&mut self) -> impl Future<Output = Result<(), CloseReason>> + Send;

    /// Sees to it that a client that lives says something soon, if there is a way to. Never waits.
    fn probe(&mut self);

    /// Whether there is something to flush that nobody fed.
    fn is_unflushed(&self) -> bool {
        false
    }

    /// Says good-bye after the rest of a unit that somebody else has begun to write, ends our side and waits for the client to end its own: a connection closed
    /// with bytes unread would be reset, and take with it what the client has not read yet.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    fn close(
        &mut self,
        reason: CloseReason,
        rest: Option<Bytes>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// The socket itself, if there is one of its own.
    fn socket(&self) -> Option<&TcpStream>;

    /// The socket for others to write to, if nothing else will ever carry the session.
    fn share(&self) -> Option<Arc<TcpStream>> {
        None
    }
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// So many bytes were taken.
    Bytes(usize),
    /// Nothing for the session.
    Nothing,
    /// Nothing will come any more.
    End(CloseReason),
}
