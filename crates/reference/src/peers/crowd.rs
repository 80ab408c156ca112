//! The load: clients that speak, hear and judge, in one thread.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    fd::OwnedFd,
};

use super::tongue::{Heard, Peer};
use crate::frame;

/// Bytes of each text.
const TEXT_BYTES: usize = 128;
/// Once so many clients of a saturated crowd have begun to speak, all listen before more do.
const LISTEN_EVERY: usize = 50;
/// Events taken at once.
const EVENTS: usize = 1024;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
/// How long all may take to be in their rooms, and what was said to be heard.
const PATIENCE: Duration = Duration::from_secs(30);
/// Latencies above this count as this.
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// So many messages per second of all together, each when it is due.
    Rate(u32),
    /// As much as there is room for: each client always has so many on their way.
    Saturate(u32),
}

struct Client {
    stream: TcpStream,
    is_upgraded: bool,
    /// The beginning of a frame.
    input: Vec<u8>,
    /// What came in frames, up to the beginning of a unit.
    units: Vec<u8>,
    /// What the socket did not take yet.
    output: Vec<u8>,
    room: usize,
    /// Its place among the members of its room.
    place: usize,
    said: u32,
    /// How many of its own it has yet to hear.
    in_flight: u32,
    /// What it has heard of each member of its room.
    heard: Vec<u32>,
    /// The server has closed its connection.
    is_gone: bool,
}

/// Clients in their rooms.
pub(super) struct Crowd {
    peer: Peer,
    epoll: OwnedFd,
    clients: Vec<Client>,
    begin: Instant,
    latency: Histogram<u64>,
    /// Members of each room whose connections are open.
    sizes: Vec<usize>,
    joined: u32,
    heard: u64,
    expected: u64,
    /// Heard twice, or not in order.
    odd: u64,
    /// Who speaks next.
    speaker: usize,
}

impl Crowd {
    /// Connects all clients, each to the door of its room, and waits until all are in.
    ///
    /// # Errors
    ///
    /// If a server lets one not in.
    pub(super) fn enter(
        peer: Peer,
        doors: &[SocketAddr],
        clients: u32,
        rooms: u32,
    ) -> anyhow::Result<Self> {
        let (clients, rooms) = (clients as usize, rooms as usize);
        let sizes: Vec<_> = (0..rooms).map(|room| (clients - room).div_ceil(rooms)).collect();
        let mut crowd = Self {
            peer,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(clients),
            begin: Instant::now(),
            latency: Histogram::new_with_max(LATENCY_MAX_MICROS, 3)?,
            sizes,
            joined: 0,
            heard: 0,
            expected: 0,
            odd: 0,
            speaker: 0,
        };
        for index in 0..clients {
            let (room, place) = (index % rooms, index / rooms);
            crowd.connect(doors[room], room, place)?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut events = Events::new();
        while (crowd.joined as usize) < clients {
            ensure!(Instant::now() < deadline, "{} of {clients} got in", crowd.joined);
            crowd.turn(&mut events, Some(Duration::from_millis(100)), None)?;
        }
        Ok(crowd)
    }

    fn connect(&mut self, door: SocketAddr, room: usize, place: usize) -> anyhow::Result<()> {
        let index = self.clients.len();
        let mut stream = TcpStream::connect(door)?;
        stream.set_nodelay(true)?;
        let protocol = self.peer.protocol();
        let protocol = protocol.map(|it| format!("Sec-WebSocket-Protocol: {it}\r\n"));
        // Some servers refuse requests without a Host.
        write!(
            stream,
            "GET {} HTTP/1.1\r\nHost: {door}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{}\r\n",
            self.peer.path(room),
            protocol.unwrap_or_default()
        )?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        self.clients.push(Client {
            stream,
            is_upgraded: false,
            input: Vec::new(),
            units: Vec::new(),
            output: Vec::new(),
            room,
            place,
            said: 0,
            in_flight: 0,
            heard: vec![0; self.sizes[room]],
            is_gone: false,
        });
        Ok(())
    }

    /// Speaks and listens for so long. Returns how many deliveries were heard. Clients whose
    /// connections a server closes are [counted](Self::gone), and do no more.
    ///
    /// # Errors
    ///
    /// If a server closes all connections, or says what makes no sense.
    pub(super) fn play(&mut self, load: Load, time: Duration) -> anyhow::Result<u64> {
        let (begin, before) = (Instant::now(), self.heard);
        self.latency.reset();
        let mut events = Events::new();
        if let Load::Saturate(in_flight) = load {
            for index in 0..self.clients.len() {
                let is_first = self.clients[index].in_flight == 0;
                while self.clients[index].in_flight < in_flight {
                    self.say(index, Instant::now())?;
                }
                if is_first && index % LISTEN_EVERY == 0 {
                    // Or all would be slow readers at first, and closed as such by some.
                    self.turn(&mut events, Some(Duration::ZERO), Some(load))?;
                }
            }
        }
        let mut said = 0;
        loop {
            let now = Instant::now();
            if now >= begin + time {
                return Ok(self.heard - before);
            }
            let mut wait = begin + time - now;
            if let Load::Rate(rate) = load {
                let due = |said: u32| begin + Duration::from_secs(1) * said / rate;
                while due(said) <= now {
                    // A large step, so that rooms speak in turn and no client twice in a row.
                    self.speaker = (self.speaker + 7_919) % self.clients.len();
                    self.say(self.speaker, due(said))?;
                    said += 1;
                }
                wait = wait.min(due(said) - now);
            }
            self.turn(&mut events, Some(wait), Some(load))?;
        }
    }

    /// Listens until all that was said is heard. Returns whether it was, each once and in order; not
    /// if somebody is gone.
    ///
    /// # Errors
    ///
    /// As [`Crowd::play`].
    pub(super) fn settle(&mut self) -> anyhow::Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Events::new();
        while self.gone() == 0 && self.heard < self.expected && Instant::now() < deadline {
            self.turn(&mut events, Some(Duration::from_millis(100)), None)?;
        }
        Ok(self.gone() == 0 && self.heard == self.expected && self.odd == 0)
    }

    /// How many connections the server has closed since all were in.
    pub(super) fn gone(&self) -> usize {
        self.clients.len() - self.sizes.iter().sum::<usize>()
    }

    /// How long this part of what was heard took from when it was due, in milliseconds.
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn turn(
        &mut self,
        events: &mut Events,
        wait: Option<Duration>,
        load: Option<Load>,
    ) -> anyhow::Result<()> {
        let wait = wait.map(Timespec::try_from).transpose()?;
        epoll::wait(&self.epoll, spare_capacity(&mut events.taken), wait.as_ref())?;
        for event in events.taken.drain(..) {
            let (index, flags) = (usize::try_from(event.data.u64())?, event.flags);
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index, &mut events.scratch, load)?;
            }
            if flags.contains(EventFlags::OUT) && !self.clients[index].is_gone {
                self.flush(index)?;
            }
        }
        Ok(())
    }

    /// Notes that the server has closed a connection.
    ///
    /// # Errors
    ///
    /// If not all are in yet, or none is left: then there is nothing to measure.
    fn lose(&mut self, index: usize) -> anyhow::Result<()> {
        let all = self.clients.len();
        ensure!(self.joined as usize >= all, "the server closed a connection before all were in");
        let client = &mut self.clients[index];
        client.is_gone = true;
        self.sizes[client.room] -= 1;
        ensure!(self.sizes.iter().any(|members| *members > 0), "the server closed all connections");
        Ok(epoll::delete(&self.epoll, &client.stream)?)
    }

    fn read(&mut self, index: usize, scratch: &mut [u8], load: Option<Load>) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        let read = match client.stream.read(scratch) {
            Ok(0) => return self.lose(index),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_end(&error) => return self.lose(index),
            Err(error) => return Err(error).context("a connection broke"),
        };
        client.input.extend_from_slice(&scratch[..read]);
        if !client.is_upgraded {
            let Some(end) = client.input.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            let head = String::from_utf8_lossy(&client.input[..end]).into_owned();
            ensure!(head.starts_with("HTTP/1.1 101"), "it is not let in: {head}");
            client.input.drain(..end + 4);
            client.is_upgraded = true;
            self.joined += u32::from(self.peer.joins_by_path());
            for message in self.peer.join(index, self.clients[index].room) {
                self.write(index, &frame::encode_masked(&message))?;
            }
        }
        let own = self.listen(index)?;
        self.clients[index].in_flight -= own;
        if let Some(Load::Saturate(in_flight)) = load {
            while self.clients[index].in_flight < in_flight {
                self.say(index, Instant::now())?;
            }
        }
        Ok(())
    }

    /// Takes what a client has heard. Returns how much of it were its own words.
    fn listen(&mut self, index: usize) -> anyhow::Result<u32> {
        let Self { clients, peer, begin, latency, joined, heard, odd, .. } = self;
        let Client { input, units, place, heard: of, .. } = &mut clients[index];
        let now = micros(begin.elapsed());
        let (mut used, mut own) = (0, 0);
        let mut each = |said: Heard<'_>| {
            let text = match said {
                Heard::Joined => return *joined += 1,
                Heard::Said(text) => text,
            };
            *heard += 1;
            let Some((sender, number, due)) = read_text(text) else { return *odd += 1 };
            own += u32::from(sender == *place);
            latency.saturating_record(now.saturating_sub(due));
            match of.get_mut(sender) {
                Some(last) if number == *last + 1 => *last = number,
                _ => *odd += 1,
            }
        };
        while let Some((is_message, payload, length)) = frame::cut(&mut input[used..]) {
            used += length;
            if !is_message {
                continue;
            }
            // What is whole in its message is read in place.
            let taken = if units.is_empty() {
                let taken = peer.hear(payload, &mut each).context("it makes no sense")?;
                units.extend_from_slice(&payload[taken..]);
                continue;
            } else {
                units.extend_from_slice(payload);
                peer.hear(units, &mut each).context("it makes no sense")?
            };
            units.drain(..taken);
        }
        input.drain(..used);
        Ok(own)
    }

    fn say(&mut self, index: usize, due: Instant) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        client.said += 1;
        client.in_flight += 1;
        if client.is_gone {
            return Ok(());
        }
        let due = micros(due.duration_since(self.begin));
        let text = write_text(client.place, client.said, due);
        let room = client.room;
        self.expected += self.sizes[room] as u64;
        let message = self.peer.say(room, &text);
        self.write(index, &frame::encode_masked(&message))
    }

    fn write(&mut self, index: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let was_empty = self.clients[index].output.is_empty();
        self.clients[index].output.extend_from_slice(bytes);
        if was_empty { self.flush(index) } else { Ok(()) }
    }

    fn flush(&mut self, index: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        let written = match client.stream.write(&client.output) {
            Ok(written) => written,
            // An end is met by whoever reads.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_end(&error) => 0,
            Err(error) => return Err(error).context("a connection broke"),
        };
        client.output.drain(..written);
        let is_full = !client.output.is_empty();
        let flags = if is_full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, &client.stream, EventData::new_u64(index as u64), flags)?;
        Ok(())
    }
}

struct Events {
    taken: Vec<epoll::Event>,
    scratch: Vec<u8>,
}

impl Events {
    fn new() -> Self {
        Self { taken: Vec::with_capacity(EVENTS), scratch: vec![0; READ_BYTES] }
    }
}

/// Whether the other end has closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A text that says who said it, the how manieth of theirs it is, and when it was due.
fn write_text(place: usize, number: u32, due: u64) -> String {
    format!("{:.<TEXT_BYTES$}", format!("{place} {number} {due} "))
}

fn read_text(text: &[u8]) -> Option<(usize, u32, u64)> {
    let mut words = str::from_utf8(text).ok()?.split(' ');
    let (place, number, due) = (words.next()?, words.next()?, words.next()?);
    Some((place.parse().ok()?, number.parse().ok()?, due.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_tells_whose_it_is() {
        let text = write_text(7, 42, 123_456);
        assert_eq!(text.len(), TEXT_BYTES);
        assert_eq!(read_text(text.as_bytes()), Some((7, 42, 123_456)));
        assert_eq!(read_text(b"hello"), None);
    }
}
