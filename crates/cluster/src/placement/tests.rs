use model::Role;

use super::*;

fn node(role: Role, number: u64) -> Node {
    Node {
        ready: true,
        ..Node::new(NodeId::new(&format!("{role}-{number}")).unwrap(), Incarnation(number), role)
    }
}

fn map_of(role: Role, numbers: impl IntoIterator<Item = u64>) -> ClusterMap {
    let nodes =
        numbers.into_iter().map(|number| (Incarnation(number), node(role, number))).collect();
    ClusterMap { nodes, ..ClusterMap::default() }
}

fn preferred(map: &ClusterMap) -> Vec<Option<Incarnation>> {
    let mut owners = Owners::default();
    owners.update(map);
    owners.preferred
}

fn share(preferred: &[Option<Incarnation>]) -> BTreeMap<Incarnation, usize> {
    let mut share = BTreeMap::new();
    for chat in preferred.iter().flatten() {
        *share.entry(*chat).or_insert(0) += 1;
    }
    share
}

/// If this fails, nodes of two releases disagree about where rooms belong: do not adjust it.
#[test]
fn golden() {
    let shards: Vec<_> = ["a", "room_1", "大厅", "", "pomelo"]
        .iter()
        .map(|name| shard_of(&RoomId::from_peer(name).unwrap()).number())
        .collect();
    assert_eq!(shards, [543, 941, 900, 194, 570]);

    let owners = preferred(&map_of(Role::Chat, 1..=5));
    let first: Vec<_> = owners[..16].iter().map(|chat| chat.unwrap().0).collect();
    assert_eq!(first, [5, 2, 2, 1, 5, 5, 5, 3, 3, 1, 1, 1, 2, 5, 3, 3]);
    let all: Vec<u8> = owners.iter().map(|chat| chat.unwrap().0 as u8).collect();
    assert_eq!(xxh3_64(&all), 10327616018867619540);

    let mut connectors = Connectors::default();
    connectors.update(Time::ZERO, &map_of(Role::Connector, 1..=3));
    let placed: Vec<_> = ["a", "room_1", "大厅", "", "pomelo"]
        .iter()
        .map(|name| connectors.ring.candidates(name.as_bytes()).next().unwrap().0)
        .collect();
    assert_eq!(placed, [2, 1, 1, 2, 2]);
}

#[test]
fn owners_share_the_shards_within_the_bound() {
    for count in 1..=24 {
        let owners = preferred(&map_of(Role::Chat, 1..=count));
        assert!(owners.iter().all(Option::is_some));
        let share = share(&owners);
        assert_eq!(share.len() as u64, count, "somebody got nothing");
        let most = *share.values().max().unwrap() as u64;
        assert!(most <= load_bound(1024, share.len()), "{count}: {most}");
    }
}

#[test]
fn few_shards_move_when_a_chat_comes_or_goes() {
    for count in 1..=24 {
        let before = preferred(&map_of(Role::Chat, 1..=count));
        let after = preferred(&map_of(Role::Chat, 1..=count + 1));
        let newcomer = Some(Incarnation(count + 1));
        let gained = after.iter().filter(|chat| **chat == newcomer).count() as u64;
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count() as u64;
        assert!(gained <= load_bound(1024, count as usize + 1));
        // Beside those of the newcomer, the bound makes a handful trade places.
        assert!(changed - gained <= 16, "{count}: {changed} and {gained}");
    }
}

#[test]
fn a_restarted_chat_takes_its_old_shards() {
    let before = map_of(Role::Chat, 1..=4);
    let mut after = before.clone();
    let mut back = after.nodes.remove(&Incarnation(2)).unwrap();
    back.incarnation = Incarnation(99);
    after.nodes.insert(back.incarnation, back);
    for (before, after) in preferred(&before).iter().zip(preferred(&after)) {
        match before {
            Some(Incarnation(2)) => assert_eq!(after, Some(Incarnation(99))),
            Some(_) | None => assert_eq!(after, *before),
        }
    }
}

#[test]
fn chats_that_take_no_work_are_no_owners() {
    let mut map = map_of(Role::Chat, 1..=3);
    map.nodes.get_mut(&Incarnation(1)).unwrap().draining = true;
    map.nodes.get_mut(&Incarnation(2)).unwrap().ready = false;
    let owners = preferred(&map);
    assert!(owners.iter().all(|chat| *chat == Some(Incarnation(3))));
    map.nodes.clear();
    assert!(preferred(&map).iter().all(Option::is_none));
}

#[test]
fn one_room_stays_together_until_its_connector_is_full() {
    let mut connectors = Connectors::default();
    let mut map = map_of(Role::Connector, 1..=4);
    for node in map.nodes.values_mut() {
        node.load = 100;
    }
    connectors.update(Time::ZERO, &map);
    let first = connectors.place(Time::ZERO, "room_1").unwrap();
    let mut together = 1;
    while connectors.place(Time::ZERO, "room_1") == Some(first) {
        together += 1;
    }
    // The bound over the 400 there were, and those placed since.
    assert!((25..40).contains(&together), "{together}");
}

#[test]
fn a_burst_spreads_before_anything_is_reported() {
    let mut connectors = Connectors::default();
    connectors.update(Time::ZERO, &map_of(Role::Connector, 1..=5));
    let mut held: BTreeMap<Incarnation, u64> = BTreeMap::new();
    for total in 1..=1000 {
        let connector = connectors.place(Time::ZERO, "everybody").unwrap();
        let count = held.entry(connector).or_default();
        *count += 1;
        assert!(*count <= load_bound(total, 5));
    }
}

#[test]
fn placed_sessions_count_until_they_are_reported_or_overdue() {
    let mut connectors = Connectors::default();
    let mut map = map_of(Role::Connector, 1..=1);
    connectors.update(Time::ZERO, &map);
    for _ in 0..10 {
        connectors.place(Time::ZERO, "a");
    }
    let load = |connectors: &Connectors| connectors.seats[&Incarnation(1)].load();
    assert_eq!(load(&connectors), 10);

    map.nodes.get_mut(&Incarnation(1)).unwrap().load = 4;
    connectors.update(Time::ZERO + Duration::from_millis(500), &map);
    assert_eq!(load(&connectors), 10, "four arrived, six are on their way");

    // The same load again says nothing new; a smaller one says that somebody left.
    map.nodes.get_mut(&Incarnation(1)).unwrap().load = 3;
    connectors.update(Time::ZERO + Duration::from_millis(600), &map);
    assert_eq!(load(&connectors), 9);

    connectors.update(Time::ZERO + limits::PLACED_SESSION_EXPIRY, &map);
    assert_eq!(load(&connectors), 3, "the others never came");
}

#[test]
fn draining_connectors_get_nobody() {
    let mut connectors = Connectors::default();
    let mut map = map_of(Role::Connector, 1..=2);
    map.nodes.get_mut(&Incarnation(1)).unwrap().draining = true;
    connectors.update(Time::ZERO, &map);
    for _ in 0..20 {
        assert_eq!(connectors.place(Time::ZERO, "a"), Some(Incarnation(2)));
    }
    map.nodes.get_mut(&Incarnation(2)).unwrap().ready = false;
    connectors.update(Time::ZERO, &map);
    assert_eq!(connectors.place(Time::ZERO, "a"), None);
}
