//! etcd as real processes, to be killed, stopped and started again.

use std::{
    env,
    fs::{self, OpenOptions},
    net::Ipv4Addr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use tokio::time::{sleep, timeout};

use crate::{binaries, cluster::deadline, http, ports, until};

/// How long a member may take to answer before the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Set where nothing may be skipped.
const REQUIRE_ALL: &str = "TANGELO_REQUIRE_ALL";
/// How often all members are started with other ports, as somebody was quicker.
const STARTS_MAX: usize = 5;

/// A cluster of etcd on loopback ports. Whatever runs is ended when this is dropped.
#[derive(Debug)]
pub struct Etcd {
    folder: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Etcd {
    /// Starts that many members and waits until they answer. `name` names the folder of their data
    /// and logs. None if etcd is not installed.
    ///
    /// # Errors
    ///
    /// If they do not come up, or etcd is not installed where nothing may be skipped.
    pub async fn start(name: &str, members: usize) -> anyhow::Result<Option<Self>> {
        let installed = Command::new("etcd").arg("--version").output();
        if !installed.is_ok_and(|output| output.status.success()) {
            let required = env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
            ensure!(!required, "etcd is not installed (Debian: etcd-server), and {REQUIRE_ALL}=1");
            eprintln!("skipped: {name}: etcd is not installed (Debian: etcd-server)");
            return Ok(None);
        }
        let folder = binaries::output_folder()?.join("e2e-logs").join(name);
        let mut failure = None;
        for _ in 0..STARTS_MAX {
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            fs::create_dir_all(&folder)?;
            let mut etcd = Self { folder: folder.clone(), members: Vec::new() };
            for number in 1..=members {
                let host = Ipv4Addr::LOCALHOST.into();
                let (client, peer) = (ports::free(host)?, ports::free(host)?);
                etcd.members.push(Member {
                    name: format!("etcd-{number}"),
                    client,
                    peer,
                    child: None,
                });
            }
            match etcd.start_all().await {
                Ok(()) => return Ok(Some(etcd)),
                Err(error) if format!("{error:#}").contains("address already in use") => {
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("no free ports")))
    }

    /// Starts all members that do not run and waits until all answer.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for index in 0..self.members.len() {
            if self.members[index].child.is_none() {
                self.spawn(index)?;
            }
        }
        for index in 0..self.members.len() {
            self.answers(index).await?;
        }
        Ok(())
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let all: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peer))
            .collect();
        let member = &self.members[index];
        let (client, peer) =
            (format!("http://{}", member.client), format!("http://{}", member.peer));
        let data = self.folder.join(&member.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log(index))?;
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name])
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(",")]);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start etcd")?;
        self.members[index].child = Some(child);
        Ok(())
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{}.log", self.members[index].name))
    }

    /// Waits until a member answers for a majority.
    async fn answers(&mut self, index: usize) -> anyhow::Result<()> {
        let deadline = deadline();
        loop {
            let member = &mut self.members[index];
            if let Some(child) = &mut member.child
                && let Some(status) = child.try_wait()?
            {
                let log = tail(&self.log(index));
                bail!("{} ended: {status}\n{log}", self.members[index].name);
            }
            match http::get(member.client, "/health").await {
                Ok(answer) if answer.body.contains("\"true\"") => return Ok(()),
                Ok(_) | Err(_) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Ok(_) | Err(_) => {
                    let log = tail(&self.log(index));
                    bail!("{} does not answer\n{log}", self.members[index].name);
                }
            }
        }
    }

    /// What `--registry` is told, for the part of etcd of that name.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| member.client.to_string()).collect();
        format!("etcd://{}/{name}", hosts.join(","))
    }

    /// Where a member listens for clients.
    #[must_use]
    pub fn client(&self, member: usize) -> SocketAddr {
        self.members[member].client
    }

    /// The member that leads.
    ///
    /// # Errors
    ///
    /// If none is known in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        until("etcd has a leader", async || {
            for (index, member) in self.members.iter().enumerate() {
                let Ok(status) = post(member.client, "/v3/maintenance/status", &json!({})).await
                else {
                    continue;
                };
                if status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
                {
                    return Ok(index);
                }
            }
            bail!("nobody leads")
        })
        .await
    }

    /// Forgets all history up to now.
    ///
    /// # Errors
    ///
    /// If etcd does not do it.
    pub async fn compact(&self) -> anyhow::Result<()> {
        let client = self.members[0].client;
        let status = post(client, "/v3/maintenance/status", &json!({})).await?;
        let revision = &status["header"]["revision"];
        let answer = post(client, "/v3/kv/compaction", &json!({ "revision": revision })).await?;
        ensure!(answer["header"].is_object(), "{answer}");
        Ok(())
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&mut self, member: usize) {
        self.members[member].reap();
    }

    /// SIGKILL to all.
    pub fn kill_all(&mut self) {
        self.members.iter_mut().for_each(Member::reap);
    }

    /// Removes what a member has stored, which must not run.
    ///
    /// # Errors
    ///
    /// If that cannot be removed.
    pub fn wipe(&self, member: usize) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.folder.join(&self.members[member].name))?)
    }

    /// SIGSTOP to all: they sleep until [`Etcd::cont_all`].
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn stop_all(&self) -> anyhow::Result<()> {
        self.members.iter().try_for_each(|member| member.signal(Signal::STOP))
    }

    /// SIGCONT to all.
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn cont_all(&self) -> anyhow::Result<()> {
        self.members.iter().try_for_each(|member| member.signal(Signal::CONT))
    }

    /// SIGSTOP to one.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn stop(&self, member: usize) -> anyhow::Result<()> {
        self.members[member].signal(Signal::STOP)
    }
}

impl Member {
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a process id is positive")?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for index in 0..self.members.len() {
                eprintln!("---- {}:\n{}", self.members[index].name, tail(&self.log(index)));
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

async fn post(at: SocketAddr, path: &str, body: &Value) -> anyhow::Result<Value> {
    let body = body.to_string();
    // One that is stopped never answers.
    let answer = timeout(ANSWER_TIMEOUT, http::post(at, path, &body)).await??;
    serde_json::from_str(&answer.body).with_context(|| format!("{path}: {}", answer.body))
}
