//! One process of the cluster: started, listened to, started again when it dies.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use model::limits;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, console::Console, lines::Lines, logs::LogFile, plan::Spec, probe};

/// Last lines of a dead process that are shown again.
const LAST_LINES: usize = 20;
/// How long a process may take to end after SIGTERM, before it is killed: its own deadline, a
/// connector's clients sent elsewhere before, and a little for a busy machine.
const END_TIMEOUT: Duration = limits::DRAIN_WINDOW_MAX
    .saturating_add(limits::DRAIN_TIMEOUT)
    .saturating_add(Duration::from_secs(2));
/// How long output may still come after the process that wrote it has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the others wait for the process that should listen first.
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a starting process is asked whether it is ready.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// What the command line of every process says already; set outside, these would add to it.
const OUR_VARIABLES: [&str; 13] = [
    "TANGELO_NAME",
    "TANGELO_ADMIN",
    "TANGELO_ADDRESSES",
    "TANGELO_LISTEN",
    "TANGELO_LOG",
    "TANGELO_REGISTRY",
    "TANGELO_THREADS",
    "TANGELO_REGISTRY_LISTEN",
    "TANGELO_DICTIONARY",
    "TANGELO_CLIENT_PROTOS",
    "TANGELO_SERVER_PROTOS",
    "TANGELO_WEB_ROOT",
    "TANGELO_WEB_LISTEN",
];

/// How a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It cannot serve yet, for this reason.
    Starting(String),
    /// It has said that it can serve.
    Ready,
    /// It has ended, and will not be started again.
    Ended {
        /// It did not end by itself in time.
        killed: bool,
    },
    /// It refuses its command line, so starting it again is of no use.
    Refused,
}

impl State {
    /// Whether waiting for it to be ready has an answer.
    pub(super) fn is_decided(&self) -> bool {
        *self == Self::Ready || self.is_over()
    }

    /// Whether it does not run and will not be started again.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::Refused => true,
            Self::Starting(_) | Self::Ready => false,
        }
    }
}

/// When a process is to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// End in order: SIGTERM.
    pub(super) end: CancellationToken,
    /// End at once: SIGKILL.
    pub(super) kill: CancellationToken,
}

/// Keeps one process running until it is ordered to end.
pub(super) struct Keeper {
    spec: Spec,
    console: Console,
    log: LogFile,
    last_lines: VecDeque<String>,
    backoff: Backoff,
    state: watch::Sender<State>,
    orders: Orders,
}

/// Why one life of a process was over.
enum Life {
    Died(ExitStatus),
    NotStarted(io::Error),
    EndedByOrder { killed: bool },
}

impl Keeper {
    pub(super) fn new(spec: Spec, console: Console, logs: &Path, orders: Orders) -> Self {
        let log = LogFile::create(logs.join(format!("{}.log", spec.name)));
        let state = watch::Sender::new(State::Starting("not started".to_owned()));
        Self {
            spec,
            console,
            log,
            last_lines: VecDeque::new(),
            backoff: Backoff::default(),
            state,
            orders,
        }
    }

    /// How the process is, from now on.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Keeps it running.
    pub(super) async fn run(mut self) {
        if let Some(first) = &self.spec.after {
            // Not needed, since everybody tries again; it spares the log their complaints.
            let end = self.orders.end.clone();
            let listens = timeout(FIRST_TIMEOUT, probe::listens(first));
            let _ = end.run_until_cancelled(listens).await;
        }
        while !self.orders.end.is_cancelled() {
            let begun = Instant::now();
            let life = self.live().await;
            let end = self.orders.end.clone();
            let wait = match life {
                Life::EndedByOrder { killed } => {
                    self.state.send_replace(State::Ended { killed });
                    return;
                }
                Life::Died(status) if status.code() == Some(daemon::run::EXIT_USAGE.into()) => {
                    self.report(&format!("{status}: it refuses what it was told"), None);
                    self.state.send_replace(State::Refused);
                    return;
                }
                // The order came while it died of something else: all the same.
                Life::Died(_) | Life::NotStarted(_) if end.is_cancelled() => break,
                Life::Died(status) => {
                    let wait = self.backoff.died(begun.elapsed());
                    self.report(&status.to_string(), Some(wait));
                    wait
                }
                Life::NotStarted(error) => {
                    let wait = self.backoff.died(begun.elapsed());
                    self.report(&format!("cannot be started: {error}"), Some(wait));
                    wait
                }
            };
            if end.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
        }
        self.state.send_replace(State::Ended { killed: false });
    }

    /// One life of the process, from its start to its end.
    async fn live(&mut self) -> Life {
        self.last_lines.clear();
        // What a former life wrote must not be taken for this one's.
        let _ = std::fs::remove_file(&self.spec.addresses);
        let mut child = match start(&self.spec) {
            Ok(child) => child,
            Err(error) => return Life::NotStarted(error),
        };
        let pid = child.id();
        // Held until the end of this life: the process drains when it closes. Waiting for the
        // process would close it, were it still in there.
        let _stdin = child.stdin.take();
        self.log.write(&format!("---- {} is process {}\n", self.spec.name, pid.unwrap_or(0)));
        self.state.send_replace(State::Starting("it has just been started".to_owned()));

        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut outputs = Outputs { stdout: Output::new(stdout), stderr: Output::new(stderr) };
        let orders = self.orders.clone();
        let spec = self.spec.clone();
        let mut probing = Box::pin(probe_until_ready(&spec, pid, self.state.clone()));
        let mut ready = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                text = outputs.next() => self.take_lines(&text),
                () = &mut probing, if !ready => ready = true,
                () = orders.end.cancelled() => {
                    let killed = self.end(&mut child, &mut outputs).await;
                    self.take_rest(&mut outputs).await;
                    return Life::EndedByOrder { killed };
                }
            }
        };
        self.take_rest(&mut outputs).await;
        match status {
            Ok(status) => Life::Died(status),
            Err(error) => Life::NotStarted(error),
        }
    }

    /// Ends the process: SIGTERM, and SIGKILL when it takes too long or there is no time. Says
    /// whether it had to be killed.
    async fn end(&mut self, child: &mut Child, outputs: &mut Outputs) -> bool {
        terminate(child);
        let orders = self.orders.clone();
        let mut patience = Box::pin(sleep(END_TIMEOUT));
        let mut killed = false;
        loop {
            tokio::select! {
                _ = child.wait() => return killed,
                text = outputs.next() => self.take_lines(&text),
                () = &mut patience, if !killed => {
                    killed = true;
                    let seconds = END_TIMEOUT.as_secs();
                    tracing::warn!(name = self.spec.name, seconds, "does not end: killing it");
                    // It fails only if the process has ended, which the next turn sees.
                    let _ = child.start_kill();
                }
                () = orders.kill.cancelled(), if !killed => {
                    killed = true;
                    let _ = child.start_kill();
                }
            }
        }
    }

    /// Shows and keeps what the process had written when it ended.
    async fn take_rest(&mut self, outputs: &mut Outputs) {
        // A grandchild could hold the pipes open for ever.
        let _ = timeout(OUTPUT_TIMEOUT, async {
            while outputs.are_open() {
                let lines = outputs.next().await;
                self.take_lines(&lines);
            }
        })
        .await;
    }

    fn take_lines(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let mut text = String::new();
        for line in lines {
            self.console.show(&self.spec.name, line);
            text.push_str(line);
            text.push('\n');
            if self.last_lines.len() == LAST_LINES {
                self.last_lines.pop_front();
            }
            self.last_lines.push_back(line.clone());
        }
        self.log.write(&text);
    }

    /// Says loudly that the process died, and what it said last.
    fn report(&mut self, how: &str, restart: Option<Duration>) {
        let name = &self.spec.name;
        let lines: Vec<String> = self.last_lines.iter().cloned().collect();
        let restart_in = restart.map(|wait| format!("{:.1}s", wait.as_secs_f64()));
        let reason = match &restart_in {
            Some(wait) => format!("it died ({how}) and is started again in {wait}"),
            None => format!("it died ({how})"),
        };
        self.log.write(&format!("---- {name}: {how}\n"));
        let last_lines = (!self.console.is_for_people()).then(|| lines.join("\n"));
        tracing::error!(name, how, restart_in, last_lines, "PROCESS DIED");
        if lines.is_empty() {
            self.console.say(&format!("    {name} had said nothing"));
        } else {
            self.console.say(&format!("    the last lines of {name}:"));
            lines.iter().for_each(|line| self.console.say(&format!("    | {line}")));
        }
        self.state.send_replace(State::Starting(reason));
    }
}

/// Asks the process whether it is ready, until it is.
async fn probe_until_ready(spec: &Spec, pid: Option<u32>, state: watch::Sender<State>) {
    let begun = Instant::now();
    loop {
        match probe::ask(&spec.addresses, pid).await {
            Ok(()) => break,
            Err(reason) => {
                let new = State::Starting(reason);
                state.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
            }
        }
        sleep(PROBE_INTERVAL).await;
    }
    let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(name = spec.name, after_ms, "process is ready");
    state.send_replace(State::Ready);
}

/// Starts the process. It ends with us in any case: in order when its standard input closes, and
/// by force when the handle is dropped.
fn start(spec: &Spec) -> io::Result<Child> {
    let mut command = Command::new(executable()?);
    for name in OUR_VARIABLES {
        command.env_remove(name);
    }
    command
        .args(&spec.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The terminal sends Ctrl-C to its whole group, and the order of ending is ours.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// This program: where it was found, or, if a build has replaced it meanwhile, what is running.
fn executable() -> io::Result<OsString> {
    let found = std::env::current_exe()?;
    if cfg!(target_os = "linux") && !found.exists() {
        return Ok("/proc/self/exe".into());
    }
    Ok(found.into())
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    // Without an id the process has been waited for already, so the id cannot be another's.
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// One stream that a process writes.
struct Output<R> {
    stream: Option<R>,
    lines: Lines,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Output<R> {
    fn new(stream: Option<R>) -> Self {
        Self { stream, lines: Lines::default(), buffer: vec![0; 16 * 1024].into() }
    }

    /// The next lines; none when the stream ends. Never returns again after that.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: what was read is kept here.
    async fn next(&mut self) -> Vec<String> {
        let Some(stream) = &mut self.stream else {
            return std::future::pending().await;
        };
        let mut lines = Vec::new();
        match stream.read(&mut self.buffer).await {
            Ok(0) | Err(_) => {
                self.stream = None;
                self.lines.finish(|line| lines.push(line.to_owned()));
            }
            Ok(count) => {
                self.lines.feed(&self.buffer[..count], |line| lines.push(line.to_owned()));
            }
        }
        lines
    }
}

/// Both streams of a process.
struct Outputs {
    stdout: Output<tokio::process::ChildStdout>,
    stderr: Output<tokio::process::ChildStderr>,
}

impl Outputs {
    async fn next(&mut self) -> Vec<String> {
        tokio::select! {
            lines = self.stdout.next() => lines,
            lines = self.stderr.next() => lines,
        }
    }

    fn are_open(&self) -> bool {
        self.stdout.stream.is_some() || self.stderr.stream.is_some()
    }
}
