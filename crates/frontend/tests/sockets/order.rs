//! What a client hears keeps its order and its frames, whoever writes them and when.

use std::time::Duration;

use crate::common::{
    CONNECTOR_HANDSHAKE, LONG, Server, enter, expect, from_hex, hello, on_chat, read_until,
    response, rest, say, send, soon, until,
};
use bytes::Bytes;
use frontend::Settings;
use model::SessionId;
use session::{CloseReason, Config};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use wire::pomelo::packet::{self, Kind};

/// Threads that push at the same time.
const PUSHERS: u32 = 4;
/// Pushes of each.
const PUSHES: u32 = 300;

/// A DATA package that says who pushed it, and which of its pushes it is.
fn numbered(pusher: u32, number: u32, bytes: usize) -> Bytes {
    let mut body = vec![u8::try_from(number % 251).unwrap(); bytes];
    body[..4].copy_from_slice(&pusher.to_be_bytes());
    body[4..8].copy_from_slice(&number.to_be_bytes());
    packet::encode(Kind::Data, &body).unwrap()
}

/// A client whose kernel buffers hold little, so that writes are cut anywhere.
async fn narrow(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    soon(socket.connect(server.address)).await.unwrap()
}

/// Never too slow.
fn patient() -> Server {
    let mut settings = Settings::new(Config::connector());
    settings.queue_items_max = usize::MAX;
    settings.queue_bytes_max = usize::MAX;
    Server::start(settings)
}

async fn enter_narrowly(server: &Server) -> TcpStream {
    let mut stream = narrow(server).await;
    send(&mut stream, &hello()).await;
    expect(&mut stream, &from_hex(CONNECTOR_HANDSHAKE)).await;
    send(&mut stream, &packet::HANDSHAKE_ACK).await;
    expect(&mut stream, &packet::HEARTBEAT).await;
    send(&mut stream, &enter("alice")).await;
    expect(&mut stream, &response(1, r#"{"users":["alice"]}"#)).await;
    stream
}

async fn next_package(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    soon(stream.read_exact(&mut header)).await.unwrap();
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    let mut package = header.to_vec();
    package.resize(4 + length, 0);
    soon(stream.read_exact(&mut package[4..])).await.unwrap();
    package
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_replies_never_interleave() {
    let server = patient();
    let mut alice = enter_narrowly(&server).await;
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let chat = server.chat.clone();
            std::thread::spawn(move || {
                for number in 0..PUSHES {
                    // Some fit into one segment, some into no buffer.
                    let bytes = if number % 7 == 0 { 9000 } else { 50 };
                    assert_eq!(chat.push(&numbered(pusher, number, bytes)), 1);
                    if number % 16 == 0 {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                }
            })
        })
        .collect();
    let mut next = [0; PUSHERS as usize];
    let (mut said, mut answered, mut heard, mut beats) = (1, 1, 1, 0);
    while next.iter().any(|number| *number < PUSHES) || answered < said || heard < said {
        if said < 60 && said == heard {
            said += 1;
            // The session has something to say of its own, too.
            let asks = [packet::HEARTBEAT, say(said, &format!("hi {said}"))].concat();
            send(&mut alice, &asks).await;
        }
        let package = next_package(&mut alice).await;
        if package == packet::HEARTBEAT {
            beats += 1;
        } else if package == response(answered + 1, "{}") {
            answered += 1;
            assert_eq!(answered, heard + 1, "the reply comes before its push");
        } else if package == on_chat(&format!("hi {}", heard + 1), "alice") {
            heard += 1;
            assert_eq!(answered, heard, "the push comes after its reply");
        } else {
            let [pusher, number] =
                [4, 8].map(|at| u32::from_be_bytes(package[at..at + 4].try_into().unwrap()));
            assert_eq!(number, next[pusher as usize], "of pusher {pusher}");
            let bytes = package.len() - 4;
            assert_eq!(package, numbered(pusher, number, bytes));
            next[pusher as usize] += 1;
        }
    }
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    assert_eq!(beats + 1, said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_close_comes_after_what_was_pushed_before() {
    let server = patient();
    for round in 1..=10 {
        let mut alice = enter_narrowly(&server).await;
        let id = SessionId(round);
        let outbound = server.chat.clients.lock().unwrap()[&id].outbound.clone();
        let pushed = std::thread::spawn(move || {
            for number in 0..PUSHES {
                assert!(outbound.push(numbered(0, number, 2000)));
            }
            assert!(outbound.kick("enough".to_owned()));
            assert!(!outbound.push(numbered(0, PUSHES, 2000)));
        });
        for number in 0..PUSHES {
            assert_eq!(next_package(&mut alice).await, numbered(0, number, 2000));
        }
        let kick = next_package(&mut alice).await;
        assert_eq!(kick[0], 5, "a kick");
        assert_eq!(rest(&mut alice).await, b"");
        drop(alice);
        pushed.join().unwrap();
        until(|| server.chat.reason(id) == Some(CloseReason::Kicked)).await;
    }
    server.is_quiet().await;
}

#[tokio::test]
async fn a_websocket_that_reads_too_slowly_is_told_between_frames() {
    let server = Server::connector();
    let mut slow = narrow(&server).await;
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    send(&mut slow, ask.as_bytes()).await;
    read_until(&mut slow, b"\r\n\r\n").await;
    for package in [&hello()[..], &packet::HANDSHAKE_ACK, &enter("slow")] {
        // The mask changes nothing.
        let length = u8::try_from(package.len()).unwrap();
        let head = [0x82, 0x80 | length.min(126)];
        let long: &[u8] = if length < 126 { &[] } else { &[0, length] };
        send(&mut slow, &[&head, long, &[0; 4], package].concat()).await;
    }
    until(|| server.chat.push(&numbered(0, 0, 40_000)) == 1).await;
    let mut pushed = 1;
    while server.chat.push(&numbered(0, pushed, 40_000)) == 1 {
        pushed += 1;
        // What blocks is left to the task, which must get to write.
        tokio::task::yield_now().await;
    }
    // Every frame that was begun is whole, and the last says why.
    let mut heard = 0;
    let close = tokio::time::timeout(LONG, async {
        loop {
            let [opcode, length] = [slow.read_u8().await.unwrap(), slow.read_u8().await.unwrap()];
            let length = match length {
                126 => usize::from(slow.read_u16().await.unwrap()),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            slow.read_exact(&mut payload).await.unwrap();
            if opcode == 0x88 {
                return payload;
            }
            assert_eq!(opcode, 0x82);
            if length > 40_000 {
                assert_eq!(payload, numbered(0, heard, 40_000));
                heard += 1;
            }
        }
    });
    assert_eq!(close.await.unwrap()[..2], 1013_u16.to_be_bytes());
    assert!(heard < pushed);
    slow.shutdown().await.unwrap();
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::SlowReader)).await;
}
