//! Which connector a client is sent to.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster::{ClusterMap, Connectors, Slots};
use model::{Role, RoomId, Shard, Time, limits};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use crate::count;

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// A host that this client can reach.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// How long until it may come; or, if all the near future is taken, how long until it may ask
    /// again.
    pub(crate) slot: Result<Duration, Duration>,
}

impl Entry {
    /// Counts the slot of a client that is told of it.
    pub(crate) fn count_slot(&self) {
        match self.slot {
            Ok(Duration::ZERO) => {}
            Ok(_) => count::slot(count::TOLD),
            Err(_) => count::slot(count::PUT_OFF),
        }
    }
}

/// Places clients on the connectors of the newest map. Clones share one memory of whom they have
/// placed.
#[derive(Clone)]
pub(crate) struct Entries {
    map: watch::Receiver<Arc<ClusterMap>>,
    placed: Arc<Mutex<Placed>>,
    /// As many answers may be held.
    held: Arc<Semaphore>,
}

#[derive(Default)]
struct Placed {
    connectors: Connectors,
    slots: Slots,
    /// The map that `connectors` follow.
    map: Arc<ClusterMap>,
}

impl Entries {
    pub(crate) fn new(map: watch::Receiver<Arc<ClusterMap>>) -> Self {
        let held = Arc::new(Semaphore::new(limits::ENTRIES_HELD_MAX));
        Self { map, placed: Arc::default(), held }
    }

    /// The newest map.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// Places a client by its room, or by its user id if it names none. `reached_by` is the host
    /// by which it reached this gate. None if no connector takes clients.
    pub(crate) fn place(
        &self,
        now: Time,
        user: &str,
        room: Option<&RoomId>,
        reached_by: &str,
    ) -> Option<Entry> {
        let map = self.map();
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        // The lock is held for a walk on a ring, never across an await.
        if !Arc::ptr_eq(&placed.map, &map) {
            placed.connectors.update(now, &map);
            placed.slots.update(&map);
            placed.map = Arc::clone(&map);
        }
        let chosen = placed.connectors.place(now, room.map_or(user, RoomId::as_str))?;
        let slot = placed.slots.take(now, chosen);
        drop(placed);
        let address = map.nodes.get(&chosen)?.client.as_ref()?;
        let host = address.host.as_deref().unwrap_or(reached_by).to_owned();
        Some(Entry { host, port: address.port, slot })
    }

    /// Holds the answer to a client that cannot be told to wait: until its slot, but not for so long
    /// that it notices, and not at all while too many are held.
    pub(crate) async fn hold(&self, entry: &Entry) {
        let (Ok(wait) | Err(wait)) = entry.slot;
        if wait.is_zero() {
            return;
        }
        let Ok(_held) = self.held.try_acquire() else {
            return count::slot(count::SKIPPED);
        };
        count::slot(count::HELD);
        sleep(wait.min(limits::ENTRY_HELD_MAX)).await;
    }
}

/// The host by which a client reached the gate: the one it asked for, or, when it did not say,
/// the address that it connected to.
pub(crate) fn reached_by(host: Option<&str>, local: IpAddr) -> String {
    let plausible = |host: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        !host.is_empty() && host.len() <= 255 && host.chars().all(allowed)
    };
    match host.filter(plausible) {
        Some(host) => host.to_owned(),
        // An IPv4 client of a socket for both has an address with a prefix that it cannot dial.
        None => local.to_canonical().to_string(),
    }
}

/// The host of a Host header, without its port.
pub(crate) fn host_of(header: &str) -> &str {
    match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => header,
    }
}

/// Why clients cannot be sent anywhere yet, by condition.
pub(crate) struct Missing {
    pub(crate) connectors: Result<(), String>,
    pub(crate) shards: Result<(), String>,
}

impl Missing {
    pub(crate) fn of(map: &ClusterMap) -> Self {
        let connectors = map.of_role(Role::Connector).count();
        let ready = map.connectors().any(cluster::Node::takes_work);
        let unowned = Shard::all().filter(|shard| map.owner(*shard).is_none()).count();
        let chats = map.of_role(Role::Chat).count();
        Self {
            connectors: match connectors {
                _ if ready => Ok(()),
                0 => Err("no connector has joined".to_owned()),
                count => Err(format!("none of {count} connectors is ready")),
            },
            shards: match (unowned, chats) {
                (0, _) => Ok(()),
                (_, 0) => Err("no chat has joined".to_owned()),
                (count, _) => {
                    Err(format!("{count} of {} shards have no owner", Shard::all().len()))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use cluster::{ClientAddress, Node};
    use model::{Incarnation, NodeId};
    use tokio::time::Instant;

    use super::*;

    fn connector(number: u64, host: Option<&str>) -> Node {
        Node {
            id: NodeId::new(&format!("connector-{number}")).unwrap(),
            incarnation: Incarnation(number),
            role: Role::Connector,
            link: None,
            client: Some(ClientAddress {
                host: host.map(str::to_owned),
                port: 3049 + u16::try_from(number).unwrap(),
                admissions: 100,
            }),
            admin: None,
            // Enough that a handful more is within everybody's share.
            load: 1000,
            draining: false,
            ready: true,
        }
    }

    fn map(nodes: impl IntoIterator<Item = Node>) -> ClusterMap {
        let nodes = nodes.into_iter().map(|node| (node.incarnation, node)).collect();
        ClusterMap { version: 1, nodes, ..ClusterMap::default() }
    }

    fn entries(map: ClusterMap) -> (watch::Sender<Arc<ClusterMap>>, Entries) {
        let (sender, receiver) = watch::channel(Arc::new(map));
        (sender, Entries::new(receiver))
    }

    #[test]
    fn a_room_decides_before_a_user() {
        let (_map, entries) = entries(map((1..=5).map(|number| connector(number, None))));
        let place = |user: &str, room| entries.place(Time::ZERO, user, room, "h").unwrap();
        let room = RoomId::from_peer("room1").unwrap();
        let together = place("alice", Some(&room));
        assert_eq!(place("bob", Some(&room)), together);
        let alone: std::collections::BTreeSet<_> =
            (0..20).map(|number| place(&format!("user{number}"), None).port).collect();
        assert!(alone.len() > 1, "users spread over connectors");
    }

    #[test]
    fn the_host_is_the_configured_one_or_the_one_that_worked() {
        let (sender, entries) = entries(map([connector(1, None)]));
        let place = |reached: &str| entries.place(Time::ZERO, "alice", None, reached);
        let slot = Ok(Duration::ZERO);
        let entry = Entry { host: "chat.example".to_owned(), port: 3050, slot };
        assert_eq!(place("chat.example"), Some(entry));
        sender.send_replace(Arc::new(map([connector(2, Some("c2.example"))])));
        let entry = Entry { host: "c2.example".to_owned(), port: 3051, slot };
        assert_eq!(place("chat.example"), Some(entry));
        sender.send_replace(Arc::new(map([])));
        assert_eq!(place("chat.example"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_held_until_the_slot_and_no_longer_than_a_second() {
        let (_map, entries) = entries(map([connector(1, None)]));
        let place = || entries.place(Time::ZERO, "alice", None, "h").unwrap();
        let mut times = Vec::new();
        for _ in 0..200 {
            let (begun, entry) = (Instant::now(), place());
            entries.hold(&entry).await;
            times.push((entry.slot, begun.elapsed().as_millis()));
        }
        assert!(times[..10].iter().all(|(slot, held)| *slot == Ok(Duration::ZERO) && *held == 0));
        assert!((490..=510).contains(&times[59].1), "{:?}", times[59]);
        assert!((999..=1001).contains(&times[199].1), "{:?}", times[199]);
        // Nobody waits for a place to wait.
        let all = entries.held.acquire_many(limits::ENTRIES_HELD_MAX as u32).await.unwrap();
        let begun = Instant::now();
        entries.hold(&place()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(all);
    }

    #[test]
    fn a_client_that_names_no_host_is_told_the_address_it_reached() {
        let v4 = IpAddr::from(Ipv4Addr::new(10, 0, 0, 7));
        let mapped = IpAddr::from(Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped());
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert_eq!(reached_by(Some("chat.example"), v4), "chat.example");
        assert_eq!(reached_by(Some("[::1]"), v4), "[::1]");
        assert_eq!(reached_by(None, v4), "10.0.0.7");
        assert_eq!(reached_by(None, mapped), "10.0.0.7");
        assert_eq!(reached_by(None, v6), "::1");
        for odd in ["", "a b", "a\"b", "<script>", &"x".repeat(256)] {
            assert_eq!(reached_by(Some(odd), v4), "10.0.0.7", "{odd}");
        }
    }

    #[test]
    fn a_host_header_may_have_a_port() {
        for (header, host) in [
            ("chat.example", "chat.example"),
            ("chat.example:3014", "chat.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:3014", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host_of(header), host);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let missing = Missing::of(&ClusterMap::default());
        assert_eq!(missing.connectors, Err("no connector has joined".to_owned()));
        assert_eq!(missing.shards, Err("no chat has joined".to_owned()));

        let mut starting = connector(1, None);
        starting.ready = false;
        let mut chat = connector(2, None);
        chat.role = Role::Chat;
        let mut map = map([starting, chat]);
        for ownership in &mut map.shards[1..] {
            ownership.owner = Some(Incarnation(2));
        }
        let missing = Missing::of(&map);
        assert_eq!(missing.connectors, Err("none of 1 connectors is ready".to_owned()));
        assert_eq!(missing.shards, Err("1 of 1024 shards have no owner".to_owned()));

        map.shards[0].owner = Some(Incarnation(2));
        map.nodes.get_mut(&Incarnation(1)).unwrap().ready = true;
        let missing = Missing::of(&map);
        assert_eq!((missing.connectors, missing.shards), (Ok(()), Ok(())));
    }
}
