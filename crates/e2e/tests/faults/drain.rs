//! A connector with very many sessions is asked to end.

use std::{net::IpAddr, sync::Arc, time::Duration};

use client::{Member, Options, Outcome, Seen, Transport};
use e2e::{Cluster, Shape};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::load::{Load, figure, figure_spread, gap_since, judge_undisturbed, resets};

/// Clients that may be on their way in at once.
const DOORS: usize = 64;
/// Source addresses: one may have 10,000 connections at one process.
const SOURCES: usize = 8;
/// How often clients show that they live: very many in one debug build must not do much else.
const HEARTBEAT: &str = "30s";

/// What somebody of the crowd has seen.
enum Told {
    In,
    Lost(Instant),
    Back { at: Instant, away: Duration, outcome: Outcome },
}

/// Somebody who is at the first connector, says nothing, and comes back when it is sent away.
async fn idle(
    cluster: (std::net::SocketAddr, String),
    number: usize,
    doors: Arc<Semaphore>,
    told: mpsc::Sender<Told>,
    mut end: watch::Receiver<bool>,
) {
    let (connector, gate) = cluster;
    let source = IpAddr::from([127, 0, 0, 1 + u8::try_from(number % SOURCES).unwrap()]);
    let options = Options { transport: Transport::Tcp, source: Some(source), ..Options::default() };
    let (name, room) = (format!("idle{number}"), format!("idle{}", number / 10));
    let door = doors.acquire().await.unwrap();
    let (mut member, _) = Member::enter_at(connector, gate, &options, &name, &room).await.unwrap();
    drop(door);
    told.send(Told::In).await.unwrap();
    let mut lost = Instant::now();
    while !*end.borrow_and_update() {
        tokio::select! {
            seen = member.next() => match seen.unwrap() {
                Seen::Push(_) => {}
                Seen::Lost => {
                    lost = Instant::now();
                    told.send(Told::Lost(lost)).await.unwrap();
                }
                Seen::Back { outcome, .. } => {
                    let at = Instant::now();
                    told.send(Told::Back { at, away: at - lost, outcome }).await.unwrap();
                }
            },
            changed = end.changed() => changed.unwrap(),
        }
    }
}

/// Its clients are sent away at the pace at which the others let them in; all come back, each once,
/// and those who talk at the others notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_connector_drains() {
    let load = Load::chosen();
    let args = ["--heartbeat", HEARTBEAT].map(str::to_owned).to_vec();
    let shape = Shape { connector_args: args, ..Shape::new(3, 3) };
    let mut cluster = Cluster::start("faults-full-drain", shape).await.unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut crowd = e2e::Crowd::new(Transport::Tcp);
    let connectors = cluster.connectors();
    for number in 0..60 {
        let (name, room) = (format!("u{number}"), format!("room{}", number % 12));
        crowd.enter_at(connectors[1 + number / 12 % 2], &name, &room).await.unwrap();
    }
    crowd.chatter(Some(Duration::from_millis(200)));

    let many = if load.full { 10_000 } else { 600 };
    let (doors, end) = (Arc::new(Semaphore::new(DOORS)), watch::Sender::new(false));
    let (told, mut hears) = mpsc::channel(many);
    let mut running = JoinSet::new();
    for number in 0..many {
        let at = (connectors[0], cluster.gate().to_string());
        running.spawn(idle(at, number, Arc::clone(&doors), told.clone(), end.subscribe()));
    }
    for _ in 0..many {
        assert!(matches!(hears.recv().await.unwrap(), Told::In), "nobody is sent away yet");
    }
    crowd.work(300).await.unwrap();

    let began = Instant::now();
    cluster.term("connector-1").unwrap();
    let (mut lost, mut back, mut resumed) = (Vec::new(), Vec::new(), 0);
    let mut away = Vec::new();
    let status = {
        let ended = cluster.ended("connector-1");
        tokio::pin!(ended);
        let mut status = None;
        while back.len() < many || status.is_none() {
            tokio::select! {
                ended = &mut ended, if status.is_none() => {
                    figure("drained after", format_args!("{:.2?}", began.elapsed()));
                    status = Some(ended.unwrap());
                }
                told = hears.recv() => match told.unwrap() {
                    Told::In => panic!("nobody new comes"),
                    Told::Lost(at) => lost.push(at - began),
                    Told::Back { at, away: span, outcome } => {
                        back.push(at - began);
                        away.push(span);
                        resumed += usize::from(outcome == Outcome::Resumed);
                    }
                },
            }
        }
        status.unwrap()
    };
    assert!(status.success(), "{status}");
    figure("sessions", many);
    figure_spread("sent away after", lost.clone());
    figure_spread("back after", back.clone());
    figure_spread("away for", away);
    figure("resumed", resumed);
    assert_eq!((lost.len(), back.len(), resumed), (many, many, many), "each once");
    figure("longest answer meanwhile", format_args!("{:.2?}", gap_since(&crowd, began)));
    end.send_replace(true);
    while let Some(gone) = running.join_next().await {
        gone.unwrap();
    }
    assert!(resets(&cluster).await < 1.0);
    judge_undisturbed(&crowd).await;
}
