//! A chat, whatever process it is in.

use std::io;

use daemon::{Readiness, Tasks};
use futures_util::Stream;
use model::limits;
use registry::{ClusterToken, Membership};
use room::Duplicates;
use rpc::link::{Hello, Service};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use crate::{
    link,
    shards::{self, Keeper},
    worker::{self, Workers},
};

/// Links that are open but not yet in the hands of the workers.
const LINKS_WAITING_MAX: usize = 64;

/// A chat: serves links and owns rooms. Its tasks are those that it was started with, and it ends
/// with them.
///
/// A process has one. A simulation has several in one thread, on a network of its own.
#[derive(Clone, Debug)]
pub struct Chat {
    workers: Workers,
    tasks: Tasks,
}

impl Chat {
    /// Starts `workers` workers.
    #[must_use]
    pub fn start(workers: usize, duplicates: Duplicates, tasks: &Tasks) -> Self {
        Self { workers: worker::start(workers, duplicates, tasks), tasks: tasks.clone() }
    }

    /// Serves links as this member and as `me`, over whatever comes in, to connectors that bring
    /// `token`.
    pub fn serve<C>(
        &self,
        membership: &Membership,
        me: Hello,
        token: Option<ClusterToken>,
        connections: impl Stream<Item = io::Result<C>> + Send + 'static,
    ) where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (incoming, links) = mpsc::channel(LINKS_WAITING_MAX);
        let ended = self.tasks.token().cancelled_owned();
        let server = Service::transport().add_service(Service::server(me, token, incoming));
        let connections = Service::watched(connections);
        self.tasks.spawn("link server", async move {
            if let Err(error) = server.serve_with_incoming_shutdown(connections, ended).await {
                tracing::error!(%error, "the link server failed");
            }
        });
        let (membership, workers) = (membership.clone(), self.workers.clone());
        let links = link::accept(links, membership, workers, self.tasks.clone());
        self.tasks.spawn("links", links);
    }

    /// Claims shards as this member, and gives up what is another's.
    pub fn keep_shards(&self, membership: &Membership, ready: &Readiness) {
        let (workers, tasks) = (self.workers.clone(), self.tasks.clone());
        let keeper = Keeper::run(membership.clone(), workers, ready.clone(), tasks);
        self.tasks.spawn("shards", keeper);
    }

    /// Gives all shards away and leaves the cluster.
    pub async fn leave(&self, membership: &Membership) {
        membership.set_draining(true);
        shards::given_away(membership).await;
        // Connectors attach to the new owners before this end of their links goes.
        tokio::time::sleep(limits::ATTACH_RETRY).await;
        membership.leave().await;
    }
}
