//! Writes to many clients, handed to the kernel together.
//!
//! One `send` is most of what a delivery costs, and a fifth of it is the way into the kernel and
//! out again (`docs/performance-log.md`). Through io_uring the writes of a walk through a room go in
//! few system calls. Where the system has none of it, or forbids it, as container engines do by
//! default, they go one by one.

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use bytes::Bytes;
use compio_buf::BufResult;
use compio_driver::{Key, Proactor, PushEntry, op::Send};
use rustix::net::SendFlags;
use tokio::net::TcpStream;

use crate::{
    meters::Traffic,
    outbound::{Outbound, Started, out},
    run::{Answer, Form, Run},
};

/// After so many writes those that wait are carried out, and the thread may offer its processor: a
/// hundred `send`s are half a millisecond, and a client that is to run on the same processor would
/// read the first of them after the last.
const WRITES_MAX: usize = 32;
/// Fewer than this are not worth the ring.
const RING_MIN: usize = 3;
/// How often the kernel is asked for what it has not answered, and how long each time. It answers
/// at once: no write here waits for its socket.
const TRIES: u32 = 10;
const TRY: Duration = Duration::from_millis(100);

thread_local! {
    /// A ring belongs to the thread that made it. None before the first use, and after a failure.
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

/// Gathers writes until they are flushed. Until then nothing else may be said to those whose
/// writes wait.
#[derive(Debug)]
pub struct Writes {
    waiting: Vec<Write>,
    /// Deliveries since the last flush, also those that did not have to wait.
    count: usize,
    /// Whether to use the ring.
    are_together: bool,
    /// Whether the thread offers its processor between many writes.
    offers: bool,
    sent: Traffic,
}

#[derive(Debug)]
struct Write {
    outbound: Outbound,
    bytes: Bytes,
    frames: usize,
    replied: u32,
}

impl Writes {
    /// Writes that go out one by one, or `together` through io_uring.
    #[must_use]
    pub fn new(together: bool) -> Self {
        let sent = Traffic::sent();
        Self { waiting: Vec::new(), count: 0, are_together: together, offers: true, sent }
    }

    /// Whether this process can write together.
    ///
    /// # Errors
    ///
    /// What the system says to a ring: that it has none, or that this process may not.
    pub fn can_be_together() -> io::Result<()> {
        let mut ring = Ring::new()?;
        // Some let rings be made and not used.
        match ring.proactor.poll(Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether the thread is to offer its processor between many writes, as it does unless told
    /// otherwise. Where others have much to do they may keep it for a slice, more than a
    /// millisecond, and the rest of those who are to be told wait for that.
    pub const fn offer(&mut self, offers: bool) {
        self.offers = offers;
    }

    /// Like [`Outbound::deliver`], by the next flush or, if there are many, before. Between many of
    /// one message each the thread [offers](Self::offer) its processor to others.
    pub fn deliver(
        &mut self,
        outbound: &Outbound,
        run: &Run,
        from: usize,
        answers: &[Answer],
        reply_first: bool,
    ) {
        // Before one more, so that nothing is offered after the last.
        if self.count == WRITES_MAX {
            self.flush();
            // With several messages in each write this thread is behind, and had better go on.
            if self.offers && run.frames(from) == 1 {
                std::thread::yield_now();
            }
        }
        self.count += 1;
        if !self.are_together || run.form() == Form::Units {
            outbound.deliver(run, from, answers, reply_first);
            return;
        }
        let replied = u32::try_from(answers.len()).unwrap_or(u32::MAX);
        let (bytes, frames) = run.with(from, answers, reply_first);
        self.waiting.push(Write { outbound: outbound.clone(), bytes, frames, replied });
    }

    /// Writes what waits: what the sockets take, and the rest is left to the sessions' tasks.
    pub fn flush(&mut self) {
        if self.waiting.len() < RING_MIN {
            one_by_one(&self.waiting);
        } else if let Err(error) =
            RING.with_borrow_mut(|ring| together(ring, &self.waiting, &self.sent))
        {
            tracing::error!(%error, "io_uring failed: writing one by one from now on");
            self.are_together = false;
        }
        self.waiting.clear();
        self.count = 0;
    }
}

fn one_by_one(writes: &[Write]) {
    for Write { outbound, bytes, frames, replied } in writes {
        outbound.write(bytes, *frames, *replied);
    }
}

/// Holds all these queues while their bytes are handed over, so that nobody else writes to their
/// sockets. No session is among them twice, or this would wait for itself.
fn together(slot: &mut Option<Ring>, writes: &[Write], sent: &Traffic) -> io::Result<()> {
    let ring = match slot {
        Some(ring) => ring,
        None => match Ring::new() {
            Ok(ring) => slot.insert(ring),
            Err(error) => {
                one_by_one(writes);
                return Err(error);
            }
        },
    };
    let mut started: Vec<(Started<'_>, &Write)> = Vec::with_capacity(writes.len());
    for write in writes {
        let Some(start) = write.outbound.start(write.replied) else { continue };
        if let Some(socket) = start.socket() {
            ring.push(started.len(), Arc::clone(socket), write.bytes.clone());
        }
        started.push((start, write));
    }
    let mut written = vec![Some(0); started.len()];
    let handed_over = ring.hand_over(&mut written);
    let (mut frames_sent, mut bytes_sent) = (0, 0);
    for ((start, Write { bytes, frames, .. }), written) in started.into_iter().zip(written) {
        let Some(written) = written else {
            start.give_up();
            continue;
        };
        frames_sent += out(bytes, *frames, written);
        bytes_sent += written;
        start.end(bytes, *frames, written);
    }
    // Once for all: counters are shared with other threads.
    sent.add(frames_sent, bytes_sent);
    if handed_over.is_err() {
        *slot = None;
    }
    handed_over
}

/// io_uring, for sends that do not wait.
struct Ring {
    proactor: Proactor,
    sending: Vec<(usize, Sending)>,
}

type Sending = Key<Send<Bytes, Arc<TcpStream>>>;

impl Ring {
    fn new() -> io::Result<Self> {
        let mut builder = Proactor::builder();
        // Twice as many completions come with it.
        builder.capacity(WRITES_MAX as u32);
        builder.single_issuer(true).coop_taskrun(true).taskrun_flag(true);
        Ok(Self { proactor: builder.build()?, sending: Vec::new() })
    }

    fn push(&mut self, number: usize, socket: Arc<TcpStream>, bytes: Bytes) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let PushEntry::Pending(key) = self.proactor.push(Send::new(socket, bytes, flags)) {
            self.sending.push((number, key));
        }
        // Or else the ring has refused it, which hand_over will meet as well: not written.
    }

    /// Hands over what was pushed, and fills in how many bytes each socket took; none where that
    /// is not known.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer. The ring is of no use then.
    fn hand_over(&mut self, written: &mut [Option<usize>]) -> io::Result<()> {
        if self.sending.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        for _ in 0..TRIES {
            if let Err(error) = self.proactor.poll(Some(TRY)) {
                failure = Some(error);
            }
            let proactor = &mut self.proactor;
            let pending = std::mem::take(&mut self.sending);
            let pending = pending.into_iter().filter_map(|(number, key)| match proactor.pop(key) {
                PushEntry::Pending(key) => Some((number, key)),
                PushEntry::Ready(BufResult(result, _)) => {
                    // The session's task meets an error, too, and knows what to do.
                    written[number] = Some(result.unwrap_or(0));
                    None
                }
            });
            self.sending = pending.collect();
            if self.sending.is_empty() {
                return Ok(());
            }
        }
        for (number, _) in &self.sending {
            written[*number] = None;
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        task::{Context, Poll, Waker},
    };

    use metrics_exporter_prometheus::PrometheusBuilder;
    use model::SessionId;
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpSocket},
    };

    use super::*;
    use crate::{
        Settings,
        context::Shared,
        outbound::{Direct, Inbox, Item},
    };

    /// The items that a queue may hold in these tests.
    const ITEMS_MAX: usize = 64;

    struct Peer {
        outbound: Outbound,
        inbox: Inbox,
        client: TcpStream,
    }

    /// A session whose client has a small window, and its client.
    async fn peer(shared: &Arc<Shared>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let (client, accepted) = tokio::join!(socket.connect(address), listener.accept());
        let stream = Arc::new(accepted.unwrap().0);
        // What tokio has not been told of, it does not try to write to.
        stream.writable().await.unwrap();
        let direct = Some(Direct { stream, shared: Arc::clone(shared) });
        let (outbound, inbox) =
            Outbound::new(SessionId(1), Form::Stream, direct, ITEMS_MAX, 64 * 1024 * 1024);
        Peer { outbound, inbox, client: client.unwrap() }
    }

    async fn peers(count: usize) -> Vec<Peer> {
        let shared = Arc::new(Shared::new(Settings::new(session::Config::connector())));
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(peer(&shared).await);
        }
        peers
    }

    fn run(units: &[&[u8]]) -> Run {
        Run::new(Form::Stream, units.iter().map(|unit| Some(Bytes::copy_from_slice(unit))))
    }

    fn waiting(inbox: &mut Inbox) -> Vec<Bytes> {
        let context = Context::from_waker(Waker::noop());
        let Poll::Ready(taken) = inbox.poll_take(&context) else { return Vec::new() };
        let bytes = taken.unwrap().into_iter().map(|item| {
            let Item::Run(bytes, _) = item else { panic!("{item:?} is no rest of a run") };
            bytes
        });
        let bytes = bytes.collect();
        inbox.written();
        bytes
    }

    /// Whether there is a ring here is known to nobody but the kernel; both ways do the same.
    fn both() -> [Writes; 2] {
        [Writes::new(false), Writes::new(true)]
    }

    #[tokio::test]
    async fn everybody_is_told_and_answers_go_between() {
        for mut writes in both() {
            let mut peers = peers(5).await;
            let (run, bytes) = (run(&[b"one", b"two"]), Bytes::from_static(b"done"));
            let answer = [Answer { push: 1, unit: Some(bytes) }];
            for (number, peer) in peers.iter().enumerate() {
                let answers = if number == 3 { &answer[..] } else { &[] };
                writes.deliver(&peer.outbound, &run, usize::from(number == 4), answers, true);
            }
            writes.flush();
            let wanted = ["onetwo", "onetwo", "onetwo", "onedonetwo", "two"];
            for (peer, wanted) in peers.iter_mut().zip(wanted) {
                let mut heard = vec![0; wanted.len()];
                peer.client.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, wanted.as_bytes());
                assert_eq!(waiting(&mut peer.inbox), Vec::<Bytes>::new());
            }
            assert_eq!(peers[3].inbox.take_replied(), 1);
        }
    }

    #[tokio::test]
    async fn what_a_socket_does_not_take_waits_and_all_behind_it() {
        for mut writes in both() {
            let mut peers = peers(4).await;
            let large = vec![7; 16 * 1024 * 1024];
            let (much, more) = (run(&[&large]), run(&[b"more"]));
            for run in [&much, &more] {
                for peer in &peers {
                    writes.deliver(&peer.outbound, run, 0, &[], true);
                }
                writes.flush();
            }
            for peer in &mut peers {
                let waiting = waiting(&mut peer.inbox);
                assert_eq!(waiting.len(), 2);
                assert_eq!(waiting[1], "more");
                // What was written and what waits is all there is, once.
                let mut heard = vec![0; large.len() - waiting[0].len()];
                assert!(!heard.is_empty() && heard.len() < large.len());
                peer.client.read_exact(&mut heard).await.unwrap();
            }
        }
    }

    /// One large message more than a socket takes, so its frame is not out yet, but some bytes are.
    #[tokio::test]
    async fn what_sockets_took_is_counted() {
        for together in [false, true] {
            let recorder = PrometheusBuilder::new().build_recorder();
            let _counted_there = metrics::set_default_local_recorder(&recorder);
            let (mut writes, mut peers) = (Writes::new(together), peers(4).await);
            let large = vec![7; 16 * 1024 * 1024];
            for run in [run(&[b"one", b"two"]), run(&[&large])] {
                for peer in &peers {
                    writes.deliver(&peer.outbound, &run, 0, &[], true);
                }
                writes.flush();
            }
            let is_out = |peer: &mut Peer| 6 + large.len() - waiting(&mut peer.inbox)[0].len();
            let bytes: usize = peers.iter_mut().map(is_out).sum();
            let counted = recorder.handle().render();
            for (what, number) in [("frames", 4 * 2), ("bytes", bytes)] {
                let line = format!("tangelo_client_{what}_total{{direction=\"out\"}} {number}\n");
                assert!(counted.contains(&line), "{line} is not in {counted}");
            }
        }
    }

    #[tokio::test]
    async fn many_do_not_wait_for_the_last() {
        for mut writes in both() {
            let mut peers = peers(WRITES_MAX + 1).await;
            let run = run(&[b"here"]);
            for peer in &peers {
                writes.deliver(&peer.outbound, &run, 0, &[], true);
            }
            let mut heard = [0; 4];
            for peer in &mut peers[..WRITES_MAX] {
                peer.client.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"here");
            }
            writes.flush();
            heard = [0; 4];
            peers[WRITES_MAX].client.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"here");
        }
    }

    #[tokio::test]
    async fn who_is_over_or_unreachable_holds_up_nobody() {
        for mut writes in both() {
            let mut peers = peers(6).await;
            // Of one the session has ended, of another the client is gone without a word.
            let (over, gone) = (peers.remove(0), peers.remove(0));
            drop(over.inbox);
            gone.client.set_zero_linger().unwrap();
            drop(gone.client);
            let outbounds = [&over.outbound, &gone.outbound];
            for outbound in outbounds.into_iter().chain(peers.iter().map(|peer| &peer.outbound)) {
                writes.deliver(outbound, &run(&[b"here"]), 0, &[], true);
            }
            writes.flush();
            for peer in &mut peers {
                let mut heard = [0; 4];
                peer.client.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"here");
            }
        }
    }
}
