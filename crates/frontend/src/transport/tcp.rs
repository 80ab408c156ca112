//! Raw TCP.

use std::io;

use bytes::Bytes;
use session::{CloseReason, Event};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{Arrival, Transport, discard};

/// Bytes read at a time, into the stack: an idle connection has no buffer at all. Requests are
/// some 100 bytes, and what one piece can cause is bounded with it.
const READ_BYTES: usize = 4096;
/// Bytes gathered for one write. A system call costs what copying 16 KiB costs.
const GATHER_BYTES_MAX: usize = 16 * 1024;
/// What is kept for gathering between writes: most are one or two packages.
const IDLE_GATHER_BYTES_MAX: usize = 512;

/// A stream of packages.
#[derive(Debug)]
pub(crate) struct Tcp {
    stream: TcpStream,
    gathered: Vec<u8>,
}

impl Tcp {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self { stream, gathered: Vec::new() }
    }

    async fn write_gathered(&mut self) -> Result<(), CloseReason> {
        let written = self.stream.write_all(&self.gathered).await;
        self.gathered.clear();
        written.map_err(|_| CloseReason::ConnectionLost)
    }
}

impl Transport for Tcp {
    async fn ready(&mut self) {
        // An error shows at the read.
        let _ = self.stream.readable().await;
    }

    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        let mut buffer = [0; READ_BYTES];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Arrival::End(CloseReason::ClientLeft),
            Ok(read) => {
                take(Event::Received(&buffer[..read]));
                Arrival::Bytes(read)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrival::Nothing,
            Err(_) => Arrival::End(CloseReason::ConnectionLost),
        }
    }

    async fn feed(&mut self, unit: Bytes) -> Result<(), CloseReason> {
        if !self.gathered.is_empty() && self.gathered.len() + unit.len() > GATHER_BYTES_MAX {
            self.write_gathered().await?;
        }
        if unit.len() > GATHER_BYTES_MAX {
            let written = self.stream.write_all(&unit).await;
            return written.map_err(|_| CloseReason::ConnectionLost);
        }
        self.gathered.extend_from_slice(&unit);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.write_gathered().await?;
        self.gathered.shrink_to(IDLE_GATHER_BYTES_MAX);
        Ok(())
    }

    async fn close(&mut self, reason: CloseReason) -> io::Result<()> {
        if reason == CloseReason::ConnectionLost {
            return Ok(());
        }
        self.stream.shutdown().await?;
        discard(&self.stream).await
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }
}
