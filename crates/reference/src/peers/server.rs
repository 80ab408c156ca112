//! Starts one of the servers, on this machine and for one run.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use client::{Client, Options};
use rustix::process::{Pid, Signal, kill_process};

use super::tongue::Peer;

/// How long a server may take to come up.
const UP_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed.
const DOWN_PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// A server with all its processes. Dropping it ends them.
pub(super) struct Server {
    peer: Peer,
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it is not installed, or does not come up; then with what it has said.
    pub(super) fn start(peer: Peer, tangelo: &Path) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("tangelo-peer-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let [port, second, third] = free_ports()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = command(peer, tangelo, &folder, [port, second, third])?;
        let output = fs::File::create(folder.join("output"))?;
        let spawned =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("{}", missing(peer)),
            spawned => spawned?,
        };
        let mut server = Self { peer, child, address, folder };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + UP_PATIENCE;
        while !self.is_up() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(self.folder.join("output")).unwrap_or_default();
                bail!("it does not come up:\n{said}");
            }
            sleep(LOOK);
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        if self.peer == Peer::Tangelo {
            self.doors(1).is_ok()
        } else {
            TcpStream::connect(self.address).is_ok()
        }
    }

    /// Where the clients of each room connect.
    ///
    /// # Errors
    ///
    /// If Tangelo's gate does not say.
    pub(super) fn doors(&self, rooms: u32) -> anyhow::Result<Vec<SocketAddr>> {
        if self.peer != Peer::Tangelo {
            return Ok(vec![self.address; rooms as usize]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut doors = Vec::new();
            for room in 0..rooms {
                let (options, room) = (Options::default(), format!("r{room}"));
                let entry =
                    Client::query_entry(self.address, &options, "bench", Some(&room)).await?;
                doors.push(SocketAddr::new(entry.host.parse()?, entry.port));
            }
            Ok(doors)
        })
    }

    /// User and system time of all its processes.
    pub(super) fn processor_time(&self) -> Duration {
        let spent = |pid: &u32| stat(*pid, 11).unwrap_or(0) + stat(*pid, 12).unwrap_or(0);
        let ticks: u64 = family(self.child.id()).iter().map(spent).sum();
        Duration::from_secs(ticks).div_f64(rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + DOWN_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            sleep(LOOK);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn command(
    peer: Peer,
    tangelo: &Path,
    folder: &Path,
    [port, second, third]: [u16; 3],
) -> anyhow::Result<Command> {
    let file = |text: String| -> anyhow::Result<PathBuf> {
        let path = folder.join("conf");
        fs::write(&path, text)?;
        Ok(path)
    };
    let own = || std::env::current_exe().context("where is this program?");
    let mut command = match peer {
        Peer::Epoll | Peer::Coalesce | Peer::Textbook => {
            let mut command = Command::new(own()?);
            command.arg(peer.to_string()).args(["--listen", &format!("127.0.0.1:{port}")]);
            command
        }
        Peer::Tangelo => {
            let mut command = Command::new(tangelo);
            command.arg("up").args(["--gate-port", &port.to_string()]);
            command.args(["--registry-port", &second.to_string()]);
            command.args(["--connector-port", &third.to_string()]);
            command.arg("--logs").arg(folder.join("logs"));
            command
        }
        Peer::Nats => {
            let conf = file(format!(
                "listen: \"127.0.0.1:{second}\"\nmax_connections: 60000\n\
                 websocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n"
            ))?;
            let mut command = Command::new("nats-server");
            command.arg("-c").arg(conf);
            command
        }
        Peer::Mosquitto => {
            // It does not start with WebSockets alone, and with IPv6 it would listen on every address.
            let conf = file(format!(
                "user root\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n\
                 listener {second} 127.0.0.1\n\
                 listener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n"
            ))?;
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(conf);
            command
        }
        Peer::Nchan => {
            let conf = file(nginx(folder, port))?;
            let mut command = Command::new("nginx");
            command.arg("-e").arg(folder.join("error")).arg("-c").arg(conf);
            command
        }
    };
    // Debian keeps servers where only root looks.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    Ok(command)
}

/// One worker: several would send each other what is published.
fn nginx(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "load_module modules/ngx_nchan_module.so;\n\
         daemon off; user root; worker_processes 1; worker_rlimit_nofile 20000;\n\
         pid {folder}/pid; error_log {folder}/error;\n\
         events {{ worker_connections 19000; }}\n\
         http {{ access_log off; tcp_nodelay on; nchan_shared_memory_size 512M;\n\
           server {{ listen 127.0.0.1:{port} backlog=4096;\n\
             location ~ ^/room/(\\w+)$ {{\n\
               nchan_pubsub websocket; nchan_channel_id $1; nchan_message_buffer_length 100000;\n\
               nchan_subscriber_first_message newest; }} }} }}\n"
    )
}

fn missing(peer: Peer) -> &'static str {
    match peer {
        Peer::Nats => "nats-server is not installed: `apt-get install nats-server`",
        Peer::Mosquitto => "mosquitto is not installed: `apt-get install mosquitto`",
        Peer::Nchan => {
            "nginx with nchan is not installed: `apt-get install nginx-light libnginx-mod-nchan`"
        }
        Peer::Tangelo => {
            "there is no such tangelo: `cargo build --release -p tangelo`, or --tangelo"
        }
        Peer::Epoll | Peer::Coalesce | Peer::Textbook => "this program is gone",
    }
}

/// Three free ports in a row, after which there are more, below those that the kernel hands out.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let first = u16::try_from(10_000 + std::process::id() % 400 * 40)?;
    (0..400_u16)
        .map(|step| first + step * 40 % 16_000)
        .find(|port| {
            (*port..*port + 8).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .map(|port| [port, port + 1, port + 2])
        .context("no free ports")
}

/// A process and its children.
fn family(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid == parent || stat(*pid, 1) == Some(u64::from(parent))).collect()
}

/// A field of `/proc/<pid>/stat`, counted from the one after the state.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let mut line = String::new();
    BufReader::new(file).read_line(&mut line).ok()?;
    // The name may hold anything, but nothing after its last parenthesis does.
    let (_, fields) = line.rsplit_once(") ")?;
    fields.split(' ').nth(field)?.parse().ok()
}
