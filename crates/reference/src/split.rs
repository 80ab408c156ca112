//! The minimal server cut where Tangelo is: connectors that hold the clients, and one process that
//! owns the rooms.
//!
//! It tells what a message costs at the least on its way through separate processes, so that of
//! what Tangelo costs beside the minimal server, one part is the design's and the rest its own.
//! Each process is one thread with one epoll, and a connector is the minimal server itself, which
//! asks instead of deciding. Between them go protobuf messages over Unix sockets, gathered by turn.

pub(crate) mod link;

use std::{
    collections::HashMap,
    env,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use link::{Asked, Down, Enter, Link, NOBODY, Names, Told, Up};
use model::limits::PRESENCE_MEMBERS_MAX;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventFlags},
    io::Errno,
};

use crate::epoll::{READ_BYTES, Writes, serve_beside};

/// How many processes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Processes that hold the clients
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    connectors: u32,

    /// Connectors hand what they write in a turn to the kernel together, through io_uring
    #[arg(long)]
    ring: bool,

    /// Be a connector: the socket to the owner of the rooms is the standard input
    #[arg(long, hide = true)]
    connector: bool,
}

/// Serves for ever. Announces where the first connector listens, who answers as a gate, and the
/// processes of all of them.
///
/// # Errors
///
/// If no process can be started, or one of them ends.
pub fn serve(args: &Args, announce: impl FnOnce(SocketAddr, &[u32])) -> anyhow::Result<()> {
    if args.connector {
        let owner: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
        let writes = if args.ring { Writes::Ring } else { Writes::Each };
        return serve_beside(writes, owner, |address| announce(address, &[]));
    }
    let mut owner = Owner {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        connectors: Vec::new(),
        rooms: Vec::new(),
        room_names: HashMap::new(),
    };
    let (mut addresses, mut pids): (Vec<SocketAddr>, Vec<u32>) = (Vec::new(), Vec::new());
    for _ in 0..args.connectors {
        let number = owner.connectors.len() as u64;
        let (connector, address) = Connector::start(&owner.epoll, number, args.ring)?;
        pids.push(connector.process.id());
        addresses.push(address);
        owner.connectors.push(connector);
    }
    let names: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let told = Told::Connectors(Names { names });
    owner.tell(0, Down { told: Some(told), ..Down::default() });
    owner.flush()?;
    announce(*addresses.first().context("there is no connector")?, &pids);
    owner.run()
}

/// A process that holds clients. It ends with the socket to it.
struct Connector {
    process: Child,
    link: Link,
    /// Our numbers of the rooms that it has met, by its own.
    rooms: Vec<usize>,
}

impl Connector {
    fn start(epoll: &OwnedFd, number: u64, ring: bool) -> anyhow::Result<(Self, SocketAddr)> {
        let (mine, theirs) = UnixStream::pair()?;
        let mut process = Command::new(env::current_exe()?)
            .args(["split", "--connector"])
            .args(ring.then_some("--ring"))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("a connector has no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim().parse().context("a connector told no address")?;
        let link = Link::new(mine, epoll, number)?;
        Ok((Self { process, link, rooms: Vec::new() }, address))
    }
}

#[derive(Default)]
struct Room {
    users: Vec<String>,
    homes: Vec<Home>,
}

/// A connector that has members of a room.
struct Home {
    connector: usize,
    /// The connector's own number of it.
    room: u32,
    members: usize,
}

/// The process that owns the rooms.
struct Owner {
    epoll: OwnedFd,
    connectors: Vec<Connector>,
    rooms: Vec<Room>,
    room_names: HashMap<String, usize>,
}

impl Owner {
    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(self.connectors.len());
        let mut scratch = vec![0; READ_BYTES];
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let flags = event.flags;
                if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    continue;
                }
                let connector = usize::try_from(event.data.u64())?;
                let link = &mut self.connectors[connector].link;
                for up in link.read(&mut scratch).context("a connector is gone")? {
                    self.carry_out(connector, up);
                }
            }
            self.flush()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connectors.iter_mut().try_for_each(|it| it.link.flush(&self.epoll))
    }

    fn tell(&mut self, connector: usize, down: Down) {
        self.connectors[connector].link.push(&down);
    }

    fn carry_out(&mut self, connector: usize, Up { room, client, id, asked }: Up) {
        match asked {
            Some(Asked::Enter(enter)) => self.enter(connector, (room, client, id), enter),
            Some(Asked::Say(push)) => {
                let speaker =
                    |home: &Home| if home.connector == connector { client } else { NOBODY };
                self.tell_all(connector, room, |home| Down {
                    client: speaker(home),
                    id,
                    room: home.room,
                    told: Some(Told::Said(push.clone())),
                });
            }
            Some(Asked::Leave(user)) => {
                let room = &mut self.rooms[self.connectors[connector].rooms[room as usize]];
                room.users.retain(|name| *name != user);
                for home in room.homes.iter_mut().filter(|home| home.connector == connector) {
                    home.members -= 1;
                }
                room.homes.retain(|home| home.members > 0);
            }
            None => {}
        }
    }

    fn enter(
        &mut self,
        connector: usize,
        (theirs, client, id): (u32, u32, u64),
        Enter { user, room }: Enter,
    ) {
        let next = self.rooms.len();
        let number = *self.room_names.entry(room).or_insert(next);
        if number == next {
            self.rooms.push(Room::default());
        }
        let known = &mut self.connectors[connector].rooms;
        if known.len() == theirs as usize {
            known.push(number);
        }
        if self.rooms[number].users.len() < PRESENCE_MEMBERS_MAX {
            self.tell_all(connector, theirs, |home| Down {
                client: NOBODY,
                id: 0,
                room: home.room,
                told: Some(Told::Added(user.clone())),
            });
        }
        let room = &mut self.rooms[number];
        room.users.push(user);
        match room.homes.iter_mut().find(|home| home.connector == connector) {
            Some(home) => home.members += 1,
            None => room.homes.push(Home { connector, room: theirs, members: 1 }),
        }
        let names = room.users.clone();
        let told = Some(Told::Entered(Names { names }));
        self.tell(connector, Down { room: theirs, client, id, told });
    }

    /// Tells all connectors with members of a room, known by a connector's number of it.
    fn tell_all(&mut self, connector: usize, theirs: u32, what: impl Fn(&Home) -> Down) {
        let number = self.connectors[connector].rooms[theirs as usize];
        for home in &self.rooms[number].homes {
            self.connectors[home.connector].link.push(&what(home));
        }
    }
}
