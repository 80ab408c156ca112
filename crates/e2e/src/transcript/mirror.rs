//! Proves the player: against a server that says exactly what was recorded nothing differs, and
//! against one that gets a single byte wrong something does.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::CloseFrame},
};

use super::{
    Stage, Transcript,
    play::{LONG_PAUSE, replay},
    record::{Line, What},
};

enum Mirrored {
    Tcp(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

impl Mirrored {
    async fn hear(&mut self, length: usize) {
        match self {
            Self::Tcp(stream) => drop(stream.read_exact(&mut vec![0; length]).await.unwrap()),
            Self::WebSocket(stream) => drop(stream.next().await.unwrap().unwrap()),
        }
    }

    async fn say(&mut self, bytes: Vec<u8>) {
        match self {
            Self::Tcp(stream) => stream.write_all(&bytes).await.unwrap(),
            Self::WebSocket(stream) => stream.send(Message::binary(bytes)).await.unwrap(),
        }
    }

    /// Waits until the client has closed.
    async fn outlast(&mut self) {
        match self {
            Self::Tcp(stream) => {
                while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
            }
            Self::WebSocket(stream) => while let Some(Ok(_)) = stream.next().await {},
        }
    }

    async fn close(&mut self, code: Option<u16>) {
        if let Self::WebSocket(stream) = self {
            let code = code.unwrap_or(1000).into();
            let frame = CloseFrame { code, reason: "".into() };
            // Not `stream.close`: with all features of the workspace that is another trait's.
            drop(WebSocketStream::close(stream, Some(frame)).await);
            self.outlast().await;
        }
    }
}

/// Says what the original said. `spoil`: the how-many-th line of the server's gets a byte wrong.
async fn mirror(listeners: BTreeMap<u16, TcpListener>, lines: &[Line], mut spoil: Option<usize>) {
    let mut connections: BTreeMap<&str, Mirrored> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let name = line.connection.as_str();
        if let What::Open { websocket, port, .. } = &line.what {
            let (stream, _) = listeners[port].accept().await.unwrap();
            let connection = if *websocket {
                let stream = tokio_tungstenite::accept_async(stream).await.unwrap();
                Mirrored::WebSocket(Box::new(stream))
            } else {
                Mirrored::Tcp(stream)
            };
            connections.insert(name, connection);
            continue;
        }
        let Some(connection) = connections.get_mut(name) else {
            continue;
        };
        match &line.what {
            What::Send(payload) => connection.hear(payload.bytes().len()).await,
            What::Receive(payload) => {
                let mut bytes = payload.bytes().to_vec();
                let is_spoiled = spoil == Some(0);
                spoil = spoil.and_then(|left| left.checked_sub(1));
                if let Some(last) = bytes.last_mut().filter(|_| is_spoiled) {
                    *last ^= 1;
                }
                connection.say(bytes).await;
            }
            What::Fin => {
                let by_client = lines[at..].iter().any(|line| {
                    line.connection == name
                        && matches!(line.what, What::Closed { by_client: true, .. })
                });
                if by_client {
                    connection.outlast().await;
                }
                connections.remove(name);
            }
            What::Closed { by_client: true, .. } => {
                connection.outlast().await;
                connections.remove(name);
            }
            What::Closed { by_client: false, code } => {
                connection.close(*code).await;
                connections.remove(name);
            }
            What::Open { .. }
            | What::NoResponse(_)
            | What::StillOpen
            | What::Withheld(_)
            | What::Remark => {}
        }
    }
    for connection in connections.values_mut() {
        connection.outlast().await;
    }
}

async fn differences(transcript: &Transcript, spoil: Option<usize>) -> Vec<String> {
    let mut listeners = BTreeMap::new();
    for port in [3014, 3050, 3051, 3052] {
        listeners.insert(port, TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let address = |port: u16| listeners[&port].local_addr().unwrap();
    let stage = Stage {
        gate: address(3014),
        connectors: vec![address(3050), address(3051), address(3052)],
    };
    let known = std::collections::BTreeSet::new();
    let (mirrored, replayed) = tokio::join!(
        // A player that gives up leaves the mirror waiting.
        tokio::time::timeout(Duration::from_secs(60), mirror(listeners, &transcript.lines, spoil)),
        replay(&stage, transcript, &known)
    );
    assert!(
        mirrored.is_ok(),
        "{}: the mirror waits for what the player does not do",
        transcript.name
    );
    let differences = replayed.unwrap();
    let told = differences.iter().map(ToString::to_string);
    // The original's silence is reported; here it is no difference.
    told.filter(|it| !it.ends_with("unanswered too")).collect()
}

/// Transcripts without long pauses, which are about time and not about bytes. Those without words
/// of the server cannot be spoiled.
fn transcripts() -> Vec<Transcript> {
    let Some(folder) = super::folder() else {
        eprintln!("skipped: the player's proof (no transcripts)");
        return Vec::new();
    };
    let mut transcripts = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !["ws-", "tcp-"].iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let transcript = Transcript::read(&file).unwrap();
        let lines = &transcript.lines;
        let is_quick = lines.windows(2).all(|pair| pair[1].at - pair[0].at < LONG_PAUSE);
        if is_quick && lines.iter().any(|line| matches!(line.what, What::Receive(_))) {
            transcripts.push(transcript);
        }
    }
    transcripts
}

#[tokio::test]
async fn the_original_does_not_differ_from_itself() {
    let mut plays = JoinSet::new();
    for transcript in transcripts() {
        plays.spawn(async move { (differences(&transcript, None).await, transcript.name) });
    }
    while let Some(played) = plays.join_next().await {
        let (differences, name) = played.unwrap();
        assert!(differences.is_empty(), "{name}: {differences:#?}");
    }
}

#[tokio::test]
async fn one_wrong_byte_is_found() {
    let mut plays = JoinSet::new();
    for transcript in transcripts().into_iter().filter(|it| it.name.starts_with("ws-send")) {
        let words = |line: &&Line| matches!(line.what, What::Receive(_));
        let count = transcript.lines.iter().filter(words).count();
        for spoil in (0..count).step_by(5) {
            let transcript = transcript.clone();
            plays.spawn(async move {
                (differences(&transcript, Some(spoil)).await, spoil, transcript.name)
            });
        }
    }
    while let Some(played) = plays.join_next().await {
        let (differences, spoil, name) = played.unwrap();
        assert!(!differences.is_empty(), "{name}: line {spoil} of the server's was wrong");
    }
}
