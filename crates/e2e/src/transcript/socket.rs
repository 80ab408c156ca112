//! A client's socket, byte for byte.

use std::{
    io,
    net::SocketAddr,
    str::FromStr as _,
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
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderName, HeaderValue},
        protocol::CloseFrame,
    },
};

use super::{
    exchange::{Headers, Reply, Request},
    record::Payload,
};

/// What has arrived on one connection.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Message by message on WebSocket, one piece on TCP.
    pub(super) messages: Vec<Payload>,
    /// Answers to HTTP requests as they came; nothing where the server hung up.
    pub(super) replies: Vec<(Request, Option<Reply>)>,
    /// A poll waits.
    pub(super) polling: bool,
    /// The code with which the server closed the WebSocket.
    pub(super) close_code: Option<u16>,
    /// Nothing more will come: the server has ended the connection, or the client dropped it.
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

    pub(super) fn change(&self, change: impl FnOnce(&mut Arrived)) {
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
    pub(super) websocket: bool,
    writer: Writer,
    reader: JoinSet<()>,
}

impl Socket {
    pub(super) async fn tcp(address: SocketAddr, to: Inbox) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut read, write) = stream.into_split();
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                to.change(|arrived| {
                    let so_far = arrived.messages.pop();
                    let so_far = so_far.as_ref().map_or(&[][..], Payload::bytes);
                    arrived.messages = vec![Payload::Bytes([so_far, &buffer[..length]].concat())];
                });
            }
            to.change(|arrived| arrived.ended = true);
        });
        Ok(Self { websocket: false, writer: Writer::Tcp(write), reader })
    }

    /// # Errors
    ///
    /// If the server does not accept the WebSocket; with its status, if it has one.
    pub(super) async fn websocket(
        address: SocketAddr,
        path: &str,
        headers: &Headers,
        to: Inbox,
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers.iter() {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_str(name), HeaderValue::from_str(value))
            {
                request.headers_mut().insert(name, value);
            }
        }
        let (stream, _) = tokio_tungstenite::client_async(request, stream).await?;
        let (sink, mut stream) = stream.split();
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                to.change(|arrived| match message {
                    Message::Binary(bytes) => {
                        arrived.messages.push(Payload::Bytes(bytes.to_vec()));
                    }
                    Message::Text(text) => {
                        arrived.messages.push(Payload::Text(text.as_str().to_owned()));
                    }
                    Message::Close(frame) => {
                        arrived.close_code = Some(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                });
            }
            to.change(|arrived| arrived.ended = true);
        });
        Ok(Self { websocket: true, writer: Writer::WebSocket(sink), reader })
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

    /// Closes politely: what the server sent before it notices still arrives. `code` is for a
    /// WebSocket's Close frame.
    pub(super) async fn close(&mut self, code: Option<u16>) {
        match &mut self.writer {
            Writer::Tcp(write) => drop(write.shutdown().await),
            Writer::WebSocket(sink) => {
                let frame = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
                drop(sink.send(Message::Close(frame)).await);
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
