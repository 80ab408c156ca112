//! Processes that play clients, each a part of the crowd.
//!
//! A process holds no more sockets than its file limit, and a checker wants all logs of a room in
//! one place: every part has some rooms, whole. The big room is the exception, whose parts hand
//! their logs over to be judged here. What plays is this program again, with a hidden
//! flag; orders go in by its standard input, one a line, and what it has done comes out of its
//! standard output, one JSON object a line. It ends when its input does, whatever happens here.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use client::Transport;
use serde_json::{Value, json};

use super::{
    Args, DOORS_OF_ALL, LOOK,
    big_room::BigRoom,
    crowd::{Here, Sums},
    verdict::{Judged, Verdict},
};

/// How often a process says what it has done.
const TELL: Duration = Duration::from_millis(50);
/// By how much those who play step back: what is measured goes first, and must not be taken for
/// dead because they are busy.
const NICE: i32 = 5;
/// By how much those do who play the big room. What the others notice of it is to be the servers'
/// work, and not that of its members, who would bring processors of their own; so those next door,
/// who have little to do, do not step back at all.
const NICE_BIG_ROOM: i32 = 15;
/// How long a process may take to judge its history.
const JUDGE_PATIENCE: Duration = Duration::from_secs(120);

/// How long after the order to speak everybody begins, so that all have heard it.
const SPEAK_LEAD: Duration = Duration::from_millis(20);

// What a process is told. To speak has a time with it, in microseconds of the system's clock: members
// of one room that several processes play must agree on when a message was due.
const SPEAK: &str = "speak";
const HUSH: &str = "hush";
const JUDGE: &str = "judge";

/// The processes. When it is dropped, they end.
pub(super) struct Parts {
    parts: Vec<One>,
    /// What the last of the parts play together.
    big_room: Option<Box<BigRoom>>,
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
    /// Logs of clients by their numbers, of a room that others play too.
    logs: Vec<(u32, String)>,
    ended: bool,
}

/// What one process is to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) clients: u32,
    pub(super) rooms: u32,
    pub(super) rate: f64,
    pub(super) enter_rate: Option<f64>,
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
    let big_room = args.big_room.map_or(0, BigRoom::largest_slice);
    shares.max().unwrap_or(args.clients).max(big_room)
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
        let big_room = BigRoom::new(args, gate, transport).map(Box::new);
        for (number, (args, share)) in
            (args.processes..).zip(big_room.iter().flat_map(|room| room.slices()))
        {
            parts.push(One::start(&args, number, share, gate, transport)?);
        }
        Ok(Self { parts, big_room })
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
        let start = SystemTime::now() + SPEAK_LEAD;
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.order(&format!("{SPEAK} {}", start.as_micros()));
    }

    pub(super) fn hush(&mut self) {
        self.order(HUSH);
    }

    /// What all have seen and measured, and apart from it what the members of the big room have.
    pub(super) async fn judge(&mut self) -> anyhow::Result<(Judged, Option<Judged>)> {
        self.order(JUDGE);
        let deadline = Instant::now() + JUDGE_PATIENCE;
        let slices = self.big_room.as_ref().map_or(0, |room| room.parts());
        let (parts, slices) = self.parts.split_at(self.parts.len() - slices);
        let mut all = Judged::nothing()?;
        for part in parts {
            all.add(part.judged(deadline).await?.0)?;
        }
        let Some(room) = &self.big_room else { return Ok((all, None)) };
        let (mut in_room, mut logs) = (Judged::nothing()?, Vec::new());
        for slice in slices {
            let (judged, of_slice) = slice.judged(deadline).await?;
            in_room.add(judged)?;
            logs.extend(of_slice);
        }
        if !logs.is_empty() {
            in_room.verdict = room.judge(logs)?;
        }
        Ok((all, Some(in_room)))
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

    /// Waits for what it has measured and judged, and for the logs that it could not judge.
    async fn judged(&self, deadline: Instant) -> anyhow::Result<(Judged, Vec<(u32, String)>)> {
        loop {
            let failure = {
                let mut said = self.said();
                if let Some(judged) = said.judged.take() {
                    return Ok((judged, std::mem::take(&mut said.logs)));
                }
                said.failure.clone().filter(|_| said.ended)
            };
            if let Some(failure) = failure {
                bail!("a process that plays has failed: {failure}");
            }
            if Instant::now() > deadline {
                bail!("a process that plays does not say what it saw");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn niceness(args: &Args) -> i32 {
    match (args.slice, args.big_room) {
        (Some(_), _) => NICE_BIG_ROOM,
        (None, Some(_)) => 0,
        (None, None) => NICE,
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
        format!("--nice={}", niceness(args)),
    ];
    flags.extend(args.run.iter().map(|run| format!("--run={run}")));
    if let Some((slice, slices)) = args.slice {
        flags.push(format!("--slice={slice}/{slices}"));
    }
    // The processes take turns, or all would send at the same moments. Those that play a room
    // between them take theirs by the numbers of their clients.
    let number = if args.slice.is_some() { 0 } else { number };
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
        if let Some(log) = json["log"].as_str() {
            let of = u32::try_from(number("of")).unwrap_or(u32::MAX);
            said.logs.push((of, log.to_owned()));
        } else if json["judged"].is_object() {
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
    let _ = rustix::process::nice(args.nice);
    let here = Arc::new(Mutex::new(Here::start(args, gate, transport)?));
    let playing = Arc::clone(&here);
    // It ends with the process, when the orders do.
    let _teller = Builder::new().name("teller".to_owned()).spawn(move || tell(&playing))?;
    for order in std::io::stdin().lines() {
        let mut here = here.lock().unwrap_or_else(PoisonError::into_inner);
        let order = order?;
        let (word, rest) = order.split_once(' ').unwrap_or((&order, ""));
        match word {
            SPEAK => here.speak(moment(rest).context("no time to speak at")?),
            HUSH => here.hush(),
            JUDGE if here.plan().is_sliced() => hand_over(&mut here)?,
            JUDGE => say(&json!({ "judged": here.judge()?.to_json() }))?,
            other => bail!("nobody knows how to {other}"),
        }
    }
    // Without a farewell to the server: thousands of those would take a while.
    std::process::exit(0);
}

/// A moment by this process's clock, from the system's in microseconds.
fn moment(micros: &str) -> Option<Instant> {
    let at = UNIX_EPOCH + Duration::from_micros(micros.parse().ok()?);
    let now = (Instant::now(), SystemTime::now());
    match at.duration_since(now.1) {
        Ok(ahead) => Some(now.0 + ahead),
        Err(past) => now.0.checked_sub(past.duration()),
    }
}

/// Says what its clients saw, for a judge who has heard the others of their room too.
fn hand_over(here: &mut Here) -> anyhow::Result<()> {
    let (measured, logs) = here.end()?;
    for (number, log) in here.plan().of_thread(0, 1).zip(logs) {
        say(&json!({ "of": number, "log": log.to_text() }))?;
    }
    say(&json!({ "judged": Judged { measured, verdict: Verdict::default() }.to_json() }))?;
    Ok(())
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
    fn a_big_room_is_shared_out_by_its_members() {
        let args = args(&["--up", "--big-room", "20001", "--big-rate", "7", "--processes", "2"]);
        assert_eq!(largest_share(&args), 6667);
        let gate = "127.0.0.1:1".parse().unwrap();
        let room = BigRoom::new(&args, gate, Transport::WebSocket).unwrap();
        let slices: Vec<_> = room.slices().collect();
        assert_eq!((room.parts(), slices.len()), (3, 3));
        let told = flags(&slices[1].0, 3, slices[1].1, gate, Transport::WebSocket);
        for flag in
            ["--part=3", "--clients=20001", "--rooms=1", "--rate=7", "--slice=1/3", "--nice=15"]
        {
            assert!(told.iter().any(|it| it == flag), "{flag} in {told:?}");
        }
        let next_door = flags(&args, 0, Share::of(&args, 0), gate, Transport::WebSocket);
        assert!(next_door.iter().any(|it| it == "--nice=0"), "{next_door:?}");
        let run = |part: &(Args, Share)| part.0.run.clone().unwrap();
        assert_eq!(run(&slices[0]), run(&slices[2]));
    }

    #[test]
    fn a_moment_is_the_same_by_both_clocks() {
        let at = SystemTime::now() + Duration::from_millis(300);
        let micros = at.duration_since(UNIX_EPOCH).unwrap().as_micros().to_string();
        let ahead = moment(&micros).unwrap().saturating_duration_since(Instant::now());
        assert!(ahead > Duration::from_millis(100) && ahead <= Duration::from_millis(300));
        assert_eq!(moment("soon"), None);
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
