//! The minimal server: one thread and one epoll.

use std::{
    collections::HashMap,
    io::{
        self,
        ErrorKind::{ConnectionReset, UnexpectedEof},
        Read as _, Write as _,
    },
    mem,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use model::{
    NameRule, UserName,
    limits::{POMELO_HEARTBEAT, PRESENCE_MEMBERS_MAX},
};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};
use wire::RequestId;

use crate::{
    frame,
    ring::{Ring, Sent},
    speech::{Ask, Speech},
    split::link::{Asked, Down, Enter, Link, NOBODY, Told, Up},
};

/// Events taken at once.
const EVENTS: usize = 1024;
/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// The listener among the sockets.
const LISTENER: u64 = u64::MAX;
/// The owner of the rooms among the sockets.
const OWNER: u64 = u64::MAX - 1;
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
    /// Who decides what is told to whom, if that is not this server itself.
    owner: Option<Link>,
    /// Where clients are sent, each room to the next one.
    connectors: Vec<SocketAddr>,
    entries: HashMap<String, usize>,
}

/// Serves for ever. Clients are told the heartbeat in whole seconds.
///
/// # Errors
///
/// If the address cannot be had.
pub fn serve(
    address: SocketAddr,
    writes: Writes,
    heartbeat: Duration,
    announce: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let server = Server::new(address, writes, heartbeat)?;
    announce(server.connectors[0]);
    server.run()
}

/// Serves clients of rooms that another process owns, until that is gone.
pub(crate) fn serve_beside(
    writes: Writes,
    owner: UnixStream,
    announce: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let mut server = Server::new((Ipv4Addr::LOCALHOST, 0).into(), writes, POMELO_HEARTBEAT)?;
    server.owner = Some(Link::new(owner, &server.epoll, OWNER)?);
    announce(server.connectors[0]);
    server.run()
}

impl Server {
    fn new(address: SocketAddr, writes: Writes, heartbeat: Duration) -> anyhow::Result<Self> {
        crate::raise_open_files()?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let ring = if writes == Writes::Ring { Some(Ring::new()?) } else { None };
        Ok(Self {
            epoll,
            listener,
            speech: Speech::new(heartbeat),
            writes,
            clients: Vec::new(),
            rooms: Vec::new(),
            room_names: HashMap::new(),
            dirty: Vec::new(),
            ring,
            sent: Vec::new(),
            owner: None,
            connectors: vec![address],
            entries: HashMap::new(),
        })
    }

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
                if number == OWNER {
                    if !self.hear_owner(&mut scratch)? {
                        return Ok(());
                    }
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
            if let Some(owner) = &mut self.owner {
                owner.flush(&self.epoll)?;
            }
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
            Ask::Entry { id, room } => {
                let next = self.entries.len() % self.connectors.len();
                let connector = self.connectors[*self.entries.entry(room).or_insert(next)];
                let answer = self.speech.entry(id, connector);
                self.write(index, &frame::encode(&answer));
            }
            Ask::Enter { id, user, room } => self.enter(index, id, user, room),
            Ask::Say { id, content, target } => {
                let member = self.clients[index].as_ref().and_then(|client| client.member.clone());
                let Some((user, room)) = member else { return };
                let push = frame::encode(&self.speech.chat(&user, &content, &target));
                if self.owner.is_some() {
                    self.ask_owner((index, room, id), Asked::Say(push));
                } else {
                    self.said(room, Some((index, id)), &push);
                }
            }
        }
    }

    fn enter(&mut self, index: usize, id: RequestId, user: UserName, name: String) {
        let next = self.rooms.len();
        let room = *self.room_names.entry(name.clone()).or_insert(next);
        if room == next {
            self.rooms.push(Vec::new());
        }
        if let Some(client) = &mut self.clients[index] {
            client.member = Some((user.clone(), room));
        }
        if self.owner.is_some() {
            let enter = Enter { user: user.to_string(), room: name };
            return self.ask_owner((index, room, id), Asked::Enter(enter));
        }
        // As in Tangelo, or a room of thousands would take minutes to fill.
        if self.rooms[room].len() < PRESENCE_MEMBERS_MAX {
            self.added(room, &user);
        }
        self.rooms[room].push(index);
        let members = self.rooms[room].iter().filter_map(|at| self.clients[*at].as_ref());
        let users = members.filter_map(|it| it.member.as_ref().map(|it| it.0.clone())).collect();
        let answer = self.speech.entered(id, users);
        self.write(index, &frame::encode(&answer));
    }

    fn ask_owner(&mut self, (client, room, id): (usize, usize, RequestId), asked: Asked) {
        // Nobody lets four billion in.
        let [room, client] = [room, client].map(|number| u32::try_from(number).unwrap_or(NOBODY));
        if let Some(owner) = &mut self.owner {
            owner.push(&Up { room, client, id: id.0, asked: Some(asked) });
        }
    }

    /// Passes on what the owner tells. Returns whether it is still there.
    fn hear_owner(&mut self, scratch: &mut [u8]) -> anyhow::Result<bool> {
        let Some(owner) = &mut self.owner else { return Ok(true) };
        let downs = match owner.read(scratch) {
            Ok(downs) => downs,
            // One that is killed with something unread resets the connection.
            Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        for Down { room, client, id, told } in downs {
            let (room, index, id) = (room as usize, client as usize, RequestId(id));
            match told {
                Some(Told::Said(push)) => {
                    self.said(room, (client != NOBODY).then_some((index, id)), &push);
                }
                Some(Told::Added(user)) => self.added(room, &name(&user)?),
                Some(Told::Entered(users)) if self.clients[index].is_some() => {
                    self.rooms[room].push(index);
                    let users = users.names.iter().map(|it| name(it)).collect::<Result<_, _>>()?;
                    let answer = self.speech.entered(id, users);
                    self.write(index, &frame::encode(&answer));
                }
                Some(Told::Connectors(all)) => {
                    self.connectors =
                        all.names.iter().map(|it| it.parse()).collect::<Result<_, _>>()?;
                }
                Some(Told::Entered(_)) | None => {}
            }
        }
        Ok(true)
    }

    fn added(&mut self, room: usize, user: &UserName) {
        let added = frame::encode(&self.speech.add(user));
        self.tell(room, None, &added, &added);
    }

    /// Tells a room what one of its members said, and that one that it was heard.
    fn said(&mut self, room: usize, speaker: Option<(usize, RequestId)>, push: &[u8]) {
        let mut answer =
            speaker.map_or_else(Vec::new, |(_, id)| frame::encode(&self.speech.said(id)));
        answer.extend_from_slice(push);
        self.tell(room, speaker.map(|it| it.0), &answer, push);
    }

    /// Tells one member this, and all others that.
    fn tell(&mut self, room: usize, one: Option<usize>, this: &[u8], that: &[u8]) {
        let members = mem::take(&mut self.rooms[room]);
        for member in &members {
            self.write(*member, if Some(*member) == one { this } else { that });
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
            && let Some((user, room)) = client.member
        {
            self.rooms[room].retain(|member| *member != index);
            self.ask_owner((index, room, RequestId::NOTIFY), Asked::Leave(user.to_string()));
        }
    }
}

/// A name that a connector has let in.
fn name(name: &str) -> anyhow::Result<UserName> {
    UserName::parse(name, &NameRule::default()).context("a name that no connector lets in")
}
