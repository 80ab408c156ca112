//! A client's socket.

use std::{future::poll_fn, io, mem::MaybeUninit, sync::Arc};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::{io::Interest, net::TcpStream};

/// Bytes read at a time, into the stack: an idle connection has no buffer at all. Requests are
/// some 100 bytes, and what one piece can cause is bounded with it.
pub(super) const READ_BYTES: usize = 4096;
/// Bytes gathered for one write. A system call costs what copying 16 KiB costs.
const GATHER_BYTES_MAX: usize = 16 * 1024;

/// A socket, for the task that reads it and that has its turn to write.
///
/// The socket is shared with the session's queue, by which others write to it while the task has
/// nothing to say.
#[derive(Debug)]
pub(super) struct Line {
    stream: Arc<TcpStream>,
    gathered: Vec<u8>,
    /// So much of it is written. Kept here, so that a write that is given up leaves no frame of
    /// which nobody knows how much is out.
    written: usize,
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), gathered: Vec::new(), written: 0 }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits until there is something to read. Meant for the one task that reads: it takes less
    /// room than what several could wait by.
    pub(super) fn readable(&self) -> impl Future<Output = ()> + Send {
        // An error shows at the read.
        poll_fn(|context| self.stream.poll_read_ready(context).map(drop))
    }

    /// Reads what is there, into room that need not be cleared first; nothing if the client has
    /// ended its side.
    ///
    /// # Errors
    ///
    /// As of the system; `WouldBlock` if nothing is there.
    pub(super) fn read<'a>(&self, room: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]> {
        let length = room.len();
        let mut last = None;
        let read = self.stream.try_io(Interest::READABLE, || {
            let ((read, _), _) = recv(&*self.stream, room, RecvFlags::empty())?;
            if !read.is_empty() && read.len() < length {
                // That was all (epoll(7), question 9): the next read waits for more, and does not
                // have to ask for it.
                last = Some(read);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(read)
        });
        last.map_or(read, Ok)
    }

    pub(super) fn share(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// What is to be written next, to be added to.
    pub(super) const fn gathered(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Writes once much has gathered.
    pub(super) async fn write_if_full(&mut self) -> io::Result<()> {
        if self.gathered.len() >= GATHER_BYTES_MAX {
            self.write().await?;
        }
        Ok(())
    }

    /// Writes all that has gathered.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.write().await?;
        // An idle connection has nothing to say, and keeps no room for it.
        self.gathered = Vec::new();
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        while self.written < self.gathered.len() {
            match self.stream.try_write(&self.gathered[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.gathered.clear();
        self.written = 0;
        Ok(())
    }

    /// Writes what has gathered, ends our side, and reads and forgets until the client ends its own.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.write().await?;
        shutdown(&*self.stream, Shutdown::Write)?;
        loop {
            self.stream.readable().await?;
            let mut scrap = [0; 4096];
            match self.stream.try_read(&mut scrap) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
