//! Who has ended a connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Whether a connection was ended by the other end's system: a process that dies ends its
/// connections so, one that is slow or stopped does not. A connection that was given up for its
/// silence, by this end, was not ended so.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<AtomicBool>);

impl Ended {
    /// Whether it was.
    #[must_use]
    pub fn by_peer(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn judge(&self, error: &io::Error) {
        // Of all others the own system may be the cause, as of a time that has run out.
        if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
            self.note();
        }
    }
}

/// A connection that notes whether the other end has ended it.
#[derive(Debug)]
pub struct Watched<C> {
    connection: C,
    ended: Ended,
}

impl<C> Watched<C> {
    /// Notes it there.
    pub const fn new(connection: C, ended: Ended) -> Self {
        Self { connection, ended }
    }
}

impl<C> Connected for Watched<C> {
    type ConnectInfo = Ended;

    fn connect_info(&self) -> Ended {
        self.ended.clone()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        match &read {
            Poll::Ready(Ok(())) if room > 0 && buffer.filled().len() == before => self.ended.note(),
            Poll::Ready(Err(error)) => self.ended.judge(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(context, bytes);
        if let Poll::Ready(Err(error)) = &written {
            self.ended.judge(error);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(context, parts);
        if let Poll::Ready(Err(error)) = &written {
            self.ended.judge(error);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn an_end_is_the_peers_or_not() {
        let (mut peer, mine) = tokio::io::duplex(64);
        let ended = Ended::default();
        let mut watched = Watched::new(mine, ended.clone());
        peer.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        watched.read_exact(&mut bytes).await.unwrap();
        assert_eq!(watched.read(&mut []).await.unwrap(), 0);
        assert!(!ended.by_peer(), "nothing read, as there was no room");
        drop(peer);
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 0);
        assert!(ended.by_peer());

        let ended = Ended::default();
        ended.judge(&io::ErrorKind::TimedOut.into());
        assert!(!ended.by_peer());
        ended.judge(&io::ErrorKind::ConnectionReset.into());
        assert!(ended.by_peer());
    }
}
