//! One message to many, over all connectors, and many at once.

use client::Transport;
use e2e::{Cluster, Crowd, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_room_hears_everything_in_one_order() {
    const MEMBERS: usize = 150;
    // Fewer deliveries to each than a server keeps for a slow reader: a busy machine may leave
    // one without its turn until all are there.
    const SENDS: usize = 3;
    const { assert!(MEMBERS * SENDS < model::limits::SESSION_QUEUE_ITEMS_MAX) };
    let cluster = Cluster::start("fan-out", Shape::new(3, 2)).await.unwrap();
    let mut crowd = Crowd::new(Transport::WebSocket);
    let connectors = cluster.connectors();
    let mut users = Vec::new();
    for number in 0..MEMBERS {
        let connector = connectors[number % connectors.len()];
        users.push(crowd.enter_at(connector, &format!("u{number}"), "hall").await.unwrap());
    }
    // All at once: what the connectors' sends race for is their place in the order.
    for _ in 0..SENDS {
        for user in &users {
            crowd.say(*user, "*").await.unwrap();
        }
    }
    let report = crowd.verdict().await;
    assert!(report.is_clean(), "{report}");
    assert!(crowd.refused().is_empty(), "{:?}", crowd.refused());
    assert!(crowd.lost().is_empty(), "{:?}", crowd.lost());
    assert_eq!(report.deliveries, (MEMBERS * MEMBERS * SENDS) as u64);
}
