//! A cluster of real processes.

use std::{
    fs::{self, File},
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use model::Role;
use rustix::process::Signal;

use crate::{
    binaries, http,
    network::{APART_ADDRESS, Apart},
    node::Node,
    ports,
};

/// How long anything in a test may take before it counts as never. Generous: nothing is timed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something awaited is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// How often a child whose port was taken is started with another.
pub(crate) const STARTS_MAX: usize = 5;
/// How a child says that it did not get its port.
pub(crate) const PORT_TAKEN: &str = "is in use";

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
    /// Where all listen.
    pub host: IpAddr,
    /// The name of one process that runs apart, and where.
    pub apart: Option<(String, Apart)>,
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
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            apart: None,
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
        let mut args = match role {
            Role::Gate => self.shape.gate_args.clone(),
            Role::Connector => self.shape.connector_args.clone(),
            Role::Chat => self.shape.chat_args.clone(),
        };
        let apart = self.shape.apart.as_ref().filter(|(apart, _)| *apart == name);
        let host = if apart.is_some() { APART_ADDRESS } else { self.shape.host };
        if apart.is_some() && role == Role::Connector {
            // Not that of the gate, as a gate takes for granted.
            args.extend(["--advertise-host".to_owned(), host.to_string()]);
        }
        let registry = match self.nodes.first() {
            Some(gate) => gate.registry,
            None => ports::free(host)?,
        };
        // Only the first gate can host the registry.
        let external = match &self.shape.registry {
            None if role == Role::Gate && number > 1 => Some(format!("http://{registry}")),
            external => external.clone(),
        };
        self.nodes.push(Node {
            log: self.folder.join(format!("{name}.log")),
            namespace: apart.map(|(_, apart)| apart.namespace().to_owned()),
            name,
            role,
            listen: ports::free(host)?,
            admin: ports::free(host)?,
            registry,
            external,
            args,
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

    /// How often the processes have logged these words, all together.
    #[must_use]
    pub fn times_logged(&self, words: &str) -> usize {
        let times = |node: &Node| node.logged().unwrap_or_default().matches(words).count();
        self.nodes.iter().map(times).sum()
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

    /// A metric of a process, summed over its labels; 0 if it has not been counted yet.
    ///
    /// # Errors
    ///
    /// If the process does not answer.
    pub async fn metric(&self, name: &str, metric: &str) -> anyhow::Result<f64> {
        let text = self.metrics(name).await?;
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(metric)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse().ok()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// A metric summed over all running processes of a role.
    ///
    /// # Errors
    ///
    /// If one does not answer.
    pub async fn metric_of(&self, role: Role, metric: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        let running = self.of(role).filter(|node| node.child.is_some());
        for name in running.map(|node| node.name.clone()) {
            sum += self.metric(&name, metric).await?;
        }
        Ok(sum)
    }

    /// The port of the registry.
    #[must_use]
    pub fn registry_port(&self) -> u16 {
        self.nodes[0].registry.port()
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
