//! What grows, and what is run at each point.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Deliveries per second of the series whose rate is fixed: a fifth of what two processors do with
/// one write for each, so that latency is not a queue's.
const DELIVERIES_PER_SECOND: u32 = 20_000;
/// Clients of a run unless one room has more.
const CLIENTS: u32 = 1_000;
/// Messages per second, in all, in rooms with one member: ten of them stay within what one session
/// may send.
const LONELY_RATE: u32 = 800;
/// Messages per second in the room next door.
const BIG_RATE: u32 = 20;
/// Messages per second in the ten rooms beside it: a few each, and out of step with those next door,
/// or all of them would meet its crowd.
const NEIGHBOURS_RATE: u32 = 37;
/// Most clients that one process plays.
const CLIENTS_PER_PROCESS: u32 = 10_000;
/// Files that a server has open beside its clients' sockets.
const SPARE_FILES: u64 = 300;

/// One thing that grows while the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Series {
    /// Members of each room, at 20,000 deliveries per second
    Members,
    /// Rooms with one member each, at 800 messages per second
    Rooms,
    /// Connectors, 10 rooms of 100 at 20,000 deliveries per second
    Connectors,
    /// Members of a room with 20 messages per second, beside 10 rooms of 100 with 37 in all
    Neighbours,
}

/// What is measured at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    Tangelo,
    /// The minimal epoll server.
    Floor,
    /// Tangelo without the room next door.
    Alone,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tangelo => "Tangelo",
            Self::Floor => "floor",
            Self::Alone => "alone",
        })
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) server: Server,
    /// Where on the axis; 0 if it is there for all points.
    pub(crate) x: u32,
    /// Clients, of which the time to come in depends.
    pub(crate) clients: u32,
    /// Whether all that counts happens in the big room.
    pub(crate) is_one_room: bool,
    /// Options of `tangelo bench`.
    pub(crate) options: Vec<String>,
    /// The reference server, with its arguments.
    pub(crate) floor: String,
}

impl Series {
    pub(crate) const ALL: [Self; 4] =
        [Self::Members, Self::Rooms, Self::Connectors, Self::Neighbours];

    /// Names its files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Rooms => "rooms",
            Self::Connectors => "connectors",
            Self::Neighbours => "neighbours",
        }
    }

    /// What is on its axis.
    pub(crate) const fn axis(self) -> &'static str {
        match self {
            Self::Members => "members per room",
            Self::Rooms => "rooms, of one member each",
            Self::Connectors => "connectors",
            Self::Neighbours => "members of the room next door",
        }
    }

    /// What stays the same at all its points.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Members => "Larger rooms: 20,000 deliveries/s, beside the minimal epoll server",
            Self::Rooms => "More rooms: 800 messages/s, beside the minimal epoll server",
            Self::Connectors => {
                "More connectors: 10 rooms × 100, 20,000 deliveries/s, beside the minimal epoll server"
            }
            Self::Neighbours => "10 rooms × 100 with 37 messages/s in all, beside one room with 20",
        }
    }

    /// What Tangelo is held against.
    pub(crate) const fn base(self) -> Server {
        match self {
            Self::Members | Self::Rooms | Self::Connectors => Server::Floor,
            Self::Neighbours => Server::Alone,
        }
    }

    const fn points(self, is_quick: bool) -> &'static [u32] {
        match (self, is_quick) {
            (Self::Members, true) => &[10, 100, 1_000, 5_000],
            (Self::Members, false) => &[10, 50, 100, 500, 1_000, 5_000, 10_000, 20_000],
            (Self::Rooms, true) => &[10, 100, 1_000, 10_000],
            (Self::Rooms, false) => &[10, 100, 1_000, 10_000, 100_000],
            (Self::Connectors, true) => &[1, 2, 8],
            (Self::Connectors, false) => &[1, 2, 4, 8],
            (Self::Neighbours, true) => &[1_000, 5_000],
            (Self::Neighbours, false) => &[1_000, 2_000, 5_000, 10_000, 20_000],
        }
    }

    /// All runs of one round. A server that is one process, as the floor is, holds no more clients
    /// than it may open `files`; where it does not, it is left out.
    pub(crate) fn round(self, is_quick: bool, files: u64) -> Vec<Spec> {
        let points = self.points(is_quick);
        let last = points.last().copied().unwrap_or(1);
        match self {
            Self::Members => {
                let pair =
                    |x: &u32| [of_members(Server::Floor, *x), of_members(Server::Tangelo, *x)];
                let fits = |it: &Spec| it.server == Server::Tangelo || it.fits(files);
                points.iter().flat_map(pair).filter(fits).collect()
            }
            Self::Rooms => {
                let connectors = connectors(last, files);
                let pair = |x: &u32| {
                    [of_rooms(Server::Floor, *x, 0), of_rooms(Server::Tangelo, *x, connectors)]
                };
                let fits = |it: &Spec| it.server == Server::Tangelo || it.fits(files);
                points.iter().flat_map(pair).filter(fits).collect()
            }
            Self::Connectors => {
                let floor = [of_connectors(Server::Floor, 0)];
                floor
                    .into_iter()
                    .chain(points.iter().map(|x| of_connectors(Server::Tangelo, *x)))
                    .collect()
            }
            Self::Neighbours => {
                let alone = [of_neighbours(Server::Alone, 0)];
                alone
                    .into_iter()
                    .chain(points.iter().map(|x| of_neighbours(Server::Tangelo, *x)))
                    .collect()
            }
        }
    }
}

impl Spec {
    fn new(server: Server, x: u32, clients: u32, options: &[(&str, u32)]) -> Self {
        let options = options.iter().map(|(name, value)| format!("--{name}={value}"));
        let (options, floor) = (options.collect(), "epoll".to_owned());
        Self { server, x, clients, is_one_room: false, options, floor }
    }

    fn fits(&self, files: u64) -> bool {
        u64::from(self.clients) + SPARE_FILES <= files
    }
}

fn of_members(server: Server, members: u32) -> Spec {
    let rate = DELIVERIES_PER_SECOND / members;
    if members > CLIENTS_PER_PROCESS {
        // Several processes can play it only as the big room, with hardly anybody beside it.
        let mut spec = Spec::new(
            server,
            members,
            members,
            &[("clients", 1), ("rooms", 1), ("big-room", members), ("big-rate", rate)],
        );
        spec.options.push("--rate=0.001".to_owned());
        return Spec { is_one_room: true, ..spec };
    }
    let clients = members.max(CLIENTS);
    let (rooms, processes) = (clients / members, 1);
    Spec::new(
        server,
        members,
        clients,
        &[("clients", clients), ("rooms", rooms), ("rate", rate), ("processes", processes)],
    )
}

/// Nobody's heartbeat falls into what is measured: of 100,000 clients, the usual one would be
/// all that is.
fn of_rooms(server: Server, rooms: u32, connectors: u32) -> Spec {
    let processes = rooms.div_ceil(CLIENTS_PER_PROCESS);
    let mut spec = Spec::new(
        server,
        rooms,
        rooms,
        &[("clients", rooms), ("rooms", rooms), ("rate", LONELY_RATE), ("processes", processes)],
    );
    if server == Server::Tangelo {
        spec.options.push(format!("--connectors={connectors}"));
        spec.options.push("--heartbeat=3600".to_owned());
    }
    spec.floor.push_str(" --heartbeat=3600");
    spec
}

fn of_connectors(server: Server, connectors: u32) -> Spec {
    let mut spec = Spec::new(
        server,
        connectors,
        CLIENTS,
        &[("clients", CLIENTS), ("rooms", 10), ("rate", DELIVERIES_PER_SECOND / 100)],
    );
    if server == Server::Tangelo {
        spec.options.push(format!("--connectors={connectors}"));
    }
    spec
}

fn of_neighbours(server: Server, members: u32) -> Spec {
    let mut spec = Spec::new(
        server,
        members,
        CLIENTS + members,
        &[("clients", CLIENTS), ("rooms", 10), ("rate", NEIGHBOURS_RATE)],
    );
    if server == Server::Tangelo {
        spec.options.extend([format!("--big-room={members}"), format!("--big-rate={BIG_RATE}")]);
    }
    spec
}

/// As many connectors as hold so many clients, each of which may get five quarters of its share.
fn connectors(clients: u32, files: u64) -> u32 {
    let each = files.saturating_sub(SPARE_FILES).max(1);
    let needed = (u64::from(clients) * 5 / 4).div_ceil(each);
    u32::try_from(needed).unwrap_or(u32::MAX).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_the_rate_of_its_series() {
        for spec in Series::Members.round(false, 1 << 20) {
            let value = |name: &str| {
                let value = |it: &String| it.strip_prefix(name)?.parse::<u32>().ok();
                spec.options.iter().find_map(value)
            };
            let (rate, rooms) = (value("--big-rate=").or(value("--rate=")), value("--rooms="));
            assert_eq!(rate.unwrap() * spec.x, DELIVERIES_PER_SECOND, "{spec:?}");
            assert_eq!(spec.clients / rooms.unwrap(), spec.x, "{spec:?}");
        }
    }

    #[test]
    fn the_floor_is_left_out_where_it_does_not_fit() {
        let floors = |files| {
            let all = Series::Rooms.round(false, files);
            all.iter().filter(|it| it.server == Server::Floor).count()
        };
        assert_eq!((floors(20_000), floors(1 << 20)), (4, 5));
        assert_eq!((connectors(100_000, 20_000), connectors(10_000, 20_000)), (7, 2));
    }

    #[test]
    fn what_all_points_share_runs_once() {
        for series in [Series::Connectors, Series::Neighbours] {
            let round = series.round(true, 20_000);
            assert_eq!((round[0].server, round[0].x), (series.base(), 0));
            assert!(round[1..].iter().all(|it| it.server == Server::Tangelo));
        }
    }
}
