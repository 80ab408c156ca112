//! Raw TCP, with real sockets.

use crate::common::{
    CONNECTOR_HANDSHAKE, GATE_HANDSHAKE, Server, enter, enter_by_tcp, expect, from_hex, hello,
    on_chat, request, response, rest, say, send, soon, until,
};
use model::SessionId;
use session::CloseReason;
use tokio::io::AsyncWriteExt as _;
use wire::pomelo::packet;

#[tokio::test]
async fn a_conversation_has_the_originals_bytes() {
    let server = Server::connector();
    let mut alice = server.connect().await;
    send(&mut alice, &hello()).await;
    expect(&mut alice, &from_hex(CONNECTOR_HANDSHAKE)).await;
    send(&mut alice, &packet::HANDSHAKE_ACK).await;
    expect(&mut alice, &packet::HEARTBEAT).await;
    send(&mut alice, &enter("alice")).await;
    expect(&mut alice, &response(1, r#"{"users":["alice"]}"#)).await;
    let mut bob = enter_by_tcp(&server, "bob").await;
    send(&mut alice, &say(2, "hi")).await;
    expect(&mut alice, &response(2, "{}")).await;
    expect(&mut alice, &on_chat("hi", "alice")).await;
    expect(&mut bob, &on_chat("hi", "alice")).await;
    send(&mut alice, &packet::HEARTBEAT).await;
    expect(&mut alice, &packet::HEARTBEAT).await;

    // A FIN is answered with a FIN.
    alice.shutdown().await.unwrap();
    assert_eq!(rest(&mut alice).await, b"");
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::ClientLeft)).await;
    drop(bob);
    server.is_quiet().await;
}

#[tokio::test]
async fn a_crowd_that_is_lost_at_once_is_closed_by_a_few_at_a_time() {
    let server = Server::connector();
    let mut crowd = Vec::new();
    for number in 0..100 {
        crowd.push(enter_by_tcp(&server, &format!("u{number}")).await);
    }
    drop(crowd);
    server.is_quiet().await;
    assert_eq!(server.chat.closed.lock().unwrap().len(), 100);
    let (_, most) = *server.chat.closing.lock().unwrap();
    assert!(most <= 16, "{most} at once");
}

#[tokio::test]
async fn a_gate_answers_and_knows_no_heartbeat() {
    let server = Server::gate();
    let mut client = server.connect().await;
    send(&mut client, &hello()).await;
    expect(&mut client, &from_hex(GATE_HANDSHAKE)).await;
    let query = request(1, "gate.gateHandler.queryEntry", r#"{"uid":"alice"}"#);
    send(&mut client, &[packet::HANDSHAKE_ACK, packet::HEARTBEAT, query].concat()).await;
    let answer = r#"{"code":200,"host":"127.0.0.1","port":3050}"#;
    expect(&mut client, &response(1, answer)).await;
}

#[tokio::test]
async fn a_stream_may_come_byte_by_byte() {
    let server = Server::connector();
    let mut client = server.connect().await;
    client.set_nodelay(true).unwrap();
    let all = [hello(), packet::HANDSHAKE_ACK, enter("alice"), say(2, "hi")].concat();
    for byte in all {
        send(&mut client, &[byte]).await;
        tokio::task::yield_now().await;
    }
    expect(&mut client, &from_hex(CONNECTOR_HANDSHAKE)).await;
    expect(&mut client, &packet::HEARTBEAT).await;
    expect(&mut client, &response(1, r#"{"users":["alice"]}"#)).await;
    expect(&mut client, &response(2, "{}")).await;
    expect(&mut client, &on_chat("hi", "alice")).await;
}

#[tokio::test]
async fn a_stream_may_come_in_one_piece() {
    let server = Server::connector();
    let mut client = server.connect().await;
    let mut all = [hello(), packet::HANDSHAKE_ACK, enter("alice")].concat();
    let says: Vec<_> = (2..100).map(|id| say(id, "many")).collect();
    all.extend(says.concat());
    send(&mut client, &all).await;
    expect(&mut client, &from_hex(CONNECTOR_HANDSHAKE)).await;
    expect(&mut client, &packet::HEARTBEAT).await;
    expect(&mut client, &response(1, r#"{"users":["alice"]}"#)).await;
    for id in 2..100 {
        expect(&mut client, &response(id, "{}")).await;
        expect(&mut client, &on_chat("many", "alice")).await;
    }
}

#[tokio::test]
async fn a_bad_handshake_is_told_so() {
    let server = Server::connector();
    let mut client = server.connect().await;
    send(&mut client, b"\x01\0\0\x0c{\"sys\":null}").await;
    assert_eq!(rest(&mut client).await, b"\x01\0\0\x0c{\"code\":500}");
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::BadHandshake)).await;
}

#[tokio::test]
async fn a_package_that_is_too_large_ends_it() {
    let server = Server::connector();
    let mut client = server.connect().await;
    send(&mut client, b"\x01\xff\xff\xff\x41").await;
    assert_eq!(rest(&mut client).await, b"");
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::TooLarge)).await;
}

#[tokio::test]
async fn an_attack_is_kicked() {
    let server = Server::connector();
    let mut client = enter_by_tcp(&server, "mallory").await;
    send(&mut client, &request(2, "connector.entryHandler.constructor", r#"{"a":1}"#)).await;
    assert_eq!(rest(&mut client).await, b"\x05\0\0\x13{\"reason\":\"attack\"}");
    until(|| server.chat.reason(SessionId(1)) == Some(CloseReason::Attack)).await;
}

#[tokio::test]
async fn the_role_may_kick_and_close() {
    let server = Server::connector();
    let (mut kicked, mut closed) =
        (enter_by_tcp(&server, "kicked").await, enter_by_tcp(&server, "closed").await);
    let client = |id| server.chat.clients.lock().unwrap()[&SessionId(id)].clone();
    assert!(client(1).outbound.push(packet::HEARTBEAT));
    assert!(client(1).outbound.kick("kick".to_owned()));
    assert_eq!(rest(&mut kicked).await, b"\x03\0\0\0\x05\0\0\x11{\"reason\":\"kick\"}");
    let second = client(2);
    second.outbound.close(CloseReason::Expelled);
    assert_eq!(rest(&mut closed).await, b"");
    until(|| server.chat.reason(SessionId(2)) == Some(CloseReason::Expelled)).await;
    assert!(!second.outbound.push(packet::HEARTBEAT));
    drop((kicked, closed));
    server.is_quiet().await;
}

#[tokio::test]
async fn a_lost_connection_is_noticed() {
    let server = Server::connector();
    let client = enter_by_tcp(&server, "alice").await;
    // Closed at once, with a reset.
    client.set_zero_linger().unwrap();
    drop(client);
    soon(server.is_quiet()).await;
    assert_eq!(server.chat.reason(SessionId(1)), Some(CloseReason::ConnectionLost));
}
