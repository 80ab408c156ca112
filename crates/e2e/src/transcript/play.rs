//! Plays the clients of a transcript.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite;

use super::{
    compare::Difference,
    connection::{Connection, Outgoing},
    exchange::{Headers, Request, ask},
    item::Framing,
    record::{Closer, Line, Payload, Transcript, Transport, What},
    socket::Socket,
    socketio,
};

/// Where the original's gate listened.
pub(super) const GATE_PORT: u16 = 3014;
/// Where its first connector did; the others follow.
const CONNECTOR_PORT: u16 = 3050;
/// A recorded pause is shortened to this: what matters is the order.
const PAUSE: Duration = Duration::from_millis(60);
/// A recorded pause of at least this is kept: there it is time itself that matters.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(4);
/// How long to wait for what the original sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The code of a WebSocket that ends without a Close frame.
pub(super) const NO_FRAME: u16 = 1006;
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
        sids: BTreeMap::new(),
        differences: Vec::new(),
        given_up: BTreeSet::new(),
        owed: Duration::ZERO,
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
    /// The original's session ids, and ours in their place.
    sids: BTreeMap<String, String>,
    differences: Vec<Difference>,
    /// What has been waited for in vain: once is enough.
    given_up: BTreeSet<Difference>,
    /// For how long the original let wait for what is expected now.
    owed: Duration,
}

impl Player<'_> {
    async fn play(&mut self, at: usize, pause: Duration) -> anyhow::Result<()> {
        let line = &self.lines[at];
        let name = line.connection.as_str();
        if line.what.is_by_client() || matches!(line.what, What::Fin | What::Closed { .. }) {
            self.arrive().await;
        }
        if line.what.is_by_client() {
            // The recording's own pauses are part of it.
            sleep(if pause < LONG_PAUSE { pause.min(PAUSE) } else { pause }).await;
        }
        if matches!(&line.what, What::Send(Payload::Text(text)) if socketio::leaves(text)) {
            // The server owes a client that has left nothing any more.
            self.arrive_more(name, socketio::answers_leaving).await;
        }
        let connection = self.connections.entry(name.to_owned()).or_default();
        match &line.what {
            What::Open { transport, port, path, headers } => {
                self.open(name, *transport, *port, path, headers).await?;
            }
            What::Handshake { port, sid } => self.shake_hands(*port, sid).await?,
            What::Send(payload) => {
                let payload = payload.map(|text| ours(&self.sids, text));
                if let Some(socket) = &mut connection.socket {
                    socket.send(&payload).await;
                }
            }
            What::Request(request) => self.request(name, request)?,
            What::Receive(payload) => {
                connection.expected.items.extend(connection.framing.items(payload));
                self.owed += pause;
            }
            What::Answer { to, reply } => {
                if let What::Request(request) = &self.lines[*to].what {
                    connection.expect_reply(request, reply.as_ref());
                }
                self.owed += pause;
            }
            What::Fin => self.fin(at).await,
            What::Closed { by, code } => self.closed(name, *by, *code, pause).await,
            What::NoResponse(id) => {
                connection.expected.silent.insert(*id);
            }
            What::Withheld(id) => {
                connection.expected.withheld.insert(*id);
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
            What::CloseFrame { .. } | What::Remark => {}
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

    async fn open(
        &mut self,
        name: &str,
        transport: Transport,
        port: u16,
        path: &str,
        headers: &Headers,
    ) -> anyhow::Result<()> {
        let address = self.stage.address(port)?;
        let speaks_text = self.lines.iter().any(|line| {
            line.connection == name && matches!(line.what, What::Receive(Payload::Text(_)))
        });
        let path = ours(&self.sids, path);
        let connection = self.connections.entry(name.to_owned()).or_default();
        let inbox = connection.inbox.clone();
        connection.framing = match transport {
            Transport::Tcp if speaks_text => Framing::Whole,
            Transport::Tcp | Transport::WebSocket => Framing::of(&path),
            // Its requests say.
            Transport::Http => connection.framing,
        };
        connection.socket = match transport {
            Transport::Tcp => Some(Socket::tcp(address, inbox).await?),
            Transport::WebSocket => {
                let socket = Socket::websocket(address, &path, headers, inbox).await;
                if let Err(tungstenite::Error::Http(answer)) = &socket {
                    let what = format!("refuses the WebSocket with {}", answer.status().as_u16());
                    self.differ(name, &what);
                    return Ok(());
                }
                Some(socket?)
            }
            Transport::Http => None,
        };
        Ok(())
    }

    /// Gets a session in place of one whose beginning is not in the recording.
    async fn shake_hands(&mut self, port: u16, sid: &str) -> anyhow::Result<()> {
        const TARGET: &str = "/socket.io/1/";
        let address = self.stage.address(port)?;
        let body = Payload::Bytes(Vec::new());
        let request = Request::new("GET", TARGET, Headers::default(), body);
        let reply = ask(address, &request.encode(address, str::to_owned)).await;
        let reply = reply.context("no answer to a handshake")?;
        let our = socketio::sid_in_answer(TARGET, &reply.body).context("no session")?;
        self.sids.insert(sid.to_owned(), our);
        Ok(())
    }

    fn request(&mut self, name: &str, request: &Request) -> anyhow::Result<()> {
        let address = self.stage.address(request.port)?;
        let bytes = request.encode(address, |text| ours(&self.sids, text));
        let connection = self.connections.entry(name.to_owned()).or_default();
        if connection.socket.is_none() {
            connection.framing = Framing::of(&request.target);
        }
        connection.ask(Outgoing { address, request: request.clone(), bytes });
        Ok(())
    }

    /// Waits until everything recorded so far has arrived, on every connection.
    async fn arrive(&mut self) {
        // What the original took long for may take us as long.
        let deadline = Instant::now() + PATIENCE + std::mem::take(&mut self.owed);
        for (name, connection) in &mut self.connections {
            let inbox = connection.inbox.clone();
            loop {
                let changed = inbox.changed();
                let awaited = connection.awaited(name, self.known);
                if awaited.differences.is_subset(&self.given_up) || connection.ended() {
                    break;
                }
                if awaited.by_poll {
                    connection.poll_on();
                }
                if timeout_at(deadline, changed).await.is_err() {
                    self.given_up.extend(awaited.differences);
                    break;
                }
            }
            self.sids.extend(connection.sids());
        }
    }

    /// Waits until what the server sends beyond the original has arrived: what is known of it, and
    /// answers to what the original never answered.
    async fn arrive_more(&mut self, name: &str, comes_later: impl Fn(&Difference) -> bool) {
        let Some(connection) = self.connections.get_mut(name) else {
            return;
        };
        let deadline = Instant::now() + PATIENCE;
        let is_awaited =
            |it: &&Difference| it.connection == name && it.is_more() && !comes_later(it);
        let known = self.known.iter().filter(is_awaited);
        let known: Vec<&Difference> = known.collect();
        let inbox = connection.inbox.clone();
        loop {
            let changed = inbox.changed();
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
            connection.poll_on();
            if timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }

    /// A FIN of the server's answers the client's, or is its own.
    async fn fin(&mut self, at: usize) {
        let name = self.lines[at].connection.as_str();
        let closes = |line: &Line| {
            let What::Closed { by, .. } = line.what else {
                return None;
            };
            (line.connection == name).then_some(by)
        };
        if self.lines[at..].iter().find_map(closes) == Some(Closer::Client) {
            self.arrive().await;
            self.close(name, None).await;
        }
    }

    /// Closes as the client did. What the server sent before it noticed still arrives.
    async fn close(&mut self, name: &str, code: Option<u16>) {
        const EARLY: &str = "closes before the client does";
        const NEVER: &str = "does not answer the client's close";
        self.arrive_more(name, |_| false).await;
        let Some(connection) = self.connections.get_mut(name) else {
            return;
        };
        let early = connection.ended();
        if let Some(socket) = &mut connection.socket {
            socket.close(code).await;
        }
        let ended = connection.end(Instant::now() + PATIENCE).await;
        if early {
            self.differ(name, EARLY);
        } else if !ended {
            self.differ(name, NEVER);
        }
    }

    async fn closed(&mut self, name: &str, by: Closer, code: Option<u16>, pause: Duration) {
        let Some(connection) = self.connections.get_mut(name) else {
            return;
        };
        let Some(socket) = &mut connection.socket else {
            return;
        };
        let websocket = socket.websocket;
        match (by, websocket, code) {
            (Closer::Client, true, Some(NO_FRAME)) => {
                connection.abort().await;
                return;
            }
            (Closer::Client, true, _) => self.close(name, Some(1000)).await,
            (Closer::Client, false, _) => {
                let fin = |line: &Line| line.connection == name && line.what == What::Fin;
                // With a FIN of the server's, the client's came first and it has been played.
                if !self.lines.iter().any(fin) {
                    connection.abort().await;
                }
            }
            (Closer::ClientFrame(code), ..) => self.close(name, code).await,
            (Closer::Server, ..) => {
                if !self.outlast(name, pause).await {
                    return;
                }
            }
        }
        let Some(connection) = self.connections.get(name) else {
            return;
        };
        let ours = connection.inbox.look(|arrived| arrived.close_code);
        let code = code.filter(|code| *code != NO_FRAME);
        if websocket && ours != code {
            let what = format!("closes with code {ours:?} instead of {code:?}");
            self.differ(name, &what);
        }
    }

    /// Waits until the server closes, which the original did after `pause`; false if it does not.
    async fn outlast(&mut self, name: &str, pause: Duration) -> bool {
        const EARLY: &str = "closes much earlier than the original";
        const NEVER: &str = "does not close";
        let patient = !self.is_known(name, NEVER);
        let Some(connection) = self.connections.get_mut(name) else {
            return false;
        };
        connection.expected.closed = true;
        let patience = if patient { pause + END_PATIENCE } else { Duration::ZERO };
        let since = Instant::now();
        if !connection.end(since + patience).await {
            self.differ(name, NEVER);
            return false;
        }
        if pause >= LONG_PAUSE && since.elapsed() < pause / 2 {
            self.differ(name, EARLY);
        }
        true
    }

    /// Compares, and closes what is still open.
    async fn finish(&mut self) {
        self.arrive().await;
        let names: Vec<String> = self.connections.keys().cloned().collect();
        for name in &names {
            self.arrive_more(name, |_| false).await;
        }
        // Before anything is closed: others would hear of it.
        for (name, connection) in &self.connections {
            let actual = connection.actual();
            self.differences.extend(connection.expected.differences(name, &actual));
        }
        for connection in self.connections.values_mut() {
            if let Some(socket) = &mut connection.socket {
                socket.close(Some(1000)).await;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for connection in self.connections.values().filter(|it| it.socket.is_some()) {
            connection.end(deadline).await;
        }
    }
}

/// A text of the recording with our session ids in the place of the original's.
fn ours(sids: &BTreeMap<String, String>, text: &str) -> String {
    let replace = |text: String, (theirs, our): (&String, &String)| text.replace(theirs, our);
    sids.iter().fold(text.to_owned(), replace)
}
