//! What a hop between two processes costs, over TCP's loopback and over a Unix socket.
//!
//! Two processes with one thread each do nothing but pass some bytes there and back, so seldom that
//! each is asleep when they come. That is what a link between a connector and a chat costs at least
//! while few messages are under way.

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

/// As much as a message of a small room takes on a link.
const BYTES: usize = 200;
/// How long after one round trip the next begins.
const EVERY: Duration = Duration::from_millis(1);

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How often each way is measured, in turn with the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Round trips of one measurement, a thousand a second
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    trips: u32,

    /// Be the other process: answer what comes in at standard input, which is a socket
    #[arg(long, hide = true)]
    answer: bool,
}

/// Measures, and prints what a round trip costs both processes together.
///
/// # Errors
///
/// If no process can be started, or the system does not tell what one has cost.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.answer {
        return answer(io::stdin().as_fd().try_clone_to_owned()?.into());
    }
    for _ in 0..args.rounds {
        // The timer that each round trip waits for is no part of it.
        let idle = micros(args.trips, &[process::id()], || Ok(()))?;
        let tcp = trips(args.trips, tcp_pair()?)? - idle;
        let unix = trips(args.trips, unix_pair()?)? - idle;
        let ratio = unix / tcp;
        writeln!(
            io::stdout(),
            "a round trip: TCP {tcp:.1} µs of processor time, Unix socket {unix:.1} ({ratio:.2})"
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
fn trips(count: u32, (mine, theirs): (OwnedFd, OwnedFd)) -> anyhow::Result<f64> {
    let mut command = Command::new(env::current_exe()?);
    let mut other = command.args(["hop", "--answer"]).stdin(Stdio::from(theirs)).spawn()?;
    drop(command);
    let mut mine = File::from(mine);
    let measured = micros(count, &[process::id(), other.id()], || {
        mine.write_all(&[0; BYTES])?;
        mine.read_exact(&mut [0; BYTES])
    });
    // The other process ends with its socket.
    drop(mine);
    other.wait()?;
    measured
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
    fn only_a_process_that_is_there_has_cost_something() {
        let own = process::id();
        assert!(processor_time(&[own, own]).unwrap() >= processor_time(&[]).unwrap());
        assert!(processor_time(&[u32::MAX]).is_err());
    }
}
