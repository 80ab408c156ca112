//! The cluster's processes: what they cost, and a cluster started for the run.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use client::{Client, Options};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Files that a process needs beside its clients'.
const SPARE_FILES: u64 = 200;
/// How long a cluster may take to come up.
const UP_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to drain.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Below the ports that the kernel hands out.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Raises the number of files that this process may open to what it is allowed.
///
/// # Errors
///
/// If that is not enough for so many clients.
pub(super) fn raise_file_limit(clients: u32) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::from(clients) + SPARE_FILES;
    if let Some(most) = limit.maximum {
        ensure!(
            needed <= most,
            "{clients} clients need {needed} open files, and this process may have {most}; \
             run several benches at once, each with a part of the clients"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// The processes to be measured, and whether each is a connector.
pub(super) struct Processes {
    pids: BTreeMap<u32, bool>,
}

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
            processes.insert(*pid, is_connector(&String::from_utf8_lossy(&command)));
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
            if stat(pid, 1).is_some_and(|of| of == u64::from(parent)) {
                children.push(pid);
            }
        }
        Self::of(&children)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// User and system time of all of them since each began.
    pub(super) fn processor_time(&self) -> Duration {
        let spent = |pid: &u32| stat(*pid, 11).unwrap_or(0) + stat(*pid, 12).unwrap_or(0);
        let ticks: u64 = self.pids.keys().map(spent).sum();
        Duration::from_secs(ticks).div_f64(rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory of every connector, in bytes.
    pub(super) fn memory(&self) -> Vec<u64> {
        let connectors = self.pids.iter().filter(|(_, is_connector)| **is_connector);
        connectors.map(|(pid, _)| resident(*pid).unwrap_or(0)).collect()
    }
}

/// `tangelo-connector …`, or `tangelo connector …`.
fn is_connector(command: &str) -> bool {
    let mut words = command.split('\0');
    let program = words.next().unwrap_or_default();
    program.ends_with("-connector") || words.next() == Some("connector")
}

/// A field of `/proc/<pid>/stat`, counted from the one after the state.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, but nothing after its last parenthesis does.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field)?.parse().ok()
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// What a session costs its connector, in bytes.
pub(super) fn per_session(idle: &[u64], full: &[u64], sessions: u32) -> Option<u64> {
    if idle.is_empty() || sessions == 0 {
        return None;
    }
    let grown: u64 = full.iter().sum::<u64>().saturating_sub(idle.iter().sum());
    Some(grown / u64::from(sessions))
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
    pub(super) async fn start(connectors: u16, chats: u16) -> anyhow::Result<Self> {
        let [gate, registry, connector] = ports(connectors)?;
        let logs = std::env::temp_dir().join(format!("tangelo-bench-{}", std::process::id()));
        fs::create_dir_all(&logs)?;
        let output = fs::File::create(logs.join("up.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("up")
            .args(["--connectors", &connectors.to_string(), "--chats", &chats.to_string()])
            .args(["--gate-port", &gate.to_string(), "--registry-port", &registry.to_string()])
            .args(["--connector-port", &connector.to_string()])
            .arg("--logs")
            .arg(&logs)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let gate = SocketAddr::from((Ipv4Addr::LOCALHOST, gate));
        let mut up = Self { child, gate, logs };
        let deadline = Instant::now() + UP_PATIENCE;
        loop {
            let asked = Client::query_entry(gate, &Options::default(), "bench", None).await;
            let Err(error) = asked else {
                return Ok(up);
            };
            let ended = up.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(up.logs.join("up.log")).unwrap_or_default();
                up.end().await;
                bail!("no cluster comes up: {error}\n{log}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) const fn gate(&self) -> SocketAddr {
        self.gate
    }

    pub(super) fn processes(&self) -> anyhow::Result<Processes> {
        Processes::children(self.child.id())
    }

    /// Lets it drain.
    pub(super) async fn end(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + DOWN_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            tokio::time::sleep(LOOK).await;
        }
        let _ = fs::remove_dir_all(&self.logs);
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
    fn connectors_are_known_by_their_command() {
        assert!(is_connector("/usr/bin/tangelo-connector\0--name\0connector-1\0"));
        assert!(is_connector("target/release/tangelo\0connector\0--name\0connector-1\0"));
        assert!(!is_connector("target/release/tangelo\0chat\0--name\0connector\0"));
    }

    #[test]
    fn a_process_has_costs() {
        let me = Processes::of(&[std::process::id()]).unwrap();
        assert!(!me.is_empty());
        assert!(me.memory().is_empty(), "a test is no connector");
        assert!(resident(std::process::id()).unwrap() > 100_000);
        assert!(stat(std::process::id(), 1).unwrap() > 0);
        assert_eq!(per_session(&[1000, 1000], &[2000, 3000], 3), Some(1000));
        assert_eq!(per_session(&[], &[], 3), None);
    }
}
