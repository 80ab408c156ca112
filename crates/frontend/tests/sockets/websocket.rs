//! WebSocket, with real sockets.

use crate::common::{
    CONNECTOR_HANDSHAKE, GATE_HANDSHAKE, LONG, Server, enter, enter_by_tcp, expect, from_hex,
    hello, on_chat, read_until, request, response, rest, say, send, soon, until,
};
use bytes::Bytes;
use frontend::Settings;
use futures_util::{SinkExt as _, StreamExt as _};
use model::SessionId;
use session::{CloseReason, Config};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};
use wire::pomelo::packet;

const ASK: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:3014\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-type: text/html\r\n\r\n";

type Socket = WebSocketStream<TcpStream>;

async fn connect(server: &Server) -> Socket {
    let mut stream = server.connect().await;
    send(&mut stream, ASK.as_bytes()).await;
    expect(&mut stream, ANSWER.as_bytes()).await;
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn transmit(socket: &mut Socket, package: impl Into<Bytes>) {
    soon(socket.send(Message::Binary(package.into()))).await.unwrap();
}

async fn next(socket: &mut Socket) -> Message {
    soon(socket.next()).await.unwrap().unwrap()
}

async fn hears(socket: &mut Socket, package: &[u8]) {
    assert_eq!(next(socket).await, Message::Binary(package.to_vec().into()));
}

async fn enter_by_websocket(server: &Server, name: &str) -> Socket {
    let mut socket = connect(server).await;
    transmit(&mut socket, hello()).await;
    hears(&mut socket, &from_hex(CONNECTOR_HANDSHAKE)).await;
    transmit(&mut socket, packet::HANDSHAKE_ACK).await;
    hears(&mut socket, &packet::HEARTBEAT).await;
    transmit(&mut socket, enter(name)).await;
    assert!(matches!(next(&mut socket).await, Message::Binary(_)));
    socket
}

/// Waits for the server's Close frame, and for the end of the stream behind it.
async fn closes(socket: &mut Socket) -> Option<(u16, String)> {
    loop {
        match next(socket).await {
            Message::Close(frame) => {
                assert!(soon(socket.next()).await.is_none_or(|end| end.is_err()));
                return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
            }
            Message::Text(_)
            | Message::Binary(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Frame(_) => {}
        }
    }
}

#[tokio::test]
async fn a_conversation_has_the_originals_bytes() {
    let server = Server::connector();
    let mut alice = connect(&server).await;
    transmit(&mut alice, hello()).await;
    hears(&mut alice, &from_hex(CONNECTOR_HANDSHAKE)).await;
    transmit(&mut alice, packet::HANDSHAKE_ACK).await;
    hears(&mut alice, &packet::HEARTBEAT).await;
    transmit(&mut alice, enter("alice")).await;
    hears(&mut alice, &response(1, r#"{"users":["alice"]}"#)).await;
    let mut bob = enter_by_tcp(&server, "bob").await;
    transmit(&mut alice, say(2, "hi")).await;
    hears(&mut alice, &response(2, "{}")).await;
    hears(&mut alice, &on_chat("hi", "alice")).await;
    expect(&mut bob, &on_chat("hi", "alice")).await;

    // A text frame counts like a binary one, and a ping is answered.
    soon(alice.send(Message::Text("\u{3}\0\0\0".into()))).await.unwrap();
    hears(&mut alice, &packet::HEARTBEAT).await;
    soon(alice.send(Message::Ping(Bytes::from_static(b"?")))).await.unwrap();
    assert_eq!(next(&mut alice).await, Message::Pong(Bytes::from_static(b"?")));
}

#[tokio::test]
async fn upgrades_are_answered_as_the_original_did() {
    let server = Server::gate();
    let offers = "Origin: http://127.0.0.1:3001\r\nSec-WebSocket-Protocol: a, b\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for (ask, answer) in [
        (ASK.to_owned(), ANSWER.to_owned()),
        (ASK.replace("GET / ", "GET /any/path?x=1 "), ANSWER.to_owned()),
        (
            ASK.replace("Host", &format!("{offers}Host")),
            ANSWER.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\n\r\n"),
        ),
    ] {
        let mut stream = server.connect().await;
        send(&mut stream, ask.as_bytes()).await;
        expect(&mut stream, answer.as_bytes()).await;
        // Whatever came before, the session is the same.
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        transmit(&mut socket, hello()).await;
        hears(&mut socket, &from_hex(GATE_HANDSHAKE)).await;
    }
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for ask in [ASK.replace("Version: 13", "Version: 12"), ASK.replace(key, "")] {
        let mut stream = server.connect().await;
        send(&mut stream, ask.as_bytes()).await;
        assert_eq!(rest(&mut stream).await, REFUSAL);
    }
}

#[tokio::test]
async fn an_upgrade_may_come_in_pieces_and_with_more_behind_it() {
    let server = Server::gate();
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in ASK.bytes() {
        send(&mut stream, &[byte]).await;
        tokio::task::yield_now().await;
    }
    expect(&mut stream, ANSWER.as_bytes()).await;

    let mut stream = server.connect().await;
    // A masked binary frame of a handshake, in the same piece as the upgrade.
    let hello = b"\x01\0\0\x0a{\"sys\":{}}";
    let frame = [&[0x82, 0x80 | 14, 0, 0, 0, 0], &hello[..]].concat();
    send(&mut stream, &[ASK.as_bytes(), &frame].concat()).await;
    expect(&mut stream, ANSWER.as_bytes()).await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    hears(&mut socket, &from_hex(GATE_HANDSHAKE)).await;
}

#[tokio::test]
async fn an_upgrade_may_follow_other_requests() {
    let server = Server::gate();
    let mut stream = server.connect().await;
    send(&mut stream, b"GET /hello HTTP/1.1\r\nHost: gate.example:3014\r\n\r\n").await;
    read_until(&mut stream, b"127.0.0.1").await;
    send(&mut stream, ASK.replace("127.0.0.1:3014", "gate.example:3014").as_bytes()).await;
    let head = read_until(&mut stream, b"\r\n\r\n").await;
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    transmit(&mut socket, hello()).await;
    hears(&mut socket, &from_hex(GATE_HANDSHAKE)).await;
    transmit(&mut socket, packet::HANDSHAKE_ACK).await;
    transmit(&mut socket, request(1, "gate.gateHandler.queryEntry", r#"{"uid":"a"}"#)).await;
    // The host by which this client came.
    let answer = r#"{"code":200,"host":"gate.example","port":3050}"#;
    hears(&mut socket, &response(1, answer)).await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_if_there_is_a_list() {
    let mut settings = Settings::new(Config::gate());
    settings.origins = Some(vec!["https://chat.example.org".to_owned()]);
    let server = Server::start(settings);
    let ask = |origin: &str| ASK.replace("Host", &format!("Origin: {origin}\r\nHost"));
    let mut stream = server.connect().await;
    send(&mut stream, ask("https://chat.example.org").as_bytes()).await;
    expect(&mut stream, ANSWER.as_bytes()).await;
    let mut stream = server.connect().await;
    send(&mut stream, ask("https://evil.example.org").as_bytes()).await;
    assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_close_frame_is_answered_at_once() {
    let server = Server::gate();
    // Codes are echoed; the original answered none with 1000.
    for (code, answered) in [(Some(1000_u16), 1000), (Some(4001), 4001), (None, 1000)] {
        let mut socket = connect(&server).await;
        transmit(&mut socket, hello()).await;
        hears(&mut socket, &from_hex(GATE_HANDSHAKE)).await;
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
        soon(socket.close(frame)).await.unwrap();
        assert_eq!(closes(&mut socket).await, Some((answered, String::new())));
    }
    server.is_quiet().await;
    let reasons = [CloseReason::ClientLeft, CloseReason::WentAway, CloseReason::ClientLeft];
    for (session, reason) in (1..).map(SessionId).zip(reasons) {
        assert_eq!(server.chat.reason(session), Some(reason), "{session:?}");
    }
}

#[tokio::test]
async fn closes_say_why() {
    let server = Server::connector();
    let too_large = vec![4; 70_000];
    for (message, reason, code) in [
        (Message::Text("hello".into()), CloseReason::Malformed, 1000),
        (Message::Binary(Bytes::new()), CloseReason::Malformed, 1000),
        (Message::Binary(b"\x04\0\0\x09short".to_vec().into()), CloseReason::Malformed, 1000),
        (Message::Binary(b"\x09\0\0\0".to_vec().into()), CloseReason::Malformed, 1000),
        (Message::Binary(too_large.into()), CloseReason::TooLarge, 1009),
    ] {
        let mut socket = connect(&server).await;
        soon(socket.send(message)).await.unwrap();
        assert_eq!(closes(&mut socket).await, Some((code, reason.text().to_owned())));
        until(|| server.chat.closed.lock().unwrap().last().is_some_and(|it| it.1 == reason)).await;
    }
}

#[tokio::test]
async fn silence_ends_a_session() {
    let mut config = Config::connector();
    config.heartbeat = Some(std::time::Duration::from_millis(50));
    let server = Server::start(Settings::new(config));
    let mut socket = enter_by_websocket(&server, "alice").await;
    assert_eq!(closes(&mut socket).await, Some((1000, String::new())));
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::HeartbeatTimeout)).await;
}

#[tokio::test]
async fn draining_closes_every_session_with_a_reason() {
    let server = Server::connector();
    let mut sockets = Vec::new();
    for id in 0..10 {
        sockets.push(enter_by_websocket(&server, &format!("user{id}")).await);
    }
    assert_eq!(server.handle.sessions(), 10);
    server.handle.drain(std::time::Duration::from_millis(100));
    for socket in &mut sockets {
        let reason = CloseReason::Draining;
        assert_eq!(closes(socket).await, Some((1001, reason.text().to_owned())));
    }
    // The listener is gone; so is everything else.
    until(|| server.tasks.count() == 0).await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn the_end_of_all_tasks_ends_every_connection() {
    let server = Server::connector();
    let mut socket = enter_by_websocket(&server, "alice").await;
    let mut half = server.connect().await;
    send(&mut half, b"GE").await;
    until(|| server.handle.connections() == 2).await;
    // Even though a drain has given them an hour.
    server.handle.drain(std::time::Duration::from_secs(3600));
    let end = async {
        assert_eq!(closes(&mut socket).await.map(|(code, _)| code), Some(1001));
        assert_eq!(rest(&mut half).await, b"");
        drop((socket, half));
    };
    let (stuck, ()) = tokio::join!(server.tasks.drain(LONG), end);
    assert_eq!(stuck, Vec::<String>::new());
}
