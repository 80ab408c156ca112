//! A crowd that comes at once, to connectors that let in a few at a time.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::{net::SocketAddr, time::Duration};

use client::{Client, Member, Options, Outcome, Seen, Transport};
use e2e::{Cluster, Shape};
use model::Role;
use tokio::{task::JoinSet, time::Instant};

/// Clients that each connector lets in per second.
const ADMISSIONS: u32 = 20;

async fn cluster(name: &str) -> Cluster {
    let args = ["--admissions-per-second".to_owned(), ADMISSIONS.to_string()];
    let shape = Shape { connector_args: args.to_vec(), ..Shape::new(2, 1) };
    Cluster::start(name, shape).await.unwrap()
}

async fn turns(cluster: &Cluster) -> f64 {
    cluster.metric_of(Role::Connector, "tangelo_client_turns_total").await.unwrap()
}

/// Whoever knows Tangelo is told when to come, comes then, and has missed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_are_told_when_come_back_by_turns() {
    const MEMBERS: u32 = 60;
    let cluster = cluster("storm-modern").await;
    let gate = cluster.gate().to_string();
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let enter = |number: u32| {
        let (gate, options) = (gate.clone(), options.clone());
        let (name, room) = (format!("u{number}"), format!("room{}", number % 6));
        async move { Member::enter(gate, &options, &name, &room).await.unwrap().0 }
    };
    let began = Instant::now();
    let members = (0..MEMBERS).map(enter).collect::<JoinSet<_>>().join_all().await;
    // Two connectors, and what each lets in at once.
    let least = Duration::from_secs(1) * (MEMBERS / 2 - ADMISSIONS / 10 - 4) / ADMISSIONS;
    assert!(began.elapsed() > least, "{:?}", began.elapsed());

    let come_back = |mut member: Member| async move {
        member.sever();
        loop {
            if let Seen::Back { outcome, .. } = member.next().await.unwrap() {
                return outcome;
            }
        }
    };
    let outcomes = members.into_iter().map(come_back).collect::<JoinSet<_>>().join_all().await;
    assert_eq!(outcomes, vec![Outcome::Resumed; MEMBERS as usize]);
    // The gate's slots have kept them apart, so that hardly one was sent away.
    let told = cluster.metric_of(Role::Gate, "tangelo_gate_slots_total").await.unwrap();
    assert!(told > f64::from(MEMBERS), "{told}");
}

/// Whoever knows no second try gets in by the first, and only waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_cannot_be_told_wait_and_get_in() {
    let cluster = cluster("storm-old").await;
    let enter = |connector: SocketAddr, number: u32| async move {
        let options = Options { transport: Transport::WebSocket, ..Options::default() };
        let mut client = Client::connect(connector, &options).await.unwrap();
        let users = client.enter(&format!("u{number}"), "room").await.unwrap();
        assert!(users.contains(&format!("u{number}")));
    };
    // As many as may wait; nobody has asked a gate.
    let connector = cluster.connectors()[0];
    let began = Instant::now();
    let entering: JoinSet<_> = (0..2 * ADMISSIONS).map(|number| enter(connector, number)).collect();
    entering.join_all().await;
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(turns(&cluster).await >= f64::from(ADMISSIONS), "{}", turns(&cluster).await);
}
