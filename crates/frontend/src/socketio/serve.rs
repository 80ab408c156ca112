//! Answers the requests of Socket.IO.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderValue, Method, Request as HttpRequest, Response, StatusCode, Uri, header,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use model::limits;
use session::{Protocol, Transport as Kind};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use wire::socketio::{v1::HttpError, v09 as wire_v09};

use super::{
    Found, open_packet,
    v1::Query,
    v09::{self, Carrier, Target},
};
use crate::{
    Application,
    context::Context,
    frontend::{Greeting, welcome_polling},
    meters::{Failure, Meters},
    transport::{Request, pieces},
    turns, upgrade,
};

/// What a WebSocket whose session id is unknown gets, as a text frame of its own: the frame
/// `7:::1+0` of generation 0.9.
pub(crate) const UNKNOWN_SESSION_FRAME: &[u8] = b"\x81\x077:::1+0";

/// A request, and where it came from.
pub(crate) struct Asked<'a, A> {
    pub(crate) context: &'a Arc<Context<A>>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What a request asks for, by the generation that has its path.
enum Place<'a> {
    V09(Target<'a>),
    V1(Query<'a>),
}

impl<'a> Place<'a> {
    fn of(uri: &'a Uri) -> Option<Self> {
        let v1 = || Query::of(uri).map(Self::V1);
        Target::of(uri).map(Self::V09).or_else(v1)
    }
}

/// Answers a request below `/socket.io`. Gives back what is for somebody else.
pub(crate) async fn serve<A: Application>(
    asked: &Asked<'_, A>,
    request: HttpRequest<Incoming>,
) -> Result<Response<Body>, HttpRequest<Incoming>> {
    let uri = request.uri().clone();
    let Some(place) = Place::of(&uri) else {
        return Err(request);
    };
    let origins = asked.context.shared.settings.origins.as_deref();
    let headers = request.headers().clone();
    if !upgrade::is_allowed(&headers, origins) {
        Meters::failed(Failure::Origin);
        return Ok(plain(StatusCode::FORBIDDEN, "text/plain", "this origin is not allowed here"));
    }
    let mut response = match place {
        Place::V09(target) => asked.serve_v09(target, request).await,
        Place::V1(query) => {
            let mut response = asked.serve_v1(query, request).await;
            allow_any(&mut response);
            response
        }
    };
    allow(&headers, &mut response);
    Ok(response)
}

impl<A: Application> Asked<'_, A> {
    async fn serve_v09(
        &self,
        target: Target<'_>,
        request: HttpRequest<Incoming>,
    ) -> Response<Body> {
        let text = |status, text: &'static str| plain(status, "text/plain", text);
        match target {
            Target::Welcome => bare(StatusCode::OK, "Welcome to socket.io."),
            Target::NoVersion => {
                let words = "Protocol version not supported.";
                bare(StatusCode::INTERNAL_SERVER_ERROR, words)
            }
            Target::Library => {
                let words = "The client library is not served here; pages bring their own.";
                text(StatusCode::NOT_FOUND, words)
            }
            Target::NoTransport => text(StatusCode::BAD_REQUEST, "No such transport."),
            Target::Handshake => {
                let shared = &self.context.shared;
                if let Err(away) = turns::turn(shared.settings.turns.as_ref()).await {
                    return later(away);
                }
                let id = shared.directory.give(Instant::now());
                let patience = shared.settings.session.socketio.patience.as_secs();
                let (kind, body) = v09::handshake(request.uri(), &id, patience);
                plain(StatusCode::OK, kind, body)
            }
            Target::Carry { transport: Carrier::WebSocket, .. } => {
                text(StatusCode::BAD_REQUEST, "This is for WebSockets.")
            }
            Target::Carry { transport, id } => {
                let (transport, id) = (transport, id.to_owned());
                self.carry(transport, &id, request).await
            }
        }
    }

    async fn carry(
        &self,
        carrier: Carrier,
        id: &str,
        request: HttpRequest<Incoming>,
    ) -> Response<Body> {
        let kind = if carrier == Carrier::HtmlFile { Kind::Stream } else { Kind::Polling };
        let requests = match self.context.shared.directory.find(Instant::now(), id) {
            Found::Open(requests) => Some(requests),
            Found::Given => self.begin(Protocol::SocketIo09, kind, Some(id), request.headers()),
            Found::Nothing => None,
        };
        let Some(requests) = requests else {
            let frames = [wire_v09::UNKNOWN_SESSION];
            let (kind, body) = v09::poll(request.uri(), carrier, &frames);
            return plain(StatusCode::OK, kind, body);
        };
        if request.method() == Method::POST {
            let body = match body(request).await {
                Ok(body) => body,
                Err(response) => return response,
            };
            let text = wire::pomelo::text::decode(&body);
            let frames = v09::frames(carrier, &text, limits::SOCKETIO_POST_PACKETS_MAX);
            post(&requests, frames).await;
            return plain(StatusCode::OK, "text/plain; charset=UTF-8", "1");
        }
        let query = request.uri().query().unwrap_or_default();
        if query.split('&').any(|pair| pair.starts_with("disconnect")) {
            // The session says good-bye by the poll that hangs.
            let _ = requests.send(Request::Leave).await;
            return Response::new(Body::empty());
        }
        if carrier == Carrier::HtmlFile {
            let bytes_max = self.context.shared.settings.queue_bytes_max;
            return html_file(&requests, bytes_max).await;
        }
        match poll(&requests).await {
            Some(frames) => {
                let (kind, body) = v09::poll(request.uri(), carrier, &frames);
                plain(StatusCode::OK, kind, body)
            }
            None => {
                let (kind, body) = v09::poll(request.uri(), carrier, &[wire_v09::UNKNOWN_SESSION]);
                plain(StatusCode::OK, kind, body)
            }
        }
    }

    async fn serve_v1(&self, query: Query<'_>, request: HttpRequest<Incoming>) -> Response<Body> {
        match query.transport {
            Some("polling") => {}
            // One that asks rightly has been answered before.
            Some("websocket") => return refused(HttpError::BadRequest),
            Some(_) | None => return refused(HttpError::UnknownTransport),
        }
        let Some(id) = query.id else {
            return self.begin_v1(&query, &request).await;
        };
        let id = id.to_owned();
        let Found::Open(requests) = self.context.shared.directory.find(Instant::now(), &id) else {
            return refused(HttpError::UnknownSession);
        };
        let mut response = match *request.method() {
            Method::OPTIONS => {
                let mut response = Response::new(Body::empty());
                let allowed = HeaderValue::from_static("Content-Type");
                response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
                response
            }
            Method::POST => {
                let is_binary = request
                    .headers()
                    .get(header::CONTENT_TYPE)
                    .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
                let body = match body(request).await {
                    Ok(body) => body,
                    Err(response) => return response,
                };
                let most = limits::SOCKETIO_POST_PACKETS_MAX;
                post(&requests, query.packets(is_binary, &body, most)).await;
                plain(StatusCode::OK, "text/html", "ok")
            }
            Method::GET => match poll(&requests).await {
                Some(packets) => {
                    let (kind, body) = query.poll(&packets);
                    plain(StatusCode::OK, kind, body)
                }
                None => return refused(HttpError::BadRequest),
            },
            _ => return refused(HttpError::BadRequest),
        };
        set_cookie(&id, &mut response);
        response
    }

    /// A first poll: opens a session, and is answered with how to go on.
    async fn begin_v1(&self, query: &Query<'_>, request: &HttpRequest<Incoming>) -> Response<Body> {
        if request.method() != Method::GET {
            return refused(HttpError::BadHandshakeMethod);
        }
        if let Err(away) = turns::turn(self.context.shared.settings.turns.as_ref()).await {
            return later(away);
        }
        let headers = request.headers();
        let Some((registration, requests)) = self.context.shared.directory.open(None) else {
            return refused(HttpError::UnknownSession);
        };
        let id = registration.id().to_owned();
        let greeting = self.greeting(Protocol::SocketIo1, Kind::Polling, headers);
        if !welcome_polling(self.context, greeting, requests, registration) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "too many connections");
        }
        let beats = &self.context.shared.settings.session.socketio;
        let (kind, body) = query.poll(&[open_packet(&id, &["websocket"], beats)]);
        let mut response = plain(StatusCode::OK, kind, body);
        set_cookie(&id, &mut response);
        response
    }

    /// Begins a session of generation 0.9 under an id that was given out.
    fn begin(
        &self,
        protocol: Protocol,
        kind: Kind,
        id: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<mpsc::Sender<Request>> {
        let directory = &self.context.shared.directory;
        let (registration, requests) = directory.open(id)?;
        let id = registration.id().to_owned();
        let greeting = self.greeting(protocol, kind, headers);
        if !welcome_polling(self.context, greeting, requests, registration) {
            return None;
        }
        match directory.find(Instant::now(), &id) {
            Found::Open(requests) => Some(requests),
            Found::Nothing | Found::Given => None,
        }
    }

    fn greeting(&self, protocol: Protocol, kind: Kind, headers: &HeaderMap) -> Greeting {
        let host = upgrade::host(headers);
        Greeting { protocol, kind, peer: self.peer, local: self.local, host, opening: None }
    }
}

/// A session's id for a proxy that keeps a client with one server by its cookies.
fn set_cookie(id: &str, response: &mut Response<Body>) {
    if let Ok(cookie) = HeaderValue::from_str(&format!("io={id}; Path=/; HttpOnly")) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

/// Lets the page that asked read the answer.
fn allow(headers: &HeaderMap, response: &mut Response<Body>) {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let allowed = response.headers_mut();
        allowed.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let credentials = HeaderValue::from_static("true");
        allowed.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    }
}

fn allow_any(response: &mut Response<Body>) {
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
}

/// Waits for something to say to this client. Nothing if the session is over, or elsewhere.
async fn poll(requests: &mpsc::Sender<Request>) -> Option<Vec<Bytes>> {
    let (responder, answer) = oneshot::channel();
    requests.send(Request::Poll(responder)).await.ok()?;
    answer.await.ok()
}

/// Hands frames or packets over, and waits until they are taken.
async fn post(requests: &mpsc::Sender<Request>, packets: Vec<Bytes>) {
    if packets.is_empty() {
        return;
    }
    let (sender, taken) = oneshot::channel();
    if requests.send(Request::Post(packets, sender)).await.is_ok() {
        // An error says that the sender was dropped, which is the sign.
        let _ = taken.await;
    }
}

/// An endless page, each frame a script in it.
async fn html_file(requests: &mpsc::Sender<Request>, bytes_max: usize) -> Response<Body> {
    let (pieces, frames) = pieces(bytes_max);
    let _ = requests.send(Request::Stream(pieces)).await;
    let head = stream::iter([Bytes::from_static(wire_v09::HTML_FILE_HEAD.as_bytes())]);
    let scripts = stream::unfold(frames, |mut frames| async {
        let frame = frames.next().await?;
        let script = wire_v09::encode_html_file(&String::from_utf8_lossy(&frame));
        Some((Bytes::from(script), frames))
    });
    let body = Body::from_stream(head.chain(scripts).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/html; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn body(request: HttpRequest<Incoming>) -> Result<Bytes, Response<Body>> {
    let limited = Limited::new(request.into_body(), limits::SOCKETIO_POST_BYTES_MAX);
    match timeout(limits::HTTP_REQUEST_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(plain(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "too large")),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "text/plain", "too slow")),
    }
}

/// Too many want a session at once. Browsers and libraries that know no Retry-After take it for any
/// other failure.
fn later(away: Duration) -> Response<Body> {
    let words = "too many come at once; try again later";
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "text/plain", words);
    if let Ok(away) = HeaderValue::try_from(turns::retry_after(away)) {
        response.headers_mut().insert(header::RETRY_AFTER, away);
    }
    response
}

fn refused(error: HttpError) -> Response<Body> {
    plain(StatusCode::BAD_REQUEST, "application/json", error.body())
}

/// A response of which the original did not say what kind it is.
fn bare(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut response = Response::new(words.into());
    *response.status_mut() = status;
    response
}

fn plain(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
