//! A room of more members than joins and leaves are told of, one by one.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::net::SocketAddr;

use client::{Client, Options, Push, Transport};
use e2e::{Cluster, Crowd, Shape, deadline};
use model::limits::PRESENCE_MEMBERS_MAX;
use tokio::{
    sync::mpsc::{Receiver, channel},
    task::JoinSet,
    time::timeout_at,
};

const ROOM: &str = "hall";

/// One that hears what is pushed while others come.
struct Listener {
    heard: Receiver<Push>,
    _ear: JoinSet<()>,
}

impl Listener {
    async fn enter(connector: SocketAddr, transport: Transport, modern: bool, name: &str) -> Self {
        let options = Options { transport, modern, ..Options::default() };
        let mut client = Client::connect(connector, &options).await.unwrap();
        client.enter(name, ROOM).await.unwrap();
        let (pushes, heard) = channel(2 * PRESENCE_MEMBERS_MAX);
        let mut ear = JoinSet::new();
        ear.spawn(async move {
            while let Ok(push) = client.next_push().await {
                if pushes.send(push).await.is_err() {
                    return;
                }
            }
        });
        Self { heard, _ear: ear }
    }

    async fn next(&mut self) -> Push {
        timeout_at(deadline().into(), self.heard.recv()).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_know_hear_how_many_there_are() {
    let cluster = Cluster::start("large-room", Shape::new(2, 1)).await.unwrap();
    let connectors = cluster.connectors();
    let mut modern = Listener::enter(connectors[0], Transport::WebSocket, true, "modern").await;
    let mut others = vec![
        Listener::enter(connectors[0], Transport::WebSocket, false, "old").await,
        Listener::enter(connectors[1], Transport::SocketIo1WebSocket, false, "older").await,
        Listener::enter(connectors[0], Transport::SocketIo09WebSocket, false, "oldest").await,
    ];
    let mut crowd = Crowd::new(Transport::Tcp);
    let mut users = Vec::new();
    for number in others.len() + 1..PRESENCE_MEMBERS_MAX {
        let connector = connectors[number % connectors.len()];
        users.push(crowd.enter_at(connector, &format!("u{number}"), ROOM).await.unwrap());
    }
    for _ in 0..PRESENCE_MEMBERS_MAX - 1 {
        assert!(matches!(modern.next().await, Push::Add { .. }));
    }

    let last = crowd.enter_at(connectors[1], "last", ROOM).await.unwrap();
    let members = PRESENCE_MEMBERS_MAX as u64;
    assert_eq!(modern.next().await, Push::Count { members: members + 1 });
    crowd.leave(last).await.unwrap();
    assert_eq!(modern.next().await, Push::Count { members });
    crowd.leave(users[0]).await.unwrap();
    let gone = Push::Leave { user: "u4".to_owned() };
    assert_eq!(modern.next().await, gone);

    // Clients of old hear what they ever heard, and nothing else.
    for other in &mut others {
        loop {
            match other.next().await {
                Push::Add { .. } => {}
                push @ (Push::Leave { .. }
                | Push::Count { .. }
                | Push::Chat { .. }
                | Push::Other { .. }) => {
                    assert_eq!(push, gone);
                    break;
                }
            }
        }
    }
}
