//! The nodes: the registry, chats and connectors as their processes start them, each on a host of
//! the simulated network. When a life is given up by the registry, the next one begins, as a
//! supervisor would have it.

use std::{sync::Arc, time::Duration};

use chat::Chat;
use cluster::{ClientAddress, Lease, Node, Timing};
use connector::{Connector, Dialling, Setup};
use daemon::{Readiness, Tasks};
use frontend::Application;
use model::{NodeId, Role, limits};
use registry::{Config, EmbeddedServer, Membership, Registry};
use room::Duplicates;
use rpc::link::Hello;
use session::Config as Sessions;
use tokio::{sync::Notify, time::sleep};
use verify::sim::Random;
use wire::pomelo::Options;

use crate::{
    etcd,
    network::{Simulated, listen},
    plan::Kind,
    player::Player,
    world::World,
};

/// The host of the registry, or of etcd.
pub(crate) const REGISTRY: &str = "registry";
const REGISTRY_PORT: u16 = 3005;
const ETCD_PORT: u16 = 2379;
const LINK_PORT: u16 = 6050;
/// As many as a process has on a machine with two processors.
const WORKERS: usize = 2;
/// How long a supervisor takes.
const RESTART: Duration = Duration::from_millis(200);

/// The name of a chat's host, and of the chat.
pub(crate) fn chat_name(number: usize) -> String {
    format!("chat-{number}")
}

/// The name of a connector's host, and of the connector.
pub(crate) fn connector_name(number: usize) -> String {
    format!("connector-{number}")
}

/// Runs the registry until its host is crashed.
pub(crate) async fn registry(world: World) -> turmoil::Result {
    if world.mix.registry == Kind::Etcd {
        let store = Arc::clone(&world.store);
        return Ok(etcd::serve(store, listen(ETCD_PORT).await?).await?);
    }
    let server = EmbeddedServer::start(Timing::default(), None, &Tasks::new());
    Ok(server.serve_on(listen(REGISTRY_PORT).await?).await?)
}

/// Runs a chat, one life after the other. It gives all away and begins anew when it is told to
/// leave.
pub(crate) async fn chat(number: usize, leave: Arc<Notify>, world: World) -> turmoil::Result {
    let name = NodeId::new(&chat_name(number))?;
    loop {
        let (incarnation, tasks) = world.begin(&name);
        let chat = Chat::start(WORKERS, Duplicates::Reject, &tasks);
        let me = Hello { node: name.clone(), incarnation };
        let connections = listen(LINK_PORT).await?;
        let link = Some(format!("http://{name}:{LINK_PORT}"));
        let node = Node { link, ready: true, ..Node::new(name.clone(), incarnation, Role::Chat) };
        let membership = join(node, &world, &tasks).await?;
        chat.serve(&membership, me, None, connections);
        chat.keep_shards(&membership, &Readiness::new());
        tokio::select! {
            () = lost(&membership) => {}
            () = leave.notified() => chat.leave(&membership).await,
        }
        world.end(&name, &tasks).await;
        sleep(RESTART).await;
    }
}

/// Runs a connector, one life after the other, with whichever clients come.
pub(crate) async fn connector(number: usize, world: World) -> turmoil::Result {
    let name = NodeId::new(&connector_name(number))?;
    let options = Arc::new(Options::chat_connector());
    loop {
        let (incarnation, tasks) = world.begin(&name);
        let admissions = limits::ADMISSIONS_PER_SECOND;
        let setup = Setup { workers: WORKERS, admissions, writes_together: false };
        let connector = Connector::start(setup, incarnation, &options, &tasks);
        let client = Some(ClientAddress { host: None, port: 3050, admissions });
        let node = Node { client, ..Node::new(name.clone(), incarnation, Role::Connector) };
        let membership = join(node, &world, &tasks).await?;
        let me = Hello { node: name.clone(), incarnation };
        let dialer = Arc::new(Simulated::new(name.as_str(), &world.cuts));
        let dialling = Dialling { me, token: None, dialer };
        connector.follow(&membership, dialling, &Readiness::new());
        let random = Random::of(world.seed, !incarnation.0);
        let app = connector.application();
        tasks.spawn("door", door(name.clone(), app, tasks.clone(), Arc::clone(&world), random));
        lost(&membership).await;
        world.end(&name, &tasks).await;
        sleep(RESTART).await;
    }
}

/// Gives connections to clients that have none, until the node's life ends. A client comes to
/// whichever connector looks first: its own again, or another.
async fn door<A: Application>(
    host: NodeId,
    app: A,
    tasks: Tasks,
    world: World,
    mut random: Random,
) {
    let (sessions, end) = (Arc::new(Sessions::connector()), tasks.token());
    while !end.is_cancelled() {
        let next = world.state().next();
        if let Some(client) = next {
            let player = Player::connect(client, &sessions, &app, &world);
            tasks.spawn("player", player.play(host.clone(), end.clone()));
        }
        sleep(random.millis(10, 100)).await;
    }
}

async fn join(
    node: Node,
    world: &World,
    tasks: &Tasks,
) -> Result<Membership, registry::ConfigError> {
    let address = match world.mix.registry {
        Kind::Embedded => format!("http://{REGISTRY}:{REGISTRY_PORT}"),
        Kind::Etcd => format!("etcd://{REGISTRY}:{ETCD_PORT}"),
    };
    let dialer = Arc::new(Simulated::new(node.id.as_str(), &world.cuts));
    let config = Config { dialer, ..Config::new(address) };
    Ok(Registry::new(&config)?.join(node, tasks).await)
}

/// Waits until the registry gives this life up.
async fn lost(membership: &Membership) {
    let mut lease = membership.lease.clone();
    // Its tasks end with the life, never before.
    let _ = lease.wait_for(|lease| *lease == Lease::Lost).await;
    let why = membership.gone().map_or_else(String::new, |gone| gone.to_string());
    tracing::info!(why, "a life is given up");
}
