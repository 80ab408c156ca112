//! Plays the clients of a transcript.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    compare::{Difference, Expected, Item, items},
    record::{Line, Payload, Transcript, What},
    socket::Socket,
};

/// Where the original's gate listened.
const GATE_PORT: u16 = 3014;
/// Where its first connector did; the others follow.
const CONNECTOR_PORT: u16 = 3050;
/// A recorded pause is shortened to this: what matters is the order.
const PAUSE: Duration = Duration::from_millis(60);
/// A recorded pause of at least this is kept: there it is time itself that matters.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(4);
/// How long to wait for what the original sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the server to end a connection, beyond the recorded time: longer than any
/// timeout it has.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Where ours are.
#[derive(Clone, Debug)]
pub struct Stage {
    /// In place of the original's gate.
    pub gate: SocketAddr,
    /// In place of its connectors, in order.
    pub connectors: Vec<SocketAddr>,
}

impl Stage {
    fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        if port == GATE_PORT {
            return Ok(self.gate);
        }
        let number = port.checked_sub(CONNECTOR_PORT).map(usize::from);
        let connector = number.and_then(|number| self.connectors.get(number));
        connector.copied().with_context(|| format!("nobody stands for port {port}"))
    }
}

struct Connection {
    socket: Socket,
    expected: Expected,
    /// The server speaks text here: HTTP.
    is_text: bool,
}

impl Connection {
    fn actual(&self) -> Vec<Item> {
        self.socket.inbox.look(|arrived| {
            let messages = arrived.messages.iter();
            messages.flat_map(|message| items(message, self.is_text)).collect()
        })
    }

    fn ended(&self) -> bool {
        self.socket.inbox.look(|arrived| arrived.ended)
    }

    /// Waits until the server has ended the connection; false if it does not.
    async fn end(&self, deadline: Instant) -> bool {
        loop {
            let changed = self.socket.inbox.changed();
            if self.ended() {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return self.ended();
            }
        }
    }
}

/// Plays a transcript's clients, and says what the server did otherwise than the original.
///
/// What is in `known` is not waited for.
///
/// # Errors
///
/// If the transcript cannot be played at all.
pub async fn replay(
    stage: &Stage,
    transcript: &Transcript,
    known: &BTreeSet<Difference>,
) -> anyhow::Result<Vec<Difference>> {
    let mut player = Player {
        stage,
        lines: &transcript.lines,
        known,
        connections: BTreeMap::new(),
        differences: Vec::new(),
        given_up: BTreeSet::new(),
    };
    let mut before = Duration::ZERO;
    for at in 0..player.lines.len() {
        let line = &player.lines[at];
        let pause = line.at.saturating_sub(before);
        before = line.at;
        player
            .play(at, pause)
            .await
            .with_context(|| format!("{}, line {}", transcript.name, at + 1))?;
    }
    player.finish().await;
    player.differences.sort();
    Ok(player.differences)
}

struct Player<'a> {
    stage: &'a Stage,
    lines: &'a [Line],
    known: &'a BTreeSet<Difference>,
    connections: BTreeMap<String, Connection>,
    differences: Vec<Difference>,
    /// What has been waited for in vain: once is enough.
    given_up: BTreeSet<Difference>,
}

impl Player<'_> {
    async fn play(&mut self, at: usize, pause: Duration) -> anyhow::Result<()> {
        let line = &self.lines[at];
        let name = line.connection.as_str();
        if matches!(line.what, What::Open { .. } | What::Send(_) | What::Fin | What::Closed { .. })
        {
            self.arrive().await;
        }
        if matches!(line.what, What::Open { .. } | What::Send(_)) {
            // The recording's own pauses are part of it.
            sleep(if pause < LONG_PAUSE { pause.min(PAUSE) } else { pause }).await;
        }
        match &line.what {
            What::Open { websocket, port, path } => {
                let address = self.stage.address(*port)?;
                let socket = if *websocket {
                    Socket::websocket(address, path).await?
                } else {
                    Socket::tcp(address).await?
                };
                let is_text = self.lines.iter().any(|line| {
                    line.connection == name && matches!(line.what, What::Receive(Payload::Text(_)))
                });
                let connection = Connection { socket, expected: Expected::default(), is_text };
                self.connections.insert(name.to_owned(), connection);
            }
            What::Send(payload) => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.socket.send(payload).await;
                }
            }
            What::Receive(payload) => {
                if let Some(connection) = self.connections.get_mut(name) {
                    let items = items(payload.bytes(), connection.is_text);
                    connection.expected.items.extend(items);
                }
            }
            What::Fin => self.fin(at).await,
            What::Closed { by_client, code } => self.closed(name, *by_client, *code, pause).await,
            What::NoResponse(id) => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.expected.silent.insert(*id);
                }
            }
            What::Withheld(id) => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.expected.withheld.insert(*id);
                }
            }
            What::StillOpen => {
                const CLOSES: &str = "closes, where the original keeps it open";
                let known = self.is_known(name, CLOSES);
                let patience = if known { END_PATIENCE } else { pause.min(END_PATIENCE) };
                if let Some(connection) = self.connections.get(name)
                    && connection.end(Instant::now() + patience).await
                {
                    self.differ(name, CLOSES);
                }
            }
            What::Remark => {}
        }
        Ok(())
    }

    fn differ(&mut self, connection: &str, what: &str) {
        let difference = Difference { connection: connection.to_owned(), what: what.to_owned() };
        self.differences.push(difference);
    }

    fn is_known(&self, connection: &str, what: &str) -> bool {
        let difference = Difference { connection: connection.to_owned(), what: what.to_owned() };
        self.known.contains(&difference)
    }

    /// Waits until everything recorded so far has arrived, on every connection.
    async fn arrive(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for (name, connection) in &self.connections {
            loop {
                let changed = connection.socket.inbox.changed();
                let actual = connection.actual();
                let missing = connection.expected.missing(&actual).into_iter();
                // What is known to be missing is not awaited; but if it is an answer, ours is.
                let is_known = |it: &Difference| self.known.contains(it);
                let missing = missing.filter(|item| {
                    !is_known(&Difference::missing(name, item)) || !item.is_replaced_in(&actual)
                });
                let missing = missing.map(|item| Difference::missing(name, item));
                let awaited: Vec<Difference> =
                    missing.filter(|it| !self.given_up.contains(it)).collect();
                if awaited.is_empty() || connection.ended() {
                    break;
                }
                if timeout_at(deadline, changed).await.is_err() {
                    self.given_up.extend(awaited);
                    break;
                }
            }
        }
    }

    /// Waits until what the server sends beyond the original has arrived: what is known of it, and
    /// answers to what the original never answered.
    async fn arrive_more(&self, name: &str) {
        let Some(connection) = self.connections.get(name) else {
            return;
        };
        let deadline = Instant::now() + PATIENCE;
        let known = self.known.iter().filter(|it| it.connection == name && it.is_more());
        let known: Vec<&Difference> = known.collect();
        loop {
            let changed = connection.socket.inbox.changed();
            let actual = connection.actual();
            let differences = connection.expected.differences(name, &actual);
            let is_silent = connection.expected.silent.iter().any(|id| {
                let still = Difference::unanswered(name, *id);
                differences.contains(&still) && !self.known.contains(&still)
            });
            let is_all = known.iter().all(|it| differences.contains(it));
            if (is_all && !is_silent) || connection.ended() {
                return;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }

    /// A FIN of the server's answers the client's, or is its own.
    async fn fin(&mut self, at: usize) {
        let name = self.lines[at].connection.as_str();
        let closes = |line: &Line| {
            let What::Closed { by_client, .. } = line.what else {
                return None;
            };
            (line.connection == name).then_some(by_client)
        };
        if self.lines[at..].iter().find_map(closes) == Some(true) {
            self.arrive().await;
            self.close(name).await;
        }
    }

    /// Closes as the client did. What the server sent before it noticed still arrives.
    async fn close(&mut self, name: &str) {
        const EARLY: &str = "closes before the client does";
        const NEVER: &str = "does not answer the client's close";
        self.arrive_more(name).await;
        let Some(connection) = self.connections.get_mut(name) else {
            return;
        };
        let early = connection.ended();
        connection.socket.close().await;
        let ended = connection.end(Instant::now() + PATIENCE).await;
        if early {
            self.differ(name, EARLY);
        } else if !ended {
            self.differ(name, NEVER);
        }
    }

    async fn closed(&mut self, name: &str, by_client: bool, code: Option<u16>, pause: Duration) {
        const NEVER: &str = "does not close";
        let patient = !self.is_known(name, NEVER);
        let Some(connection) = self.connections.get_mut(name) else {
            return;
        };
        if by_client {
            match (connection.socket.websocket, code) {
                (true, Some(1006)) => connection.socket.abort().await,
                (true, _) => self.close(name).await,
                (false, _) => {
                    let fin = |line: &Line| line.connection == name && line.what == What::Fin;
                    // With a FIN of the server's, the client's came first and it has been played.
                    if !self.lines.iter().any(fin) {
                        connection.socket.abort().await;
                    }
                }
            }
        } else {
            connection.expected.closed = true;
            let patience = if patient { pause + END_PATIENCE } else { Duration::ZERO };
            if !connection.end(Instant::now() + patience).await {
                self.differ(name, NEVER);
                return;
            }
        }
        let Some(connection) = self.connections.get(name) else {
            return;
        };
        let ours = connection.socket.inbox.look(|arrived| arrived.close_code);
        if connection.socket.websocket && code != Some(1006) && ours != code {
            let what = format!("closes with code {ours:?} instead of {code:?}");
            self.differ(name, &what);
        }
    }

    /// Closes what is still open and compares.
    async fn finish(&mut self) {
        self.arrive().await;
        for name in self.connections.keys() {
            self.arrive_more(name).await;
        }
        for connection in self.connections.values_mut() {
            if !connection.ended() {
                connection.socket.close().await;
                connection.end(Instant::now() + PATIENCE).await;
            }
        }
        for (name, connection) in &self.connections {
            let actual = connection.actual();
            self.differences.extend(connection.expected.differences(name, &actual));
        }
    }
}
