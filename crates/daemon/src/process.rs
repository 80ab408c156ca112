//! One process of the cluster, from its start to its end.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use model::{Incarnation, NodeId, Role, Time, limits};
use tokio_util::sync::CancellationToken;

use crate::{
    CommonArgs, Readiness, Tasks,
    admin::Admin,
    net, resources,
    run::{BugError, EXIT_BUG, UsageError},
    signal::Signals,
    stdin, telemetry,
    vitals::Vitals,
};

/// Why a process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal asked for it.
    Signal(&'static str),
    /// The supervisor that held standard input is gone.
    SupervisorGone,
    /// A task panicked.
    TaskPanicked,
    /// The process itself cannot go on, for this reason.
    Fatal(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::SupervisorGone => f.write_str("the supervisor is gone"),
            Self::TaskPanicked => f.write_str("a task panicked"),
            Self::Fatal(reason) => f.write_str(reason),
        }
    }
}

/// Ends the process in order. Clones end the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    cause: Arc<OnceLock<(Cause, Instant)>>,
    token: CancellationToken,
}

impl Stop {
    /// Begins the end of the process, because of `cause`. Only the first call counts.
    pub fn stop(&self, cause: Cause) {
        if self.cause.set((cause, Instant::now())).is_ok() {
            self.token.cancel();
        }
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the end begins.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}

/// What every role starts from and ends with.
///
/// The order of a role's life: [`Process::start`]; declare conditions on `ready`; bind sockets and
/// [`announce`](Process::announce) them; [`Readiness::started`]; serve; await
/// [`Process::stopped`]; withdraw in the role's own order; [`Process::finish`].
#[derive(Debug)]
pub struct Process {
    /// The name of this node.
    pub name: NodeId,
    /// What this node does.
    pub role: Role,
    /// This life of the node.
    pub incarnation: Incarnation,
    /// Where every task is spawned.
    pub tasks: Tasks,
    /// What `/readyz` answers.
    pub ready: Readiness,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    /// Ends this process in order.
    pub stop: Stop,
    addresses: Addresses,
    vitals: Vitals,
    /// What it takes to end beyond [`limits::DRAIN_TIMEOUT`].
    drains_longer: OnceLock<Duration>,
}

impl Process {
    /// Starts logging, metrics, the admin port and the watch for signals; raises the limit of
    /// open files.
    ///
    /// # Errors
    ///
    /// If an argument is wrong or the admin port cannot be had.
    pub fn start(role: Role, args: &CommonArgs) -> anyhow::Result<Self> {
        let _started = Self::now();
        let name = args.name(role);
        let filter = args.log.as_deref().filter(|text| !text.is_empty());
        telemetry::init(name.as_str(), args.log_format, filter).map_err(UsageError)?;
        let incarnation = Self::draw_incarnation()?;
        tracing::info!(
            role = role.name(),
            incarnation = incarnation.0,
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            "starting"
        );
        let open_files_max = resources::raise_open_files();
        tracing::debug!(open_files_max, "limit of open files");

        let tasks = Tasks::new();
        let vitals = Vitals::start(&tasks, end_as_stuck).context("cannot start a thread")?;
        let admin = Admin::bind(args.admin, vitals.tasks())?;
        let process = Self {
            addresses: Addresses::new(&name, args.addresses.clone()),
            name,
            role,
            incarnation,
            tasks,
            ready: Readiness::new(),
            admin: admin.local_addr(),
            stop: Stop::default(),
            vitals,
            drains_longer: OnceLock::new(),
        };
        describe_metrics(role, &process.name);
        admin.serve(process.ready.clone(), process.vital_tasks());
        process.watch_signals()?;
        process.watch_tasks();
        if args.watch_stdin {
            process.watch_stdin()?;
        }
        process.announce("admin", process.admin)?;
        Ok(process)
    }

    /// Spawns what others judge this process by, on a thread that is not kept busy by clients and
    /// rooms. The same set as `tasks`.
    #[must_use]
    pub const fn vital_tasks(&self) -> &Tasks {
        self.vitals.tasks()
    }

    /// The time since the process started, as the pure machines want it.
    #[must_use]
    pub fn now() -> Time {
        static START: OnceLock<Instant> = OnceLock::new();
        Time::from_start(START.get_or_init(Instant::now).elapsed())
    }

    /// Draws another incarnation: for a node that was declared gone and comes back without
    /// ending its process. Below 2^53, so that it survives JSON.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn draw_incarnation() -> anyhow::Result<Incarnation> {
        let random = getrandom::u64()
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        Ok(Incarnation((random >> 11).max(1)))
    }

    /// Where others find the admin port, as `http://host:port`.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", net::dialable(self.admin))
    }

    /// Says where this process listens: in the log, and in the file of `--addresses`.
    ///
    /// # Errors
    ///
    /// If that file cannot be written.
    pub fn announce(&self, what: &'static str, address: SocketAddr) -> anyhow::Result<()> {
        tracing::info!(what, %address, "listening");
        self.addresses.add(what, address)
    }

    /// Waits until the process is asked to end or cannot go on. From then on it is not ready.
    pub async fn stopped(&self) -> Cause {
        self.stop.wait().await;
        let cause = self.stop.cause.get().map(|(cause, _)| cause.clone());
        let cause = cause.unwrap_or_else(|| Cause::Fatal("stopped without a cause".to_owned()));
        let log_as_error = match cause {
            Cause::Signal(_) | Cause::SupervisorGone => false,
            Cause::TaskPanicked | Cause::Fatal(_) => true,
        };
        if log_as_error {
            tracing::error!(%cause, "draining");
        } else {
            tracing::info!(%cause, "draining");
        }
        self.ready.drain();
        cause
    }

    /// Gives the process so much longer to end. Only the first call counts.
    pub fn drain_longer(&self, by: Duration) {
        let _ = self.drains_longer.set(by);
    }

    /// What is left of [`limits::DRAIN_TIMEOUT`], and of what was added to it.
    #[must_use]
    pub fn drain_time_left(&self) -> Duration {
        let begun = self.stop.cause.get().map(|(_, begun)| *begun);
        let whole = limits::DRAIN_TIMEOUT + self.drains_longer.get().copied().unwrap_or_default();
        whole.saturating_sub(begun.map_or(Duration::ZERO, |begun| begun.elapsed()))
    }

    /// Ends all tasks, in what is left of the drain time, and the process with them.
    ///
    /// # Errors
    ///
    /// If the process ends for a reason that is an error.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stop.stop(Cause::Fatal("finished unasked".to_owned()));
        let stuck = self.tasks.drain(self.drain_time_left()).await;
        if !stuck.is_empty() {
            tracing::warn!(tasks = stuck.join(", "), "tasks did not end in time");
        }
        let cause = self.stop.cause.get().map(|(cause, _)| cause.clone());
        tracing::info!("ended");
        if self.tasks.have_failed() {
            return Err(BugError.into());
        }
        match cause {
            Some(Cause::Fatal(reason)) => Err(anyhow::Error::msg(reason)),
            Some(Cause::TaskPanicked) => Err(BugError.into()),
            Some(Cause::Signal(_) | Cause::SupervisorGone) | None => Ok(()),
        }
    }

    /// Drains at the first signal, exits at the second.
    fn watch_signals(&self) -> anyhow::Result<()> {
        let mut signals = Signals::new().context("cannot receive signals")?;
        let stop = self.stop.clone();
        // Not one of the tasks that a drain waits for: a second signal must be heard during it.
        let watch = async move {
            let first = signals.next().await;
            stop.stop(Cause::Signal(first.name()));
            let second = signals.next().await;
            tracing::warn!(signal = second.name(), "second signal: exiting at once");
            telemetry::flush();
            std::process::exit(second.exit_code().into());
        };
        detach(watch);
        Ok(())
    }

    /// Stops the process when a panic has cancelled its tasks.
    fn watch_tasks(&self) {
        let (stop, tasks, token) = (self.stop.clone(), self.tasks.clone(), self.tasks.token());
        self.tasks.spawn("failure watch", async move {
            token.cancelled().await;
            if tasks.have_failed() {
                stop.stop(Cause::TaskPanicked);
            }
        });
    }

    /// Stops the process when standard input ends.
    fn watch_stdin(&self) -> io::Result<()> {
        let stop = self.stop.clone();
        stdin::when_ended(move |end| {
            tracing::debug!(?end, "standard input ended");
            stop.stop(Cause::SupervisorGone);
        })
    }
}

/// Runs a future that the end of the process does not wait for.
#[expect(
    clippy::disallowed_methods,
    reason = "the second signal must be heard while the tasks end, and the process exits under it"
)]
fn detach(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// The end of a process whose threads do nothing: they cannot be asked to end.
fn end_as_stuck() {
    let telling = std::thread::spawn(|| {
        let seconds = limits::STUCK_AFTER.as_secs();
        tracing::error!(seconds, "no thread has done anything: a bug; the process ends");
        telemetry::flush();
    });
    let patience = Instant::now() + Duration::from_secs(1);
    while !telling.is_finished() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::process::exit(EXIT_BUG.into());
}

fn describe_metrics(role: Role, name: &NodeId) {
    metrics::describe_gauge!("tangelo_info", "Always 1; the labels say what runs.");
    metrics::describe_gauge!("tangelo_ready", "1 when /readyz answers 200, else 0.");
    metrics::describe_gauge!("tangelo_tasks", "Tasks running.");
    metrics::describe_counter!(
        "tangelo_stalls_total",
        "Times that no thread got to its work for 2 s and more, and did again."
    );
    metrics::gauge!(
        "tangelo_info",
        "version" => env!("CARGO_PKG_VERSION"),
        "role" => role.name(),
        "name" => name.to_string()
    )
    .set(1.0);
}

/// The addresses of this process, kept in a file for those who start it on free ports.
#[derive(Debug)]
struct Addresses {
    name: String,
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<&'static str, SocketAddr>>,
}

impl Addresses {
    fn new(name: &NodeId, file: Option<PathBuf>) -> Self {
        Self { name: name.to_string(), file, known: Mutex::default() }
    }

    fn add(&self, what: &'static str, address: SocketAddr) -> anyhow::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(what, address);
        match &self.file {
            Some(file) => self
                .write(file, &known)
                .with_context(|| format!("cannot write --addresses {}", file.display())),
            None => Ok(()),
        }
    }

    /// Replaces the file as a whole, so that a reader never sees half of it.
    fn write(&self, file: &Path, known: &BTreeMap<&'static str, SocketAddr>) -> io::Result<()> {
        let mut object = serde_json::Map::new();
        object.insert("name".into(), self.name.as_str().into());
        object.insert("pid".into(), std::process::id().into());
        for (what, address) in known {
            object.insert((*what).into(), address.to_string().into());
        }
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, serde_json::Value::Object(object).to_string() + "\n")?;
        std::fs::rename(&new, file)
    }
}
