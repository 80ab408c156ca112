//! How a connector that is asked to end sends its clients elsewhere.

use std::time::Duration;

use cluster::ClusterMap;
use model::{Incarnation, Role, limits};

/// The part of what the other connectors let in that a drain takes: the rest is for those who come
/// anyway, and for a drain that does not fall evenly on all of them.
const SHARE: u32 = 2;

/// Over how long to spread the ends of so many sessions, at most `longest`: at half the pace at
/// which the other connectors let clients in. If there are no others, waiting helps nobody.
pub(crate) fn window(
    sessions: u32,
    map: &ClusterMap,
    me: Incarnation,
    longest: Duration,
) -> Duration {
    let others = map
        .nodes
        .values()
        .filter(|node| node.role == Role::Connector && node.incarnation != me && node.takes_work());
    let admissions = others.filter_map(|node| node.client.as_ref()).map(|client| client.admissions);
    let pace = admissions.fold(0_u32, u32::saturating_add) / SHARE;
    let needed = match pace {
        0 => Duration::ZERO,
        pace => Duration::from_secs_f64(f64::from(sessions) / f64::from(pace)),
    };
    needed.max(limits::DRAIN_WINDOW_MIN).min(longest)
}

#[cfg(test)]
mod tests {
    use cluster::{ClientAddress, Node};
    use model::NodeId;

    use super::*;

    const ME: Incarnation = Incarnation(1);
    const LONGEST: Duration = limits::DRAIN_WINDOW_MAX;

    /// Connectors that let in 1,000 per second each, this one among them.
    fn connectors(count: u64) -> ClusterMap {
        let mut map = ClusterMap::default();
        for number in 1..=count {
            let name = NodeId::new(&format!("connector-{number}")).unwrap();
            let client = Some(ClientAddress { host: None, port: 3050, admissions: 1000 });
            let incarnation = Incarnation(number);
            let node = Node::new(name, incarnation, Role::Connector);
            map.nodes.insert(incarnation, Node { client, ready: true, ..node });
        }
        map
    }

    fn seconds(sessions: u32, map: &ClusterMap) -> u64 {
        window(sessions, map, ME, LONGEST).as_secs()
    }

    #[test]
    fn the_pace_is_half_of_what_the_others_let_in() {
        assert_eq!(seconds(10_000, &connectors(3)), 10);
        assert_eq!(seconds(10_000, &connectors(5)), 5);
        assert_eq!(seconds(10, &connectors(3)), 2, "never all at once");
        assert_eq!(seconds(1_000_000, &connectors(3)), 20, "never for ever");
        let half_a_second = Duration::from_millis(500);
        assert_eq!(window(10, &connectors(3), ME, half_a_second), half_a_second);
    }

    #[test]
    fn who_takes_nobody_does_not_count() {
        let mut map = connectors(3);
        let mut others = map.nodes.values_mut().skip(1);
        others.next().unwrap().draining = true;
        assert_eq!(seconds(5_000, &map), 10);
        assert_eq!(seconds(5_000, &connectors(1)), 2, "there is nobody to be spared");
        assert_eq!(seconds(5_000, &ClusterMap::default()), 2);
    }
}
