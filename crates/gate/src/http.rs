//! What the gate answers to plain HTTP: the page, and the entry without a WebSocket.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use daemon::Process;
use model::{Code, NameRule, RoomId, limits};

use crate::{
    count,
    entry::{self, Entries, Entry},
    page,
    web_root::WebRoot,
};

#[derive(Clone)]
struct Served {
    entries: Entries,
    names: Arc<NameRule>,
    own: IpAddr,
    web_root: Option<WebRoot>,
}

/// `names` is the rule by which a room is one; `own` is for clients that name no host; `web_root`
/// takes the place of the page.
pub(crate) fn router(
    entries: Entries,
    names: NameRule,
    own: IpAddr,
    web_root: Option<WebRoot>,
) -> Router {
    Router::new()
        .route("/entry", get(answer_entry).options(preflight))
        .fallback(other)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Served { entries, names: Arc::new(names), own, web_root })
}

/// What a client says when it asks where to go.
#[derive(Debug, serde::Deserialize)]
struct Asked {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    rid: String,
    /// Which of the modern fields it knows, as in a handshake.
    #[serde(default)]
    tangelo: String,
}

impl Asked {
    fn is_modern(&self) -> bool {
        self.tangelo == "1"
    }
}

async fn answer_entry(
    State(served): State<Served>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(asked)) = asked else {
        return refusal(StatusCode::BAD_REQUEST);
    };
    if asked.uid.is_empty() {
        count::entry(count::NO_UID);
        return refusal(StatusCode::BAD_REQUEST);
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(entry::host_of);
    let reached_by = entry::reached_by(host, served.own);
    // A room against the rule counts as none; the connector refuses it with better words.
    let room = RoomId::parse(&asked.rid, &served.names).ok();
    match served.entries.place(Process::now(), &asked.uid, room.as_ref(), &reached_by) {
        Some(entry) => {
            count::entry(count::PLACED);
            let (user, room) = (&asked.uid, room.map(tracing::field::display));
            tracing::debug!(
                user,
                room,
                host = entry.host,
                port = entry.port,
                over = "http",
                "entry given"
            );
            if asked.is_modern() {
                entry.count_slot();
                return slot_response(entry);
            }
            served.entries.hold(&entry).await;
            let Entry { host, port, .. } = entry;
            json(StatusCode::OK, &serde_json::json!({ "code": 200, "host": host, "port": port }))
        }
        None => {
            count::entry(count::NO_CONNECTOR);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            if asked.is_modern() { busy(limits::RETRY_AFTER) } else { refusal(status) }
        }
    }
}

/// The answer to a client that knows what a slot is.
fn slot_response(Entry { host, port, slot }: Entry) -> Response {
    match slot {
        Ok(after) => {
            let after = millis(after);
            let body = serde_json::json!({
                "code": 200, "host": host, "port": port, "after": after
            });
            json(StatusCode::OK, &body)
        }
        Err(retry_after) => busy(retry_after),
    }
}

fn busy(retry_after: Duration) -> Response {
    let code = Code::NotApplied;
    let body = serde_json::json!({
        "code": code.number(), "error": true, "text": code.text(),
        "retryAfter": millis(retry_after)
    });
    json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Rounded up: who waits for so long does not come too early.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn refusal(status: StatusCode) -> Response {
    json(status, &serde_json::json!({ "code": 500 }))
}

/// The same JSON as over a WebSocket, for scripts of any page and never from a cache.
fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.to_string()).into_response()
}

/// Lets a page of another origin ask with headers of its own.
async fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn other(State(served): State<Served>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return wrong_method().await;
    }
    let found = match &served.web_root {
        Some(folder) => folder.serve(request).await,
        None => page::serve(request.uri().path(), request.headers()),
    };
    found.unwrap_or_else(|| {
        let words = "Nothing is here. The chat page is at /, and /entry?uid=NAME&rid=ROOM says \
                     which connector to use.\n";
        plain(StatusCode::NOT_FOUND, words)
    })
}

async fn wrong_method() -> Response {
    let words = "Only GET and HEAD are answered here; clients that chat use a WebSocket.\n";
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, words);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn plain(status: StatusCode, words: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, words).into_response()
}
