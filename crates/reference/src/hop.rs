//! What a hop between two processes costs, over TCP's loopback, over a Unix socket, and by gRPC over
//! a Unix socket.
//!
//! Two processes with one thread each do nothing but pass some bytes there and back, so seldom that
//! each is asleep when they come. That is what a link between a connector and a chat costs at least
//! while few messages are under way.

mod grpc;

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Signal, set_parent_process_death_signal};

/// As much as a message of a small room takes on a link.
const BYTES: usize = 200;
/// How long after one round trip the next begins.
const EVERY: Duration = Duration::from_millis(1);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How often each way is measured, in turn with the others
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Round trips of one measurement, a thousand a second
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    trips: u32,

    /// Be the other process: answer what comes in at standard input, which is a socket
    #[arg(long, hide = true, value_name = "HOW")]
    answer: Option<How>,
}

/// How bytes are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// As they are.
    Plain,
    /// By tonic.
    Grpc,
}

impl How {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Grpc => "grpc",
        }
    }
}

/// Measures, and prints what a round trip costs both processes together.
///
/// # Errors
///
/// If no process can be started, or the system does not tell what one has cost.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(how) = args.answer {
        // Where gRPC answers, a connection that has ended does not end it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        return match how {
            How::Plain => answer(socket.into()),
            How::Grpc => grpc::answer(socket),
        };
    }
    for _ in 0..args.rounds {
        // The timer that each round trip waits for is no part of it.
        let idle = micros(args.trips, &[process::id()], || Ok(()))?;
        let tcp = trips(args.trips, How::Plain, tcp_pair()?)? - idle;
        let unix = trips(args.trips, How::Plain, unix_pair()?)? - idle;
        let grpc = trips(args.trips, How::Grpc, unix_pair()?)? - idle;
        let [less, more] = [unix / tcp, grpc / unix];
        writeln!(
            io::stdout(),
            "a round trip: TCP {tcp:.1} µs of processor time, Unix socket {unix:.1} ({less:.2} of it), \
             gRPC over a Unix socket {grpc:.1} ({more:.2} of that)"
        )?;
    }
    Ok(())
}

fn tcp_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one.into(), other.into()))
}

fn unix_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = UnixStream::pair()?;
    Ok((one.into(), other.into()))
}

/// Microseconds of processor time that a round trip costs, between this process and another that has
/// the second end.
fn trips(count: u32, how: How, (mine, theirs): (OwnedFd, OwnedFd)) -> anyhow::Result<f64> {
    let mut command = Command::new(env::current_exe()?);
    let mut other =
        command.args(["hop", "--answer", how.name()]).stdin(Stdio::from(theirs)).spawn()?;
    drop(command);
    let measured = pass(count, how, mine, &[process::id(), other.id()]);
    let killed = other.kill();
    other.wait()?;
    killed?;
    measured
}

fn pass(count: u32, how: How, mine: OwnedFd, processes: &[u32]) -> anyhow::Result<f64> {
    match how {
        How::Plain => {
            let mut mine = File::from(mine);
            micros(count, processes, || {
                mine.write_all(&[0; BYTES])?;
                mine.read_exact(&mut [0; BYTES])
            })
        }
        How::Grpc => {
            let mut caller = grpc::Caller::new(mine)?;
            micros(count, processes, || caller.trip(vec![0; BYTES]).map(drop))
        }
    }
}

fn answer(mut socket: File) -> anyhow::Result<()> {
    let mut bytes = [0; BYTES];
    loop {
        match socket.read(&mut bytes)? {
            0 => return Ok(()),
            read => socket.write_all(&bytes[..read])?,
        }
    }
}

/// Microseconds of processor time that these processes take each time that `act` is done.
fn micros(
    count: u32,
    processes: &[u32],
    mut act: impl FnMut() -> io::Result<()>,
) -> anyhow::Result<f64> {
    let before = processor_time(processes)?;
    let start = Instant::now();
    for number in 0..count {
        thread::sleep((start + EVERY * number).saturating_duration_since(Instant::now()));
        act()?;
    }
    let taken = processor_time(processes)? - before;
    Ok(taken.as_secs_f64() * 1e6 / f64::from(count))
}

/// What the first threads of processes have cost, to the nanosecond: `/proc/<pid>/stat` counts in
/// hundredths of a second.
fn processor_time(processes: &[u32]) -> anyhow::Result<Duration> {
    let of = |process: &u32| {
        let path = format!("/proc/{process}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let nanos = text.split(' ').next().context("an empty schedstat")?.parse()?;
        anyhow::Ok(Duration::from_nanos(nanos))
    };
    processes.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_carry_bytes_there_and_back() {
        for (mine, theirs) in [tcp_pair().unwrap(), unix_pair().unwrap()] {
            let other = thread::spawn(|| answer(theirs.into()));
            let mut mine = File::from(mine);
            for byte in 0..10 {
                mine.write_all(&[byte; BYTES]).unwrap();
                let mut heard = [0; BYTES];
                mine.read_exact(&mut heard).unwrap();
                assert_eq!(heard, [byte; BYTES]);
            }
            drop(mine);
            other.join().unwrap().unwrap();
        }
    }

    #[test]
    fn grpc_carries_bytes_there_and_back() {
        let (mine, theirs) = unix_pair().unwrap();
        // It answers until the process ends.
        thread::spawn(|| grpc::answer(theirs));
        let mut caller = grpc::Caller::new(mine).unwrap();
        for byte in 0..10 {
            assert_eq!(caller.trip(vec![byte; BYTES]).unwrap(), [byte; BYTES]);
        }
    }

    #[test]
    fn only_a_process_that_is_there_has_cost_something() {
        let own = process::id();
        assert!(processor_time(&[own, own]).unwrap() >= processor_time(&[]).unwrap());
        assert!(processor_time(&[u32::MAX]).is_err());
    }
}
