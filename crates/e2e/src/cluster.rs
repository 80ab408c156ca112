//! A cluster of real processes.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use model::Role;
use rustix::process::{Pid, Signal};

use crate::{binaries, http, ports};

/// How long anything in a test may take before it counts as never. Generous: nothing is timed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something awaited is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often a child whose port was taken is started with another.
const STARTS_MAX: usize = 5;
/// How a child says that it did not get its port.
const PORT_TAKEN: &str = "is in use";
/// Lines of a log shown when something went wrong.
const LINES_SHOWN: usize = 25;
/// Filter for the children's logs.
const LOG_FILTER: &str = "TANGELO_TEST_LOG";

/// When something that starts now counts as never.
#[must_use]
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Looks until `look` gives something.
///
/// # Errors
///
/// `what` and its last error, if it has not in [`deadline`].
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = deadline();
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited in vain: {what}")));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// How many processes of each role, and what they are told beyond their addresses.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Connectors.
    pub connectors: usize,
    /// Chats.
    pub chats: usize,
    /// The registry that every process is told; absent: the gate hosts it.
    pub registry: Option<String>,
    /// More arguments for the gate.
    pub gate_args: Vec<String>,
    /// More arguments for every connector.
    pub connector_args: Vec<String>,
    /// More arguments for every chat.
    pub chat_args: Vec<String>,
}

impl Shape {
    /// One gate, and that many of the others.
    #[must_use]
    pub const fn new(connectors: usize, chats: usize) -> Self {
        Self {
            connectors,
            chats,
            registry: None,
            gate_args: Vec::new(),
            connector_args: Vec::new(),
            chat_args: Vec::new(),
        }
    }
}

/// One process, in its present or its last life.
#[derive(Debug)]
pub struct Node {
    name: String,
    role: Role,
    /// Clients' port of a gate or connector; a chat's port for links.
    listen: SocketAddr,
    admin: SocketAddr,
    /// The registry that it asks, or that it hosts if none is given.
    registry: SocketAddr,
    external: Option<String>,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Its name, such as `chat-2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients (of a chat: connectors) connect.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where health and metrics are.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let binary = binaries::binary(self.role)?;
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(binary);
        command
            .args(["--name", &self.name])
            .args(["--listen", &self.listen.to_string()])
            .args(["--admin", &self.admin.to_string()]);
        match &self.external {
            Some(url) => command.args(["--registry", url]),
            None if self.role == Role::Gate => {
                command.args(["--registry-listen", &self.registry.to_string()])
            }
            None => command.args(["--registry", &format!("http://{}", self.registry)]),
        };
        command.args(&self.args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TANGELO_") {
                command.env_remove(name);
            }
        }
        if let Ok(filter) = std::env::var(LOG_FILTER)
            && !self.args.iter().any(|arg| arg == "--log")
        {
            command.args(["--log", &filter]);
        }
        writeln!(log, "---- {command:?}")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it on free ports; again on others if somebody was quicker.
    async fn start(&mut self) -> anyhow::Result<()> {
        for _ in 0..STARTS_MAX {
            self.spawn()?;
            match self.ready().await {
                Err(error) if format!("{error:#}").contains(PORT_TAKEN) => {
                    self.reap();
                    self.listen = ports::free()?;
                    self.admin = ports::free()?;
                }
                started => return started,
            }
        }
        bail!("{} finds no free port", self.name)
    }

    /// Waits until it says that it can serve.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = deadline();
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended: {status}\n{}", self.name, self.log_tail());
            }
            let answer = http::get(self.admin, "/readyz").await;
            let last = match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                let log = self.log_tail();
                bail!("{} does not become ready: {last}\n{log}", self.name);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it, whatever state it is in.
    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A gate with the embedded registry, connectors and chats, as child processes.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    shape: Shape,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts a cluster and waits until every process can serve. `name` names the folder of its
    /// logs.
    ///
    /// # Errors
    ///
    /// If a process does not come up; the error holds the end of its log.
    pub async fn start(name: &str, shape: Shape) -> anyhow::Result<Self> {
        let folder = binaries::output_folder()?.join("e2e-logs").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (connectors, chats) = (shape.connectors, shape.chats);
        let mut cluster = Self { folder, shape, nodes: Vec::new() };
        for _ in 0..STARTS_MAX {
            cluster.prepare(Role::Gate)?;
            for _ in 0..chats {
                cluster.prepare(Role::Chat)?;
            }
            for _ in 0..connectors {
                cluster.prepare(Role::Connector)?;
            }
            match cluster.come_up().await {
                Ok(()) => return Ok(cluster),
                // Somebody was quicker. All ports are new then, as all are told the registry's.
                Err(error) if format!("{error:#}").contains(PORT_TAKEN) => {
                    cluster.nodes.iter_mut().for_each(Node::reap);
                    cluster.nodes.clear();
                }
                Err(error) => return Err(error),
            }
        }
        bail!("no free ports")
    }

    /// Starts all at once: each waits for the others anyway.
    async fn come_up(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.spawn()?;
        }
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    fn prepare(&mut self, role: Role) -> anyhow::Result<usize> {
        let number = 1 + self.of(role).count();
        let name = format!("{role}-{number}");
        let args = match role {
            Role::Gate => &self.shape.gate_args,
            Role::Connector => &self.shape.connector_args,
            Role::Chat => &self.shape.chat_args,
        };
        let registry = match self.nodes.first() {
            Some(gate) => gate.registry,
            None => ports::free()?,
        };
        self.nodes.push(Node {
            log: self.folder.join(format!("{name}.log")),
            name,
            role,
            listen: ports::free()?,
            admin: ports::free()?,
            registry,
            external: self.shape.registry.clone(),
            args: args.clone(),
            child: None,
        });
        Ok(self.nodes.len() - 1)
    }

    /// Adds one more process of a role and waits until it can serve. Answers its name.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn add(&mut self, role: Role) -> anyhow::Result<String> {
        let index = self.prepare(role)?;
        self.nodes[index].start().await?;
        Ok(self.nodes[index].name.clone())
    }

    /// The processes of a role, in order of their numbers, running or not.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// All processes, running or not.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where clients find the gate.
    #[must_use]
    pub fn gate(&self) -> SocketAddr {
        self.nodes[0].listen
    }

    /// Where clients find the connectors.
    #[must_use]
    pub fn connectors(&self) -> Vec<SocketAddr> {
        self.of(Role::Connector).map(|node| node.listen).collect()
    }

    /// The folder of the logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A process by its name.
    ///
    /// # Errors
    ///
    /// If there never was one.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.with_context(|| format!("there is no {name}"))
    }

    fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.with_context(|| format!("there is no {name}"))
    }

    /// SIGKILL: it is gone when this returns.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.node_mut(name)?;
        node.signal(Signal::KILL)?;
        node.reap();
        Ok(())
    }

    /// SIGSTOP: it sleeps until [`Cluster::cont`].
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn stop(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn cont(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.signal(Signal::CONT)
    }

    /// SIGTERM: it is asked to drain.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn term(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.signal(Signal::TERM)
    }

    /// Waits until a process has ended by itself.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn ended(&mut self, name: &str) -> anyhow::Result<ExitStatus> {
        let deadline = deadline();
        let node = self.node_mut(name)?;
        loop {
            let child = node.child.as_mut();
            let child = child.with_context(|| format!("{name} does not run"))?;
            if let Some(status) = child.try_wait()? {
                node.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{name} does not end\n{}", node.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts a process that has ended once more, on its old ports, and waits until it can serve.
    ///
    /// # Errors
    ///
    /// If it runs, or does not come up.
    pub async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.node_mut(name)?;
        if node.child.is_some() {
            bail!("{name} runs");
        }
        node.spawn()?;
        node.ready().await
    }

    /// What a process says about itself, as Prometheus text.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<String> {
        let answer = http::get(self.node(name)?.admin, "/metrics").await?;
        Ok(answer.body)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.reap();
        }
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

impl Cluster {
    /// Leaves the end of every log beside the test's failure.
    fn show_logs(&self) {
        for node in &self.nodes {
            eprintln!("---- {}:\n{}", node.log.display(), node.log_tail());
        }
        // The folder stays, to be looked at.
        let _ = File::create(self.folder.join("failed"));
    }
}
