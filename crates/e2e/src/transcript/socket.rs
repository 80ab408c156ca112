//! A client's socket, byte for byte.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp},
    sync::Notify,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::record::Payload;

/// What has arrived on one connection.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Message by message on WebSocket, one piece on TCP.
    pub(super) messages: Vec<Vec<u8>>,
    /// The code with which the server closed the WebSocket.
    pub(super) close_code: Option<u16>,
    /// The server has ended the connection.
    pub(super) ended: bool,
}

/// Shared with the task that reads.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    arrived: Arc<Mutex<Arrived>>,
    changed: Arc<Notify>,
}

impl Inbox {
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Arrived) -> T) -> T {
        look(&mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Arrived)) {
        self.look(change);
        self.changed.notify_waiters();
    }

    /// Resolves at the next change after the call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }
}

enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    WebSocket(SplitSink<WebSocketStream<TcpStream>, Message>),
    /// Dropped without a word.
    Gone,
}

/// A client's socket. What arrives is in its [`Inbox`].
pub(super) struct Socket {
    pub(super) inbox: Inbox,
    pub(super) websocket: bool,
    writer: Writer,
    reader: JoinSet<()>,
}

impl Socket {
    pub(super) async fn tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut read, write) = stream.into_split();
        let inbox = Inbox::default();
        let mut reader = JoinSet::new();
        let to = inbox.clone();
        reader.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                to.change(|arrived| {
                    if arrived.messages.is_empty() {
                        arrived.messages.push(Vec::new());
                    }
                    arrived.messages[0].extend_from_slice(&buffer[..length]);
                });
            }
            to.change(|arrived| arrived.ended = true);
        });
        Ok(Self { inbox, websocket: false, writer: Writer::Tcp(write), reader })
    }

    pub(super) async fn websocket(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}{path}");
        let (stream, _) = tokio_tungstenite::client_async(url, stream).await?;
        let (sink, mut stream) = stream.split();
        let inbox = Inbox::default();
        let mut reader = JoinSet::new();
        let to = inbox.clone();
        reader.spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                to.change(|arrived| match message {
                    Message::Binary(bytes) => arrived.messages.push(bytes.to_vec()),
                    // No server should, so it will be found to differ.
                    Message::Text(text) => arrived.messages.push(text.as_bytes().to_vec()),
                    Message::Close(frame) => {
                        arrived.close_code = Some(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                });
            }
            to.change(|arrived| arrived.ended = true);
        });
        Ok(Self { inbox, websocket: true, writer: Writer::WebSocket(sink), reader })
    }

    /// Sends. A connection that the server has ended takes it without complaint, as it did the
    /// recorder's.
    pub(super) async fn send(&mut self, payload: &Payload) {
        match &mut self.writer {
            Writer::Tcp(write) => drop(write.write_all(payload.bytes()).await),
            Writer::WebSocket(sink) => {
                let message = match payload {
                    Payload::Text(text) => Message::text(text.clone()),
                    Payload::Bytes(bytes) => Message::binary(bytes.clone()),
                };
                drop(sink.send(message).await);
            }
            Writer::Gone => {}
        }
    }

    /// Closes politely: what the server sent before it notices still arrives.
    pub(super) async fn close(&mut self) {
        match &mut self.writer {
            Writer::Tcp(write) => drop(write.shutdown().await),
            Writer::WebSocket(sink) => {
                let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                drop(sink.send(Message::Close(Some(frame))).await);
            }
            Writer::Gone => {}
        }
    }

    /// Drops the connection without a word.
    pub(super) async fn abort(&mut self) {
        self.writer = Writer::Gone;
        self.reader.shutdown().await;
    }
}
