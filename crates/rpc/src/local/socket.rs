//! A connected socket of the Unix domain that is woken for what is to be read only.

use std::{
    io::{self, Write as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::io::{Errno, read};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// Most bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// One end of a connection.
///
/// The system tells whoever waits for room to write in such a socket of every piece that the other
/// end reads, whether the socket was full or not (TCP's tells only if it was). Tokio's own streams
/// always wait for both, so that each message would wake its sender once more. This one waits for
/// room only when there is none.
///
/// What is written to an end that is gone vanishes, as over TCP, and reading tells: first all that
/// the other end has said, then its end. The system's own answer would come before that.
#[derive(Debug)]
pub struct Socket {
    reading: AsyncFd<UnixStream>,
    /// The same socket once more, while a write waits for room.
    writing: Option<AsyncFd<UnixStream>>,
}

#[expect(
    deprecated,
    reason = "a type could change its descriptor under what waits by it, and the successor leaves it \
              to unsafe code to say that it does not; this one has none that does"
)]
fn wait_by(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

impl Socket {
    /// Takes a connection over.
    ///
    /// # Errors
    ///
    /// If the system has no more to wait by.
    pub fn new(connection: tokio::net::UnixStream) -> io::Result<Self> {
        let reading = wait_by(connection.into_std()?, Interest::READABLE)?;
        Ok(Self { reading, writing: None })
    }

    /// Writes up to `length` bytes.
    fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        length: usize,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.reading.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_end(&error) => return Poll::Ready(Ok(length)),
                written => {
                    self.writing = None;
                    return Poll::Ready(written);
                }
            }
            match &self.writing {
                Some(writing) => ready!(writing.poll_write_ready(context))?.clear_ready(),
                None => {
                    let same = self.reading.get_ref().try_clone()?;
                    self.writing = Some(wait_by(same, Interest::WRITABLE)?);
                }
            }
        }
    }
}

/// Whether the other end is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(context))?;
            // Copying what is read, mostly little, is less than clearing all of the buffer would be.
            let mut room = [const { MaybeUninit::uninit() }; READ_BYTES];
            let room = &mut room[..buffer.remaining().min(READ_BYTES)];
            let length = room.len();
            match read(ready.get_inner(), room) {
                Ok((bytes, _)) => {
                    if !bytes.is_empty() && bytes.len() < length {
                        // That was all (epoll(7), question 9).
                        ready.clear_ready();
                    }
                    buffer.put_slice(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::WOULDBLOCK) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, bytes.len(), |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.poll_written(context, length, |mut socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.reading.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, split},
        time::timeout,
    };

    use super::*;

    fn pair() -> (Socket, Socket) {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        (Socket::new(one).unwrap(), Socket::new(other).unwrap())
    }

    /// More than the socket holds, with a reader that begins late, both ways at once.
    #[tokio::test]
    async fn much_passes_both_ways_at_once() {
        const BYTES: usize = 3_000_000;
        let (one, other) = pair();
        let play = |socket: Socket, first: usize| async move {
            let (mut from, mut to) = split(socket);
            let say = async {
                let bytes: Vec<u8> = (0..BYTES).map(|at| ((at + first) % 251) as u8).collect();
                to.write_all(&bytes).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let hear = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).await.unwrap();
                bytes
            };
            tokio::join!(say, hear).1
        };
        let both = async { tokio::join!(play(one, 0), play(other, 1)) };
        let (from_other, from_one) = timeout(Duration::from_secs(60), both).await.unwrap();
        assert_eq!((from_one.len(), from_other.len()), (BYTES, BYTES));
        assert!(from_one.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
        let wanted = |at: usize| (at + 1) % 251;
        assert!(from_other.iter().enumerate().all(|(at, byte)| usize::from(*byte) == wanted(at)));
    }

    /// As long as there is room, nobody is woken because the other end has read.
    #[tokio::test]
    async fn what_the_other_reads_wakes_nobody() {
        let (mut one, mut other) = pair();
        one.write_all(b"hello").await.unwrap();
        other.read_exact(&mut [0; 5]).await.unwrap();
        assert!(one.writing.is_none(), "nobody waits for room");
        // And one that waited for it waits no more, once it is there.
        let filled = timeout(Duration::from_millis(50), one.write_all(&[7; 4_000_000])).await;
        assert!(filled.is_err() && one.writing.is_some());
        let mut heard = vec![0; 4_000_000];
        let _ = timeout(Duration::from_millis(50), other.read_exact(&mut heard)).await;
        one.write_all(b"more").await.unwrap();
        assert!(one.writing.is_none());
    }

    #[tokio::test]
    async fn the_end_is_seen_with_what_came_before() {
        let (mut one, mut other) = pair();
        other.write_all(b"never read").await.unwrap();
        one.write_all(b"last words").await.unwrap();
        drop(one);
        // Nobody hears that, and it is no error.
        other.write_all(b"anybody?").await.unwrap();
        other.write_all(b"anybody?").await.unwrap();
        let mut heard = [0; 10];
        other.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"last words");
        let end = other.read(&mut heard).await.map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{end:?}");
    }
}
