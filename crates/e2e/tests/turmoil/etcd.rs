//! An etcd in memory: as much of it as the registry asks for. What is stored outlives the process,
//! as it does on a disk; what is known of the time does not, so that all leases run anew from a
//! start on.

mod data;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use rpc::{
    ended::Watched,
    etcd::pb::{
        self, kv_server, kv_server::KvServer, lease_server, lease_server::LeaseServer,
        watch_server, watch_server::WatchServer,
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use turmoil::net::TcpStream;

use data::Data;

/// How often leases are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest lease, in seconds.
const TTL_MIN: i64 = 2;

/// What is stored.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Data>);

impl Store {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves it to whoever connects.
///
/// # Errors
///
/// If the connections do.
pub(crate) async fn serve(
    store: Arc<Store>,
    connections: impl Stream<Item = std::io::Result<Watched<TcpStream>>> + Send,
) -> Result<(), tonic::transport::Error> {
    let member = Member::new(store);
    let serving = Server::builder()
        .add_service(KvServer::new(member.clone()))
        .add_service(WatchServer::new(member.clone()))
        .add_service(LeaseServer::new(member.clone()))
        .serve_with_incoming(connections);
    tokio::select! {
        served = serving => served,
        () = member.end_leases() => Ok(()),
    }
}

/// One life of the process. Clones share it.
#[derive(Clone)]
struct Member {
    store: Arc<Store>,
    /// When leases end.
    ends: Arc<Mutex<BTreeMap<i64, Instant>>>,
    revision: watch::Sender<i64>,
}

impl Member {
    fn new(store: Arc<Store>) -> Self {
        let (revision, ends) = {
            let data = store.data();
            let ends = data.leases().map(|(lease, ttl)| (lease, end(ttl))).collect();
            (watch::Sender::new(data.revision()), Arc::new(Mutex::new(ends)))
        };
        Self { store, ends, revision }
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<i64, Instant>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes what is stored, and tells those who follow.
    fn with<T>(&self, act: impl FnOnce(&mut Data) -> T) -> T {
        let mut data = self.store.data();
        let answer = act(&mut data);
        let revision = data.revision();
        self.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        answer
    }

    /// Ends leases that were not prolonged, for ever.
    async fn end_leases(&self) {
        loop {
            sleep(LOOK).await;
            let now = Instant::now();
            let over: Vec<_> =
                self.ends().extract_if(.., |_, end| *end <= now).map(|(lease, _)| lease).collect();
            for lease in over {
                tracing::info!(lease, "etcd ends a lease");
                self.with(|data| data.revoke(lease));
            }
        }
    }

    /// Prolongs a lease: what is left of it, in seconds.
    fn prolong(&self, lease: i64) -> i64 {
        let Some(ttl) = self.store.data().ttl(lease) else { return 0 };
        self.ends().insert(lease, end(ttl));
        ttl
    }
}

fn end(ttl: i64) -> Instant {
    Instant::now() + Duration::from_secs(ttl.unsigned_abs())
}

#[tonic::async_trait]
impl kv_server::Kv for Member {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let data = self.store.data();
        let answer = data.range(request.get_ref());
        Ok(Response::new(pb::RangeResponse { header: Some(data.header()), ..answer }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.with(|data| {
            let answer = data.txn(request.get_ref())?;
            Ok(Response::new(pb::TxnResponse { header: Some(data.header()), ..answer }))
        })
    }
}

#[tonic::async_trait]
impl lease_server::Lease for Member {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let ttl = request.get_ref().ttl.max(TTL_MIN);
        let (id, header) = self.with(|data| (data.grant(ttl), data.header()));
        self.ends().insert(id, end(ttl));
        Ok(Response::new(pb::LeaseGrantResponse { header: Some(header), id, ttl }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let lease = request.get_ref().id;
        if self.ends().remove(&lease).is_none() {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        self.with(|data| data.revoke(lease));
        Ok(Response::new(pb::LeaseRevokeResponse {}))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let member = self.clone();
        let answers = request.into_inner().map(move |request| {
            let id = request?.id;
            let header = Some(member.store.data().header());
            Ok(pb::LeaseKeepAliveResponse { header, id, ttl: member.prolong(id) })
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[tonic::async_trait]
impl watch_server::Watch for Member {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.request_union);
        let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("etcdserver: no watch was asked for"));
        };
        let header = Some(self.store.data().header());
        let created = pb::WatchResponse { header, created: true, ..Default::default() };
        let told = (create.start_revision - 1).max(0);
        let follower = Follower {
            store: Arc::clone(&self.store),
            revision: self.revision.subscribe(),
            create,
            told,
        };
        let changes = futures_util::stream::unfold(follower, Follower::next);
        // The end of the requests ends the watch.
        let over = async move { while let Ok(Some(_)) = requests.message().await {} };
        let answers = futures_util::stream::once(async { Ok(created) }).chain(changes);
        Ok(Response::new(answers.take_until(over).boxed()))
    }
}

/// Whoever follows changes.
struct Follower {
    store: Arc<Store>,
    revision: watch::Receiver<i64>,
    create: pb::WatchCreateRequest,
    /// Up to which revision it was told.
    told: i64,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<pb::WatchResponse, Status>, Self)> {
        loop {
            let revision = *self.revision.wait_for(|known| *known > self.told).await.ok()?;
            let (events, header) = {
                let data = self.store.data();
                let pb::WatchCreateRequest { key, range_end, .. } = &self.create;
                (data.events(self.told, revision, key, range_end), data.header())
            };
            self.told = revision;
            if !events.is_empty() {
                let answer =
                    pb::WatchResponse { header: Some(header), events, ..Default::default() };
                return Some((Ok(answer), self));
            }
        }
    }
}
