//! Proves the player: against a server that says exactly what was recorded nothing differs, and
//! against one that gets a single byte wrong something does.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::CloseFrame},
};

use super::{
    Stage, Transcript,
    compare::Difference,
    exchange::{Reply, Request},
    play::{LONG_PAUSE, NO_FRAME, replay},
    record::{Closer, Line, Payload, Transport, What},
    socketio::sid_in_target,
};

/// The original's ports.
const PORTS: [u16; 4] = [3014, 3050, 3051, 3052];

enum Mirrored {
    Tcp(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// A WebSocket whose client has sent its Close frame, which the original does not answer.
    Closing(TcpStream),
}

impl Mirrored {
    async fn hear(&mut self, length: usize) {
        match self {
            Self::Tcp(stream) => drop(stream.read_exact(&mut vec![0; length]).await.unwrap()),
            Self::WebSocket(stream) => drop(stream.next().await.unwrap().unwrap()),
            Self::Closing(_) => {}
        }
    }

    async fn say(&mut self, payload: Payload) {
        match (self, payload) {
            (Self::Tcp(stream), payload) => stream.write_all(payload.bytes()).await.unwrap(),
            (Self::WebSocket(stream), Payload::Bytes(bytes)) => {
                stream.send(Message::binary(bytes)).await.unwrap();
            }
            (Self::WebSocket(stream), Payload::Text(text)) => {
                stream.send(Message::text(text)).await.unwrap();
            }
            (Self::Closing(stream), payload) => {
                let length = u8::try_from(payload.bytes().len()).unwrap();
                let frame = [&[0x81, length], payload.bytes()].concat();
                stream.write_all(&frame).await.unwrap();
            }
        }
    }

    /// Waits until the client has closed.
    async fn outlast(&mut self) {
        match self {
            Self::Tcp(stream) => {
                while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
            }
            Self::WebSocket(stream) => while let Some(Ok(_)) = stream.next().await {},
            Self::Closing(_) => {}
        }
    }

    async fn close(&mut self, code: Option<u16>) {
        if let Self::WebSocket(stream) = self
            && code != Some(NO_FRAME)
        {
            let code = code.unwrap_or(1000).into();
            let frame = CloseFrame { code, reason: "".into() };
            // Not `stream.close`: with all features of the workspace that is another trait's.
            drop(WebSocketStream::close(stream, Some(frame)).await);
            self.outlast().await;
        }
    }

    /// Takes the client's Close frame and does not answer it, or as said.
    async fn outlast_frame(self, code: Option<u16>) -> Self {
        let Self::WebSocket(mut stream) = self else {
            return self;
        };
        while let Some(Ok(message)) = stream.next().await {
            if message.is_close() {
                break;
            }
        }
        let mut stream = stream.into_inner();
        if let Some(code) = code.filter(|code| *code != NO_FRAME) {
            let [high, low] = code.to_be_bytes();
            stream.write_all(&[0x88, 2, high, low]).await.unwrap();
        }
        Self::Closing(stream)
    }
}

/// Somebody has connected. The head of HTTP has been seen, not read.
struct Guest {
    port: u16,
    stream: TcpStream,
    head: String,
}

impl Guest {
    fn asks(&self) -> (&str, &str) {
        let mut words = self.head.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    async fn see(port: u16, stream: TcpStream, is_http: bool) -> Self {
        let mut bytes = vec![0; 4096];
        let mut head = String::new();
        while is_http && !head.contains("\r\n\r\n") {
            let length = stream.peek(&mut bytes).await.unwrap();
            head = String::from_utf8_lossy(&bytes[..length]).into_owned();
        }
        Self { port, stream, head }
    }

    async fn answer(&mut self, reply: Option<&Reply>) {
        let Some(reply) = reply else {
            return;
        };
        // With the request unread, closing would take the answer back.
        let (head, _) = self.head.split_once("\r\n\r\n").unwrap();
        let length = head.to_ascii_lowercase();
        let length = length.split_once("content-length: ").map_or("0", |(_, rest)| rest);
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        self.stream.read_exact(&mut vec![0; head.len() + 4 + length]).await.unwrap();
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in reply.headers.iter().filter(|(name, _)| *name != "content-length") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", reply.body.len()));
        let bytes = [head.as_bytes(), &reply.body].concat();
        self.stream.write_all(&bytes).await.unwrap();
    }
}

/// Those who have connected and whose turn has not come.
struct Guests {
    waiting: Vec<Guest>,
    arriving: mpsc::Receiver<Guest>,
}

impl Guests {
    async fn find(&mut self, is_it: impl Fn(&Guest) -> bool) -> Guest {
        loop {
            if let Some(at) = self.waiting.iter().position(&is_it) {
                return self.waiting.remove(at);
            }
            self.waiting.push(self.arriving.recv().await.unwrap());
        }
    }
}

/// What the server's next line is, with a byte wrong if it is the one to be spoiled.
fn spoil(bytes: &[u8], left: &mut Option<usize>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= u8::from(*left == Some(0));
        *left = left.and_then(|left| left.checked_sub(1));
    }
    bytes
}

/// Says what the original said. `left`: the how-many-th line of the server's gets a byte wrong.
async fn mirror(mut guests: Guests, lines: &[Line], mut left: Option<usize>) {
    let mut connections: BTreeMap<&str, Mirrored> = BTreeMap::new();
    let mut asking: BTreeMap<usize, Guest> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let name = line.connection.as_str();
        if let What::Request(request) = &line.what
            && !request.is_poll
        {
            let asks = (request.method.as_str(), request.target.as_str());
            asking.insert(at, guests.find(|guest| guest.asks() == asks).await);
        }
        if let What::Answer { to, reply } = &line.what
            && let What::Request(request) = &lines[*to].what
        {
            let mut guest = match asking.remove(to) {
                Some(guest) => guest,
                None => guests.find(|guest| polls(guest, request)).await,
            };
            let mut reply = reply.clone();
            if let Some(reply) = &mut reply {
                reply.body = spoil(&reply.body, &mut left);
            }
            guest.answer(reply.as_ref()).await;
        }
        if let What::Open { transport, port, path, .. } = &line.what
            && *transport != Transport::Http
        {
            let is_it = |guest: &Guest| {
                guest.port == *port && (guest.head.is_empty() || guest.asks().1 == path)
            };
            let stream = guests.find(is_it).await.stream;
            let connection = if *transport == Transport::WebSocket {
                let stream = tokio_tungstenite::accept_async(stream).await.unwrap();
                Mirrored::WebSocket(Box::new(stream))
            } else {
                Mirrored::Tcp(stream)
            };
            connections.insert(name, connection);
            continue;
        }
        if let Some(connection) = connections.remove(name)
            && let Some(connection) = step(connection, &lines[at..], &mut left).await
        {
            connections.insert(name, connection);
        }
    }
    let outlasts = connections.values_mut().map(Mirrored::outlast);
    futures_util::future::join_all(outlasts).await;
}

fn polls(guest: &Guest, request: &Request) -> bool {
    let (method, target) = guest.asks();
    let is_poll =
        method == "GET" && !target.contains("disconnect") && !target.contains("websocket");
    is_poll && sid_in_target(target) == sid_in_target(&request.target)
}

/// Plays the first of the lines on its socket. Answers the socket if it lives on.
async fn step(
    mut connection: Mirrored,
    lines: &[Line],
    left: &mut Option<usize>,
) -> Option<Mirrored> {
    let name = &lines[0].connection;
    let is_later = |line: &&Line| line.connection == *name && line.what != What::Remark;
    let mut later = lines[1..].iter().filter(is_later);
    match &lines[0].what {
        What::Send(payload) => connection.hear(payload.bytes().len()).await,
        What::Receive(payload) => {
            let bytes = spoil(payload.bytes(), left);
            let payload = match payload {
                Payload::Text(_) => Payload::Text(String::from_utf8_lossy(&bytes).into_owned()),
                Payload::Bytes(_) => Payload::Bytes(bytes),
            };
            connection.say(payload).await;
            if matches!(connection, Mirrored::Closing(_)) && later.next().is_none() {
                return None;
            }
        }
        What::Fin => {
            if later.any(|line| matches!(line.what, What::Closed { by: Closer::Client, .. })) {
                connection.outlast().await;
            }
            return None;
        }
        What::Closed { by: Closer::ClientFrame(_), code } => {
            connection = connection.outlast_frame(*code).await;
            later.next()?;
        }
        What::Closed { by: Closer::Client, .. } => {
            connection.outlast().await;
            return None;
        }
        What::Closed { by: Closer::Server, code } => {
            connection.close(*code).await;
            return None;
        }
        What::Open { .. }
        | What::Handshake { .. }
        | What::Request(_)
        | What::Answer { .. }
        | What::CloseFrame { .. }
        | What::NoResponse(_)
        | What::StillOpen
        | What::Withheld(_)
        | What::Remark => {}
    }
    Some(connection)
}

/// Lets everybody in.
async fn welcome(port: u16, listener: TcpListener, is_http: bool, to: mpsc::Sender<Guest>) {
    let mut arriving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let to = to.clone();
        arriving.spawn(async move {
            // The mirror may have said all it had to.
            drop(to.send(Guest::see(port, stream, is_http).await).await);
        });
    }
}

async fn differences(transcript: &Transcript, left: Option<usize>) -> Vec<String> {
    let is_tcp = |line: &Line| matches!(line.what, What::Open { transport: Transport::Tcp, .. });
    let is_http = !transcript.lines.iter().any(is_tcp);
    let (to, arriving) = mpsc::channel(64);
    let mut doors = JoinSet::new();
    let mut addresses = BTreeMap::new();
    for port in PORTS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.insert(port, listener.local_addr().unwrap());
        doors.spawn(welcome(port, listener, is_http, to.clone()));
    }
    let stage = Stage {
        gate: addresses[&PORTS[0]],
        connectors: PORTS[1..].iter().map(|port| addresses[port]).collect(),
    };
    let guests = Guests { waiting: Vec::new(), arriving };
    // The original's silence is reported and waited for; here it is no difference.
    let silences = transcript.lines.iter().filter_map(|line| {
        let What::NoResponse(id) = line.what else {
            return None;
        };
        Some(Difference::unanswered(&line.connection, id))
    });
    let known = silences.collect();
    let (mirrored, replayed) = tokio::join!(
        // A player that gives up leaves the mirror waiting.
        tokio::time::timeout(Duration::from_secs(60), mirror(guests, &transcript.lines, left)),
        replay(&stage, transcript, &known)
    );
    assert!(
        mirrored.is_ok(),
        "{}: the mirror waits for what the player does not do",
        transcript.name
    );
    let differences = replayed.unwrap();
    let told = differences.iter().filter(|it| !known.contains(it));
    told.map(ToString::to_string).collect()
}

/// Transcripts without long pauses, which are about time and not about bytes. Those without words
/// of the server cannot be spoiled, and of one the beginning is missing.
fn transcripts() -> Vec<Transcript> {
    const PREFIXES: [&str; 6] = ["ws-", "tcp-", "sio09-", "sio1-", "sio1p-", "page-"];
    let Some(folder) = super::folder() else {
        eprintln!("skipped: the player's proof (no transcripts)");
        return Vec::new();
    };
    let mut transcripts = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let transcript = Transcript::read(&file).unwrap();
        let lines = &transcript.lines;
        let is_quick = lines.windows(2).all(|pair| pair[1].at - pair[0].at < LONG_PAUSE);
        let is_whole = !lines.iter().any(|line| matches!(line.what, What::Handshake { .. }));
        if is_quick && is_whole && lines.iter().any(is_said) {
            transcripts.push(transcript);
        }
    }
    transcripts
}

/// Whether the server says something in this line.
fn is_said(line: &Line) -> bool {
    if let What::Answer { reply: Some(reply), .. } = &line.what {
        return !reply.body.is_empty();
    }
    matches!(&line.what, What::Receive(payload) if !payload.bytes().is_empty())
}

#[tokio::test]
async fn the_original_does_not_differ_from_itself() {
    let mut plays = JoinSet::new();
    for transcript in transcripts() {
        plays.spawn(async move { (differences(&transcript, None).await, transcript.name) });
    }
    let mut wrong = Vec::new();
    while let Some(played) = plays.join_next().await {
        let (differences, name) = played.unwrap();
        wrong.extend(differences.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn one_wrong_byte_is_found() {
    const SPOILED: [&str; 6] =
        ["ws-send", "sio09-send-all", "sio09-xhr", "sio1-send-all", "sio1p-send", "page-sio1"];
    let mut plays = JoinSet::new();
    let is_one = |it: &Transcript| SPOILED.iter().any(|prefix| it.name.starts_with(prefix));
    for transcript in transcripts().into_iter().filter(is_one) {
        let count = transcript.lines.iter().filter(|line| is_said(line)).count();
        for left in (0..count).step_by(5) {
            let transcript = transcript.clone();
            plays.spawn(async move {
                (differences(&transcript, Some(left)).await, left, transcript.name)
            });
        }
    }
    while let Some(played) = plays.join_next().await {
        let (differences, left, name) = played.unwrap();
        assert!(!differences.is_empty(), "{name}: line {left} of the server's was wrong");
    }
}
