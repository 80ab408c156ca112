//! Writes through io_uring, for what such a path would save: one system call for all of a turn.

use std::{io, net::TcpStream, sync::Arc, time::Duration};

use compio_buf::{BufResult, IntoInner as _};
use compio_driver::{Key, Proactor, PushEntry, op::Send};
use rustix::net::SendFlags;

/// Sends that fit into the ring before it is handed over by itself.
const ENTRIES: u32 = 4096;

type Sending = Key<Send<Vec<u8>, Arc<TcpStream>>>;

/// Sends on their way, at most one for each client.
pub(crate) struct Ring {
    proactor: Proactor,
    sending: Vec<(usize, Sending)>,
}

/// What became of a send.
pub(crate) struct Sent {
    pub(crate) client: usize,
    /// How many of the bytes the socket took.
    pub(crate) taken: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        let mut builder = Proactor::builder();
        builder.capacity(ENTRIES).single_issuer(true).coop_taskrun(true).taskrun_flag(true);
        Ok(Self { proactor: builder.build()?, sending: Vec::new() })
    }

    /// Whether the kernel still has bytes that a socket does not take.
    pub(crate) const fn is_busy(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Queues bytes for a client that has none on their way.
    pub(crate) fn send(
        &mut self,
        client: usize,
        stream: &Arc<TcpStream>,
        bytes: Vec<u8>,
    ) -> Option<Sent> {
        match self.proactor.push(Send::new(Arc::clone(stream), bytes, SendFlags::NOSIGNAL)) {
            PushEntry::Pending(key) => {
                self.sending.push((client, key));
                None
            }
            PushEntry::Ready(result) => Some(sent(client, result)),
        }
    }

    /// Hands over what is queued. Gives back what is done: nearly all, as a send to a socket that
    /// has room is carried out at once.
    pub(crate) fn hand_over(&mut self, done: &mut Vec<Sent>) {
        // Says that nothing was done, which shows below.
        let _ = self.proactor.poll(Some(Duration::ZERO));
        let Self { proactor, sending } = self;
        let waiting = std::mem::take(sending);
        sending.extend(waiting.into_iter().filter_map(|(client, key)| match proactor.pop(key) {
            PushEntry::Pending(key) => Some((client, key)),
            PushEntry::Ready(result) => {
                done.push(sent(client, result));
                None
            }
        }));
    }
}

/// An error shows at the next read; what was to be written is of no use any more.
fn sent(
    client: usize,
    BufResult(result, send): BufResult<usize, Send<Vec<u8>, Arc<TcpStream>>>,
) -> Sent {
    let bytes = send.into_inner();
    Sent { client, taken: result.unwrap_or(bytes.len()), bytes }
}
