//! The cluster's processes: what they cost, and a cluster started for the run.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use client::{Client, Options};
use daemon::Usage;
use rustix::process::{Pid, Signal, kill_process};

use super::Args;

/// How long a cluster may take to come up.
const UP_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to drain.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);
/// After what time a cluster with many clients is told that it need not drain.
const HURRY_AFTER: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);
/// What `tangelo up` says when every process is ready.
const READY: &str = "Tangelo is up";
/// Below the ports that the kernel hands out.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// The processes to be measured.
pub(super) struct Processes {
    pids: BTreeMap<u32, Named>,
}

/// Which process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Such as `connector-2`.
    pub(super) name: String,
    pub(super) role: &'static str,
}

/// What a process has cost since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// User and system time.
    pub(super) processor_time: Duration,
    /// Resident memory, in bytes.
    pub(super) memory: u64,
}

/// What each process has cost, by its id.
pub(super) type Costs = BTreeMap<u32, Cost>;

/// The role of processes that own rooms, and know each session as a member.
pub(super) const CHAT: &str = "chat";
/// The role of processes that hold sessions.
pub(super) const CONNECTOR: &str = "connector";
/// What processes are called that play clients.
pub(super) const GENERATOR: &str = "generator";

impl Processes {
    /// Processes by their ids.
    ///
    /// # Errors
    ///
    /// If one is not there.
    pub(super) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut processes = BTreeMap::new();
        for pid in pids {
            let command = fs::read(format!("/proc/{pid}/cmdline"));
            let command = command.with_context(|| format!("there is no process {pid}"))?;
            processes.insert(*pid, Named::by_command(&String::from_utf8_lossy(&command)));
        }
        Ok(Self { pids: processes })
    }

    /// The children of a process.
    fn children(parent: u32) -> anyhow::Result<Self> {
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may end while we look.
            if Usage::of(pid).parent == Some(u64::from(parent)) {
                children.push(pid);
            }
        }
        Self::of(&children)
    }

    /// Adds those that play clients.
    pub(super) fn add_generators(&mut self, pids: &[u32]) {
        for (number, pid) in (1..).zip(pids) {
            let name = format!("{GENERATOR}-{number}");
            self.pids.insert(*pid, Named { name, role: GENERATOR });
        }
    }

    /// Whether no process of the cluster is known.
    pub(super) fn is_empty(&self) -> bool {
        self.pids.values().all(|named| named.role == GENERATOR)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Named)> {
        self.pids.iter().map(|(pid, named)| (*pid, named))
    }

    /// What each has cost until now.
    pub(super) fn costs(&self) -> Costs {
        self.pids.keys().map(|pid| (*pid, cost(*pid))).collect()
    }

    /// User and system time of the cluster between two looks.
    pub(super) fn processor_time(&self, before: &Costs, after: &Costs) -> Duration {
        let cluster = self.pids.iter().filter(|(_, named)| named.role != GENERATOR);
        cluster.map(|(pid, _)| spent(*pid, before, after)).sum()
    }

    /// What the processes of a role have grown by for each session, in bytes.
    pub(super) fn per_session(
        &self,
        role: &str,
        (idle, full): (&Costs, &Costs),
        sessions: u32,
    ) -> Option<u64> {
        let of = |costs: &Costs| {
            let processes = self.pids.iter().filter(|(_, named)| named.role == role);
            let memory = processes.filter_map(|(pid, _)| costs.get(pid)).map(|cost| cost.memory);
            memory.reduce(|one, other| one + other)
        };
        (sessions > 0).then_some(())?;
        Some(of(full)?.saturating_sub(of(idle)?) / u64::from(sessions))
    }
}

impl Named {
    /// By a command line such as `tangelo-connector …` or `tangelo connector …`, its words apart.
    fn by_command(command: &str) -> Self {
        let words: Vec<&str> = command.split('\0').collect();
        let program = words.first().copied().unwrap_or_default();
        let is_role = |role: &&str| {
            program.ends_with(&format!("-{role}")) || words.get(1).is_some_and(|word| word == role)
        };
        let role = ["gate", CONNECTOR, CHAT].into_iter().find(is_role).unwrap_or("other");
        let name = words.iter().skip_while(|word| **word != "--name").nth(1);
        Self { name: name.map_or(role, |name| name).to_owned(), role }
    }
}

/// User and system time of a process between two looks.
pub(super) fn spent(pid: u32, before: &Costs, after: &Costs) -> Duration {
    let at = |costs: &Costs| costs.get(&pid).map_or(Duration::ZERO, |cost| cost.processor_time);
    at(after).saturating_sub(at(before))
}

fn cost(pid: u32) -> Cost {
    let usage = Usage::of(pid);
    let processor_time = Duration::from_secs_f64(usage.cpu_seconds.unwrap_or(0.0));
    Cost { processor_time, memory: usage.resident_bytes.unwrap_or(0) }
}

/// A cluster of one's own.
pub(super) struct Up {
    child: Child,
    gate: SocketAddr,
    logs: PathBuf,
}

impl Up {
    /// Starts it and waits until it can serve.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub(super) async fn start(args: &Args) -> anyhow::Result<Self> {
        let (connectors, chats) = (args.connectors, args.chats);
        let [gate, registry, connector] = ports(connectors)?;
        let logs = std::env::temp_dir().join(format!("tangelo-bench-{}", std::process::id()));
        fs::create_dir_all(&logs)?;
        let output = fs::File::create(logs.join("up.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(heartbeat) = args.heartbeat {
            command.env("TANGELO_HEARTBEAT", format!("{heartbeat}s"));
        }
        let child = command
            .arg("up")
            .args(["--connectors", &connectors.to_string(), "--chats", &chats.to_string()])
            .args(["--gate-port", &gate.to_string(), "--registry-port", &registry.to_string()])
            .args(["--connector-port", &connector.to_string()])
            .arg("--logs")
            .arg(&logs)
            // So that it ends with this process, even one that is killed.
            .arg("--watch-stdin")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let gate = SocketAddr::from((Ipv4Addr::LOCALHOST, gate));
        let mut up = Self { child, gate, logs };
        let deadline = Instant::now() + UP_PATIENCE;
        loop {
            let asked = Client::query_entry(gate, &Options::default(), "bench", None).await;
            let error = match asked {
                // The gate answers as soon as one connector is there.
                Ok(_) if up.log().contains(READY) => return Ok(up),
                Ok(_) => "some processes are not ready".to_owned(),
                Err(error) => error.to_string(),
            };
            let ended = up.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = up.log();
                up.end(false, false).await;
                bail!("no cluster comes up: {error}\n{log}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What it has said.
    fn log(&self) -> String {
        fs::read_to_string(self.logs.join("up.log")).unwrap_or_default()
    }

    pub(super) const fn gate(&self) -> SocketAddr {
        self.gate
    }

    pub(super) fn processes(&self) -> anyhow::Result<Processes> {
        Processes::children(self.child.id())
    }

    /// Lets it drain, and removes its logs unless something has failed; with many clients, ends it at once: nobody is interested in how each of them
    /// hears of the others' leaves.
    pub(super) async fn end(mut self, has_many_clients: bool, has_failed: bool) {
        self.ask_to_end();
        let mut deadline = Instant::now() + DOWN_PATIENCE;
        let mut hurry = has_many_clients.then(|| Instant::now() + HURRY_AFTER);
        while matches!(self.child.try_wait(), Ok(None)) {
            let now = Instant::now();
            if hurry.is_some_and(|at| now > at) {
                // The second time means at once.
                self.ask_to_end();
                hurry = None;
                deadline = now + DOWN_PATIENCE;
            }
            if now > deadline {
                let _ = self.child.kill();
            }
            tokio::time::sleep(LOOK).await;
        }
        if has_failed {
            let _ = writeln!(io::stderr(), "the cluster's logs are in {}", self.logs.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.logs);
    }

    fn ask_to_end(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Free ports for a gate, a registry, and the first of so many connectors in a row.
fn ports(connectors: u16) -> anyhow::Result<[u16; 3]> {
    let needed = connectors + 2;
    let count = u32::from(PORTS.end - PORTS.start - needed);
    let mut port = PORTS.start + u16::try_from(std::process::id() * 31 % count)?;
    for _ in 0..count {
        let mut run = port..port + needed;
        if run.all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok([port, port + 1, port + 2]);
        }
        port = if port + 2 * needed < PORTS.end { port + needed } else { PORTS.start };
    }
    bail!("no free ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_their_command() {
        let named = |command| Named::by_command(command);
        let connector = named("/usr/bin/tangelo-connector\0--name\0connector-1\0");
        assert_eq!((connector.name.as_str(), connector.role), ("connector-1", CONNECTOR));
        assert_eq!(named("release/tangelo\0connector\0--name\0c").role, CONNECTOR);
        let chat = named("target/release/tangelo\0chat\0--name\0connector\0");
        assert_eq!((chat.name.as_str(), chat.role), ("connector", "chat"));
        assert_eq!(named("/bin/true").name, "other");
    }

    #[test]
    fn a_process_has_costs() {
        let id = std::process::id();
        let mut processes = Processes::of(&[id]).unwrap();
        assert!(!processes.is_empty());
        let costs = processes.costs();
        assert!(costs[&id].memory > 100_000);
        assert_eq!(
            processes.per_session(CONNECTOR, (&costs, &costs), 3),
            None,
            "a test is no connector"
        );
        processes.pids.insert(id, Named { name: "c".to_owned(), role: CONNECTOR });
        let mut full = costs.clone();
        full.get_mut(&id).unwrap().memory += 3000;
        full.get_mut(&id).unwrap().processor_time += Duration::from_secs(2);
        assert_eq!(processes.per_session(CONNECTOR, (&costs, &full), 3), Some(1000));
        assert_eq!(processes.processor_time(&costs, &full), Duration::from_secs(2));
        processes.add_generators(&[id]);
        assert!(processes.is_empty());
    }
}
