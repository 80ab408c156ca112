//! What the clients of a benchmark are to do, agreed before anybody starts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use client::Transport;
use model::limits::{CONNECTIONS_PER_ADDRESS_MAX, PRESENCE_MEMBERS_MAX};
use verify::history::{History, Log, Name, Names, Presence, Report};

use super::Args;

/// Connections from one loopback address: fewer than the ports that are chosen below, and than a
/// frontend takes from one address.
pub(super) const CONNECTIONS_PER_SOURCE: u32 = 8_000;
/// Where the ports begin by which players come to gates and connectors.
const GATE_PORTS: u16 = 2_000;
const CONNECTOR_PORTS: u16 = 40_000;

const _: () = assert!((CONNECTIONS_PER_SOURCE as usize) < CONNECTIONS_PER_ADDRESS_MAX);

/// The plan of one process.
pub(super) struct Plan {
    pub(super) gate: SocketAddr,
    transport: Transport,
    pub(super) clients: u32,
    pub(super) rooms: u32,
    pub(super) rate: f64,
    pub(super) saturate: Option<u32>,
    pub(super) text_bytes: usize,
    pub(super) warmup: Duration,
    pub(super) seconds: Duration,
    pub(super) part: Part,
    /// When the first may come in.
    begun: Instant,
    /// Tells this run's names from another's.
    pub(super) run: String,
    names: Names,
    users: Vec<Name>,
    room_names: Vec<Name>,
}

/// What tells the clients of one process from those of another that play with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Which process it is, from 0: it has loopback addresses of its own.
    pub(super) number: u16,
    /// Which of the plan's clients it plays: every so many-th, from one on.
    pub(super) slice: (u32, u32),
    /// Clients of one thread that may be on their way in at once.
    pub(super) doors: u16,
    /// Clients that come in per second; all at once if absent.
    pub(super) enter_rate: Option<f64>,
    /// How long after the others' first client this process's first comes in.
    pub(super) enter_after: Duration,
    /// How long after the others' first message this process's first is due.
    pub(super) send_after: Duration,
}

impl Default for Part {
    /// Everything, at once.
    fn default() -> Self {
        Self {
            number: 0,
            slice: (0, 1),
            doors: u16::MAX,
            enter_rate: None,
            enter_after: Duration::ZERO,
            send_after: Duration::ZERO,
        }
    }
}

impl Plan {
    pub(super) fn new(args: &Args, part: Part, gate: SocketAddr, transport: Transport) -> Self {
        let own = || format!("{:x}{:x}", std::process::id(), transport as u8);
        let run = args.run.clone().unwrap_or_else(own);
        let rooms = args.rooms.min(args.clients);
        let mut names = Names::default();
        let users = (0..args.clients).map(|index| names.intern(&user_name(&run, index))).collect();
        let room_names = (0..rooms).map(|index| names.intern(&room_name(&run, index))).collect();
        Self {
            gate,
            transport,
            clients: args.clients,
            rooms,
            rate: args.rate.max(0.001),
            saturate: args.saturate,
            text_bytes: args.bytes as usize,
            warmup: super::seconds(args.warmup),
            seconds: super::seconds(args.seconds),
            part,
            begun: Instant::now(),
            run,
            names,
            users,
            room_names,
        }
    }

    /// The numbers of the clients that one of so many threads plays.
    pub(super) fn of_thread(&self, number: u32, threads: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, step) = self.part.slice;
        (first + number * step..self.clients).step_by((step * threads) as usize)
    }

    /// Whether other processes play some of the clients, so that this one cannot judge.
    pub(super) const fn is_sliced(&self) -> bool {
        self.part.slice.1 > 1
    }

    pub(super) const fn transport(&self) -> Transport {
        self.transport
    }

    /// How many clients of one thread may be on their way in at once.
    pub(super) fn doors(&self) -> usize {
        self.part.doors.into()
    }

    /// When a client may come in. One room after the other fills, as after the loss of a connector.
    pub(super) fn enters_at(&self, index: u32) -> Option<Instant> {
        let rate = self.part.enter_rate?;
        let place = index % self.rooms * (self.clients / self.rooms);
        Some(self.begun + self.part.enter_after + Duration::from_secs_f64(f64::from(place) / rate))
    }

    /// A loopback address of its own for every process and twenty thousand connections.
    pub(super) fn source(&self, index: u32) -> Option<IpAddr> {
        let number =
            u8::try_from(index * self.transport.sockets() / CONNECTIONS_PER_SOURCE).ok()?;
        let loopback = self.gate.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST);
        let [high, low] = self.part.number.to_be_bytes();
        let is_first = (high, low, number) == (0, 0, 0);
        (loopback && !is_first).then(|| Ipv4Addr::new(127, 1 + high, low, 1 + number).into())
    }

    /// The ports by which a client comes to the gate and then to a connector, the first time. The
    /// system would look for a free one among thousands that are taken, and several players of one
    /// machine keep it busy with that.
    pub(super) fn ports(&self, index: u32) -> (u16, u16) {
        let place = u16::try_from(index % CONNECTIONS_PER_SOURCE).unwrap_or(0);
        match (self.transport.sockets(), self.source(index)) {
            (1, Some(_)) => (GATE_PORTS + place, CONNECTOR_PORTS + place),
            _ => (0, 0),
        }
    }

    /// An empty log for a client.
    pub(super) fn log(&self, index: u32) -> Log {
        Log::new(self.room_names[(index % self.rooms) as usize], self.users[index as usize])
    }

    /// The name of a user, as it came over the wire.
    pub(super) fn user(&self, name: &[u8]) -> Option<Name> {
        let text = std::str::from_utf8(name).ok()?;
        let (run, index) = text.strip_prefix('b')?.split_once('_')?;
        let index: usize = index.parse().ok()?;
        (run == self.run).then(|| self.users.get(index).copied()).flatten()
    }

    /// Whether joins and leaves are told one by one in rooms of this size.
    fn presence(&self) -> Presence {
        // One more than the mean, as the clients may not divide evenly.
        let room = (self.clients / self.rooms + 1) as usize;
        if room < PRESENCE_MEMBERS_MAX { Presence::Announced } else { Presence::Silent }
    }

    /// Whether the list that a client gets as it enters is judged. In a large room it is not, and
    /// lists of everybody by everybody would take a gigabyte.
    pub(super) fn keeps_lists(&self) -> bool {
        self.presence() == Presence::Announced
    }

    /// Judges what the clients did and saw, in the order of their numbers.
    pub(super) fn judge(&self, logs: Vec<Log>) -> Report {
        let mut history = History::new(self.names.clone(), self.presence());
        for log in logs {
            history.push(log);
        }
        history.check()
    }
}

/// Reads which part this is of how many, such as `0/2`.
pub(super) fn slice(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once('/').and_then(|(number, parts)| {
        Some((number.parse().ok()?, parts.parse().ok()?)).filter(|(number, parts)| number < parts)
    });
    numbers.ok_or_else(|| "a number and how many there are, such as 0/2".to_owned())
}

pub(super) fn user_name(run: &str, index: u32) -> String {
    format!("b{run}_{index}")
}

pub(super) fn room_name(run: &str, index: u32) -> String {
    format!("bench{run}_{index}")
}
