//! One process of a cluster under test.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use model::Role;
use rustix::process::{Pid, Signal};

use crate::{
    binaries,
    cluster::{LOOK, PORT_TAKEN, STARTS_MAX, deadline},
    http, ports,
};

/// Lines of a log shown when something went wrong.
const LINES_SHOWN: usize = 25;
/// Filter for the children's logs.
const LOG_FILTER: &str = "TANGELO_TEST_LOG";

/// One process, in its present or its last life.
#[derive(Debug)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Clients' port of a gate or connector; a chat's port for links.
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The registry that it asks, or that it hosts if none is given.
    pub(crate) registry: SocketAddr,
    pub(crate) external: Option<String>,
    /// The network namespace that it runs in, if not in that of the test.
    pub(crate) namespace: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) child: Option<Child>,
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

    /// All that it has logged.
    ///
    /// # Errors
    ///
    /// If its log cannot be read.
    pub fn logged(&self) -> io::Result<String> {
        fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.logged().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let binary = binaries::binary(self.role)?;
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = match &self.namespace {
            None => Command::new(binary),
            Some(namespace) => {
                let mut command = Command::new("ip");
                // It becomes the binary, so that its process id is the binary's.
                command.args(["netns", "exec", namespace]).arg(binary);
                command
            }
        };
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
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        for _ in 0..STARTS_MAX {
            self.spawn()?;
            match self.ready().await {
                Err(error) if format!("{error:#}").contains(PORT_TAKEN) => {
                    self.reap();
                    self.listen = ports::free(self.listen.ip())?;
                    self.admin = ports::free(self.admin.ip())?;
                }
                started => return started,
            }
        }
        bail!("{} finds no free port", self.name)
    }

    /// Waits until it says that it can serve.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
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

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it, whatever state it is in.
    pub(crate) fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
