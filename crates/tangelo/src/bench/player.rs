//! One client of a benchmark.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use client::{Client, Codec, Connection, Heard, Options, RequestId, Route, Transport};
use serde_json::{Map, Value};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Sleep, sleep, sleep_until, timeout_at},
};
use verify::history::{Log, TextId, To};

use super::{
    alarms::Alarms,
    crowd::Sums,
    plan::{Plan, room_name, user_name},
    verdict::{LATENCY_MAX, Measured},
};

/// How long a saturating client waits after a refusal.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);
/// How often a client tries to come in: a server that is started beside a thousand other things may
/// let some wait for too long.
const TRIES_MAX: u32 = 5;
/// How long a client waits before it tries again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A moment that does not come.
const NEVER: Duration = Duration::from_secs(86_400);

/// What the crowd is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Coming in.
    Join,
    /// Speaking, since then.
    Send { start: Instant },
    /// Listening only.
    Hush,
    /// Done: nobody reads any more.
    Stop,
}

impl Phase {
    const fn start(self) -> Option<Instant> {
        match self {
            Self::Send { start } => Some(start),
            Self::Join | Self::Hush | Self::Stop => None,
        }
    }
}

/// What the crowd has done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) joined: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) delivered: AtomicU64,
}

impl Counts {
    pub(super) fn sums(&self) -> Sums {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sums {
            joined: read(&self.joined),
            // Before those it is held against.
            answered: read(&self.answered),
            sent: read(&self.sent),
            delivered: read(&self.delivered),
        }
    }
}

/// What all clients of a thread share.
pub(super) struct Table {
    pub(super) plan: Arc<Plan>,
    pub(super) counts: Arc<Counts>,
    pub(super) phase: watch::Receiver<Phase>,
    /// How many may be on their way in at once.
    pub(super) doors: Semaphore,
    pub(super) alarms: Rc<Alarms>,
    pub(super) notes: RefCell<Notes>,
}

/// What all clients of a thread write into.
pub(super) struct Notes {
    pub(super) measured: Measured,
    /// Handed from client to client, so that each handshake is short.
    gate: Options,
    connector: Options,
    /// What the first client has learned: every other learns the same.
    codec: Option<Rc<Codec>>,
}

impl Notes {
    pub(super) fn new(transport: Transport) -> anyhow::Result<Self> {
        let options = Options { transport, ..Options::default() };
        Ok(Self {
            measured: Measured::nothing()?,
            gate: options.clone(),
            connector: options,
            codec: None,
        })
    }
}

/// What is left of a client.
pub(super) struct Left {
    pub(super) index: u32,
    pub(super) log: Log,
    /// Still open, if it has not ended by itself.
    pub(super) connection: Option<Connection>,
}

/// Plays one client from joining to the end.
///
/// # Errors
///
/// If it cannot join.
pub(super) async fn play(table: Rc<Table>, index: u32) -> anyhow::Result<Left> {
    let mut phase = table.phase.clone();
    if let Some(at) = table.plan.enters_at(index) {
        Box::pin(sleep_until(at.into())).await;
    }
    let Entered { mut connection, codec, log, beat } = come_in(&table, index).await?;
    table.counts.joined.fetch_add(1, Ordering::Relaxed);
    let mut player = Player::new(&table, index, codec, log, beat);
    let mut sleep: Pin<Box<Sleep>> = Box::pin(sleep_until(player.beat.into()));
    let alarm = Rc::clone(&player.alarm);
    loop {
        let beat = player.beat.into();
        if sleep.deadline() != beat {
            sleep.as_mut().reset(beat);
        }
        let mut now = None;
        let lives = tokio::select! {
            received = connection.receive(|unit| {
                let now = *now.get_or_insert_with(Instant::now);
                Heard::each(unit, |heard| player.hear(heard, now));
            }) => received,
            () = &mut sleep => player.beat(&mut connection),
            () = alarm.notified() => player.act(&mut connection)?,
            _ = phase.changed() => {
                let now = *phase.borrow_and_update();
                if now == Phase::Stop {
                    return Ok(player.leave(Some(connection)));
                }
                player.enter(now)?;
                Ok(())
            }
        };
        if lives.and_then(|()| player.saturate(&mut connection)).is_err() {
            table.notes.borrow_mut().measured.closed += 1;
            player.log.gone();
            return Ok(player.leave(None));
        }
    }
}

/// A client that is in.
struct Entered {
    connection: Connection,
    codec: Rc<Codec>,
    log: Log,
    /// When its next heartbeat is due at the latest.
    beat: Instant,
}

async fn come_in(table: &Table, index: u32) -> anyhow::Result<Entered> {
    let mut tries = 1;
    loop {
        let door = table.doors.acquire().await?;
        // Boxed, as it is large and soon over.
        let ports = if tries == 1 { table.plan.ports(index) } else { (0, 0) };
        let joined = Box::pin(join(table, index, ports)).await;
        drop(door);
        if joined.is_ok() || tries == TRIES_MAX {
            return joined;
        }
        tries += 1;
        table.notes.borrow_mut().measured.retried += 1;
        sleep(RETRY_PAUSE).await;
    }
}

async fn join(
    table: &Table,
    index: u32,
    (gate_port, connector_port): (u16, u16),
) -> anyhow::Result<Entered> {
    let plan = &table.plan;
    let (user, room) = (user_name(&plan.run, index), room_name(&plan.run, index % plan.rooms));
    let source = plan.source(index);
    let mut gate = table.notes.borrow().gate.clone();
    (gate.source, gate.source_port) = (source, gate_port);
    let entry = Client::query_entry(plan.gate, &gate, &user, Some(&room)).await?;
    let mut options = table.notes.borrow().connector.clone();
    (options.source, options.source_port) = (source, connector_port);
    let mut client = Client::connect((entry.host.as_str(), entry.port), &options).await?;
    table.notes.borrow_mut().connector.kept = client.kept();
    let request = client.begin_enter(&user, &room)?;
    let (mut connection, codec, _) = client.into_parts();
    let codec = Rc::clone(table.notes.borrow_mut().codec.get_or_insert_with(|| Rc::new(codec)));
    let (log, beat) = enter(plan, index, request, &mut connection, &codec).await?;
    Ok(Entered { connection, codec, log, beat })
}

/// Waits for the answer to `request`, to enter the room; answers also when the next heartbeat is due
/// at the latest. Lists of members are read in place, as a crowd gets as many names as the square of
/// its size.
async fn enter(
    plan: &Plan,
    index: u32,
    request: RequestId,
    connection: &mut Connection,
    codec: &Codec,
) -> anyhow::Result<(Log, Instant)> {
    let mut log = plan.log(index);
    let (mut answer, mut added) = (None, Vec::new());
    let mut heard = Instant::now();
    let mut beat = heard + codec.heartbeat().unwrap_or(NEVER);
    while answer.is_none() {
        let receive = connection.receive(|unit| {
            Heard::each(unit, |heard| match heard {
                Heard::Answer { id, code, users } if id == request => {
                    let listed = plan.keeps_lists() && code == Heard::OK;
                    log.joined(users.filter(|_| listed).filter_map(|user| plan.user(user)));
                    answer = Some(code);
                }
                Heard::Add(user) => added.extend(plan.user(user)),
                Heard::Answer { .. }
                | Heard::Chat { .. }
                | Heard::Leave(_)
                | Heard::Kick
                | Heard::Other => {}
            });
        });
        let lost_at = heard + codec.patience().unwrap_or(NEVER);
        if let Ok(received) = timeout_at(beat.min(lost_at).into(), receive).await {
            received.map_err(client::Error::Closed)?;
            heard = Instant::now();
            continue;
        }
        anyhow::ensure!(Instant::now() < lost_at, "the connector does not answer `enter`");
        if let Some(every) = codec.heartbeat() {
            connection.send(&codec.beat()).map_err(client::Error::Closed)?;
            beat += every;
        }
    }
    let code = answer.unwrap_or_default();
    anyhow::ensure!(code == Heard::OK, "the connector refused to let a client in: code {code}");
    added.into_iter().for_each(|user| log.saw_add(user));
    Ok((log, beat))
}

struct Player<'a> {
    table: &'a Table,
    index: u32,
    codec: Rc<Codec>,
    log: Log,
    phase: Phase,
    /// When the crowd began to speak, once this client knows.
    start: Option<Instant>,
    /// When the next heartbeat is due.
    beat: Instant,
    /// When the next message is due: then this rings.
    due: Option<Instant>,
    alarm: Rc<Notify>,
    in_flight: u32,
}

impl<'a> Player<'a> {
    /// A player whose first heartbeat is due by `beat`.
    fn new(table: &'a Table, index: u32, codec: Rc<Codec>, log: Log, beat: Instant) -> Self {
        // Spread over an interval, or a crowd that came at once beats at once.
        let every = codec.heartbeat().unwrap_or(NEVER);
        let part = every / 2 + every / 128 * (index % 64);
        Self {
            table,
            index,
            codec,
            log,
            phase: Phase::Join,
            start: None,
            beat: beat.min(Instant::now() + part),
            due: None,
            alarm: Rc::new(Notify::new()),
            in_flight: 0,
        }
    }

    fn leave(self, connection: Option<Connection>) -> Left {
        Left { index: self.index, log: self.log, connection }
    }

    /// Says when the next message is due.
    fn wait(&mut self, due: Instant) -> anyhow::Result<()> {
        self.due = Some(due);
        let set = self.table.alarms.set(due, self.index, &self.alarm);
        set.context("the timer of this thread cannot be set")
    }

    /// The sends of all clients are evenly spread: each is due one step after its neighbour's.
    fn enter(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.phase = phase;
        self.start = self.start.or(phase.start());
        self.due = None;
        if let Phase::Send { start } = phase
            && self.table.plan.saturate.is_none()
        {
            let plan = &self.table.plan;
            let wait = Duration::from_secs_f64(f64::from(self.index) / plan.rate);
            self.wait(start + plan.part.send_after + wait)?;
        }
        Ok(())
    }

    /// Gives a sign of life.
    fn beat(&mut self, connection: &mut Connection) -> Result<(), client::Closed> {
        self.beat = Instant::now() + self.codec.heartbeat().unwrap_or(NEVER);
        connection.send(&self.codec.beat())
    }

    /// Says what is due. The inner error is the connection's.
    fn act(&mut self, connection: &mut Connection) -> anyhow::Result<Result<(), client::Closed>> {
        let now = Instant::now();
        while let Some(due) = self.due.filter(|due| *due <= now) {
            if self.table.plan.saturate.is_some() {
                // The pause after a refusal is over.
                self.due = None;
                break;
            }
            let plan = &self.table.plan;
            self.wait(due + Duration::from_secs_f64(f64::from(plan.clients) / plan.rate))?;
            let late = now - due;
            let mut notes = self.table.notes.borrow_mut();
            notes.measured.late = notes.measured.late.max(late);
            drop(notes);
            if let Err(closed) = self.say(connection, due) {
                return Ok(Err(closed));
            }
        }
        Ok(Ok(()))
    }

    /// Keeps as many messages in flight as were asked for.
    fn saturate(&mut self, connection: &mut Connection) -> Result<(), client::Closed> {
        let (Some(most), Phase::Send { .. }) = (self.table.plan.saturate, self.phase) else {
            return Ok(());
        };
        while self.in_flight < most && self.due.is_none() {
            self.say(connection, Instant::now())?;
        }
        Ok(())
    }

    fn say(&mut self, connection: &mut Connection, due: Instant) -> Result<(), client::Closed> {
        let Phase::Send { start } = self.phase else {
            return Ok(());
        };
        let number = self.log.sent(To::Everyone);
        let micros = due.saturating_duration_since(start).as_micros();
        let mut text = format!("m:{}:{number} {micros} ", self.index);
        while text.len() < self.table.plan.text_bytes {
            text.push('x');
        }
        let mut body = Map::new();
        body.insert("content".to_owned(), Value::String(text));
        body.insert("target".to_owned(), Value::String("*".to_owned()));
        let id = RequestId(number.into());
        let package = self.codec.encode_request(id, Route::Send.name(), &body);
        let package = package.map_err(|error| client::Closed::Nonsense(error.to_string()))?;
        self.in_flight += 1;
        self.table.counts.sent.fetch_add(1, Ordering::Relaxed);
        connection.send(&package)
    }

    fn hear(&mut self, heard: Heard<'_>, now: Instant) {
        match heard {
            Heard::Chat { text, from, target } => self.hear_chat(text, from, target, now),
            Heard::Answer { id, code, .. } => {
                let number = u32::try_from(id.0).unwrap_or(0);
                self.in_flight = self.in_flight.saturating_sub(1);
                self.table.counts.answered.fetch_add(1, Ordering::Relaxed);
                if code != Heard::OK {
                    self.table.notes.borrow_mut().measured.refused += 1;
                    if self.table.plan.saturate.is_some() {
                        // Without a timer it goes on at once.
                        let is_set = self.wait(now + REFUSAL_PAUSE).is_ok();
                        self.due = self.due.filter(|_| is_set);
                    }
                } else {
                    self.log.acked(number);
                }
            }
            Heard::Add(user) => {
                if let Some(user) = self.table.plan.user(user) {
                    self.log.saw_add(user);
                }
            }
            Heard::Leave(user) => {
                if let Some(user) = self.table.plan.user(user) {
                    self.log.saw_leave(user);
                }
            }
            Heard::Kick | Heard::Other => {}
        }
    }

    fn hear_chat(&mut self, text: &[u8], from: &[u8], target: &[u8], now: Instant) {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let (Some(id), Some(from)) = (TextId::parse(text), self.table.plan.user(from)) else {
            self.log.saw_foreign();
            return;
        };
        self.log.saw(from, id, target != b"*");
        self.table.counts.delivered.fetch_add(1, Ordering::Relaxed);
        let micros = text.split(' ').nth(1).and_then(|micros| micros.parse().ok());
        // A neighbour may have spoken before this client was told to begin.
        let start = self.start.or_else(|| self.table.phase.borrow().start());
        let (Some(micros), Some(start)) = (micros.map(Duration::from_micros), start) else {
            return;
        };
        let plan = &self.table.plan;
        if micros >= plan.warmup && micros < plan.warmup + plan.seconds {
            let latency = now.saturating_duration_since(start + micros).as_micros();
            let latency = u64::try_from(latency).unwrap_or(LATENCY_MAX);
            self.table.notes.borrow_mut().measured.latency.saturating_record(latency);
        }
    }
}
