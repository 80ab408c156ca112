//! A gate from its start to its end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use cluster::Timing;
use daemon::{Process, UsageError, net};
use frontend::{Frontend, Settings, Turns};
use model::{Rate, Role, limits};
use registry::{ClusterToken, EmbeddedServer, Registry};
use tokio::net::TcpListener;

use crate::{
    args::{Args, RegistryChoice},
    clients::Clients,
    count,
    entry::Entries,
    http,
    presence::Presence,
    web_root::WebRoot,
};

/// Over which time the clients that are connected are closed: they are few and soon gone.
const DRAIN_WINDOW: Duration = Duration::from_millis(500);

/// Arguments, checked.
#[derive(Clone, Debug)]
struct Config {
    registry: RegistryChoice,
    token: Option<ClusterToken>,
    settings: Settings,
    web_root: Option<WebRoot>,
}

impl Config {
    fn new(args: &Args) -> Result<Self, UsageError> {
        Ok(Self {
            registry: RegistryChoice::new(args.registry_listen, args.registry.as_deref()),
            token: registry::cluster_token(args.cluster_token.as_deref())?,
            settings: settings(args)?,
            web_root: args
                .web_root
                .as_deref()
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(WebRoot::new)
                .transpose()?,
        })
    }
}

fn settings(args: &Args) -> Result<Settings, UsageError> {
    let pomelo = Arc::new(args.pomelo.gate()?);
    let rate = Rate::even(args.entries_per_second);
    let turns = Turns::new("question", rate, limits::ENTRY_PATIENCE);
    let settings = Settings::new(session::Config { pomelo, ..session::Config::gate() });
    Ok(Settings { turns: Some(turns), ..settings })
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

    let page = args.web_listen.map(|address| bind_page(address, &config)).transpose()?;
    let frontend = Frontend::bind(args.listen, config.settings.clone())?;
    let registry = join_or_host(&process, &config)?;
    if let Some(page) = &page {
        process.announce("page", page.local_addr())?;
    }
    process.announce("client", frontend.local_addr())?;

    let presence = Presence::start(&process, registry);
    let entries = Entries::new(presence.map.clone());
    let mut handles = Vec::new();
    for frontend in [Some(frontend), page].into_iter().flatten() {
        handles.push(frontend.handle());
        spawn_frontend(&process, &config, frontend, entries.clone());
    }
    process.ready.started();

    process.stopped().await;
    // Who has asked and not yet gone on loses nothing: a client asks again.
    handles.iter().for_each(|handle| handle.drain(DRAIN_WINDOW));
    presence.leave().await;
    process.finish().await
}

/// A second port with all that the first one has: the page asks for its entry beside itself.
fn bind_page(address: SocketAddr, config: &Config) -> io::Result<Frontend> {
    Frontend::bind(address, config.settings.clone())
        .map_err(|error| net::explain(&error, address, "--web-listen"))
}

fn spawn_frontend(process: &Process, config: &Config, frontend: Frontend, entries: Entries) {
    let names = config.settings.session.names.clone();
    let own = net::loopback(frontend.local_addr()).ip();
    let router = http::router(entries.clone(), names, own, config.web_root.clone());
    let tasks = process.tasks.clone();
    process.tasks.spawn("frontend", async move {
        frontend.run(Clients { entries }, router, &tasks).await;
    });
}

/// The registry to join, hosted here if so configured.
fn join_or_host(process: &Process, config: &Config) -> anyhow::Result<Registry> {
    let address = match &config.registry {
        RegistryChoice::Join(url) => url.clone(),
        RegistryChoice::Host(listen) => {
            let _threads = process.vital_tasks().enter();
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
    let server =
        EmbeddedServer::start(Timing::default(), config.token.clone(), process.vital_tasks());
    let stop = process.stop.clone();
    process.vital_tasks().spawn("registry server", async move {
        if let Err(error) = server.serve(listener).await {
            stop.stop(daemon::Cause::Fatal(format!("the registry's port failed: {error}")));
        }
    });
}
