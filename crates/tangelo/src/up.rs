//! `tangelo up`: a whole cluster on this machine, each process on its own.
//!
//! The supervisor starts its own executable once per process, shows and keeps what each writes,
//! starts again what dies, and ends everything in order. Children are in process groups of their
//! own, so that Ctrl-C reaches only the supervisor; they end by themselves when their standard
//! input closes, so that even a supervisor killed by force leaves nothing behind.

mod backoff;
mod child;
mod console;
mod lines;
mod logs;
mod plan;
mod probe;

use std::{
    io,
    net::TcpListener,
    sync::{Mutex, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use daemon::{BugError, Tasks, UsageError, net, signal::Signals, stdin, telemetry};
use model::{Role, limits};
use rustix::process::{Signal, getpid, kill_process};
use tokio::{sync::watch, time::timeout};

use crate::cli::UpArgs;
use child::{Keeper, Orders, State};
use console::Console;
use plan::Plan;

/// The supervisor's name among those of the processes.
const NAME: &str = "tangelo";
/// How long a cluster may take until every process is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take until nobody is left, once everybody is being killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The order of ending. Connectors first: they tell their clients to go, and the leaves still
/// reach the rooms. Then chats, which hand over to nobody and say so to the registry. The gate
/// last, because it hosts the registry that the others take leave of.
const ENDING: [Role; 3] = [Role::Connector, Role::Chat, Role::Gate];

/// Runs a cluster until a signal asks for its end.
///
/// # Errors
///
/// If it cannot be started, does not become ready, or does not end by itself.
pub(crate) async fn run(args: UpArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot receive signals")?;
    let plan = Plan::new(&args, available_parallelism().map_or(1, usize::from))?;
    // What cannot be used is better told here, once, than by each process.
    args.pomelo.connector(limits::POMELO_HEARTBEAT)?;
    if let Some(folder) = args.web_root() {
        gate::WebRoot::new(folder)?;
    }
    let _lock = logs::lock(&args.logs)?;
    check_ports(&plan)?;
    logs::make_empty(&plan::addresses_folder(&args.logs))
        .with_context(|| format!("cannot write to the log folder {}", args.logs.display()))?;
    let names = plan.specs.iter().map(|spec| spec.name.as_str()).chain([NAME]);
    let console = Console::new(args.log_format, names);
    log_through(&console, &args)?;
    if args.watch_stdin {
        watch_stdin().context("cannot watch standard input")?;
    }

    tracing::info!(processes = plan.summary(), logs = %args.logs.display(), "starting a cluster");
    let mut cluster = Cluster::start(&plan, &console, &args);
    let result = tokio::select! {
        result = cluster.ready() => result.map(|()| true),
        signal = signals.next() => {
            tracing::info!(%signal, "ending before the cluster was ready");
            Ok(false)
        }
    };
    let result = match result {
        Ok(true) => {
            announce(&plan, &console, &args);
            tokio::select! {
                result = cluster.watch() => result,
                signal = signals.next() => {
                    tracing::info!(%signal, "draining the cluster; again to kill it at once");
                    Ok(())
                }
            }
        }
        Ok(false) => Ok(()),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "giving up, ending the cluster");
            Err(error)
        }
    };
    let ended = cluster.end(&mut signals).await;
    // They are wrong from now on.
    let _ = std::fs::remove_dir_all(plan::addresses_folder(&args.logs));
    result.and(ended)
}

/// Sends our own log the way of the children's: to the terminal with the name in front, and to a
/// file.
fn log_through(console: &Console, args: &UpArgs) -> Result<(), UsageError> {
    let log = Mutex::new(logs::LogFile::create(args.logs.join(format!("{NAME}.log"))));
    let console = console.clone();
    let write = move |line: &str| {
        console.show(NAME, line);
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(&format!("{line}\n"));
    };
    let filter = args.log.as_deref().filter(|text| !text.is_empty());
    telemetry::init_through(NAME, args.log_format, filter, write).map_err(UsageError)
}

/// Asks this process to end when its standard input does, as whoever ends it by hand would.
fn watch_stdin() -> io::Result<()> {
    stdin::when_ended(|_| {
        let _ = kill_process(getpid(), Signal::TERM);
    })
}

/// Looks whether every port can be had, before anything is started.
fn check_ports(plan: &Plan) -> anyhow::Result<()> {
    for spec in &plan.specs {
        for (address, flag) in &spec.ports {
            TcpListener::bind(address).map_err(|error| {
                // A port is chosen by its own flag, but the address of all by one.
                let foreign = error.kind() == io::ErrorKind::AddrNotAvailable;
                net::explain(&error, *address, if foreign { "--host" } else { flag })
            })?;
        }
    }
    Ok(())
}

fn announce(plan: &Plan, console: &Console, args: &UpArgs) {
    let logs = args.logs.display();
    tracing::info!(page = plan.page, %logs, "the cluster is ready");
    let beyond = if args.host.is_loopback() {
        "this machine only; --host 0.0.0.0 lets others in"
    } else {
        "and by this machine's other addresses, from other machines"
    };
    console.say(&format!(
        "
  Tangelo is up: {}

    chat   {}   ({beyond})
    logs   {logs}/   (one file per process)
    stop   Ctrl-C

",
        plan.summary(),
        plan.page
    ));
}

/// The processes, and the orders that they follow.
struct Cluster {
    tasks: Tasks,
    groups: Vec<(Role, Orders)>,
    members: Vec<Member>,
}

struct Member {
    name: String,
    role: Role,
    state: watch::Receiver<State>,
}

impl Cluster {
    fn start(plan: &Plan, console: &Console, args: &UpArgs) -> Self {
        let tasks = Tasks::new();
        let groups = ENDING.map(|role| (role, Orders::default())).to_vec();
        let mut members = Vec::new();
        for spec in &plan.specs {
            let orders = groups.iter().find(|(role, _)| *role == spec.role);
            let orders = orders.map(|(_, orders)| orders.clone()).unwrap_or_default();
            let keeper = Keeper::new(spec.clone(), console.clone(), &args.logs, orders);
            let (name, role) = (spec.name.clone(), spec.role);
            members.push(Member { name: name.clone(), role, state: keeper.watch() });
            tasks.spawn(name, keeper.run());
        }
        Self { tasks, groups, members }
    }

    /// Waits until every process has been ready once.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let failed = self.tasks.token();
        for member in &mut self.members {
            let left = deadline.saturating_duration_since(Instant::now());
            let outcome = tokio::select! {
                outcome = timeout(left, member.until(State::is_decided)) => outcome,
                () = failed.cancelled() => return Err(BugError.into()),
            };
            match outcome {
                Ok(Some(State::Ready)) => {}
                Ok(_) => bail!("{} does not start; see its lines above", member.name),
                Err(_) => return Err(self.explain_delay()),
            }
        }
        Ok(())
    }

    fn explain_delay(&self) -> anyhow::Error {
        let reasons = self.members.iter().filter_map(|member| match &*member.state.borrow() {
            State::Starting(reason) => Some(format!("{}: {reason}", member.name)),
            State::Ready | State::Refused | State::Ended { .. } => None,
        });
        let reasons: Vec<_> = reasons.collect();
        anyhow!(
            "the cluster is not ready after {} s: {}",
            READY_TIMEOUT.as_secs(),
            reasons.join(" | ")
        )
    }

    /// Waits for what the keepers cannot mend.
    async fn watch(&self) -> anyhow::Result<()> {
        self.tasks.token().cancelled().await;
        Err(BugError.into())
    }

    /// Ends all processes, role by role; a signal kills what is left.
    async fn end(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let groups = self.groups.clone();
        let hurried = tokio::select! {
            () = self.end_in_order() => false,
            signal = signals.next() => {
                tracing::warn!(%signal, "killing what is left");
                for (_, orders) in &groups {
                    orders.kill.cancel();
                    orders.end.cancel();
                }
                true
            }
        };
        let stuck = self.tasks.drain(KILL_TIMEOUT).await;
        if !stuck.is_empty() {
            bail!("these do not end, even killed: {}", stuck.join(", "));
        }
        let killed: Vec<_> = self.members.iter().filter(|member| member.was_killed()).collect();
        if !killed.is_empty() && !hurried {
            let names: Vec<_> = killed.iter().map(|member| member.name.as_str()).collect();
            bail!("these had to be killed: {}", names.join(", "));
        }
        tracing::info!("all processes have ended");
        Ok(())
    }

    async fn end_in_order(&mut self) {
        for (role, orders) in &self.groups {
            orders.end.cancel();
            for member in self.members.iter_mut().filter(|member| member.role == *role) {
                member.until(State::is_over).await;
            }
        }
    }
}

impl Member {
    /// Waits for such a state; none if the keeper is gone, which it is only after a panic.
    async fn until(&mut self, wanted: impl FnMut(&State) -> bool) -> Option<State> {
        self.state.wait_for(wanted).await.ok().map(|state| state.clone())
    }

    fn was_killed(&self) -> bool {
        matches!(*self.state.borrow(), State::Ended { killed: true })
    }
}
