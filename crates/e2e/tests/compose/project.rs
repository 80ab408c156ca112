//! One run of the compose file, under a name of its own.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

/// How long the engine may take to bring containers up on a busy machine.
const UP_TIMEOUT: Duration = Duration::from_secs(180);
/// How often the engine is asked.
const LOOK: Duration = Duration::from_millis(250);
/// Published ports for connectors: more than there are, so that each must find its own.
const CONNECTOR_PORTS: u16 = 8;

/// The containers of one test; taken down when dropped.
pub(crate) struct Project {
    name: String,
    files: &'static [&'static str],
    /// `docker compose` or `docker-compose`.
    tool: Vec<&'static str>,
    /// The address that ports are published on: the engine's own bridge, so that nothing outside
    /// this machine reaches them, while containers do.
    bridge: IpAddr,
    gate_port: u16,
    connector_ports: u16,
}

impl Project {
    /// Prepares a project of these compose files; none if there is no engine with compose.
    pub(crate) fn new(name: &str, files: &'static [&'static str]) -> anyhow::Result<Option<Self>> {
        let answers = |words: &[&str]| output(Command::new(words[0]).args(&words[1..])).is_ok();
        let tool = match () {
            () if !answers(&["docker", "version"]) => return Ok(None),
            () if answers(&["docker", "compose", "version"]) => vec!["docker", "compose"],
            () if answers(&["docker-compose", "version"]) => vec!["docker-compose"],
            () => return Ok(None),
        };
        let bridge = bridge()?;
        let gate_port = free_ports(bridge, CONNECTOR_PORTS + 1).context("no free ports")?;
        Ok(Some(Self {
            name: format!("tangelo-test-{name}-{}", std::process::id()),
            files,
            tool,
            bridge,
            gate_port,
            connector_ports: gate_port + 1,
        }))
    }

    /// Where clients find the gate.
    pub(crate) fn gate(&self) -> SocketAddr {
        self.at(self.gate_port)
    }

    /// A published port.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.bridge, port)
    }

    /// Brings containers up, or adds some to those that are.
    pub(crate) fn up(&self, connectors: usize, chats: usize) -> anyhow::Result<()> {
        let connectors = format!("connector={connectors}");
        let chats = format!("chat={chats}");
        let scale = ["up", "-d", "--no-recreate", "--scale", &connectors, "--scale", &chats];
        output(self.compose().args(scale)).map(drop)
    }

    /// Waits until so many containers run and all are healthy.
    pub(crate) fn wait_healthy(&self, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + UP_TIMEOUT;
        loop {
            let states =
                self.list("{{.Label \"com.docker.compose.service\"}}: {{.Status}}", &[])?;
            let healthy = states.iter().filter(|state| state.contains("(healthy)")).count();
            if healthy == count && states.len() == count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{count} containers do not become healthy: {states:#?}");
            }
            thread::sleep(LOOK);
        }
    }

    /// The ids of a service's running containers.
    pub(crate) fn containers(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let service = format!("label=com.docker.compose.service={service}");
        self.list("{{.ID}}", &["--filter", &service])
    }

    /// The ports that the engine published the connectors on.
    pub(crate) fn connector_ports(&self) -> anyhow::Result<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        for container in self.containers("connector")? {
            let bound = output(Command::new("docker").args(["port", &container, "3050/tcp"]))?;
            let bound: SocketAddr = bound.lines().next().unwrap_or_default().parse()?;
            ensure!(bound.ip() == self.bridge, "published on {bound}, asked for {}", self.bridge);
            ports.insert(bound.port());
        }
        Ok(ports)
    }

    /// SIGKILL, while others go on.
    pub(crate) async fn kill(&self, container: &str) -> anyhow::Result<()> {
        let mut kill = tokio::process::Command::new("docker");
        let killed = kill.args(["kill", container]).output().await?;
        ensure!(killed.status.success(), "docker kill: {}", killed.status);
        Ok(())
    }

    /// The last lines of every container, for a person to read.
    pub(crate) fn logs(&self, lines: usize) -> String {
        let lines = lines.to_string();
        let logs = output(self.compose().args(["logs", "--no-color", "--tail", &lines]));
        logs.unwrap_or_else(|error| format!("no logs: {error:#}"))
    }

    /// Every container has told something, and every line is `time LEVEL process event…`.
    pub(crate) fn check_logs(&self) -> anyhow::Result<()> {
        for service in ["gate", "connector", "chat"] {
            let containers = self.list_all(service)?;
            ensure!(!containers.is_empty(), "no container of {service}");
            for container in containers {
                let log = output(Command::new("docker").args(["logs", &container]))?;
                ensure!(!log.trim().is_empty(), "{service} {container} tells nothing");
                for line in log.lines() {
                    ensure!(is_log_line(line, service), "{service} {container} tells {line:?}");
                }
            }
        }
        Ok(())
    }

    /// Containers of a service, the killed one too.
    fn list_all(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let service = format!("label=com.docker.compose.service={service}");
        self.list("{{.ID}}", &["--all", "--filter", &service])
    }

    fn list(&self, format: &str, more: &[&str]) -> anyhow::Result<Vec<String>> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let mut command = Command::new("docker");
        command.args(["ps", "--filter", &project, "--format", format]).args(more);
        Ok(output(&mut command)?.lines().map(str::to_owned).collect())
    }

    fn compose(&self) -> Command {
        let last = self.connector_ports + CONNECTOR_PORTS - 1;
        let mut command = Command::new(self.tool[0]);
        command
            .args(&self.tool[1..])
            .args(["--project-name", &self.name])
            .args(self.files.iter().flat_map(|file| ["--file", *file]))
            .env("TANGELO_BIND", self.bridge.to_string())
            .env("TANGELO_GATE_PORT", self.gate_port.to_string())
            .env("TANGELO_CONNECTOR_PORTS", format!("{}-{last}", self.connector_ports))
            .env_remove("TANGELO_ADVERTISE_HOST")
            .env_remove("TANGELO_LOG_FORMAT");
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // By the project's name only: whatever else runs in this engine is somebody else's.
        let down = ["down", "--volumes", "--remove-orphans", "--timeout", "15"];
        if let Err(error) = output(self.compose().args(down)) {
            eprintln!("taking {} down: {error:#}", self.name);
        }
    }
}

/// Runs a command at the top of the repository; its standard output, and with an error its other
/// output too.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = command.current_dir(top).output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let said = text(&output.stdout) + &text(&output.stderr);
        bail!("{command:?}: {}\n{said}", output.status);
    }
    Ok(text(&output.stdout))
}

/// This machine's address on the engine's default network.
fn bridge() -> anyhow::Result<IpAddr> {
    // An engine that has not used the network yet knows only its range; the host is its first.
    let format = "{{range .IPAM.Config}}{{.Gateway}} {{.Subnet}} {{end}}";
    let known =
        output(Command::new("docker").args(["network", "inspect", "bridge", "-f", format]))?;
    let first = |range: &str| -> Option<IpAddr> {
        let network: Ipv4Addr = range.split_once('/')?.0.parse().ok()?;
        Some(Ipv4Addr::from(u32::from(network) + 1).into())
    };
    let mut candidates =
        known.split_whitespace().filter_map(|word| word.parse().ok().or(first(word)));
    candidates
        .find(|ip| TcpListener::bind((*ip, 0)).is_ok())
        .with_context(|| format!("no address of this machine on the engine's bridge: {known:?}"))
}

/// The first of so many ports in a row that are free at this address, below those that the
/// kernel gives to outgoing connections.
fn free_ports(ip: IpAddr, count: u16) -> Option<u16> {
    let start = 12_000 + u16::try_from(std::process::id() % 1_000).ok()? * 16;
    (start..31_000).step_by(usize::from(count)).find(|&first| {
        // All are held until the last is known to be free.
        let held: Vec<_> =
            (first..first + count).map_while(|port| TcpListener::bind((ip, port)).ok()).collect();
        held.len() == usize::from(count)
    })
}

/// `2026-11-23T22:53:43.814Z INFO  gate-5c1e event  key=value`
fn is_log_line(line: &str, service: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (time, level, process) = (words.next(), words.next(), words.next());
    let is_time = |time: &str| {
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape == "0000-00-00T00:00:00.000Z"
    };
    time.is_some_and(is_time)
        && level.is_some_and(|level| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level))
        && process.is_some_and(|process| process.starts_with(service))
        && words.next().is_some()
}

#[test]
fn log_lines_are_told_from_others() {
    assert!(is_log_line("2026-11-23T22:53:43.814Z INFO  gate-5c1e ready  port=3014", "gate"));
    assert!(!is_log_line("2026-11-23T22:53:43.814Z INFO  gate-5c1e", "gate"));
    assert!(!is_log_line("2026-11-23T22:53:43.814Z INFO  chat-1 ready", "gate"));
    assert!(!is_log_line("thread 'main' panicked at src/main.rs:1:1:", "gate"));
}
