//! Processes that play clients, each a part of the crowd.
//!
//! A process holds no more sockets than its file limit, and a checker wants all logs of a room in
//! one place: every part has some rooms, whole. What plays is this program again, with a hidden
//! flag; orders go in by its standard input, one word a line, and what it has done comes out of its
//! standard output, one JSON object a line. It ends when its input does, whatever happens here.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use client::Transport;
use serde_json::{Value, json};

use super::{
    Args, DOORS_OF_ALL, LOOK,
    crowd::{Here, Sums},
    verdict::Judged,
};

/// How often a process says what it has done.
const TELL: Duration = Duration::from_millis(50);
/// By how much those who play step back.
const NICE: i32 = 5;
/// How long a process may take to judge its history.
const JUDGE_PATIENCE: Duration = Duration::from_secs(120);

// What a process is told.
const SPEAK: &str = "speak";
const HUSH: &str = "hush";
const JUDGE: &str = "judge";

/// The processes. When it is dropped, they end.
pub(super) struct Parts {
    parts: Vec<One>,
}

struct One {
    child: Child,
    orders: Option<ChildStdin>,
    said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
}

/// What a process has said.
#[derive(Default)]
struct Said {
    sums: Sums,
    failure: Option<String>,
    judged: Option<Judged>,
    ended: bool,
}

/// What one process is to play.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    clients: u32,
    rooms: u32,
    rate: f64,
    enter_rate: Option<f64>,
}

impl Share {
    /// The share of one of so many processes, of all rooms and of all that happens per second.
    fn of(args: &Args, number: u16) -> Self {
        let (number, processes) = (u32::from(number), u32::from(args.processes));
        let rooms = args.rooms.min(args.clients);
        // Room `n` has the clients `n`, `n + rooms`, and so on.
        let size = |room| args.clients / rooms + u32::from(room < args.clients % rooms);
        let mine = (number..rooms).step_by(processes as usize);
        let clients = mine.clone().map(size).sum();
        let part = f64::from(clients) / f64::from(args.clients);
        Self {
            clients,
            rooms: u32::try_from(mine.count()).unwrap_or(rooms),
            rate: args.rate * part,
            enter_rate: args.enter_rate.map(|rate| rate * part),
        }
    }
}

/// Most clients of one process of such a run.
pub(super) fn largest_share(args: &Args) -> u32 {
    let shares = (0..args.processes).map(|number| Share::of(args, number).clients);
    shares.max().unwrap_or(args.clients)
}

impl Parts {
    /// Starts the processes; everybody begins to come in.
    ///
    /// # Errors
    ///
    /// If one cannot be started.
    pub(super) fn start(
        args: &Args,
        gate: SocketAddr,
        transport: Transport,
    ) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        for number in 0..args.processes {
            let share = Share::of(args, number);
            parts.push(One::start(args, number, share, gate, transport)?);
        }
        Ok(Self { parts })
    }

    pub(super) fn sums(&self) -> Sums {
        let mut all = Sums::default();
        self.parts.iter().for_each(|part| all += part.said().sums);
        all
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.parts.iter().find_map(|part| {
            let said = part.said();
            let ended = || said.ended.then(|| "a process that plays has ended".to_owned());
            said.failure.clone().or_else(ended)
        })
    }

    pub(super) fn speak(&mut self) {
        self.order(SPEAK);
    }

    pub(super) fn hush(&mut self) {
        self.order(HUSH);
    }

    pub(super) async fn judge(&mut self) -> anyhow::Result<Judged> {
        self.order(JUDGE);
        let deadline = Instant::now() + JUDGE_PATIENCE;
        let mut all = Judged::nothing()?;
        for part in &self.parts {
            loop {
                let (judged, failure) = {
                    let mut said = part.said();
                    (said.judged.take(), said.failure.clone().filter(|_| said.ended))
                };
                if let Some(judged) = judged {
                    all.add(judged)?;
                    break;
                }
                if let Some(failure) = failure {
                    bail!("a process that plays has failed: {failure}");
                }
                if Instant::now() > deadline {
                    bail!("a process that plays does not say what it saw");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(all)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.child.id()).collect()
    }

    fn order(&mut self, word: &str) {
        for part in &mut self.parts {
            if let Some(orders) = &mut part.orders {
                // Who does not hear has ended, which its output tells.
                let _ = writeln!(orders, "{word}");
            }
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // All at once, so that none sees the others' clients leave for long.
        for part in &mut self.parts {
            part.orders = None;
        }
        for part in &mut self.parts {
            let _ = part.child.wait();
            let _ = part.reader.take().map(JoinHandle::join);
        }
    }
}

impl One {
    fn start(
        args: &Args,
        number: u16,
        share: Share,
        gate: SocketAddr,
        transport: Transport,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench").args(flags(args, number, share, gate, transport));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take();
        let output = child.stdout.take().context("it has no output")?;
        let said = Arc::new(Mutex::new(Said::default()));
        let heard = Arc::clone(&said);
        let reader = Builder::new().name(format!("part-{number}"));
        let reader = Some(reader.spawn(move || hear(output, &heard))?);
        Ok(Self { child, orders, said, reader })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.said)
    }
}

/// What a process is told when it starts.
fn flags(
    args: &Args,
    number: u16,
    share: Share,
    gate: SocketAddr,
    transport: Transport,
) -> Vec<String> {
    let Share { clients, rooms, rate, enter_rate } = share;
    let mut flags = vec![
        format!("--part={number}"),
        format!("--gate={gate}"),
        format!("--dialect={}", transport.name()),
        format!("--clients={clients}"),
        format!("--rooms={rooms}"),
        format!("--threads={}", args.threads),
        format!("--doors={}", (DOORS_OF_ALL / args.processes).clamp(1, args.doors)),
        format!("--bytes={}", args.bytes),
        format!("--seconds={}", args.seconds),
        format!("--warmup={}", args.warmup),
    ];
    // The processes take turns, or all would send at the same moments.
    let after = |per_second: f64| f64::from(number) / per_second.max(0.001);
    match args.saturate {
        Some(in_flight) => flags.push(format!("--saturate={in_flight}")),
        None => {
            flags.push(format!("--rate={rate}"));
            flags.push(format!("--send-after={}", after(args.rate)));
        }
    }
    if let (Some(all), Some(mine)) = (args.enter_rate, enter_rate) {
        flags.push(format!("--enter-rate={mine}"));
        flags.push(format!("--enter-after={}", after(all)));
    }
    flags
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in what a process says, until it ends.
fn hear(output: ChildStdout, said: &Mutex<Said>) {
    for line in BufReader::new(output).lines() {
        let Ok(json) = line
            .map_err(anyhow::Error::from)
            .and_then(|line| serde_json::from_str::<Value>(&line).map_err(anyhow::Error::from))
        else {
            break;
        };
        let mut said = lock(said);
        let number = |name: &str| json[name].as_u64().unwrap_or(0);
        if json["judged"].is_object() {
            match Judged::from_json(&json["judged"]) {
                Ok(judged) => said.judged = Some(judged),
                Err(error) => said.failure = Some(format!("{error:#}")),
            }
        } else {
            said.sums = Sums {
                joined: number("joined"),
                sent: number("sent"),
                answered: number("answered"),
                delivered: number("delivered"),
            };
            said.failure = json["failure"].as_str().map(str::to_owned);
        }
    }
    lock(said).ended = true;
}

/// Plays the part of a crowd that the arguments tell, for the process that started this one.
///
/// # Errors
///
/// If it cannot play, or its history cannot be judged.
pub(super) fn play(args: &Args, gate: SocketAddr, transport: Transport) -> anyhow::Result<()> {
    // What is measured goes first, and must not be taken for dead because we are busy.
    let _ = rustix::process::nice(NICE);
    let here = Arc::new(Mutex::new(Here::start(args, gate, transport)?));
    let playing = Arc::clone(&here);
    // It ends with the process, when the orders do.
    let _teller = Builder::new().name("teller".to_owned()).spawn(move || tell(&playing))?;
    for order in std::io::stdin().lines() {
        let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
        match order?.as_str() {
            SPEAK => here.speak(),
            HUSH => here.hush(),
            JUDGE => say(&json!({ "judged": here.judge()?.to_json() }))?,
            other => bail!("nobody knows how to {other}"),
        }
    }
    // Without a farewell to the server: thousands of those would take a while.
    std::process::exit(0);
}

fn tell(here: &Mutex<Here>) {
    let mut last = Value::Null;
    loop {
        thread::sleep(TELL);
        let (sums, failure) = {
            let here = here.lock().unwrap_or_else(PoisonError::into_inner);
            (here.sums(), here.failure())
        };
        let Sums { joined, sent, answered, delivered } = sums;
        let now = json!({
            "joined": joined, "sent": sent, "answered": answered, "delivered": delivered,
            "failure": failure,
        });
        // Who has stopped playing has no sums any more.
        if now != last && (joined > 0 || failure.is_some()) && say(&now).is_err() {
            return;
        }
        last = now;
    }
}

fn say(json: &Value) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{json}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> Args {
        let line = ["tangelo", "bench"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Bench(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shares_add_up_and_rooms_stay_whole() {
        let flags = ["--clients", "1003", "--rooms", "10", "--processes", "3", "--rate", "50"];
        let args = args(&flags);
        let shares: Vec<Share> = (0..3).map(|number| Share::of(&args, number)).collect();
        assert_eq!(shares.iter().map(|share| share.rooms).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(shares.iter().map(|share| share.clients).collect::<Vec<_>>(), [401, 301, 301]);
        assert!((shares.iter().map(|share| share.rate).sum::<f64>() - 50.0).abs() < 1e-9);
        assert_eq!(largest_share(&args), 401);
    }
}
