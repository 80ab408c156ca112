//! What comes before a session: the first bytes, HTTP, and the upgrade to WebSocket.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
};

use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::{machine::TryParse as _, server};
use tower::ServiceExt as _;

use crate::{
    context::Context,
    meters::{Failure, Meters},
    sniff::{Sniffed, sniff},
    upgrade::{self, Accepted},
};

/// Bytes by which the buffer for the first bytes grows. A browser's head has some 500.
const HEAD_CHUNK_BYTES: usize = 1024;

/// A client that wants a session.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It speaks the binary protocol, and began with these bytes.
    Tcp(TcpStream, Vec<u8>),
    /// It has been told that this is a WebSocket now; these bytes came after its handshake.
    WebSocket(TcpStream, Vec<u8>, Option<String>),
}

/// Hears a client until it is clear what it wants. `None` if it wants no session, or nothing that
/// can be had here: then all has been said.
pub(crate) async fn open<A>(
    mut stream: TcpStream,
    peer: SocketAddr,
    context: &Context<A>,
) -> Option<Opened> {
    let head = tokio::select! {
        head = timeout(context.shared.settings.head_timeout, read_head(&mut stream)) => head,
        () = context.shared.drain.begun() => return None,
        () = context.end.cancelled() => return None,
    };
    let failure = match head {
        Ok(Ok(Head::Packages(first))) => return Some(Opened::Tcp(stream, first)),
        Ok(Ok(Head::Http(head))) => return answer(stream, head, peer, context).await,
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
async fn answer<A>(
    mut stream: TcpStream,
    head: Vec<u8>,
    peer: SocketAddr,
    context: &Context<A>,
) -> Option<Opened> {
    let origins = context.shared.settings.origins.as_deref();
    // What cannot be parsed here is for the library to refuse.
    let parsed = server::Request::try_parse(&head).ok().flatten();
    let Some((length, request)) = parsed.filter(|(_, it)| upgrade::is_asked(it.headers())) else {
        return serve(stream, head, peer, context).await;
    };
    match upgrade::check(request.method(), request.headers(), origins) {
        Ok(accepted) => {
            // Some 200 bytes into an empty socket: this does not wait.
            stream.write_all(&accepted.response()).await.ok()?;
            Some(Opened::WebSocket(stream, head[length..].to_vec(), accepted.host))
        }
        Err(failure) => {
            tracing::debug!(%peer, ?failure, "no handshake");
            Meters::failed(failure);
            // Lost or not, it ends here.
            let _ = stream.write_all(upgrade::refusal(failure)).await;
            let _ = stream.shutdown().await;
            None
        }
    }
}

/// An upgrade that comes on a connection that has carried other requests before: a reverse proxy
/// may do that. Filled by the service, read once the library has let go of the connection.
type Upgrade = Arc<Mutex<Option<(OnUpgrade, Option<String>)>>>;

/// Serves requests until the connection ends or becomes a WebSocket.
async fn serve<A>(
    stream: TcpStream,
    head: Vec<u8>,
    peer: SocketAddr,
    context: &Context<A>,
) -> Option<Opened> {
    let settings = &context.shared.settings;
    let upgrade = Upgrade::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (http, origins) = (context.http.clone(), settings.origins.as_deref());
        respond(request, peer, http, origins, upgrade.clone())
    });
    let io = TokioIo::new(Rewound { head: head.into(), stream });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Also the time to the next request on a kept connection.
        .header_read_timeout(settings.head_timeout)
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
        tracing::debug!(%peer, %error, "http");
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (upgraded, host) = upgrade?;
    let parts = upgraded.await.ok()?.downcast::<TokioIo<Rewound>>().ok()?;
    let Rewound { stream, head } = parts.io.into_inner();
    Some(Opened::WebSocket(stream, [parts.read_buf, head].concat(), host))
}

async fn ending<A>(context: &Context<A>) {
    tokio::select! {
        () = context.shared.drain.begun() => {}
        () = context.end.cancelled() => {}
    }
}

async fn respond(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    http: Router,
    origins: Option<&[String]>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Infallible> {
    if upgrade::is_asked(request.headers()) {
        return Ok(match upgrade::check(request.method(), request.headers(), origins) {
            Ok(accepted) => {
                let response = switching(&accepted);
                let pending = (hyper::upgrade::on(&mut request), accepted.host);
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
                response
            }
            Err(failure) => {
                Meters::failed(failure);
                status(StatusCode::BAD_REQUEST)
            }
        });
    }
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = http.oneshot(request.map(Body::new));
    Ok(match timeout(limits::HTTP_REQUEST_TIMEOUT, response).await {
        Ok(Ok(response)) => response,
        Err(_) => status(StatusCode::REQUEST_TIMEOUT),
    })
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

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A stream whose first bytes were read already, and are read again.
#[derive(Debug)]
struct Rewound {
    head: Bytes,
    stream: TcpStream,
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
