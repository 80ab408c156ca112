//! The compose file that users start, in a real engine: scaled, chatted through, and hurt.
//!
//! Ignored in plain test runs, as it needs the image: `cargo xtask image compose`.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "compose/project.rs"]
mod project;
#[path = "compose/user.rs"]
mod user;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use client::{Client, Options, Push, Transport};
use project::Project;
use user::User;

/// Connectors at first, and after scaling out.
const CONNECTORS: usize = 3;
const CONNECTORS_SCALED: usize = 4;
/// Chats at first; one is killed.
const CHATS: usize = 2;
/// Rooms that people chat in while a chat dies: enough that it owns some of them.
const ROOMS: usize = 8;
/// Messages per room in that time.
const MESSAGES: usize = 20;
/// The message after which the chat is killed.
const KILL_AT: usize = 5;

#[test]
#[ignore = "needs a container engine and the image: cargo xtask image compose"]
fn the_compose_file_brings_up_a_cluster_that_scales_and_survives() {
    run("plain", &["docker-compose.yml"], scenario);
}

#[test]
#[ignore = "needs a container engine and the image: cargo xtask image compose"]
fn on_etcd_it_survives_the_loss_of_a_member_and_a_chat() {
    run("etcd", &["docker-compose.yml", "deploy/docker-compose.etcd.yml"], scenario_on_etcd);
}

fn run(
    name: &str,
    files: &'static [&'static str],
    scenario: impl AsyncFnOnce(&Project) -> anyhow::Result<()>,
) {
    let Some(project) = Project::new(name, files).unwrap() else {
        let required = std::env::var_os("TANGELO_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "no Docker engine with compose answers, and TANGELO_REQUIRE_ALL=1");
        eprintln!("skipped: compose: no Docker engine with compose answers");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(scenario(&project)) {
        eprintln!("{}", project.logs(60));
        panic!("{error:#}");
    }
}

/// The same cluster with three members of etcd as its registry.
async fn scenario_on_etcd(project: &Project) -> anyhow::Result<()> {
    project.up(2, CHATS)?;
    project.wait_healthy(3 + 1 + 2 + CHATS)?;
    let mut ports = project.connector_ports()?.into_iter();
    let (first, second) = (ports.next().context("a port")?, ports.next().context("a port")?);
    people_chat(project, first, second).await?;
    let mut rooms = Vec::new();
    for number in 0..ROOMS {
        rooms.push(Room::open(project, number, first, second).await?);
    }
    let member = project.containers("etcd-2")?.into_iter().next().context("a member of etcd")?;
    project.kill(&member).await?;
    a_chat_dies(project, &rooms).await?;
    for room in rooms {
        room.close().await?;
    }
    project.check_logs()
}

async fn scenario(project: &Project) -> anyhow::Result<()> {
    project.up(CONNECTORS, CHATS)?;
    project.wait_healthy(1 + CONNECTORS + CHATS)?;
    let published = project.connector_ports()?;
    ensure!(published.len() == CONNECTORS, "published: {published:?}");
    all_are_advertised(project, &published).await?;

    let mut ports = published.iter().copied();
    let (first, second) = (ports.next().context("a port")?, ports.next().context("a port")?);
    people_chat(project, first, second).await?;

    let mut rooms = Vec::new();
    for number in 0..ROOMS {
        rooms.push(Room::open(project, number, first, second).await?);
    }
    project.up(CONNECTORS_SCALED, CHATS)?;
    project.wait_healthy(1 + CONNECTORS_SCALED + CHATS)?;
    let scaled = project.connector_ports()?;
    ensure!(scaled.is_superset(&published), "scaling out moved ports: {published:?} to {scaled:?}");
    all_are_advertised(project, &scaled).await?;

    a_chat_dies(project, &rooms).await?;
    for room in rooms {
        room.close().await?;
    }
    project.check_logs()
}

/// Asks the gate about many rooms: it names each connector sooner or later, by the host through
/// which it was asked, and by the port that the engine published.
async fn all_are_advertised(project: &Project, published: &BTreeSet<u16>) -> anyhow::Result<()> {
    e2e::until("the gate names every connector", async || {
        let mut named = BTreeSet::new();
        for number in 0..64 {
            let path = format!("/entry?uid=u{number}&rid=room{number}");
            let answer = e2e::http::get(project.gate(), &path).await?;
            let entry: serde_json::Value = serde_json::from_str(&answer.body)
                .with_context(|| format!("{} {}", answer.status, answer.body))?;
            ensure!(entry["code"] == 200, "{entry}");
            ensure!(entry["host"] == project.gate().ip().to_string(), "{entry}");
            named.insert(entry["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
        }
        let expected: BTreeSet<Option<u16>> = published.iter().copied().map(Some).collect();
        ensure!(named == expected, "named: {named:?}, published: {expected:?}");
        Ok(())
    })
    .await
}

fn over(transport: Transport) -> Options {
    Options { transport, ..Options::default() }
}

/// One over WebSocket, one over raw TCP, on two connectors: everything that the application has.
async fn people_chat(project: &Project, first: u16, second: u16) -> anyhow::Result<()> {
    // The gate's own way, by the Pomelo protocol, leads to a connector too.
    let options = over(Transport::WebSocket);
    let entry = Client::query_entry(project.gate(), &options, "alice", Some("lobby")).await?;
    Client::connect((entry.host.as_str(), entry.port), &options).await?.close().await?;

    let mut alice = Client::connect(project.at(first), &options).await?;
    let mut bob = Client::connect(project.at(second), &over(Transport::Tcp)).await?;
    ensure!(alice.enter("alice", "lobby").await? == ["alice"]);
    let here: BTreeSet<String> = bob.enter("bob", "lobby").await?.into_iter().collect();
    ensure!(here == BTreeSet::from(["alice".to_owned(), "bob".to_owned()]), "{here:?}");
    expect(&mut alice, |push| matches!(push, Push::Add { user } if user == "bob")).await?;

    bob.send("*", "hello, 世界 😀").await?;
    for client in [&mut alice, &mut bob] {
        expect(client, |push| {
            matches!(push, Push::Chat { text, from, target }
                if text == "hello, 世界 😀" && from == "bob" && target == "*")
        })
        .await?;
    }
    alice.send("bob", "psst").await?;
    expect(
        &mut bob,
        |push| matches!(push, Push::Chat { text, from, .. } if text == "psst" && from == "alice"),
    )
    .await?;
    bob.close().await?;
    expect(&mut alice, |push| matches!(push, Push::Leave { user } if user == "bob")).await?;
    alice.close().await?;
    Ok(())
}

/// Waits for the one push that is due. Others of the same moment may come before it: one's own
/// entry, for some dialects.
async fn expect(client: &mut Client, is: impl Fn(&Push) -> bool) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    let wait = async {
        loop {
            let push = client.next_push().await?;
            if is(&push) {
                return anyhow::Ok(());
            }
            heard.push(push);
        }
    };
    match tokio::time::timeout(user::PATIENCE, wait).await {
        Ok(result) => result,
        Err(_) => bail!("waited in vain for a push; heard {heard:?}"),
    }
}

/// Two people in a room, on two connectors.
struct Room {
    alice: User,
    bob: User,
}

impl Room {
    async fn open(
        project: &Project,
        number: usize,
        first: u16,
        second: u16,
    ) -> anyhow::Result<Self> {
        let room = format!("room{number}");
        // Both transports see the chat die.
        let (one, two) = match number % 2 {
            0 => (Transport::WebSocket, Transport::Tcp),
            _ => (Transport::Tcp, Transport::WebSocket),
        };
        let enter = async |name: &str, port, transport| {
            let mut client = Client::connect(project.at(port), &over(transport)).await?;
            client.enter(name, &room).await?;
            anyhow::Ok(User::start(client))
        };
        Ok(Self { alice: enter("alice", first, one).await?, bob: enter("bob", second, two).await? })
    }

    async fn say(&self, number: usize) -> anyhow::Result<()> {
        // Both speak, so that each connector has sends that wait for an owner.
        let speaker = if number.is_multiple_of(2) { &self.alice } else { &self.bob };
        speaker.say("*", &format!("message {number}")).await
    }

    async fn close(self) -> anyhow::Result<()> {
        self.bob.close().await?;
        self.alice
            .until_heard("bob left", |heard| {
                heard.iter().any(|push| matches!(push, Push::Leave { user } if user == "bob"))
            })
            .await?;
        self.alice.close().await
    }
}

/// Kills a chat in the middle of conversations. Nobody is disconnected, every message is heard
/// once by everyone, in the same order.
async fn a_chat_dies(project: &Project, rooms: &[Room]) -> anyhow::Result<()> {
    let victim = project.containers("chat")?.into_iter().next().context("a chat")?;
    for number in 0..KILL_AT {
        for room in rooms {
            room.say(number).await?;
        }
    }
    // In each room somebody is speaking when it happens.
    let speak = async {
        let talks = rooms.iter().map(async |room| {
            for number in KILL_AT..MESSAGES {
                room.say(number).await?;
            }
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(talks).await
    };
    tokio::try_join!(speak, project.kill(&victim))?;

    let expected: BTreeMap<String, usize> =
        (0..MESSAGES).map(|number| (format!("message {number}"), 1)).collect();
    for room in rooms {
        let mut orders = Vec::new();
        for user in [&room.alice, &room.bob] {
            user.until_heard("all messages", |heard| texts(heard).len() >= MESSAGES).await?;
            let heard = texts(&user.heard());
            let mut counts = BTreeMap::new();
            for text in &heard {
                *counts.entry(text.clone()).or_insert(0) += 1;
            }
            ensure!(counts == expected, "lost or doubled: {heard:?}");
            orders.push(heard);
        }
        ensure!(orders[0] == orders[1], "two orders: {orders:?}");
    }
    Ok(())
}

fn texts(heard: &[Push]) -> Vec<String> {
    let text = |push: &Push| match push {
        Push::Chat { text, .. } => Some(text.clone()),
        Push::Add { .. } | Push::Leave { .. } | Push::Count { .. } | Push::Other { .. } => None,
    };
    heard.iter().filter_map(text).collect()
}
