//! Clients that are slow, and clients that want the same.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use client::{Client, Error, Options, Transport};
use e2e::{Cluster, Crowd, Shape};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::load::{Load, figure, figure_spread, judge_undisturbed};

/// Races under way at once.
const RACES_AT_ONCE: usize = 32;
/// How long somebody of a great crowd may try to come in.
const COME_PATIENCE: Duration = Duration::from_secs(180);

/// Two connections at two connectors want one name at the same time: exactly one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_wanted_twice_is_had_once() {
    let load = Load::chosen();
    let cluster = Cluster::start("faults-race", Shape::new(2, 2)).await.unwrap();
    let connectors = cluster.connectors();
    let races = if load.full { 10_000 } else { 300 };
    let mut running = JoinSet::new();
    let mut winners = [0, 0];
    for number in 0..races {
        if running.len() == RACES_AT_ONCE {
            winners[running.join_next().await.unwrap().unwrap()] += 1;
        }
        running.spawn(race(connectors[0], connectors[1], number));
    }
    while let Some(winner) = running.join_next().await {
        winners[winner.unwrap()] += 1;
    }
    figure("races", races);
    figure("won by the one and the other", format_args!("{} and {}", winners[0], winners[1]));
}

/// Answers which of the two got in.
async fn race(one: SocketAddr, other: SocketAddr, number: usize) -> usize {
    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let mut one = Client::connect(one, &options).await.unwrap();
    let mut other = Client::connect(other, &options).await.unwrap();
    let (name, room) = (format!("u{number}"), format!("race{}", number % 64));
    let (first, second) = tokio::join!(one.enter(&name, &room), other.enter(&name, &room));
    for users in [&first, &second].into_iter().flatten() {
        assert_eq!(users.iter().filter(|user| **user == name).count(), 1, "{users:?}");
    }
    let winner = match (first, second) {
        (Ok(_), Err(Error::Refused { .. })) => 0,
        (Err(Error::Refused { .. }), Ok(_)) => 1,
        both => panic!("race {number}: {both:?}"),
    };
    one.close().await.unwrap();
    other.close().await.unwrap();
    winner
}

/// One in twenty does not read. It is closed when its queue is full, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_harm_nobody_else() {
    let load = Load::chosen();
    let cluster = Cluster::start("faults-slow", Shape::new(1, 1)).await.unwrap();
    let mut crowd = Crowd::new(Transport::Tcp);
    // Long texts, so that what is not read fills the kernel's buffers soon.
    crowd.pad(if load.full { 2048 } else { 4096 });
    let (users, every, span) = if load.full {
        (100, Duration::from_millis(200), Duration::from_secs(20))
    } else {
        (20, Duration::from_millis(200), Duration::from_secs(5))
    };
    let connector = cluster.connectors()[0];
    for number in 0..users {
        crowd.enter_at(connector, &format!("u{number}"), "room").await.unwrap();
    }
    crowd.chatter(Some(every));
    crowd.work(100).await.unwrap();
    let began = Instant::now();
    sleep(span).await;
    figure_spread("answers without slow readers", answers(&crowd, began));
    let before = resident(&cluster);

    let options = Options { transport: Transport::Tcp, ..Options::default() };
    let mut slow = Vec::new();
    for number in 0..(users / 20).max(1) {
        let mut client = Client::connect(connector, &options).await.unwrap();
        client.enter(&format!("slow{number}"), "room").await.unwrap();
        slow.push(client);
    }
    let began = Instant::now();
    let mut peak = before;
    while began.elapsed() < span {
        sleep(span / 50).await;
        peak = peak.max(resident(&cluster));
    }
    figure_spread("answers with slow readers", answers(&crowd, began));
    figure("memory of the connector", format_args!("{before} MiB before, {peak} MiB at most"));
    let mut closed = 0;
    for client in &mut slow {
        closed += usize::from(ends(client).await);
    }
    figure("slow readers closed", format_args!("{closed} of {}", slow.len()));
    drop(slow);
    judge_undisturbed(&crowd).await;
}

/// Reads at last what was kept, and says whether the connection ends with it.
async fn ends(client: &mut Client) -> bool {
    let read_all = async { while client.next().await.is_ok() {} };
    // Whoever was not closed hears of the others for ever.
    tokio::time::timeout(Duration::from_secs(2), read_all).await.is_ok()
}

fn answers(crowd: &Crowd, since: Instant) -> Vec<Duration> {
    crowd.acked_since(since).iter().map(|acked| acked.after).collect()
}

/// Resident memory of the first connector, in MiB.
fn resident(cluster: &Cluster) -> u64 {
    let pid = cluster.node("connector-1").unwrap().pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}

/// A great crowd loses its connections and comes back, all in one moment. It is as great as one
/// process can play, in a debug build, without missing its own heartbeats; `tangelo storm` plays a
/// greater one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_comes_back_at_once() {
    let load = Load::chosen();
    let cluster = load.cluster("come-back").await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let people: usize = if load.full { 5_000 } else { 600 };
    let (gate, doors) = (cluster.gate(), Arc::new(Semaphore::new(128)));
    let phase = watch::Sender::new(Phase::Come);
    let (arrived, mut arrivals) = mpsc::channel(people);
    let mut running = JoinSet::new();
    for number in 0..people {
        let person = Person { gate, number, arrived: arrived.clone() };
        running.spawn(person.live(Arc::clone(&doors), phase.subscribe()));
    }
    let began = Instant::now();
    for _ in 0..people {
        arrivals.recv().await.unwrap();
    }
    figure("people", format_args!("{people}, in after {:.1?}", began.elapsed()));
    let began = Instant::now();
    phase.send_replace(Phase::ComeBack);
    let mut back = Vec::new();
    for _ in 0..people {
        arrivals.recv().await.unwrap();
        back.push(began.elapsed());
    }
    figure_spread("back after", back);
    phase.send_replace(Phase::Go);
    while let Some(gone) = running.join_next().await {
        gone.unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Come,
    ComeBack,
    Go,
}

/// One of a great crowd: comes, stays, comes back, stays, goes.
struct Person {
    gate: SocketAddr,
    number: usize,
    arrived: mpsc::Sender<()>,
}

impl Person {
    async fn live(self, doors: Arc<Semaphore>, mut phase: watch::Receiver<Phase>) {
        let door = doors.acquire().await.unwrap();
        let mut client = self.come().await;
        drop(door);
        self.arrived.send(()).await.unwrap();
        stay(&mut client, &mut phase).await;
        drop(client);
        let mut client = self.come().await;
        self.arrived.send(()).await.unwrap();
        stay(&mut client, &mut phase).await;
    }

    /// Tries until it is in: its name may still be taken by its former self.
    async fn come(&self) -> Client {
        let deadline = Instant::now() + COME_PATIENCE;
        // One address may have 10,000 connections at one process.
        let source = IpAddr::from([127, 0, 0, 1 + u8::try_from(self.number % 8).unwrap()]);
        let options =
            Options { transport: Transport::Tcp, source: Some(source), ..Options::default() };
        let (name, room) = (format!("u{}", self.number), format!("crowd{}", self.number / 10));
        loop {
            let entered = async {
                let entry = Client::query_entry(self.gate, &options, &name, Some(&room)).await?;
                let mut client = Client::connect((entry.host, entry.port), &options).await?;
                client.enter(&name, &room).await?;
                Ok::<_, Error>(client)
            };
            match entered.await {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("{name}: {error}"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// Listens until the next phase.
async fn stay(client: &mut Client, phase: &mut watch::Receiver<Phase>) {
    loop {
        tokio::select! {
            event = client.next() => drop(event.unwrap()),
            changed = phase.changed() => return changed.unwrap(),
        }
    }
}
