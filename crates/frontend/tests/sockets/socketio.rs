//! Both generations of Socket.IO, with real sockets.

use std::time::Duration;

use crate::common::{Server, expect, read_until, rest, send, soon, until};
use frontend::{Outbound, Settings};
use futures_util::{SinkExt as _, StreamExt as _};
use model::limits;
use session::{CloseReason, Config};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use wire::{
    RequestId,
    socketio::{request::Request, v1, v09},
};

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const ORIGIN: &str = "Origin: http://127.0.0.1:3001\r\n";

type Socket = WebSocketStream<TcpStream>;

/// The whole response to one request on a connection of its own.
async fn http(server: &Server, method: &str, target: &str, headers: &str, body: &str) -> String {
    let mut stream = ask(server, method, target, headers, body).await;
    String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
}

/// A request whose response is not awaited.
async fn ask(server: &Server, method: &str, target: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = server.connect().await;
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost:3014\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    send(&mut stream, head.as_bytes()).await;
    send(&mut stream, body.as_bytes()).await;
    stream
}

async fn get(server: &Server, target: &str) -> String {
    http(server, "GET", target, "", "").await
}

async fn post(server: &Server, target: &str, body: &str) -> String {
    http(server, "POST", target, "Content-Type: text/plain;charset=UTF-8\r\n", body).await
}

/// The body of a response. Bodies in pieces are put together.
fn body(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    whole
}

async fn websocket(server: &Server, target: &str) -> Socket {
    let mut stream = server.connect().await;
    let ask = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:3014\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    send(&mut stream, ask.as_bytes()).await;
    expect(&mut stream, ANSWER.as_bytes()).await;
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn say(socket: &mut Socket, text: impl Into<String>) {
    soon(socket.send(Message::text(text.into()))).await.unwrap();
}

async fn hear(socket: &mut Socket) -> String {
    soon(socket.next()).await.unwrap().unwrap().into_text().unwrap().to_string()
}

/// Waits for the end of the stream, and says whether a Close frame came before it.
async fn ends(socket: &mut Socket) -> Option<u16> {
    match soon(socket.next()).await {
        Some(Ok(Message::Close(frame))) => Some(frame.map_or(1005, |frame| frame.code.into())),
        Some(Ok(message)) => panic!("{message:?}"),
        Some(Err(_)) | None => None,
    }
}

fn asked(id: u64, route: &str, json: &str) -> Request<'static> {
    let leaked = |text: &str| &*Box::leak(text.to_owned().into_boxed_str());
    Request { id: RequestId(id), route: leaked(route), json: leaked(json) }
}

fn enter(name: &str) -> Request<'static> {
    let json = format!(r#"{{"username":"{name}","rid":"r"}}"#);
    asked(2, "connector.entryHandler.enter", &json)
}

fn chat(id: u64, text: &str) -> Request<'static> {
    asked(id, "chat.chatHandler.send", &format!(r#"{{"content":"{text}","target":"*"}}"#))
}

fn old(request: &Request<'_>) -> String {
    String::from_utf8(v09::encode_request(request).unwrap().to_vec()).unwrap()
}

fn new(request: &Request<'_>) -> String {
    String::from_utf8(v1::encode_request(request).unwrap().to_vec()).unwrap()
}

/// As a page posts it: encoded twice.
fn payload(packets: &[&str]) -> String {
    let packets: Vec<_> = packets.iter().map(|it| (*it).to_owned().into()).collect();
    String::from_utf8(v1::payload::encode_text(&packets).to_vec()).unwrap()
}

async fn old_id(server: &Server) -> String {
    let response = get(server, "/socket.io/1/?t=1360239219000").await;
    let body = body(&response);
    let (id, rest) = body.split_once(':').unwrap();
    assert_eq!(rest, "60:60:websocket,htmlfile,xhr-polling,jsonp-polling");
    assert_eq!(id.len(), 20);
    id.to_owned()
}

async fn new_id(server: &Server) -> String {
    let response = get(server, "/socket.io/?EIO=3&transport=polling&b64=1").await;
    let body = body(&response);
    let (_, rest) = body.split_once(r#"0{"sid":""#).expect("an open packet");
    let (id, rest) = rest.split_once('"').unwrap();
    let times = r#""pingInterval":25000,"pingTimeout":60000}"#;
    assert_eq!(rest, format!(r#","upgrades":["websocket"],{times}"#));
    assert!(response.contains(&format!("Set-Cookie: io={id}; Path=/; HttpOnly")), "{response}");
    id.to_owned()
}

/// The id of a new session of the second generation that is in and polls, and where it does so.
async fn polling(server: &Server) -> (String, String) {
    let id = new_id(server).await;
    let target = format!("/socket.io/?EIO=3&transport=polling&b64=1&t=x&sid={id}");
    assert_eq!(body(&get(server, &target).await), "2:40");
    (id, target)
}

/// The WebSocket that a session of the second generation, which polls, has tried and may move to.
async fn tried_websocket(server: &Server, id: &str) -> Socket {
    let target = format!("/socket.io/?EIO=3&transport=websocket&sid={id}");
    let mut socket = websocket(server, &target).await;
    say(&mut socket, "2probe").await;
    assert_eq!(hear(&mut socket).await, "3probe");
    socket
}

/// The way to the only client.
fn outbound(server: &Server) -> Outbound {
    let clients = server.chat.clients.lock().unwrap();
    clients.values().next().unwrap().outbound.clone()
}

#[tokio::test]
async fn the_first_generation_has_the_originals_frames() {
    let server = Server::connector();
    let id = old_id(&server).await;
    let mut alice = websocket(&server, &format!("/socket.io/1/websocket/{id}")).await;
    assert_eq!(hear(&mut alice).await, "1::");
    say(&mut alice, old(&enter("alice"))).await;
    assert_eq!(hear(&mut alice).await, r#"3:::[{"id":2,"body":{"users":["alice"]}}]"#);
    say(&mut alice, old(&asked(3, "no.such.route", "{}"))).await;
    assert_eq!(hear(&mut alice).await, r#"3:::[{"id":3,"body":{"code":500}}]"#);
    say(&mut alice, "3:7::abc").await;
    assert_eq!(hear(&mut alice).await, "6:::7");
    say(&mut alice, "0::").await;
    assert_eq!(hear(&mut alice).await, "0::");
    // No Close frame: the stream ends.
    assert_eq!(ends(&mut alice).await, None);
    drop(alice);
    server.is_quiet().await;
    assert_eq!(server.chat.closed.lock().unwrap()[0].1, CloseReason::ClientLeft);
}

#[tokio::test]
async fn the_first_generation_hears_what_leaves_together_in_one_array() {
    let server = Server::connector();
    let id = old_id(&server).await;
    let mut alice = websocket(&server, &format!("/socket.io/1/websocket/{id}")).await;
    assert_eq!(hear(&mut alice).await, "1::");
    let outbound = outbound(&server);
    let user = model::UserName::from_peer("bob").unwrap();
    let push = v09::encode_push(&wire::Push::Add { user: &user });
    assert!(outbound.push(push.clone()) && outbound.push(push));
    let element = r#"{"route":"onAdd","user":"bob"}"#;
    assert_eq!(hear(&mut alice).await, format!("3:::[{element},{element}]"));
}

#[tokio::test]
async fn an_unknown_id_of_the_first_generation_is_told_so() {
    let server = Server::gate();
    let mut socket = websocket(&server, "/socket.io/1/websocket/nosuchsid").await;
    assert_eq!(hear(&mut socket).await, "7:::1+0");
    assert_eq!(ends(&mut socket).await, None);
    let response = get(&server, "/socket.io/1/xhr-polling/nosuchsid").await;
    assert_eq!(body(&response), "7:::1+0");
    // An id begins one session.
    let id = old_id(&server).await;
    let mut first = websocket(&server, &format!("/socket.io/1/websocket/{id}")).await;
    assert_eq!(hear(&mut first).await, "1::");
    let mut second = websocket(&server, &format!("/socket.io/1/websocket/{id}")).await;
    assert_eq!(hear(&mut second).await, "7:::1+0");
    drop((first, second, socket));
    server.is_quiet().await;
}

#[tokio::test]
async fn the_first_generation_polls() {
    let server = Server::connector();
    let id = old_id(&server).await;
    let target = format!("/socket.io/1/xhr-polling/{id}?t=1");
    let response = http(&server, "GET", &target, ORIGIN, "").await;
    assert_eq!(body(&response), "1::");
    for header in [
        "Content-Type: text/plain; charset=UTF-8",
        "Access-Control-Allow-Origin: http://127.0.0.1:3001",
        "Access-Control-Allow-Credentials: true",
    ] {
        assert!(response.contains(header), "{response}");
    }
    let mut poll = ask(&server, "GET", &target, "", "").await;
    assert_eq!(body(&post(&server, &target, &old(&enter("张"))).await), "1");
    let heard = String::from_utf8(rest(&mut poll).await).unwrap();
    assert_eq!(body(&heard), r#"3:::[{"id":2,"body":{"users":["张"]}}]"#);
    // What nobody waits for is kept, and leaves as one array.
    assert_eq!(body(&post(&server, &target, &old(&chat(3, "hi"))).await), "1");
    until(|| server.tasks.names().iter().any(|name| name == "client")).await;
    let heard = body(&get(&server, &target).await);
    assert!(heard.contains(r#"{"id":3,"body":{}}"#) && heard.contains("onChat"), "{heard}");
    // It leaves.
    let mut poll = ask(&server, "GET", &target, "", "").await;
    let left = get(&server, &format!("/socket.io/1/xhr-polling/{id}?disconnect=1")).await;
    assert_eq!(body(&left), "");
    assert_eq!(body(&String::from_utf8(rest(&mut poll).await).unwrap()), "0::");
    server.is_quiet().await;
    assert_eq!(body(&get(&server, &target).await), "7:::1+0");
}

#[tokio::test]
async fn a_poll_ends_with_nothing_after_a_while_and_a_client_that_stops_is_gone() {
    let mut config = Config::connector();
    config.socketio.poll = Duration::from_millis(50);
    config.socketio.patience = Duration::from_millis(300);
    let server = Server::start(Settings::new(config));
    let response = body(&get(&server, "/socket.io/1/").await);
    let id = response.split(':').next().unwrap();
    let target = format!("/socket.io/1/xhr-polling/{id}");
    assert_eq!(body(&get(&server, &target).await), "1::");
    assert_eq!(body(&get(&server, &target).await), "8::");
    server.is_quiet().await;
    assert_eq!(server.chat.closed.lock().unwrap()[0].1, CloseReason::HeartbeatTimeout);
}

#[tokio::test]
async fn scripts_and_endless_pages_carry_the_same() {
    let server = Server::gate();
    let response = get(&server, "/socket.io/1/?jsonp=3").await;
    assert!(response.contains("Content-Type: application/javascript"), "{response}");
    let text = body(&response);
    let id = text.strip_prefix("io.j[3](\"").unwrap().split(':').next().unwrap();
    let target = format!("/socket.io/1/jsonp-polling/{id}?t=1&i=3");
    assert_eq!(body(&get(&server, &target).await), "io.j[3](\"1::\");");
    let form = "d=%223%3A%3A%3A%5Cu0000%5Cu0000%5Cu0000%5Cu0002%5Cu001b\
        gate.gateHandler.queryEntry%7B%5C%22uid%5C%22%3A%5C%22alice%5C%22%7D%22";
    assert_eq!(body(&post(&server, &target, form).await), "1");
    let heard = body(&get(&server, &target).await);
    assert!(
        heard.starts_with("io.j[3](\"3:::[{\\\"id\\\":2,\\\"body\\\":{\\\"code\\\":200"),
        "{heard}"
    );

    let id = old_id(&server).await;
    let target = format!("/socket.io/1/htmlfile/{id}");
    let mut stream = ask(&server, "GET", &target, "", "").await;
    let begun = read_until(&mut stream, b"<script>_(\"1::\");</script>").await;
    let begun = String::from_utf8(begun).unwrap();
    assert!(begun.contains("<html><body>"), "{begun}");
    assert_eq!(body(&post(&server, &target, "0::").await), "1");
    let end = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(end.contains("<script>_(\"0::\");</script>"), "{end}");

    // A page that goes away leaves nothing behind.
    let before = server.handle.sessions();
    let target = format!("/socket.io/1/htmlfile/{}", old_id(&server).await);
    let mut stream = ask(&server, "GET", &target, "", "").await;
    read_until(&mut stream, b"<script>_(\"1::\");</script>").await;
    assert_eq!(server.handle.sessions(), before + 1);
    drop(stream);
    until(|| server.handle.sessions() == before).await;
}

/// Every message of a full post is acknowledged and answered, and heard by its sender.
#[tokio::test]
async fn an_endless_page_may_post_as_much_as_any_other() {
    let mut config = Config::connector();
    config.limits.calls.burst = 1000;
    let server = Server::start(Settings::new(config));
    let target = format!("/socket.io/1/htmlfile/{}", old_id(&server).await);
    let mut stream = ask(&server, "GET", &target, "", "").await;
    read_until(&mut stream, b"<script>_(\"1::\");</script>").await;
    post(&server, &target, &old(&enter("alice"))).await;
    read_until(&mut stream, b"users").await;
    let frame = |id: usize| {
        let message = old(&chat(3 + id as u64, "hi"));
        message.replacen("3::", &format!("3:{}:", 1000 + id), 1)
    };
    let frames: Vec<String> = (0..limits::SOCKETIO_POST_PACKETS_MAX).map(frame).collect();
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    post(&server, &target, &v09::encode_payload(&frames)).await;
    let last = format!("6:::{}", 999 + limits::SOCKETIO_POST_PACKETS_MAX);
    read_until(&mut stream, last.as_bytes()).await;
    let last = format!("\\\"id\\\":{}", 2 + limits::SOCKETIO_POST_PACKETS_MAX);
    read_until(&mut stream, last.as_bytes()).await;
    assert!(server.chat.closed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_second_generation_has_the_originals_packets() {
    let server = Server::connector();
    let mut alice = websocket(&server, "/socket.io/?EIO=3&transport=websocket").await;
    let open = hear(&mut alice).await;
    assert!(open.starts_with(r#"0{"sid":""#), "{open}");
    assert!(open.ends_with(r#""upgrades":[],"pingInterval":25000,"pingTimeout":60000}"#), "{open}");
    assert_eq!(hear(&mut alice).await, "40");
    say(&mut alice, "2").await;
    assert_eq!(hear(&mut alice).await, "3");
    say(&mut alice, new(&enter("alice"))).await;
    let entered = r#"42["message","{\"id\":2,\"body\":{\"users\":[\"alice\"]}}"]"#;
    assert_eq!(hear(&mut alice).await, entered);
    say(&mut alice, "41").await;
    let left =
        r#"42["message","{\"route\":\"onKick\",\"reason\":\"client namespace disconnect\"}"]"#;
    assert_eq!(hear(&mut alice).await, left);
    // It is the client who closes.
    soon(WebSocketStream::close(&mut alice, None)).await.unwrap();
    assert!(ends(&mut alice).await.is_some());
    drop(alice);
    server.is_quiet().await;

    let mut bob = websocket(&server, "/socket.io/?EIO=3&transport=websocket").await;
    hear(&mut bob).await;
    hear(&mut bob).await;
    say(&mut bob, "9").await;
    assert_eq!(ends(&mut bob).await, Some(1000));
    drop(bob);
    server.is_quiet().await;
}

#[tokio::test]
async fn the_second_generation_polls_and_moves_to_a_websocket() {
    let server = Server::connector();
    let (id, target) = polling(&server).await;
    let mut poll = ask(&server, "GET", &target, "", "").await;
    let posted = post(&server, &target, &payload(&[&new(&enter("张"))])).await;
    assert!(posted.contains("Content-Type: text/html") && posted.ends_with("ok"), "{posted}");
    let entered = r#"42["message","{\"id\":2,\"body\":{\"users\":[\"张\"]}}"]"#;
    let heard = String::from_utf8(rest(&mut poll).await).unwrap();
    assert_eq!(body(&heard), payload(&[entered]));

    let mut poll = ask(&server, "GET", &target, "", "").await;
    let mut socket = tried_websocket(&server, &id).await;
    // The poll that hangs is released, so that the client can move.
    assert_eq!(body(&String::from_utf8(rest(&mut poll).await).unwrap()), "1:6");
    // What comes up meanwhile is not lost.
    assert!(post(&server, &target, &payload(&["2"])).await.ends_with("ok"));
    // Nor what comes in one piece with the word to move.
    socket.feed(Message::text("5")).await.unwrap();
    say(&mut socket, new(&chat(3, "hi"))).await;
    assert_eq!(hear(&mut socket).await, "3");
    let (one, other) = (hear(&mut socket).await, hear(&mut socket).await);
    assert!(one.contains(r#"\"id\":3"#) && other.contains("onChat"), "{one} {other}");
    // Nobody polls for it any more.
    let refused = get(&server, &target).await;
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("Session ID unknown"));
    say(&mut socket, "1").await;
    drop(socket);
    server.is_quiet().await;
    let closed = server.chat.closed.lock().unwrap();
    assert_eq!(closed.len(), 1);
}

/// Its last poll is answered, and no other comes: the word to move is all that it says.
#[tokio::test]
async fn a_client_that_is_asked_for_life_while_it_moves_answers_by_moving() {
    let server = Server::connector();
    let (id, _) = polling(&server).await;
    let mut socket = tried_websocket(&server, &id).await;
    outbound(&server).probe();
    // A poll that comes now would answer as well; so would anything said after the move.
    tokio::task::yield_now().await;
    say(&mut socket, "5").await;
    until(|| !server.chat.alive.lock().unwrap().is_empty()).await;
    assert_eq!(server.chat.alive.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_websocket_that_fails_leaves_the_session_polling() {
    let server = Server::connector();
    let (id, target) = polling(&server).await;
    let upgrade = format!("/socket.io/?EIO=3&transport=websocket&sid={id}");
    for words in [&["2probe"][..], &[], &["nonsense"]] {
        let mut socket = websocket(&server, &upgrade).await;
        for word in words {
            say(&mut socket, *word).await;
        }
        drop(socket);
    }
    assert!(post(&server, &target, &payload(&["2", "2"])).await.ends_with("ok"));
    let mut heard = body(&get(&server, &target).await);
    while heard == "1:6" {
        heard = body(&get(&server, &target).await);
    }
    assert_eq!(heard, "1:31:3");
}

#[tokio::test]
async fn a_page_that_gives_its_poll_up_has_gone_away() {
    let server = Server::connector();
    let (_, target) = polling(&server).await;
    drop(ask(&server, "GET", &target, "", "").await);
    server.is_quiet().await;
    // One of the first generation might still come back.
    let target = format!("/socket.io/1/xhr-polling/{}", old_id(&server).await);
    assert_eq!(body(&get(&server, &target).await), "1::");
    drop(ask(&server, "GET", &target, "", "").await);
    server.is_quiet().await;
    let closed = server.chat.closed.lock().unwrap();
    assert!(closed.iter().all(|(_, reason)| *reason == CloseReason::WentAway), "{closed:?}");
}

#[tokio::test]
async fn a_library_of_the_first_generation_may_give_a_poll_up_and_poll_again() {
    let server = Server::connector();
    let target = format!("/socket.io/1/xhr-polling/{}", old_id(&server).await);
    assert_eq!(body(&get(&server, &target).await), "1::");
    for number in 3..6 {
        drop(ask(&server, "GET", &target, "", "").await);
        // What is left is the session.
        until(|| server.handle.connections() == 1).await;
        assert!(post(&server, &target, &old(&chat(number, "hi"))).await.ends_with('1'));
        let mut heard = String::new();
        while !heard.contains(&format!(r#""id":{number}"#)) {
            heard = body(&get(&server, &target).await);
        }
    }
}

#[tokio::test]
async fn wrong_requests_get_the_originals_errors() {
    let server = Server::connector();
    for (method, target, status, expected) in [
        ("GET", "/socket.io/", 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (
            "GET",
            "/socket.io/?EIO=3&transport=foo",
            400,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            "GET",
            "/socket.io/?EIO=3&transport=polling&sid=nope",
            400,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        (
            "POST",
            "/socket.io/?EIO=3&transport=polling",
            400,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (
            "GET",
            "/socket.io/?EIO=3&transport=websocket",
            400,
            r#"{"code":3,"message":"Bad request"}"#,
        ),
        ("GET", "/socket.io/0/", 200, "Welcome to socket.io."),
        ("GET", "/socket.io/2/", 500, "Protocol version not supported."),
    ] {
        let response = http(&server, method, target, "", "").await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {response}");
        assert_eq!(body(&response), expected, "{target}");
    }
    let response = get(&server, "/socket.io/?EIO=3&transport=polling").await;
    assert!(response.contains("Access-Control-Allow-Origin: *"), "{response}");
    let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let target = "/socket.io/?EIO=3&transport=websocket&sid=nope";
    let response = http(&server, "GET", target, headers, "").await;
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

#[tokio::test]
async fn what_is_too_large_costs_only_its_sender() {
    let server = Server::connector();
    let id = new_id(&server).await;
    let target = format!("/socket.io/?EIO=3&transport=polling&b64=1&sid={id}");
    let huge = "x".repeat(model::limits::SOCKETIO_POST_BYTES_MAX + 1);
    let response = post(&server, &target, &huge).await;
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    // The session goes on; a packet over the limit of messages ends it.
    assert!(post(&server, &target, &payload(&["2"])).await.ends_with("ok"));
    let large = format!("4{}", "x".repeat(model::limits::MESSAGE_BYTES_MAX));
    post(&server, &target, &payload(&[&large])).await;
    until(|| !server.chat.closed.lock().unwrap().is_empty()).await;
    assert_eq!(server.chat.closed.lock().unwrap()[0].1, CloseReason::TooLarge);
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out() {
    let mut settings = Settings::new(Config::connector());
    settings.origins = Some(vec!["https://chat.example.org".to_owned()]);
    let server = Server::start(settings);
    let response = http(&server, "GET", "/socket.io/1/", ORIGIN, "").await;
    assert!(response.starts_with("HTTP/1.1 403"), "{response}");
    assert!(get(&server, "/socket.io/1/").await.starts_with("HTTP/1.1 200"));
    // What is not below `/socket.io` has rules of its own.
    let response = http(&server, "GET", "/hello", ORIGIN, "").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn a_refused_upgrade_uses_no_id_up() {
    let server = Server::connector();
    let id = old_id(&server).await;
    let mut stream = server.connect().await;
    send(&mut stream, b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    read_until(&mut stream, b"127.0.0.1").await;
    let asked = format!(
        "GET /socket.io/1/websocket/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 6\r\nSec-WebSocket-Key: a\r\n\r\n"
    );
    send(&mut stream, asked.as_bytes()).await;
    let refused = read_until(&mut stream, b"\r\n\r\n").await;
    assert!(refused.starts_with(b"HTTP/1.1 400"), "{refused:?}");
    let mut socket = websocket(&server, &format!("/socket.io/1/websocket/{id}")).await;
    assert_eq!(hear(&mut socket).await, "1::");
}

#[tokio::test]
async fn a_drain_ends_sessions_by_requests_while_they_can_still_be_told() {
    let server = Server::connector();
    let target = format!("/socket.io/1/xhr-polling/{}", old_id(&server).await);
    assert_eq!(body(&get(&server, &target).await), "1::");
    let mut old = ask(&server, "GET", &target, "", "").await;
    let target = format!("/socket.io/?transport=polling&b64=1&sid={}", new_id(&server).await);
    assert_eq!(body(&get(&server, &target).await), "2:40");
    let mut new = ask(&server, "GET", &target, "", "").await;
    let target = format!("/socket.io/1/htmlfile/{}", old_id(&server).await);
    let mut page = ask(&server, "GET", &target, "", "").await;
    read_until(&mut page, b"<script>_(\"1::\");</script>").await;
    // No other request can reach them from now on, so they do not wait for their share of the time.
    server.handle.drain(Duration::from_secs(3600));
    assert_eq!(body(&String::from_utf8(rest(&mut old).await).unwrap()), "0::");
    assert_eq!(body(&String::from_utf8(rest(&mut new).await).unwrap()), "1:1");
    rest(&mut page).await;
    until(|| server.tasks.count() == 0).await;
    let closed = server.chat.closed.lock().unwrap();
    let reasons: Vec<_> = closed.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [CloseReason::Draining; 3]);
}
