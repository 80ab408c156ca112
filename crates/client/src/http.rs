//! Requests, one after the other, over a connection that is kept.
//!
//! `hyper` does the HTTP, since the servers have it in their tree anyway. Its own pools and
//! tasks are left out: a request is a value that its owner drives, as everything in this crate.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    error::{Closed, Error, Result},
    socket::dial,
};

/// Largest answer accepted, in bytes: the largest package there is, written in the longest way.
const ANSWER_BYTES_MAX: usize = 1 << 26;
/// How long a connection without a request is trusted to be there still. Servers end one after
/// some seconds, and a request that meets the end may or may not have been carried out.
const KEPT_MAX: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) target: String,
    /// What is posted, and its type; otherwise something is got.
    pub(crate) post: Option<(&'static str, Bytes)>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) is_ok: bool,
    pub(crate) body: Bytes,
}

/// Requests to one server, at most one under way.
pub(crate) struct Http {
    address: SocketAddr,
    source: Option<SocketAddr>,
    state: State,
}

enum State {
    Idle(Option<Kept>),
    Busy(Pending<(Option<Kept>, Result<Answer, Closed>)>),
    /// An answer without an end is awaited.
    Opening(Pending<Result<Stream, Closed>>),
    Stream(Box<Stream>),
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Stream = (Open, Incoming);

type Sent = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// An open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Nothing once it has ended: only when it is dropped are requests that it has not sent
    /// refused.
    connection: Option<Pin<Box<Sent>>>,
}

/// An open connection without a request.
struct Kept {
    open: Open,
    since: Instant,
}

impl Http {
    pub(crate) const fn new(address: SocketAddr, source: Option<SocketAddr>) -> Self {
        Self { address, source, state: State::Idle(None) }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    /// Asks and waits, for those who have nothing else to do.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Http`].
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Answer> {
        // A connection that cannot be had is told apart from one that breaks.
        let mut open = Open::new(self.address, self.source).await?;
        let broken = |closed: Closed| Error::Http(closed.to_string());
        let answer = open.exchange(self.address, &ask).await.map_err(broken)?;
        self.state = State::Idle(Some(Kept { open, since: Instant::now() }));
        Ok(answer)
    }

    /// Begins a request; the answer comes by [`Http::answer`]. One under way is forgotten.
    pub(crate) fn begin(&mut self, ask: Ask) {
        let kept = match std::mem::replace(&mut self.state, State::Idle(None)) {
            State::Idle(kept) => kept.filter(|kept| kept.since.elapsed() < KEPT_MAX),
            State::Busy(_) | State::Opening(_) | State::Stream(_) => None,
        };
        let (address, source) = (self.address, self.source);
        self.state = State::Busy(Box::pin(async move {
            let kept = match kept {
                Some(Kept { open, .. }) => open.still().await,
                None => None,
            };
            let mut open = match kept {
                Some(open) => open,
                None => match Open::new(address, source).await {
                    Ok(open) => open,
                    Err(error) => return (None, Err(unreachable(error))),
                },
            };
            match open.exchange(address, &ask).await {
                Ok(answer) => (Some(Kept { open, since: Instant::now() }), Ok(answer)),
                Err(closed) => (None, Err(closed)),
            }
        }));
    }

    /// Begins a request whose answer has no end; it comes by [`Http::piece`].
    pub(crate) fn begin_stream(&mut self, ask: Ask) {
        let (address, source) = (self.address, self.source);
        self.state = State::Opening(Box::pin(async move {
            let mut open = Open::new(address, source).await.map_err(unreachable)?;
            let response = open.respond(address, &ask).await?;
            if !response.status().is_success() {
                return Err(Closed::ByServer);
            }
            Ok((open, response.into_body()))
        }));
    }

    /// Waits for the answer to the request that was begun; for ever if none was.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub(crate) async fn answer(&mut self) -> Result<Answer, Closed> {
        let State::Busy(exchange) = &mut self.state else {
            return std::future::pending().await;
        };
        let (kept, answer) = exchange.as_mut().await;
        self.state = State::Idle(kept);
        answer
    }

    /// Waits for more of an answer without an end; for ever if none was begun.
    ///
    /// # Errors
    ///
    /// If the connection is broken, or the answer has ended all the same.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub(crate) async fn piece(&mut self) -> Result<Bytes, Closed> {
        if let State::Opening(opening) = &mut self.state {
            let opened = opening.as_mut().await;
            self.state = State::Idle(None);
            self.state = State::Stream(Box::new(opened?));
        }
        let State::Stream(stream) = &mut self.state else {
            return std::future::pending().await;
        };
        let (open, body) = &mut **stream;
        loop {
            match open.drive(body.frame()).await {
                None => return Err(Closed::ByServer),
                Some(Err(error)) => return Err(broken(&error)),
                // What is no data are trailers.
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(piece);
                    }
                }
            }
        }
    }
}

impl Open {
    async fn new(address: SocketAddr, source: Option<SocketAddr>) -> Result<Self> {
        let stream = dial(address, source).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::Http(error.to_string()))?;
        Ok(Self { sender, connection: Some(Box::pin(connection)) })
    }

    /// The connection, if it can take one more request: its last answer is whole, and it has not
    /// ended since.
    async fn still(mut self) -> Option<Self> {
        let Self { sender, connection } = &mut self;
        poll_fn(|context| {
            step(connection, context);
            Poll::Ready(())
        })
        .await;
        let ready = drive(connection, sender.ready()).await;
        (ready.is_ok() && self.connection.is_some()).then_some(self)
    }

    /// Asks, and waits for the whole answer.
    async fn exchange(&mut self, address: SocketAddr, ask: &Ask) -> Result<Answer, Closed> {
        let response = self.respond(address, ask).await?;
        let is_ok = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = self.drive(body).await;
        let body = body.map_err(|error| Closed::Nonsense(error.to_string()))?.to_bytes();
        Ok(Answer { is_ok, body })
    }

    /// Asks, and waits for the head of the answer.
    async fn respond(
        &mut self,
        address: SocketAddr,
        ask: &Ask,
    ) -> Result<http::Response<Incoming>, Closed> {
        let builder = Request::builder().uri(&ask.target).header(header::HOST, address.to_string());
        let request = match &ask.post {
            None => builder.body(Full::default()),
            Some((kind, body)) => builder
                .method(Method::POST)
                .header(header::CONTENT_TYPE, *kind)
                .body(Full::new(body.clone())),
        };
        let request = request.map_err(|error| Closed::Nonsense(error.to_string()))?;
        let response = self.sender.send_request(request);
        self.drive(response).await.map_err(|error| broken(&error))
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.connection, work).await
    }
}

/// Drives a connection until `work`, which waits for it, is done.
async fn drive<T>(connection: &mut Option<Pin<Box<Sent>>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        step(connection, context);
        work.as_mut().poll(context)
    })
    .await
}

/// Drives a connection as far as it goes now. How it ends is told to whoever waits for an answer.
fn step(connection: &mut Option<Pin<Box<Sent>>>, context: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|it| it.as_mut().poll(context).is_ready()) {
        *connection = None;
    }
}

fn broken(error: &hyper::Error) -> Closed {
    let source = std::error::Error::source(error);
    let kind = source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    Closed::Broken(kind.unwrap_or(io::ErrorKind::ConnectionAborted))
}

fn unreachable(error: Error) -> Closed {
    if let Error::Connect(error) = error {
        return Closed::Broken(error.kind());
    }
    Closed::Nonsense(error.to_string())
}
