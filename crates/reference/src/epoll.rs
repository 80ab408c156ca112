//! The minimal server: one thread and one epoll.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use model::{UserName, limits::PRESENCE_MEMBERS_MAX};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};

use crate::{
    frame,
    ring::{Ring, Sent},
    speech::{Ask, Speech},
};

/// Events taken at once.
const EVENTS: usize = 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// The listener among the sockets.
const LISTENER: u64 = u64::MAX;
/// How long to wait for sockets while the ring has sends that some of them do not take.
const RING_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// When a delivery is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// At once, each by itself.
    Each,
    /// With all others for that socket, once all that had arrived is read.
    Gathered,
    /// As gathered, and all of them by one system call, through io_uring.
    Ring,
}

struct Client {
    stream: Arc<TcpStream>,
    is_upgraded: bool,
    /// The beginning of a frame.
    input: Vec<u8>,
    /// What the socket did not take yet, or was not offered.
    output: Vec<u8>,
    awaits_room: bool,
    /// The ring has bytes for it.
    is_sending: bool,
    member: Option<(UserName, usize)>,
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    speech: Speech,
    writes: Writes,
    clients: Vec<Option<Client>>,
    rooms: Vec<Vec<usize>>,
    room_names: HashMap<String, usize>,
    /// Who has output that was not offered yet.
    dirty: Vec<usize>,
    ring: Option<Ring>,
    sent: Vec<Sent>,
}

/// Serves for ever.
///
/// # Errors
///
/// If the address cannot be had.
pub fn serve(
    address: SocketAddr,
    writes: Writes,
    announce: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    crate::raise_open_files()?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    announce(address);
    let speech = Speech::new(address);
    let ring = if writes == Writes::Ring { Some(Ring::new()?) } else { None };
    let server = Server {
        epoll,
        listener,
        speech,
        writes,
        clients: Vec::new(),
        rooms: Vec::new(),
        room_names: HashMap::new(),
        dirty: Vec::new(),
        ring,
        sent: Vec::new(),
    };
    server.run()
}

impl Server {
    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut scratch = vec![0; READ_BYTES];
        loop {
            let is_busy = self.ring.as_ref().is_some_and(Ring::is_busy);
            let patience = is_busy.then_some(&RING_WAIT);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), patience) {
                // The ring interrupts waits to have its work done.
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let (number, flags) = (event.data.u64(), event.flags);
                if number == LISTENER {
                    self.accept();
                    continue;
                }
                let index = usize::try_from(number)?;
                if flags.contains(EventFlags::OUT) {
                    self.flush(index);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read(index, &mut scratch);
                }
            }
            let mut dirty = mem::take(&mut self.dirty);
            for index in dirty.drain(..) {
                self.flush(index);
            }
            self.dirty = dirty;
            self.hand_over();
        }
    }

    /// Gives the ring to the kernel, until there is nothing that a socket would take at once.
    fn hand_over(&mut self) {
        while let Some(ring) = &mut self.ring
            && ring.is_busy()
        {
            let mut sent = mem::take(&mut self.sent);
            ring.hand_over(&mut sent);
            let is_idle = sent.is_empty();
            for sent in sent.drain(..) {
                self.sent(sent);
            }
            self.sent = sent;
            if is_idle {
                return;
            }
        }
    }

    fn sent(&mut self, Sent { client: index, taken, mut bytes }: Sent) {
        let Some(client) = &mut self.clients[index] else { return };
        client.is_sending = false;
        bytes.drain(..taken);
        bytes.append(&mut client.output);
        client.output = bytes;
        if !client.output.is_empty() {
            self.flush(index);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let index = self.clients.len();
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            let number = EventData::new_u64(index as u64);
            if ready.is_ok() && epoll::add(&self.epoll, &stream, number, EventFlags::IN).is_ok() {
                self.clients.push(Some(Client {
                    stream: Arc::new(stream),
                    is_upgraded: false,
                    input: Vec::new(),
                    output: Vec::new(),
                    awaits_room: false,
                    is_sending: false,
                    member: None,
                }));
            }
        }
    }

    fn read(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(client) = &mut self.clients[index] else { return };
        let read = match (&*client.stream).read(scratch) {
            Ok(0) => return self.close(index),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.close(index),
        };
        let mut input = mem::take(&mut client.input);
        input.extend_from_slice(&scratch[..read]);
        let mut used = 0;
        if !client.is_upgraded {
            let Some((answer, length)) = frame::upgrade(&input) else {
                client.input = input;
                return;
            };
            client.is_upgraded = true;
            used = length;
            self.write(index, answer.as_bytes());
        }
        while let Some((is_message, payload, length)) = frame::cut(&mut input[used..]) {
            used += length;
            if !is_message {
                return self.close(index);
            }
            for ask in self.speech.read(payload) {
                self.carry_out(index, ask);
            }
        }
        input.drain(..used);
        if let Some(client) = &mut self.clients[index] {
            client.input = input;
        }
    }

    fn carry_out(&mut self, index: usize, ask: Ask) {
        match ask {
            Ask::Answer(package) => self.write(index, &frame::encode(&package)),
            Ask::Enter { id, user, room } => {
                let next = self.rooms.len();
                let room = *self.room_names.entry(room).or_insert(next);
                if room == next {
                    self.rooms.push(Vec::new());
                }
                // As in Tangelo, or a room of thousands would take minutes to fill.
                if self.rooms[room].len() < PRESENCE_MEMBERS_MAX {
                    let added = frame::encode(&self.speech.add(&user));
                    self.tell(room, &added);
                }
                self.rooms[room].push(index);
                if let Some(client) = &mut self.clients[index] {
                    client.member = Some((user, room));
                }
                let members = self.rooms[room].iter().filter_map(|at| self.clients[*at].as_ref());
                let users = members.filter_map(|it| it.member.as_ref().map(|it| it.0.clone()));
                let answer = self.speech.entered(id, users.collect());
                self.write(index, &frame::encode(&answer));
            }
            Ask::Say { id, content, target } => {
                let member = self.clients[index].as_ref().and_then(|client| client.member.clone());
                let Some((user, room)) = member else { return };
                let push = frame::encode(&self.speech.chat(&user, &content, &target));
                let mut answer = frame::encode(&self.speech.said(id));
                answer.extend_from_slice(&push);
                let members = mem::take(&mut self.rooms[room]);
                for member in &members {
                    self.write(*member, if *member == index { &answer } else { &push });
                }
                self.rooms[room] = members;
            }
        }
    }

    fn tell(&mut self, room: usize, frame: &[u8]) {
        let members = mem::take(&mut self.rooms[room]);
        for member in &members {
            self.write(*member, frame);
        }
        self.rooms[room] = members;
    }

    fn write(&mut self, index: usize, bytes: &[u8]) {
        let Some(client) = &mut self.clients[index] else { return };
        if self.writes != Writes::Each {
            if client.output.is_empty() {
                self.dirty.push(index);
            }
            client.output.extend_from_slice(bytes);
            return;
        }
        let written =
            if client.output.is_empty() { (&*client.stream).write(bytes).unwrap_or(0) } else { 0 };
        if written < bytes.len() {
            client.output.extend_from_slice(&bytes[written..]);
            self.await_room(index, true);
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else { return };
        if let Some(ring) = &mut self.ring {
            if !client.is_sending {
                client.is_sending = true;
                let sent = ring.send(index, &client.stream, mem::take(&mut client.output));
                self.sent.extend(sent);
            }
            return;
        }
        // An error shows at the next read.
        let written = (&*client.stream).write(&client.output).unwrap_or(0);
        client.output.drain(..written);
        let is_full = !client.output.is_empty();
        self.await_room(index, is_full);
    }

    fn await_room(&mut self, index: usize, awaits_room: bool) {
        let Some(client) = &mut self.clients[index] else { return };
        if client.awaits_room == awaits_room {
            return;
        }
        client.awaits_room = awaits_room;
        let flags = if awaits_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        // Only a socket that is gone cannot be watched.
        let _ = epoll::modify(&self.epoll, &client.stream, EventData::new_u64(index as u64), flags);
    }

    fn close(&mut self, index: usize) {
        if let Some(client) = self.clients[index].take()
            && let Some((_, room)) = client.member
        {
            self.rooms[room].retain(|member| *member != index);
        }
    }
}
