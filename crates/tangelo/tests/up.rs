//! `tangelo up` as a person uses it: real processes, real signals, free ports of the loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 5] = ["gate-1", "chat-1", "chat-2", "connector-1", "connector-2"];

/// A cluster, its ports and its folder of logs; killed when dropped.
struct Up {
    child: Child,
    folder: PathBuf,
    ports: Vec<String>,
}

impl Up {
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, flags: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("tangelo-up-{}-{name}", std::process::id()));
        let ports = free_ports();
        fs::create_dir_all(&folder).unwrap();
        let output = fs::File::create(folder.join("output")).unwrap();
        let child = command()
            .arg("up")
            .args(&ports)
            .arg("--logs")
            .arg(&folder)
            .args(flags)
            .stdout(output)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let up = Self { child, folder, ports };
        until("all processes listen", || {
            NAMES.iter().all(|name| up.log(name).contains(" listening  what=")).then_some(())
        });
        up
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.join("output")).unwrap_or_default()
    }

    fn pids(&self) -> Vec<Pid> {
        NAMES.iter().filter_map(|name| last_pid(name, &self.log(name))).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("the supervisor ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.output());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tangelo"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TANGELO_") {
            command.env_remove(name);
        }
    }
    command
}

/// The process that the supervisor wrote into a log last.
fn last_pid(name: &str, log: &str) -> Option<Pid> {
    let mark = format!("---- {name} is process ");
    let line = log.lines().rev().find_map(|line| line.strip_prefix(&mark))?;
    Pid::from_raw(line.parse().ok()?)
}

/// Flags for ports that were free a moment ago. Connectors need two in a row.
fn free_ports() -> Vec<String> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    loop {
        let gate = bind(0).unwrap();
        let registry = bind(0).unwrap();
        let connector = bind(0).unwrap();
        let first = connector.local_addr().unwrap().port();
        let Some(Ok(_second)) = first.checked_add(1).map(bind) else { continue };
        let flag = |name: &str, port: u16| [name.to_owned(), port.to_string()];
        return [
            flag("--gate-port", gate.local_addr().unwrap().port()),
            flag("--registry-port", registry.local_addr().unwrap().port()),
            flag("--connector-port", first),
        ]
        .concat();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn are_gone(pids: &[Pid]) {
    until("no process is left", || {
        pids.iter().all(|pid| test_kill_process(*pid).is_err()).then_some(())
    });
}

#[test]
fn a_process_that_dies_is_reported_and_started_again_and_ctrl_c_ends_all() {
    let mut up = Up::start("restart");
    let before = last_pid("connector-2", &up.log("connector-2")).unwrap();
    kill_process(before, Signal::KILL).unwrap();
    let after = until("connector-2 lives again", || {
        let log = up.log("connector-2");
        let pid = last_pid("connector-2", &log).filter(|pid| *pid != before)?;
        log.contains(&format!("pid={}", pid.as_raw_nonzero())).then_some(pid)
    });
    assert_ne!(before, after);
    let output = up.output();
    assert!(output.contains("PROCESS DIED  name=connector-2"), "{output}");
    assert!(output.contains("SIGKILL"), "{output}");
    assert!(output.contains("the last lines of connector-2:\n    | "), "{output}");
    assert!(output.contains("connector-2  20"), "the name is in front: {output}");

    let pids = up.pids();
    assert_eq!(pids.len(), NAMES.len());
    up.signal(Signal::INT);
    // As `timeout` and `make` do: to the process, and again to its group.
    up.signal(Signal::TERM);
    up.ended();
    are_gone(&pids);
    let gate = up.log("gate-1");
    assert!(gate.contains(" draining  cause=SIGTERM"), "{gate}");
    let output = up.output();
    assert!(output.contains("all processes have ended"), "{output}");
    assert!(!output.contains("killing what is left"), "{output}");
}

#[test]
fn a_supervisor_killed_by_force_leaves_nothing_behind() {
    let mut up = Up::start("orphans");
    let pids = up.pids();
    up.signal(Signal::KILL);
    up.ended();
    are_gone(&pids);
}

#[test]
fn a_cluster_drains_when_whoever_started_it_is_gone() {
    let mut up = Up::start_with("starter", &["--watch-stdin"]);
    let pids = up.pids();
    drop(up.child.stdin.take());
    assert!(up.ended().success());
    are_gone(&pids);
    let output = up.output();
    assert!(output.contains("all processes have ended"), "{output}");
}

#[test]
fn a_second_cluster_is_told_what_to_do() {
    let up = Up::start("second");
    let second = |logs: &Path| {
        let output = command().arg("up").args(&up.ports).arg("--logs").arg(logs).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = second(&up.folder);
    assert_eq!(code, Some(1));
    assert!(words.contains(&format!("(process {}", up.child.id())), "{words}");
    assert!(words.contains("--logs logs-2"), "{words}");

    let (code, words) = second(&up.folder.join("other"));
    assert_eq!(code, Some(1));
    assert!(words.contains("is in use; stop the process that holds it"), "{words}");
    assert!(words.contains("choose another with --gate-port"), "{words}");
}

#[test]
fn bad_usage_exits_64_and_says_what_to_do() {
    for (args, words) in [
        (&["up", "--conectors", "3"][..], "a similar argument exists: '--connectors'"),
        (&["--connectors", "0"], "0 is not in 1..=64"),
        (&["upp"], "tangelo"),
        (&["--gate-port", "3050"], "choose ranges that do not meet"),
        (&["--log", "a=b=c"], "give a level (debug)"),
        (&["--log", "verbose"], "verbose is no level"),
        (&["--web-root", "/no/such/folder"], "the folder that holds the page's index.html"),
        (&["--dictionary", "/no/such/file"], "mend the file, or leave --dictionary out"),
        (&["chat", "--name", "x y"], "use up to 64 letters"),
    ] {
        let output = command().args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn what_the_world_refuses_is_explained() {
    for (args, words) in [
        (&["up", "--host", "192.0.2.1"][..], "choose another with --host, or 0.0.0.0"),
        (&["bench", "--gate", "127.0.0.1:1"], "or have one started with --up"),
        (&["bench", "--gate", "nowhere.invalid:3014"], "--gate nowhere.invalid:3014: "),
    ] {
        let output = command().args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn help_teaches() {
    let output = command().arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for words in ["tangelo up --connectors 4 --chats 3", "Ctrl-C ends it all", "healthcheck"] {
        assert!(help.contains(words), "{help}");
    }
}
