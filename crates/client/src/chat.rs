//! The chat application's client.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::{
    net::{ToSocketAddrs, lookup_host},
    time::{Instant, sleep, timeout_at},
};
use wire::{
    RequestId, Route,
    pomelo::{Hello, client::Kept},
};

use crate::{
    codec::{Codec, Speech},
    connection::Connection,
    ear::{Ear, Pending},
    error::{Closed, Error, Result},
    event::{Event, Queued},
    handshake::{HANDSHAKE_TIMEOUT, shake_hands},
    member::jittered,
    modern,
    push::Push,
    transport::Transport,
};

/// A gate asks for no longer wait than this.
const AFTER_MAX: Duration = Duration::from_secs(60);

/// How to connect. The same for thousands of clients, so it is borrowed.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to speak, and what carries it.
    pub transport: Transport,
    /// The address to connect from, if that matters.
    pub source: Option<IpAddr>,
    /// The port to connect from at that address; 0 is any. One that is named must be free, and
    /// serves a transport of one connection only.
    pub source_port: u16,
    /// What to say in the handshake of the binary protocol: the kind of client, and whatever the
    /// application wants.
    pub hello: Hello,
    /// Whether to ask for the modern fields: positions, resuming, ids, codes. A server that does not
    /// know them is spoken to as ever ([`Client::is_modern`]).
    pub modern: bool,
    /// What an earlier client of a server of the same role has kept ([`Client::kept`]), so that
    /// the server need not send it and this client need not hold it once more.
    pub kept: Kept,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transport: Transport::default(),
            source: None,
            source_port: 0,
            hello: Hello {
                client_type: Some("tangelo".to_owned()),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                ..Hello::default()
            },
            modern: false,
            kept: Kept::default(),
        }
    }
}

/// The connector that a gate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How long to wait before, if a gate that speaks the modern fields says so: many want in.
    pub after: Duration,
}

impl Entry {
    /// Waits until the connector expects this client, and somewhat longer: not all clocks and
    /// networks are equally fast, so that a crowd would not come as evenly as it was told to.
    pub async fn slot(&self) {
        if !self.after.is_zero() {
            sleep(jittered(self.after)).await;
        }
    }
}

/// One client of a gate or a connector, after the handshake. See the crate's page.
pub struct Client {
    connection: Connection,
    codec: Codec,
    next_id: u64,
    pending: VecDeque<Pending>,
    events: VecDeque<Queued>,
    closed: Option<Closed>,
    /// When to send the next heartbeat.
    beat: Option<Instant>,
    /// When the server was last heard.
    heard: Instant,
    /// Whether it asks for the modern fields with its requests, as there was no handshake for that.
    asks: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("pending", &self.pending.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// What a request to enter says.
pub(crate) fn entering(name: &str, room: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("username".to_owned(), name.into());
    body.insert("rid".to_owned(), room.into());
    body
}

impl Client {
    /// Asks a gate which connector `user` should use to enter `room`, on a connection of its own.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`]; [`Error::Refused`] if the gate knows no connector, or none that has
    /// time for one more soon.
    pub async fn query_entry(
        gate: impl ToSocketAddrs,
        options: &Options,
        user: &str,
        room: Option<&str>,
    ) -> Result<Entry> {
        let mut client = Self::connect(gate, options).await?;
        let mut body = Map::new();
        body.insert("uid".to_owned(), user.into());
        if let Some(room) = room {
            body.insert("rid".to_owned(), room.into());
        }
        let answer = client.request(Route::QueryEntry, &body).await?;
        let host = answer.get("host").and_then(Value::as_str);
        let port = answer.get("port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok());
        // The answer is here; how the connection ends does not matter.
        let _ = client.connection.close().await;
        match (host, port) {
            (Some(host), Some(port)) => {
                let after = answer.get("after").and_then(Value::as_u64).unwrap_or(0);
                let after = AFTER_MAX.min(Duration::from_millis(after));
                Ok(Entry { host: host.to_owned(), port, after })
            }
            _ => Err(Error::Unexpected(answer.to_string())),
        }
    }

    /// Connects and shakes hands. The last word of that goes out with the first request, in one
    /// write, or as soon as something is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Upgrade`], [`Error::Busy`], [`Error::Http`],
    /// [`Error::Handshake`] or [`Error::Closed`].
    pub async fn connect(address: impl ToSocketAddrs, options: &Options) -> Result<Self> {
        let mut last = None;
        for address in lookup_host(address).await.map_err(Error::Connect)? {
            let source = options.source.map(|ip| SocketAddr::new(ip, options.source_port));
            match Connection::connect(address, options.transport, source).await {
                Ok(connection) => return Self::shake_hands(connection, options).await,
                Err(error) => last = Some(error),
            }
        }
        let nowhere = || Error::Connect(std::io::ErrorKind::NotFound.into());
        Err(last.unwrap_or_else(nowhere))
    }

    /// Shakes hands on a fresh connection.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`] or [`Error::Closed`].
    pub async fn shake_hands(mut connection: Connection, options: &Options) -> Result<Self> {
        let codec = shake_hands(&mut connection, options).await?;
        let now = Instant::now();
        Ok(Self {
            connection,
            beat: codec.beats.as_ref().map(|beats| now + beats.every),
            codec,
            next_id: 1,
            pending: VecDeque::new(),
            events: VecDeque::new(),
            closed: None,
            heard: now,
            asks: options.modern,
        })
    }

    /// What to put into [`Options::kept`] for further clients of servers of this role.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.codec.kept()
    }

    /// Whether this client has asked for the modern fields, and the server speaks them. Over
    /// Socket.IO that is believed until the first answer: [`Client::join`] then tells otherwise.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        match &self.codec.speech {
            Speech::Pomelo(codec) => modern::is_agreed(&codec.user),
            Speech::SocketIo09 | Speech::SocketIo1 => self.asks,
        }
    }

    /// How often this client sends a heartbeat; never, where the server does.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.codec.heartbeat()
    }

    /// Whether requests carry the session, at this moment.
    #[must_use]
    pub const fn is_polling(&self) -> bool {
        self.connection.is_polling()
    }

    /// Enters a room. Answers everybody in it, this user included.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the name is taken or not allowed; the connection can be used for
    /// another try.
    pub async fn enter(&mut self, name: &str, room: &str) -> Result<Vec<String>> {
        let id = self.begin_enter(name, room)?;
        let answer = self.answer(id).await?;
        let users = answer.get("users").and_then(Value::as_array);
        let users = users
            .and_then(|users| users.iter().map(|user| user.as_str().map(str::to_owned)).collect());
        users.ok_or_else(|| Error::Unexpected(answer.to_string()))
    }

    /// Enters a room without waiting: the answer comes as an [`Event`].
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub fn begin_enter(&mut self, name: &str, room: &str) -> Result<RequestId> {
        self.begin(Route::Enter, &entering(name, room))
    }

    /// Says something to one user of the room, or to `*`, and waits until it is in order.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it was not done.
    pub async fn send(&mut self, target: &str, text: &str) -> Result<()> {
        let id = self.begin_send(target, text)?;
        self.answer(id).await.map(drop)
    }

    /// Says something without waiting: the answer comes as an [`Event`].
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub fn begin_send(&mut self, target: &str, text: &str) -> Result<RequestId> {
        let mut body = Map::new();
        body.insert("content".to_owned(), text.into());
        body.insert("target".to_owned(), target.into());
        self.begin(Route::Send, &body)
    }

    /// Sends a request and waits for its answer. What is pushed meanwhile is kept for
    /// [`Client::next`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the answer has a `code` other than 200.
    pub async fn request(&mut self, route: Route, body: &Map<String, Value>) -> Result<Value> {
        let id = self.begin(route, body)?;
        self.answer(id).await
    }

    /// Sends a request without waiting: the answer comes as an [`Event`].
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub fn begin(&mut self, route: Route, body: &Map<String, Value>) -> Result<RequestId> {
        let id = RequestId(self.next_id);
        let is_pomelo = matches!(self.codec.speech, Speech::Pomelo(_));
        let unit = if self.asks && !is_pomelo && route != Route::Send {
            let mut body = body.clone();
            modern::ask(&mut body);
            self.codec.encode_request(id, route.name(), &body)?
        } else {
            self.codec.encode_request(id, route.name(), body)?
        };
        self.transmit(&unit)?;
        self.next_id += 1;
        self.pending.push_back(Pending { id, route });
        Ok(id)
    }

    /// Tells the server something that it does not answer.
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub fn notify(&mut self, route: Route, body: &Map<String, Value>) -> Result<()> {
        let unit = self.codec.encode_request(RequestId::NOTIFY, route.name(), body)?;
        self.transmit(&unit)
    }

    /// Waits for the answer to a request that was begun.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the answer comes as an [`Event`].
    pub async fn answer(&mut self, id: RequestId) -> Result<Value> {
        loop {
            let is_answer =
                |event: &Queued| matches!(event, Queued::Answer { id: of, .. } if *of == id);
            if let Some(place) = self.events.iter().rposition(is_answer)
                && let Some(Queued::Answer { result, .. }) = self.events.remove(place)
            {
                return result;
            }
            self.drive().await?;
        }
    }

    /// Waits for what comes next: a push, or an answer that nobody waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]: this is the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Result<Event> {
        self.next_queued().await.map(Event::from)
    }

    /// Waits for so long. What comes meanwhile is kept.
    pub(crate) async fn rest(&mut self, span: Duration) -> Result<()> {
        let until = Instant::now() + span;
        while let Ok(driven) = timeout_at(until, self.drive()).await {
            driven?;
        }
        Ok(())
    }

    pub(crate) async fn next_queued(&mut self) -> Result<Queued> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.drive().await?;
        }
    }

    /// Waits for the next push. Answers that nobody waits for are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]: this is the end.
    pub async fn next_push(&mut self) -> Result<Push> {
        loop {
            if let Event::Push(push) = self.next().await? {
                return Ok(push);
            }
        }
    }

    /// What has arrived already and was not asked for yet.
    pub(crate) fn take_queued(&mut self) -> Option<Queued> {
        self.events.pop_front()
    }

    /// Takes the client apart, for those who drive it themselves: heartbeats are theirs from now
    /// on. What has arrived already comes last.
    #[must_use]
    pub fn into_parts(self) -> (Connection, Codec, Vec<Event>) {
        (self.connection, self.codec, self.events.into_iter().map(Event::from).collect())
    }

    /// Leaves: closes, and waits until the server has too. Answers what came last.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], if the connection ended in any other way before.
    pub async fn close(mut self) -> Result<Vec<Event>> {
        if let Some(closed) = self.closed {
            return Err(Error::Closed(closed));
        }
        self.connection.close().await.map_err(Error::Closed)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        while self.closed.is_none() {
            // The server's end is the success here.
            let _ = timeout_at(deadline, self.drive()).await;
            if Instant::now() >= deadline {
                return Err(Error::Closed(Closed::Silent));
            }
        }
        Ok(self.events.into_iter().map(Event::from).collect())
    }

    fn transmit(&mut self, unit: &[u8]) -> Result<()> {
        match &self.closed {
            Some(closed) => Err(Error::Closed(closed.clone())),
            None => self.connection.send(unit).map_err(Error::Closed),
        }
    }

    /// Receives once, and beats in time.
    async fn drive(&mut self) -> Result<()> {
        if let Some(closed) = &self.closed {
            return Err(Error::Closed(closed.clone()));
        }
        let Self { connection, codec, pending, events, heard, .. } = self;
        let mut ear = Ear { codec, pending, events, end: None };
        let receive = connection.receive(|unit| {
            *heard = Instant::now();
            ear.hear(unit);
        });
        let received = match self.beat {
            None => receive.await,
            Some(beat) => match timeout_at(beat, receive).await {
                Ok(received) => received,
                Err(_) => return self.beat(),
            },
        };
        // What the server said of the end says more than how it came.
        self.closed = ear.end.or(received.err());
        // What came before the end is still to be seen.
        if let Some(closed) = &self.closed
            && self.events.is_empty()
        {
            return Err(Error::Closed(closed.clone()));
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<()> {
        let Some(beats) = &self.codec.beats else {
            return Ok(());
        };
        if self.heard.elapsed() > beats.patience {
            self.closed = Some(Closed::Silent);
            return Err(Error::Closed(Closed::Silent));
        }
        self.beat = Some(Instant::now() + beats.every);
        if let Some(unit) = &beats.unit
            && let Err(closed) = self.connection.send(unit)
        {
            self.closed = Some(closed.clone());
            return Err(Error::Closed(closed));
        }
        Ok(())
    }
}
