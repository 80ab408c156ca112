//! Clients that mean no good, or cannot help it.

use std::time::Duration;

use crate::common::{
    LONG, Server, enter_by_tcp, expect, hello, on_chat, read_until, response, rest, say, send,
    soon, until,
};
use bytes::Bytes;
use frontend::Settings;
use model::SessionId;
use session::{CloseReason, Config};
use tokio::io::AsyncReadExt as _;
use wire::pomelo::packet;

#[tokio::test]
async fn a_slow_reader_is_closed_while_others_go_on() {
    let server = Server::connector();
    let slow = enter_by_tcp(&server, "slow").await;
    let mut quick = enter_by_tcp(&server, "quick").await;
    let package = Bytes::from(vec![b'x'; 32 * 1024]);
    let mut sent = 0_usize;
    let read = tokio::time::timeout(LONG, async {
        let mut sink = vec![0; package.len()];
        while server.chat.reason(SessionId(1)).is_none() {
            // One at a time: the quick one reads each before the next.
            assert!(server.chat.push(&package) >= 1);
            sent += 1;
            quick.read_exact(&mut sink).await.unwrap();
        }
    });
    read.await.expect("the slow one is never closed");
    assert!(sent > 32, "{sent} packages");
    assert_eq!(server.chat.reason(SessionId(1)), Some(CloseReason::SlowReader));
    assert_eq!(server.chat.reason(SessionId(2)), None);
    send(&mut quick, &say(2, "still here")).await;
    expect(&mut quick, &response(2, "{}")).await;
    expect(&mut quick, &on_chat("still here", "quick")).await;
    drop((slow, quick));
    server.is_quiet().await;
}

#[tokio::test]
async fn a_stalled_write_is_bounded() {
    let mut settings = Settings::new(Config::connector());
    settings.write_timeout = Duration::from_millis(100);
    settings.queue_items_max = usize::MAX;
    settings.queue_bytes_max = usize::MAX;
    let server = Server::start(settings);
    let stalled = enter_by_tcp(&server, "stalled").await;
    // More than any kernel keeps for one connection.
    let package = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..64 {
        server.chat.push(&package);
    }
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::SlowReader)).await;
    server.is_quiet().await;
    drop(stalled);
}

#[tokio::test]
async fn rubbish_is_closed_at_once() {
    let server = Server::connector();
    for rubbish in [&b"hello world"[..], b"PUTxxxx", b"\x16\x03\x01", b"\0\0\0\0", b"\xff"] {
        let mut stream = server.connect().await;
        send(&mut stream, rubbish).await;
        assert_eq!(rest(&mut stream).await, b"", "{rubbish:?}");
    }
    server.is_quiet().await;
    assert!(server.chat.closed.lock().unwrap().is_empty(), "none became a session");
}

#[tokio::test]
async fn silence_before_a_handshake_is_bounded() {
    let mut config = Config::connector();
    config.limits.handshake_timeout = Duration::from_millis(50);
    let mut settings = Settings::new(config);
    settings.head_timeout = Duration::from_millis(50);
    let server = Server::start(settings);
    // Silent, unclear, in the middle of a head, in the middle of a package, after an answer.
    for start in [&b""[..], b"GE", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x01\0", b"\x03\0\0\0"] {
        let mut stream = server.connect().await;
        send(&mut stream, start).await;
        assert_eq!(rest(&mut stream).await, b"", "{start:?}");
    }
    let mut kept = server.connect().await;
    send(&mut kept, b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut kept, b"127.0.0.1").await;
    assert_eq!(rest(&mut kept).await, b"");
    server.is_quiet().await;
}

#[tokio::test]
async fn two_hundred_garbage_connections_leave_nothing_behind() {
    let server = Server::connector();
    let mut honest = enter_by_tcp(&server, "honest").await;
    let mut streams = Vec::new();
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for count in 0..200_usize {
        let mut garbage = Vec::new();
        for _ in 0..count {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            garbage.extend_from_slice(&noise.to_le_bytes());
        }
        // Some behave for a while.
        let start: &[u8] = match count % 5 {
            0 => b"",
            1 => b"\x04",
            2 => b"GET /",
            3 => &hello(),
            _ => b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n",
        };
        let mut stream = server.connect().await;
        // The server may have closed before all was sent.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, start).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &garbage).await;
        streams.push(stream);
    }
    drop(streams);
    until(|| server.handle.connections() == 1 && server.handle.sessions() == 1).await;
    until(|| server.tasks.count() == 2).await;
    send(&mut honest, &packet::HEARTBEAT).await;
    expect(&mut honest, &packet::HEARTBEAT).await;
    drop(honest);
    server.is_quiet().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let mut settings = Settings::new(Config::connector());
    settings.connections_per_address_max = 2;
    let server = Server::start(settings);
    let first = enter_by_tcp(&server, "first").await;
    let _second = enter_by_tcp(&server, "second").await;
    let mut third = server.connect().await;
    assert_eq!(rest(&mut third).await, b"");
    drop(first);
    until(|| server.handle.connections() == 1).await;
    let _fourth = enter_by_tcp(&server, "fourth").await;
}

#[tokio::test]
async fn plain_http_is_for_the_role() {
    let server = Server::gate();
    let mut stream = server.connect().await;
    for _ in 0..3 {
        send(&mut stream, b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = read_until(&mut stream, b"127.0.0.1").await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    send(&mut stream, b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 404 "));
    // A head without end is refused, however it comes.
    let mut stream = server.connect().await;
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.resize(40_000, b'x');
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &head).await;
    let mut answer = Vec::new();
    // The refusal may be cut off by a reset, since not all was read.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{answer:?}");
    drop(stream);
    server.is_quiet().await;
}

#[tokio::test]
async fn an_http_response_that_nobody_reads_is_given_up() {
    let mut settings = Settings::new(Config::gate());
    settings.write_timeout = Duration::from_millis(100);
    let server = Server::start(settings);
    let mut stalled = server.connect().await;
    send(&mut stalled, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut stalled, b"\r\n\r\n").await;
    server.is_quiet().await;
}
