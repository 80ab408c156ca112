//! Socket.IO over HTTP requests, and its move to a WebSocket.
//!
//! The session's task is one; the requests that carry its frames and packets come from whatever
//! connections the client opens, and are handed over by [`Request`]s.

use std::{io, sync::Arc};

use bytes::Bytes;
use model::{Time, limits};
use session::{Answer, CloseReason, Event, Farewell, Polls, Protocol};
use tokio::{
    net::TcpStream,
    select,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use wire::socketio::{
    v1::{self, Packet},
    v09,
};

use super::{Arrival, Pieces, Transport, WebSocket};
use crate::{context::Shared, socketio::Registration};

/// What a request has to do with its session.
#[derive(Debug)]
pub(crate) enum Request {
    /// It polls.
    Poll(Responder),
    /// It opens a response without an end; each frame becomes a piece of it.
    Stream(Pieces),
    /// It brings frames or packets. Dropping the sender says that they were taken.
    Post(Vec<Bytes>, oneshot::Sender<()>),
    /// It says that the client leaves.
    Leave,
    /// It has become a WebSocket that the session may move to.
    Probe(Box<WebSocket>),
}

/// Answers a poll, with frames or packets. Dropped without, the poll is refused.
type Responder = oneshot::Sender<Vec<Bytes>>;

/// A session that is reached by requests, as its task sees it.
#[derive(Debug)]
pub(crate) struct Polling {
    shared: Arc<Shared>,
    protocol: Protocol,
    requests: mpsc::Receiver<Request>,
    /// Requests find the session for as long as this is there.
    registration: Registration,
    arrived: Option<Arrived>,
    polls: Polls<Responder>,
    line: Line,
    probe: Option<Probe>,
    /// The client has said that it closes.
    is_closed: bool,
}

/// What carries frames and packets to the client.
#[derive(Debug)]
enum Line {
    Polls,
    Stream(Pieces),
    Socket(Box<WebSocket>),
}

/// A WebSocket that the client tries.
#[derive(Debug)]
struct Probe {
    socket: Box<WebSocket>,
    until: Instant,
    answer: ProbeAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeAnswer {
    NotAsked,
    Due,
    Given,
}

/// What woke the task.
#[derive(Debug)]
enum Arrived {
    Request(Request),
    /// A poll has hung for long enough.
    Hung,
    Socket,
    /// The client has given up its poll or endless response: that is how a page is seen to go away.
    GivenUp,
    Probe,
    /// The client has not moved to its WebSocket in time.
    ProbeLate,
    /// No further connection is accepted, and those that carry requests end with the request that
    /// is under way: who is carried by them can be told now or never.
    Draining,
}

impl Polling {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        protocol: Protocol,
        requests: mpsc::Receiver<Request>,
        registration: Registration,
    ) -> Self {
        let settings = &shared.settings;
        let hang = settings.session.socketio.poll;
        let (frames, bytes) = (settings.queue_items_max, settings.queue_bytes_max);
        Self {
            shared: shared.clone(),
            requests,
            registration,
            arrived: None,
            polls: Polls::new(protocol, hang, frames, bytes),
            line: Line::Polls,
            probe: None,
            is_closed: false,
            protocol,
        }
    }

    fn now(&self) -> Time {
        self.shared.now()
    }

    fn respond(&mut self, answer: Option<Answer<Responder>>) {
        if let Some(Answer { poll, packets }) = answer
            && let Err(packets) = poll.send(packets)
            && packets != [v09::NOOP]
            && packets != [v1::NOOP]
        {
            // The client gave that poll up at this very moment. It may yet send another.
            self.polls.put_back(packets);
        }
    }

    fn unless_gone(&self) -> Arrival {
        if self.polls.is_gone(self.now()) {
            Arrival::End(CloseReason::WentAway)
        } else {
            Arrival::Nothing
        }
    }

    fn request(&mut self, request: Request, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        match request {
            // After the move to a WebSocket, and beside a stream, nobody polls.
            Request::Poll(_) if !matches!(self.line, Line::Polls) => Arrival::Nothing,
            Request::Poll(poll) => {
                take(Event::Alive);
                let released = self.polls.poll(self.now(), poll);
                self.respond(released);
                let answer = self.polls.answer();
                self.respond(answer);
                Arrival::Nothing
            }
            Request::Stream(stream) => {
                self.line = Line::Stream(stream);
                Arrival::Nothing
            }
            Request::Post(packets, _taken) => {
                self.is_closed |= packets.contains(&v1::CLOSE);
                let bytes = packets.iter().map(Bytes::len).sum();
                for packet in packets {
                    take(Event::Received(&packet));
                }
                Arrival::Bytes(bytes)
            }
            Request::Leave => {
                take(Event::Received(&v09::DISCONNECT));
                Arrival::Nothing
            }
            Request::Probe(socket) => {
                if matches!(self.line, Line::Polls) {
                    let until = Instant::now() + limits::SOCKETIO_UPGRADE_TIMEOUT;
                    self.probe = Some(Probe { socket, until, answer: ProbeAnswer::NotAsked });
                }
                Arrival::Nothing
            }
        }
    }

    /// Reads what came by the WebSocket that the client tries. What comes after the move is the
    /// session's already.
    fn read_probe(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        let Some(Probe { socket, answer, .. }) = &mut self.probe else { return Arrival::Nothing };
        let was_asked = *answer != ProbeAnswer::NotAsked;
        let (mut is_moved, mut is_sane) = (false, true);
        let arrival = socket.read(&mut |event| {
            if is_moved {
                return take(event);
            }
            let Event::Received(bytes) = event else { return };
            match (str::from_utf8(bytes).map(Packet::decode), *answer) {
                (Ok(Ok(Packet::Ping { is_probe: true })), ProbeAnswer::NotAsked) => {
                    *answer = ProbeAnswer::Due;
                }
                (Ok(Ok(Packet::Upgrade)), ProbeAnswer::Given) => {
                    // It polls no more, so that this answers whoever asked since its last poll.
                    take(Event::Alive);
                    is_moved = true;
                }
                _ => is_sane = false,
            }
        });
        let is_asked = *answer != ProbeAnswer::NotAsked;
        if is_moved {
            self.upgrade();
            return arrival;
        }
        if !is_sane || matches!(arrival, Arrival::End(_)) {
            // It left, or says what makes no sense here. The session goes on without.
            self.give_up_probe();
        } else if is_asked && !was_asked {
            self.polls.probing(true);
        }
        Arrival::Nothing
    }

    /// Moves to the WebSocket. What still waits goes out by it.
    fn upgrade(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.line = Line::Socket(probe.socket);
            self.registration.forget();
            let released = self.polls.release();
            self.respond(released);
        }
    }

    /// Says what waited for a poll by what carries the session now.
    async fn move_over(&mut self) -> Result<(), CloseReason> {
        if matches!(self.line, Line::Polls) {
            return Ok(());
        }
        for waiting in self.polls.take() {
            match &mut self.line {
                Line::Polls => {}
                Line::Stream(stream) => stream.add(waiting)?,
                Line::Socket(socket) => socket.feed(waiting).await?,
            }
        }
        Ok(())
    }

    fn give_up_probe(&mut self) {
        self.probe = None;
        self.polls.probing(false);
    }

    async fn answer_probe(&mut self) {
        let Some(probe) = self.probe.as_mut().filter(|it| it.answer == ProbeAnswer::Due) else {
            return;
        };
        probe.answer = ProbeAnswer::Given;
        let answered = async {
            probe.socket.feed(v1::PONG_PROBE).await?;
            probe.socket.flush().await
        };
        if answered.await.is_err() {
            self.give_up_probe();
        }
    }
}

/// Waits until then, or for ever.
async fn sleep_maybe(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Transport for Polling {
    async fn ready(&mut self) {
        if self.arrived.is_some() {
            return;
        }
        let hung = self.polls.poll_timeout().map(|time| self.shared.instant(time));
        let late = self.probe.as_ref().map(|probe| probe.until);
        let Self { shared, requests, polls, line, probe, .. } = self;
        let has_socket = matches!(line, Line::Socket(_));
        let carried = async {
            match line {
                Line::Socket(socket) => {
                    socket.ready().await;
                    Arrived::Socket
                }
                Line::Stream(stream) => {
                    stream.closed().await;
                    Arrived::GivenUp
                }
                Line::Polls => match polls.hanging() {
                    Some(poll) => {
                        poll.closed().await;
                        Arrived::GivenUp
                    }
                    None => std::future::pending().await,
                },
            }
        };
        let probed = async {
            match probe {
                Some(probe) => probe.socket.ready().await,
                None => std::future::pending().await,
            }
        };
        self.arrived = Some(select! {
            Some(request) = requests.recv() => Arrived::Request(request),
            () = sleep_maybe(hung) => Arrived::Hung,
            arrived = carried => arrived,
            () = probed => Arrived::Probe,
            () = sleep_maybe(late) => Arrived::ProbeLate,
            () = shared.clock.draining(), if !has_socket => Arrived::Draining,
        });
    }

    fn read(&mut self, take: &mut dyn FnMut(Event<'_>)) -> Arrival {
        match self.arrived.take() {
            None => Arrival::Nothing,
            Some(Arrived::Request(request)) => self.request(request, take),
            Some(Arrived::Hung) => {
                let answer = self.polls.timeout(self.now());
                self.respond(answer);
                self.unless_gone()
            }
            Some(Arrived::Socket) => match &mut self.line {
                Line::Socket(socket) => socket.read(take),
                Line::Polls | Line::Stream(_) => Arrival::Nothing,
            },
            Some(Arrived::GivenUp) if matches!(self.line, Line::Polls) => {
                self.polls.give_up(self.now());
                self.unless_gone()
            }
            Some(Arrived::GivenUp) => Arrival::End(CloseReason::WentAway),
            Some(Arrived::Probe) => self.read_probe(take),
            Some(Arrived::ProbeLate) => {
                self.give_up_probe();
                Arrival::Nothing
            }
            Some(Arrived::Draining) => Arrival::End(CloseReason::Draining),
        }
    }

    async fn feed(&mut self, unit: Bytes) -> Result<(), CloseReason> {
        self.move_over().await?;
        match &mut self.line {
            Line::Polls => self.polls.add(unit),
            Line::Stream(stream) => stream.add(unit),
            Line::Socket(socket) => socket.feed(unit).await,
        }
    }

    async fn feed_framed(&mut self, _bytes: Bytes) -> Result<(), CloseReason> {
        debug_assert!(false, "nobody else writes to what carries such a session");
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        self.answer_probe().await;
        self.move_over().await?;
        match &mut self.line {
            Line::Polls => {
                let answer = self.polls.answer();
                self.respond(answer);
                Ok(())
            }
            Line::Stream(_) => Ok(()),
            Line::Socket(socket) => socket.flush().await,
        }
    }

    /// Ends the poll that hangs, so that the next one comes. A stream carries a heartbeat, which
    /// is answered by a post.
    fn probe(&mut self) {
        match &mut self.line {
            Line::Polls => {
                let released = self.polls.release();
                self.respond(released);
            }
            // One that takes no more does not live as far as anybody can tell.
            Line::Stream(stream) => drop(stream.add(v09::HEARTBEAT)),
            Line::Socket(socket) => socket.probe(),
        }
    }

    fn is_unflushed(&self) -> bool {
        let owes_pong = self.probe.as_ref().is_some_and(|it| it.answer == ProbeAnswer::Due);
        let is_pinged = match &self.line {
            Line::Socket(socket) => socket.is_unflushed(),
            Line::Polls | Line::Stream(_) => false,
        };
        owes_pong || is_pinged || (!matches!(self.line, Line::Polls) && !self.polls.is_empty())
    }

    /// Leaves what is left to say to the next poll, if one comes, and waits for a client that
    /// closes by itself.
    async fn close(&mut self, reason: CloseReason, rest: Option<Bytes>) -> io::Result<()> {
        self.probe = None;
        match &mut self.line {
            Line::Socket(socket) => return socket.close(reason, rest).await,
            Line::Stream(_) => return Ok(()),
            Line::Polls => self.polls.close(reason),
        }
        let answer = self.polls.answer();
        self.respond(answer);
        let waits = reason.farewell(self.protocol) == Farewell::Wait;
        let over = if waits { limits::SOCKETIO_FAREWELL } else { limits::CLOSE_TIMEOUT };
        let over = Instant::now() + over;
        while !self.is_closed && (waits || !self.polls.is_empty()) {
            let request = match timeout_at(over, self.requests.recv()).await {
                Ok(Some(request)) => request,
                Ok(None) | Err(_) => break,
            };
            match request {
                Request::Poll(poll) => {
                    let released = self.polls.poll(self.now(), poll);
                    self.respond(released);
                    let answer = self.polls.answer();
                    self.respond(answer);
                }
                // Nobody is there any more to take what it brings.
                Request::Post(packets, _taken) => self.is_closed = packets.contains(&v1::CLOSE),
                Request::Leave | Request::Stream(_) | Request::Probe(_) => self.is_closed = true,
            }
        }
        let released = self.polls.release();
        self.respond(released);
        Ok(())
    }

    fn socket(&self) -> Option<&TcpStream> {
        match &self.line {
            Line::Socket(socket) => socket.socket(),
            Line::Polls | Line::Stream(_) => None,
        }
    }
}
