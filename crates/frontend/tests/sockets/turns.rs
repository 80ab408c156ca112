//! Many clients at once: who waits, and what the others are told.

use std::time::Duration;

use crate::common::{Server, from_hex, read_until, rest, send, until};
use frontend::{Settings, Turns};
use model::{Rate, limits};
use session::Config;
use tokio::time::Instant;

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn server(per_second: u32) -> Server {
    let turns = Some(Turns::new("test", Rate { per_second, burst: 1 }, limits::ADMISSION_PATIENCE));
    Server::start(Settings { turns, ..Settings::new(Config::connector()) })
}

#[tokio::test]
async fn an_old_client_waits_and_notices_nothing() {
    let server = server(10);
    let begun = Instant::now();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        send(&mut stream, UPGRADE).await;
        read_until(&mut stream, b"101 Switching Protocols").await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    let mut stream = server.connect().await;
    send(&mut stream, &from_hex("01 00 00 02 7b 7d".replace(' ', "").as_str())).await;
    read_until(&mut stream, b"{").await;
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_would_wait_for_too_long_is_told_in_its_own_words() {
    // The only turn is taken; the next one comes in ten seconds.
    let server = server(1);
    let mut first = server.connect().await;
    send(&mut first, UPGRADE).await;
    read_until(&mut first, b"101 Switching Protocols").await;
    // Two more wait for theirs.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        send(&mut stream, UPGRADE).await;
        waiting.push(stream);
    }
    until(|| server.handle.connections() == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = |asked: &'static [u8]| {
        let server = &server;
        async move {
            let mut stream = server.connect().await;
            send(&mut stream, asked).await;
            String::from_utf8(rest(&mut stream).await).unwrap()
        }
    };
    let response = refused(UPGRADE).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    let (_, after) = response.split_once("Retry-After: ").unwrap();
    let seconds: u64 = after.split("\r\n").next().unwrap().parse().unwrap();
    assert!((2..=6).contains(&seconds), "{response}");
    for handshake in [
        &b"GET /socket.io/1/?t=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"[..],
        b"GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ] {
        let response = refused(handshake).await;
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        assert!(response.contains("Retry-After: "), "{response}");
    }
    assert_eq!(refused(b"\x01\x00\x00\x02{}").await, "");
    // Whatever begins no session has no turn to wait for.
    let hello = refused(b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(hello.starts_with("HTTP/1.1 200 "), "{hello}");
    for mut stream in waiting {
        read_until(&mut stream, b"101 Switching Protocols").await;
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_turns() {
    let server = server(1);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        send(&mut stream, UPGRADE).await;
        streams.push(stream);
    }
    until(|| server.handle.sessions() == 1 && server.handle.connections() == 3).await;
    let begun = Instant::now();
    server.handle.drain(Duration::from_millis(10));
    drop(streams);
    until(|| server.handle.connections() == 0).await;
    assert!(begun.elapsed() < Duration::from_millis(900));
}
