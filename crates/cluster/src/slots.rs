//! When each client that is sent to a connector may come.

use std::{collections::BTreeMap, time::Duration};

use model::{Bucket, Incarnation, Rate, Role, Time, limits};

use crate::map::ClusterMap;

/// Gives every client a slot in the time of its connector, so that no more come than that one lets
/// in, however many ask at once. In peace the slot is now.
///
/// Gates do not talk to each other: each gives out its share of a connector's time. It remembers
/// one moment for each live connector.
#[derive(Debug, Default)]
pub struct Slots {
    booked: BTreeMap<Incarnation, (Rate, Bucket)>,
}

impl Slots {
    /// Follows the map.
    pub fn update(&mut self, map: &ClusterMap) {
        let gates = u32::try_from(map.of_role(Role::Gate).count()).unwrap_or(u32::MAX).max(1);
        self.booked.retain(|connector, _| map.nodes.contains_key(connector));
        for node in map.connectors() {
            let said = node.client.as_ref().map(|client| client.admissions);
            let admissions = said.filter(|it| *it > 0).unwrap_or(limits::ADMISSIONS_PER_SECOND);
            let share = Rate::even((admissions / gates).max(1));
            let (rate, _) = self.booked.entry(node.incarnation).or_insert((share, Bucket::FULL));
            *rate = share;
        }
    }

    /// Takes the next slot of a connector. Answers how long until then.
    ///
    /// # Errors
    ///
    /// If that is further away than [`limits::ADMISSION_DELAY_MAX`]: how far. None was taken.
    pub fn take(&mut self, now: Time, connector: Incarnation) -> Result<Duration, Duration> {
        match self.booked.get_mut(&connector) {
            Some((rate, bucket)) => bucket.book(now, *rate, limits::ADMISSION_DELAY_MAX),
            None => Ok(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;
    use crate::map::{ClientAddress, Node};

    fn node(number: u64, role: Role, admissions: u32) -> Node {
        Node {
            client: Some(ClientAddress { host: None, port: 3050, admissions }),
            ready: true,
            ..Node::new(NodeId::new(&format!("node-{number}")).unwrap(), Incarnation(number), role)
        }
    }

    fn map(nodes: impl IntoIterator<Item = Node>) -> ClusterMap {
        let nodes = nodes.into_iter().map(|node| (node.incarnation, node)).collect();
        ClusterMap { version: 1, nodes, ..ClusterMap::default() }
    }

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    const C1: Incarnation = Incarnation(1);
    const C2: Incarnation = Incarnation(2);

    #[test]
    fn in_peace_the_slot_is_now() {
        let mut slots = Slots::default();
        slots.update(&map([node(1, Role::Connector, 100)]));
        for number in 0..1000 {
            assert_eq!(slots.take(at(number * 10), C1), Ok(Duration::ZERO));
        }
        assert_eq!(slots.take(at(0), C2), Ok(Duration::ZERO), "an unknown one has all its time");
    }

    #[test]
    fn a_storm_is_spread_over_the_time_of_each_connector() {
        let mut slots = Slots::default();
        slots.update(&map([node(1, Role::Connector, 100), node(2, Role::Connector, 1000)]));
        let slots_of = |slots: &mut Slots, connector| -> Vec<u64> {
            let waits = (0..1000).map(|_| slots.take(at(0), connector).unwrap());
            waits.map(|wait| u64::try_from(wait.as_millis()).unwrap()).collect()
        };
        let first = slots_of(&mut slots, C1);
        assert!(first.is_sorted() && first[..10] == [0; 10]);
        assert_eq!(first[999], 9_900);
        assert_eq!(slots_of(&mut slots, C2)[999], 900);
        assert_eq!(slots.take(at(20_000), C1), Ok(Duration::ZERO), "it has passed");
    }

    #[test]
    fn nobody_is_given_a_slot_too_far_away() {
        let mut slots = Slots::default();
        slots.update(&map([node(1, Role::Connector, 10)]));
        let taken = (0..10_000).filter(|_| slots.take(at(0), C1).is_ok()).count();
        assert_eq!(taken, 301);
        assert!(slots.take(at(0), C1).is_err());
    }

    #[test]
    fn gates_share_and_what_is_gone_is_forgotten() {
        let mut slots = Slots::default();
        let gates = [node(8, Role::Gate, 0), node(9, Role::Gate, 0)];
        slots.update(&map([node(1, Role::Connector, 100)].into_iter().chain(gates)));
        let last = (0..101).map(|_| slots.take(at(0), C1).unwrap()).last().unwrap();
        assert_eq!(last, Duration::from_millis(1920), "at half the rate");
        let gates = [node(8, Role::Gate, 0), node(9, Role::Gate, 0)];
        slots.update(&map([node(2, Role::Connector, 1)].into_iter().chain(gates)));
        assert_eq!(slots.booked.len(), 1);
        let mut one = || slots.take(at(0), C2).unwrap();
        assert_eq!((one(), one()), (Duration::ZERO, Duration::from_secs(1)), "at least one");
    }
}
