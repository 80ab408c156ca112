//! What comes before a session: the first bytes, HTTP, and the upgrade to WebSocket.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::limits;
use session::Protocol;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_tungstenite::tungstenite::handshake::{machine::TryParse as _, server};
use tower::ServiceExt as _;
use wire::socketio::v1::HttpError;

use crate::{
    Application,
    context::Context,
    meters::{Failure, Meters},
    sniff::{Sniffed, sniff},
    socketio::{self, Asked},
    transport::WebSocket,
    turns,
    upgrade::{self, Accepted},
};

/// Bytes by which the buffer for the first bytes grows. A browser's head has some 500.
const HEAD_CHUNK_BYTES: usize = 1024;

/// A client that wants a session.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It speaks the binary protocol, and began with these bytes.
    Tcp(TcpStream, Vec<u8>),
    /// It has been told that this is a WebSocket now.
    WebSocket(Handshaken),
}

/// A WebSocket whose client has been told.
#[derive(Debug)]
pub(crate) struct Handshaken {
    pub(crate) stream: TcpStream,
    /// What came after the client's handshake.
    pub(crate) rest: Vec<u8>,
    pub(crate) host: Option<String>,
    pub(crate) protocol: Protocol,
    /// What is said before the session says anything.
    pub(crate) opening: Option<Bytes>,
}

impl Opened {
    /// What the client speaks.
    pub(crate) const fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp(..) => Protocol::Pomelo,
            Self::WebSocket(handshaken) => handshaken.protocol,
        }
    }
}

/// Hears a client until it is clear what it wants. `None` if it wants no session, or nothing that
/// can be had here: then all has been said.
pub(crate) async fn open<A: Application>(
    mut stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    context: &Arc<Context<A>>,
) -> Option<Opened> {
    let head = tokio::select! {
        head = timeout(context.shared.settings.head_timeout, read_head(&mut stream)) => head,
        () = context.shared.clock.draining() => return None,
        () = context.end.cancelled() => return None,
    };
    let failure = match head {
        Ok(Ok(Head::Packages(first))) => match turn(context).await? {
            Ok(()) => return Some(Opened::Tcp(stream, first)),
            // There are no words for it before the handshake.
            Err(_) => return None,
        },
        Ok(Ok(Head::Http(head))) => {
            let asked = Asked { context, peer, local };
            return answer(stream, head, &asked).await.map(Opened::WebSocket);
        }
        Ok(Ok(Head::Nothing) | Err(_)) => return None,
        Ok(Ok(Head::Unknown)) => Failure::Garbage,
        Err(_) => Failure::Timeout,
    };
    tracing::debug!(%peer, ?failure, "no handshake");
    Meters::failed(failure);
    None
}

/// What came first.
enum Head {
    Packages(Vec<u8>),
    /// The head of a request and what follows it, or as much of one as is looked at.
    Http(Vec<u8>),
    Unknown,
    /// The client left.
    Nothing,
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Head> {
    let mut head = Vec::new();
    loop {
        let seen = head.len();
        head.reserve(HEAD_CHUNK_BYTES);
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(Head::Nothing);
        }
        match sniff(&head) {
            Sniffed::Packages => return Ok(Head::Packages(head)),
            Sniffed::Unknown => return Ok(Head::Unknown),
            Sniffed::Unclear => {}
            Sniffed::Http => {
                // A head that is too long is for the HTTP library to refuse.
                if has_end(&head, seen) || head.len() >= limits::HTTP_HEAD_BYTES_MAX {
                    return Ok(Head::Http(head));
                }
            }
        }
    }
}

/// Whether an empty line ends at or after `seen`. What was seen before is not looked at again,
/// so that a head that comes byte by byte costs no more than one that comes at once.
fn has_end(head: &[u8], seen: usize) -> bool {
    let new = &head[seen.saturating_sub(3)..];
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// Answers an upgrade by ourselves, to the letter; leaves all else to the HTTP library.
async fn answer<A: Application>(
    mut stream: TcpStream,
    head: Vec<u8>,
    asked: &Asked<'_, A>,
) -> Option<Handshaken> {
    let origins = asked.context.shared.settings.origins.as_deref();
    // What cannot be parsed here is for the library to refuse.
    let parsed = server::Request::try_parse(&head).ok().flatten();
    let Some((length, request)) = parsed.filter(|(_, it)| upgrade::is_asked(it.headers())) else {
        return serve(stream, head, asked).await;
    };
    let accepted = match upgrade::check(request.method(), request.headers(), origins) {
        Ok(accepted) => accepted,
        Err(failure) => {
            tracing::debug!(peer = %asked.peer, ?failure, "no handshake");
            Meters::failed(failure);
            say_and_end(stream, upgrade::refusal(failure)).await;
            return None;
        }
    };
    let directed = match Directed::of(request.uri(), asked.context) {
        Ok(directed) => directed,
        Err(error) => {
            Meters::failed(Failure::UnknownSession);
            say_and_end(stream, &socketio::refusal_of_upgrade(error)).await;
            return None;
        }
    };
    if directed.begins()
        && let Err(away) = turn(asked.context).await?
    {
        say_and_end(stream, upgrade::later(away).as_bytes()).await;
        return None;
    }
    // Some 200 bytes into an empty socket: this does not wait.
    stream.write_all(&accepted.response()).await.ok()?;
    directed.admit(stream, head[length..].to_vec(), accepted.host, asked.context).await
}

/// Waits for the turn of a client that wants a session; nothing if there will be no turns any more.
async fn turn<A>(context: &Context<A>) -> Option<Result<(), Duration>> {
    tokio::select! {
        turn = turns::turn(context.shared.settings.turns.as_ref()) => Some(turn),
        () = ending(context) => None,
    }
}

/// Says the last there is to say. Lost or not, the connection ends here.
async fn say_and_end(mut stream: TcpStream, words: &[u8]) {
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
}

/// Whom a WebSocket is for.
#[derive(Debug)]
enum Directed {
    Session(Protocol, Option<Bytes>),
    /// For a session that polls, and may move to it.
    Polling(mpsc::Sender<socketio::Request>),
    /// For a session of Socket.IO 0.9 that does not exist.
    Nobody,
}

impl Directed {
    fn of<A>(uri: &http::Uri, context: &Context<A>) -> Result<Self, HttpError> {
        let directory = &context.shared.directory;
        let now = Instant::now();
        match socketio::Upgrade::of(uri) {
            None => Ok(Self::Session(Protocol::Pomelo, None)),
            Some(socketio::Upgrade::V09 { id }) if directory.take(now, &id) => {
                Ok(Self::Session(Protocol::SocketIo09, None))
            }
            Some(socketio::Upgrade::V09 { .. }) => Ok(Self::Nobody),
            Some(socketio::Upgrade::V1 { id: None }) => {
                let beats = &context.shared.settings.session.socketio;
                let open = socketio::open_packet(&socketio::new_id(), &[], beats);
                Ok(Self::Session(Protocol::SocketIo1, Some(open)))
            }
            Some(socketio::Upgrade::V1 { id: Some(id) }) => match directory.find(now, &id) {
                socketio::Found::Open(requests) => Ok(Self::Polling(requests)),
                socketio::Found::Nothing | socketio::Found::Given => Err(HttpError::UnknownSession),
            },
        }
    }

    /// Whether it begins a session that no turn was waited for yet: generation 0.9 has waited for
    /// its id.
    const fn begins(&self) -> bool {
        match self {
            Self::Session(Protocol::Pomelo | Protocol::SocketIo1, _) => true,
            Self::Session(Protocol::SocketIo09, _) | Self::Polling(_) | Self::Nobody => false,
        }
    }

    /// Hands the WebSocket over, or gives it back for a session of its own.
    async fn admit<A>(
        self,
        stream: TcpStream,
        rest: Vec<u8>,
        host: Option<String>,
        context: &Context<A>,
    ) -> Option<Handshaken> {
        match self {
            Self::Session(protocol, opening) => {
                Some(Handshaken { stream, rest, host, protocol, opening })
            }
            Self::Polling(requests) => {
                let bytes_max = context.shared.settings.session.limits.message_bytes_max;
                let socket = WebSocket::new(stream, rest, Protocol::SocketIo1, bytes_max);
                let _ = requests.send(socketio::Request::Probe(Box::new(socket))).await;
                None
            }
            Self::Nobody => {
                Meters::failed(Failure::UnknownSession);
                say_and_end(stream, socketio::UNKNOWN_SESSION_FRAME).await;
                None
            }
        }
    }
}

/// An upgrade that comes on a connection that has carried other requests before: a reverse proxy
/// may do that, and browsers that poll. Filled by the service, read once the library has let go of
/// the connection.
type Upgrade = Arc<Mutex<Option<(OnUpgrade, Option<String>, Directed)>>>;

/// Serves requests until the connection ends or becomes a WebSocket.
async fn serve<A: Application>(
    stream: TcpStream,
    head: Vec<u8>,
    asked: &Asked<'_, A>,
) -> Option<Handshaken> {
    let context = asked.context;
    let upgrade = Upgrade::default();
    let service = service_fn(|request: Request<Incoming>| respond(request, asked, upgrade.clone()));
    let io = TokioIo::new(Rewound {
        head: head.into(),
        stream,
        write_timeout: context.shared.settings.write_timeout,
        stalled: None,
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Also the time to the next request on a kept connection.
        .header_read_timeout(context.shared.settings.head_timeout)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .title_case_headers(true);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending(context) => {
            connection.as_mut().graceful_shutdown();
            // A request that is under way is answered, within the time that any close has.
            timeout(limits::CLOSE_TIMEOUT, connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = %asked.peer, %error, "http");
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (upgraded, host, directed) = upgrade?;
    let parts = upgraded.await.ok()?.downcast::<TokioIo<Rewound>>().ok()?;
    let Rewound { stream, head, .. } = parts.io.into_inner();
    directed.admit(stream, [parts.read_buf, head].concat(), host, context).await
}

async fn ending<A>(context: &Context<A>) {
    tokio::select! {
        () = context.shared.clock.draining() => {}
        () = context.end.cancelled() => {}
    }
}

async fn respond<A: Application>(
    request: Request<Incoming>,
    asked: &Asked<'_, A>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Infallible> {
    if upgrade::is_asked(request.headers()) {
        return Ok(upgrade_later(request, asked, &upgrade).await);
    }
    // Polls hang for longer than other requests may take.
    let mut request = match socketio::serve(asked, request).await {
        Ok(response) => return Ok(response),
        Err(request) => request,
    };
    request.extensions_mut().insert(ConnectInfo(asked.peer));
    let response = asked.context.http.clone().oneshot(request.map(Body::new));
    Ok(match timeout(limits::HTTP_REQUEST_TIMEOUT, response).await {
        Ok(Ok(response)) => response,
        Err(_) => status(StatusCode::REQUEST_TIMEOUT),
    })
}

async fn upgrade_later<A: Application>(
    mut request: Request<Incoming>,
    asked: &Asked<'_, A>,
    upgrade: &Upgrade,
) -> Response<Body> {
    let origins = asked.context.shared.settings.origins.as_deref();
    // Looked up only for an upgrade that is accepted: an id of Socket.IO 0.9 is good for one.
    let found = upgrade::check(request.method(), request.headers(), origins).and_then(|accepted| {
        let directed = Directed::of(request.uri(), asked.context);
        Ok((accepted, directed.map_err(|_| Failure::UnknownSession)?))
    });
    match found {
        Ok((accepted, directed)) => {
            if directed.begins()
                && let Some(Err(away)) = turn(asked.context).await
            {
                return later(away);
            }
            let response = switching(&accepted);
            let pending = (hyper::upgrade::on(&mut request), accepted.host, directed);
            *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
            response
        }
        Err(failure) => {
            Meters::failed(failure);
            status(StatusCode::BAD_REQUEST)
        }
    }
}

fn switching(accepted: &Accepted) -> Response<Body> {
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(key) = HeaderValue::from_str(&accepted.key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if let Some(protocol) = &accepted.protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    response
}

fn later(away: Duration) -> Response<Body> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    if let Ok(away) = HeaderValue::try_from(turns::retry_after(away)) {
        response.headers_mut().insert(header::RETRY_AFTER, away);
    }
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A stream whose first bytes were read already, and are read again; and whose writes fail once they
/// have made no progress for long enough, for the library would wait for ever.
#[derive(Debug)]
struct Rewound {
    head: Bytes,
    stream: TcpStream,
    write_timeout: Duration,
    /// Rings when a write that waits has waited for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Rewound {
    /// Passes on what came of a write, unless the client has not read for too long.
    fn watched<T>(
        &mut self,
        context: &mut task::Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let alarm = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        alarm.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.head.len().min(buffer.remaining());
        buffer.put_slice(&self.head.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
