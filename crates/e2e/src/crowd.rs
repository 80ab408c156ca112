//! Users who record what they do and see.

mod modern;
mod player;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use client::{Client, Error, Options, Outcome, Transport};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use verify::history::{History, Log, Names, Presence, Report, SessionKey, TextId, To};

use modern::Modern;
use player::Player;

use crate::{cluster::deadline, until};

/// Orders that a user may have waiting.
const ORDERS_MAX: usize = 1024;
/// How often a verdict is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often in a row it must be clean: something may still be on its way.
const CLEAN_LOOKS: u32 = 4;
/// What every message says after its identity: characters of one to four bytes, and what JSON and
/// scripts would have escaped. One that arrives otherwise counts as never sent.
const WORDS: &str = " é 你好 😀 </script> \"'\\";

/// One user of a [`Crowd`], by the order of entering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserKey(usize);

/// Users who enter, speak and leave, and whose history can be judged at any time.
pub struct Crowd {
    records: Arc<Records>,
    users: BTreeMap<UserKey, mpsc::Sender<Order>>,
    chatter: watch::Sender<Option<Duration>>,
    tasks: JoinSet<()>,
    options: Options,
    /// How long after its end a member may be listed, if that is judged.
    leave_within: Option<Duration>,
    /// Within how long a user must be back for nobody to hear of it, if that is judged.
    quiet_within: Option<Duration>,
    /// Texts are made at least that long, in bytes.
    text_bytes: usize,
    /// The gate that lost users ask, if they are of the kind that comes back.
    gate: Option<SocketAddr>,
}

/// One send that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Whose.
    pub user: UserKey,
    /// When it was sent.
    pub sent: Instant,
    /// How long its answer took.
    pub after: Duration,
}

/// A user whose connection was lost, and who is back.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// Who.
    pub user: UserKey,
    /// When the loss was noticed.
    pub lost: Instant,
    /// When it was told that it is in again.
    pub back: Instant,
    /// Whether it was told all that it missed.
    pub outcome: Outcome,
}

/// What a user is told to do.
enum Order {
    Say { target: String },
    Leave { done: oneshot::Sender<()> },
}

impl Order {
    /// Takes no more orders; answers how many sends are among those that nobody carries out.
    fn refuse(orders: &mut mpsc::Receiver<Self>) -> usize {
        orders.close();
        let mut sends = 0;
        while let Ok(order) = orders.try_recv() {
            sends += usize::from(matches!(order, Self::Say { .. }));
        }
        sends
    }
}

impl UserKey {
    /// When a user speaks first that is told now to speak this often: spread, so that not all do at
    /// once.
    fn first_turn(self, every: Option<Duration>) -> Instant {
        let part = every.unwrap_or_default() / 16;
        Instant::now() + part * u32::try_from(self.0 % 16).unwrap_or(0)
    }
}

/// What all users write into.
struct Records {
    /// When the clock of all logs began.
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    names: Names,
    logs: Vec<Log>,
    /// Sends without an answer, from the order on.
    unanswered: usize,
    acked: Vec<Acked>,
    refused: Vec<String>,
    /// Users whose connection ended without their doing, when and how.
    lost: Vec<Lost>,
    returned: Vec<Returned>,
}

/// The end of a connection without its user's doing.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Whose.
    pub user: UserKey,
    /// When it was noticed.
    pub at: Instant,
    /// How it ended.
    pub how: String,
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the log of a user who means to enter; answers its place.
    fn begin(&self, user: &str, room: &str) -> usize {
        let mut inner = self.lock();
        let log = Log::new(inner.names.intern(room), inner.names.intern(user));
        inner.logs.push(log);
        inner.logs.len() - 1
    }

    /// Notes that this log's user says something; answers the number of the send, and its text with
    /// so many bytes more.
    fn says(&self, log: usize, target: &str, bytes: usize) -> (u32, String) {
        let mut inner = self.lock();
        let to = match target {
            "*" => To::Everyone,
            user => To::One(inner.names.intern(user)),
        };
        let number = inner.logs[log].sent(to);
        let sender = SessionKey(u32::try_from(log).unwrap_or(u32::MAX));
        (number, format!("{} {:x>2$}{WORDS}", TextId { sender, number }, "", bytes))
    }

    fn note_lost(&self, key: usize, error: &Error) {
        let lost = Lost { user: UserKey(key), at: Instant::now(), how: error.to_string() };
        self.lock().lost.push(lost);
    }
}

impl Crowd {
    /// A crowd of nobody, to speak over this transport unless told otherwise.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self {
            records: Arc::new(Records { start: Instant::now(), inner: Mutex::default() }),
            users: BTreeMap::new(),
            chatter: watch::Sender::new(None),
            tasks: JoinSet::new(),
            options: Options { transport, ..Options::default() },
            leave_within: None,
            quiet_within: None,
            text_bytes: 0,
            gate: None,
        }
    }

    /// A crowd of nobody, of clients that know Tangelo: whoever is lost asks this gate where to
    /// come back.
    #[must_use]
    pub fn modern(transport: Transport, gate: SocketAddr) -> Self {
        let mut crowd = Self::new(transport);
        crowd.options.modern = true;
        crowd.gate = Some(gate);
        crowd
    }

    /// Users who enter from now on say texts of at least so many bytes.
    pub const fn pad(&mut self, bytes: usize) {
        self.text_bytes = bytes;
    }

    /// Also judges that nobody is listed longer than this after the end of its session.
    pub const fn leave_within(&mut self, bound: Duration) {
        self.leave_within = Some(bound);
    }

    /// Also judges that nobody is seen to leave who is back within less than this.
    pub const fn quiet_within(&mut self, bound: Duration) {
        self.quiet_within = Some(bound);
    }

    /// Lets a user ask the gate, connect and enter.
    ///
    /// # Errors
    ///
    /// If it does not get in.
    pub async fn enter(
        &mut self,
        gate: SocketAddr,
        user: &str,
        room: &str,
    ) -> anyhow::Result<UserKey> {
        let entry = Client::query_entry(gate, &self.options, user, Some(room)).await?;
        let address = tokio::net::lookup_host((entry.host.as_str(), entry.port)).await?.next();
        self.enter_at(address.context("the gate names nobody")?, user, room).await
    }

    /// Lets a user enter through this connector.
    ///
    /// # Errors
    ///
    /// If it does not get in.
    pub async fn enter_at(
        &mut self,
        connector: SocketAddr,
        user: &str,
        room: &str,
    ) -> anyhow::Result<UserKey> {
        self.enter_over(self.options.transport, connector, user, room).await
    }

    /// Lets a user enter through this connector, over a transport of its own.
    ///
    /// # Errors
    ///
    /// If it does not get in.
    pub async fn enter_over(
        &mut self,
        transport: Transport,
        connector: SocketAddr,
        user: &str,
        room: &str,
    ) -> anyhow::Result<UserKey> {
        let options = Options { transport, ..self.options.clone() };
        if let Some(gate) = self.gate {
            return self.enter_modern(gate, &options, connector, (user, room)).await;
        }
        let (entered, waits) = oneshot::channel();
        let records = Arc::clone(&self.records);
        let who = (user, room);
        let player =
            Player::connect(records, &options, connector, who, self.text_bytes, entered).await?;
        let key = player.key();
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        self.users.insert(key, orders);
        self.tasks.spawn(player.live(receiver, self.chatter.subscribe()));
        match waits.await {
            Ok(Ok(())) => Ok(key),
            Ok(Err(error)) => bail!("{user} does not enter {room}: {error}"),
            Err(_) => bail!("{user} does not enter {room}: the connection ended"),
        }
    }

    async fn enter_modern(
        &mut self,
        gate: SocketAddr,
        options: &Options,
        connector: SocketAddr,
        who: (&str, &str),
    ) -> anyhow::Result<UserKey> {
        let records = Arc::clone(&self.records);
        let player = Modern::enter(records, gate, options, connector, who, self.text_bytes).await?;
        let key = player.key();
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        self.users.insert(key, orders);
        self.tasks.spawn(player.live(receiver, self.chatter.subscribe()));
        Ok(key)
    }

    /// Lets a user speak to one user of its room, or to `*`.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub async fn say(&self, user: UserKey, target: &str) -> anyhow::Result<()> {
        let order = Order::Say { target: target.to_owned() };
        self.records.lock().unanswered += 1;
        let sent = self.users[&user].send(order).await;
        if sent.is_err() {
            self.records.lock().unanswered -= 1;
        }
        sent.context("it is gone")
    }

    /// Lets a user leave, and waits until the server has closed the connection.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub async fn leave(&self, user: UserKey) -> anyhow::Result<()> {
        let (done, waits) = oneshot::channel();
        self.users[&user].send(Order::Leave { done }).await.context("it is gone")?;
        waits.await.context("it is gone")
    }

    /// From now on everybody speaks to its room this often; `None`: nobody.
    pub fn chatter(&self, every: Option<Duration>) {
        self.chatter.send_replace(every);
    }

    /// How many messages have been acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.records.lock().acked.len() as u64
    }

    /// The messages acknowledged that were under way at some moment since then.
    #[must_use]
    pub fn acked_since(&self, since: Instant) -> Vec<Acked> {
        let inner = self.records.lock();
        inner.acked.iter().filter(|acked| acked.sent + acked.after >= since).copied().collect()
    }

    /// How many messages have arrived so far.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.records.lock().logs.iter().map(Log::deliveries).sum()
    }

    /// Users whose connection ended without their doing, when and how.
    #[must_use]
    pub fn lost(&self) -> Vec<Lost> {
        self.records.lock().lost.clone()
    }

    /// Users whose connection was lost, and who are back, in the order of their returns.
    #[must_use]
    pub fn returned(&self) -> Vec<Returned> {
        self.records.lock().returned.clone()
    }

    /// All users there ever were, in the order of entering.
    #[must_use]
    pub fn users(&self) -> Vec<UserKey> {
        self.users.keys().copied().collect()
    }

    /// A user's name and room.
    #[must_use]
    pub fn who(&self, user: UserKey) -> (String, String) {
        let inner = self.records.lock();
        let log = &inner.logs[user.0];
        (inner.names.text(log.user()).to_owned(), inner.names.text(log.room()).to_owned())
    }

    /// Messages that were refused, and how.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.records.lock().refused.clone()
    }

    /// What the judge says of the history up to now, which need not be at rest.
    #[must_use]
    pub fn report(&self) -> Report {
        let inner = self.records.lock();
        let mut history = History::new(inner.names.clone(), Presence::Announced);
        if let Some(bound) = self.leave_within {
            history.leave_within(bound);
        }
        if let Some(bound) = self.quiet_within {
            history.quiet_within(bound);
        }
        for log in &inner.logs {
            history.push(log.clone());
        }
        drop(inner);
        history.check()
    }

    /// Silences everybody, waits until the history is at rest, and answers what the judge says.
    /// At rest it is when all sends are answered and it is clean; or never, and then this is what
    /// is wrong with it.
    pub async fn verdict(&self) -> Report {
        self.chatter(None);
        let deadline = deadline();
        let mut clean = 0;
        loop {
            let report = self.report();
            let unanswered = self.records.lock().unanswered;
            clean = if report.is_clean() && unanswered == 0 { clean + 1 } else { 0 };
            if clean == CLEAN_LOOKS || std::time::Instant::now() > deadline {
                return report;
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until that many more messages were acknowledged: the cluster is at work.
    ///
    /// # Errors
    ///
    /// If they are not, in time.
    pub async fn work(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.acked() + more;
        until("messages are acknowledged", async || {
            let acked = self.acked();
            anyhow::ensure!(acked >= goal, "{acked} of {goal}; refused: {:?}", self.refused());
            Ok(())
        })
        .await
    }

    /// Asserts, at rest, that nobody noticed anything: nobody lost, nothing refused, a clean
    /// history, and whatever was in flight applied; as nothing was seen twice, it was applied once.
    ///
    /// # Panics
    ///
    /// If it is otherwise.
    pub async fn judge(&self) -> Report {
        let report = self.verdict().await;
        assert!(self.lost().is_empty(), "{:?}", self.lost());
        assert!(self.refused().is_empty(), "{:?}", self.refused());
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.sends, report.acked, "{report}");
        report
    }
}
