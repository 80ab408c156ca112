//! A gate from its start to its end.

use anyhow::Context as _;
use cluster::Timing;
use daemon::{Process, UsageError, net};
use model::{NameRule, Role};
use registry::{ClusterToken, EmbeddedServer, Registry};
use tokio::net::TcpListener;

use crate::{
    args::{Args, RegistryChoice},
    count,
    entry::Entries,
    http,
    presence::Presence,
};

/// Arguments, checked.
#[derive(Clone, Debug)]
struct Config {
    registry: RegistryChoice,
    token: Option<ClusterToken>,
}

impl Config {
    fn new(args: &Args) -> Result<Self, UsageError> {
        let token = args.cluster_token.as_deref().filter(|token| !token.is_empty());
        let token = token.map(ClusterToken::new).transpose();
        Ok(Self {
            registry: RegistryChoice::new(args.registry_listen, args.registry.as_deref()),
            token: token.map_err(|error| UsageError(format!("--cluster-token: {error}")))?,
        })
    }
}

/// Runs a gate until it is asked to end.
///
/// # Errors
///
/// If an argument is wrong, an address cannot be had, or the gate cannot go on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::new(&args)?;
    let process = Process::start(Role::Gate, &args.common)?;
    count::describe();

    let clients = net::bind(args.listen, "--listen")?;
    let registry = join_or_host(&process, &config)?;
    let presence = Presence::start(&process, registry);
    let entries = Entries::new(presence.map.clone());
    let router = http::router(entries, NameRule::default());
    process.announce("client", clients.local_addr()?)?;
    serve(&process, clients, router);
    process.ready.started();

    process.stopped().await;
    // Others are told first, so that nobody counts on this gate while it ends.
    presence.leave().await;
    process.finish().await
}

/// The registry to join, hosted here if so configured.
fn join_or_host(process: &Process, config: &Config) -> anyhow::Result<Registry> {
    let address = match &config.registry {
        RegistryChoice::Join(url) => url.clone(),
        RegistryChoice::Host(listen) => {
            let listener = net::bind(*listen, "--registry-listen")?;
            let bound = listener.local_addr().context("the registry has no address")?;
            process.announce("registry", bound)?;
            host(process, config, listener);
            net::loopback(bound).to_string()
        }
    };
    let config = registry::Config { token: config.token.clone(), ..registry::Config::new(address) };
    Ok(Registry::new(&config).map_err(|error| UsageError(format!("--registry: {error}")))?)
}

fn host(process: &Process, config: &Config, listener: TcpListener) {
    let server = EmbeddedServer::start(Timing::default(), config.token.clone(), &process.tasks);
    let stop = process.stop.clone();
    process.tasks.spawn("registry server", async move {
        if let Err(error) = server.serve(listener).await {
            stop.stop(daemon::Cause::Fatal(format!("the registry's port failed: {error}")));
        }
    });
}

fn serve(process: &Process, clients: TcpListener, router: axum::Router) {
    let (stop, token) = (process.stop.clone(), process.tasks.token());
    process.tasks.spawn("clients", async move {
        tokio::select! {
            result = axum::serve(clients, router) => if let Err(error) = result {
                stop.stop(daemon::Cause::Fatal(format!("the client port failed: {error}")));
            },
            () = token.cancelled() => {}
        }
    });
}
