//! The registry's side: a gRPC service around the [`Registrar`].

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use cluster::{
    ClusterMap, Join, MapDelta, Registrar, Timing,
    registrar::{Answer, CallId, Effect, Event, Refusal, StreamId},
};
use daemon::Tasks;
use futures_util::Stream;
use metrics::{counter, gauge};
use model::{Term, Time, limits};
use rpc::{
    pb,
    pb::registry_server::RegistryServer,
    registry::{self, Report},
    token::{ClusterToken, RequireToken},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, broadcast, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};

use super::feed::{Feed, Following, ORDERS_MAX, Order};
use crate::membership::count_claims;

/// The gRPC service of the registry, to be added to a server.
pub type EmbeddedService = InterceptedService<RegistryServer<Handler>, RequireToken>;

/// A registry in this process. Clones are the same registry.
#[derive(Clone)]
pub struct EmbeddedServer {
    shared: Arc<Shared>,
    token: Option<ClusterToken>,
    tasks: Tasks,
}

impl EmbeddedServer {
    /// Starts a registry with no memory; its settle time begins now.
    ///
    /// With a `token` every call must bring it.
    #[must_use]
    pub fn start(timing: Timing, token: Option<ClusterToken>, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared::new(timing));
        let ticker = Arc::clone(&shared);
        let cancelled = tasks.token();
        tasks.spawn("registry clock", async move {
            tokio::select! {
                () = ticker.tick() => {}
                () = cancelled.cancelled() => {}
            }
        });
        Self { shared, token, tasks: tasks.clone() }
    }

    /// The service, for a server that serves others too.
    #[must_use]
    pub fn service(&self) -> EmbeddedService {
        let handler = Handler { shared: Arc::clone(&self.shared), tasks: self.tasks.clone() };
        let server = RegistryServer::new(handler)
            .max_decoding_message_size(limits::REGISTRY_REPORT_BYTES_MAX);
        InterceptedService::new(server, RequireToken::new(self.token.clone()))
    }

    /// Serves on `listener` until the tasks are cancelled.
    ///
    /// # Errors
    ///
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        // The builder's own setting does nothing for a listener that is handed in, and without
        // it an answer waits 40 ms for an acknowledgement.
        self.serve_on(TcpIncoming::from(listener).with_nodelay(Some(true))).await
    }

    /// Serves whatever comes in, until the tasks are cancelled.
    ///
    /// # Errors
    ///
    /// If nothing more can come in.
    pub async fn serve_on<C>(
        self,
        incoming: impl Stream<Item = io::Result<C>>,
    ) -> Result<(), tonic::transport::Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
    {
        let timing = self.shared.timing;
        Server::builder()
            // Ends half-open connections. No faster than the lease, which decides who is dead.
            .http2_keepalive_interval(Some(timing.beat))
            .http2_keepalive_timeout(Some(timing.lease))
            .add_service(self.service())
            .serve_with_incoming_shutdown(incoming, self.tasks.token().cancelled_owned())
            .await
    }

    /// The registry's own map.
    #[must_use]
    pub fn map(&self) -> Arc<ClusterMap> {
        Arc::new(self.shared.lock().registrar.map().clone())
    }
}

// ---- the registrar and its effects

/// The registrar behind a lock that is held for one event and its effects, never across an await.
pub(super) struct Shared {
    timing: Timing,
    started: Instant,
    state: Mutex<State>,
    /// The registrar's next timeout has moved forward.
    sooner: Notify,
}

struct State {
    registrar: Registrar,
    changes: broadcast::Sender<Arc<MapDelta>>,
    streams: BTreeMap<StreamId, mpsc::Sender<Order>>,
    last_id: u64,
    /// When the clock's task wakes up.
    wakes_at: Option<Time>,
}

impl State {
    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn following(&self) -> Following {
        Following { map: Arc::new(self.registrar.map().clone()), changes: self.changes.subscribe() }
    }

    fn order(&self, stream: StreamId, order: Order) {
        // A stream that has ended needs no orders, and its queue is larger than their number.
        if let Some(orders) = self.streams.get(&stream) {
            let _ = orders.try_send(order);
        }
    }

    /// Applies one effect; an answer is handed back.
    fn apply(&self, effect: Effect) -> Option<Answer> {
        match effect {
            Effect::Welcome(stream) => self.order(stream, Order::Welcome),
            Effect::Follow(stream) => self.order(stream, Order::Follow(self.following())),
            Effect::Publish(delta) => {
                counter!("tangelo_registry_changes_total").increment(1);
                gauge!("tangelo_registry_nodes").set(self.registrar.map().nodes.len() as f64);
                // Nobody follows: nobody has to be told.
                let _ = self.changes.send(delta);
            }
            Effect::Departed(node, incarnation, reason) => {
                tracing::info!(%node, incarnation = incarnation.0, %reason, "node gone");
            }
            Effect::Dismiss(stream, reason) => self.order(stream, Order::Dismiss(reason)),
            // The answer to the call that opens the stream, see `Handler::join`.
            Effect::Refuse(..) => {}
            Effect::Close(stream) => self.order(stream, Order::Close),
            Effect::Answer(_, answer) => return Some(answer),
        }
        None
    }
}

impl Shared {
    fn new(timing: Timing) -> Self {
        let (changes, _) = broadcast::channel(limits::REGISTRY_CHANGES_MAX);
        let state = State {
            registrar: Registrar::new(Time::ZERO, timing, unix_micros()),
            changes,
            streams: BTreeMap::new(),
            last_id: 0,
            wakes_at: None,
        };
        Self { timing, started: Instant::now(), state: Mutex::new(state), sooner: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn following(&self) -> Following {
        self.lock().following()
    }

    /// Takes one event to the registrar and applies what follows from it.
    fn handle(&self, state: &mut State, event: Event) -> Option<Answer> {
        let now = Time::from_start(self.started.elapsed());
        let mut effects = Vec::new();
        state.registrar.handle(now, event, &mut effects);
        let mut answer = None;
        for effect in effects {
            answer = state.apply(effect).or(answer);
        }
        let next = state.registrar.poll_timeout();
        if next.is_some_and(|next| state.wakes_at.is_none_or(|wakes_at| next < wakes_at)) {
            self.sooner.notify_one();
        }
        answer
    }

    fn event(&self, event: Event) -> Option<Answer> {
        self.handle(&mut self.lock(), event)
    }

    /// Opens a stream, unless the node is refused.
    fn join(&self, join: Box<Join>) -> Result<(StreamId, mpsc::Receiver<Order>), Refusal> {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let node = join.node.clone();
        let mut state = self.lock();
        let stream = StreamId(state.id());
        state.streams.insert(stream, sender);
        let now = Time::from_start(self.started.elapsed());
        let back = join.map_version > 0;
        let mut effects = Vec::new();
        state.registrar.handle(now, Event::Joined { stream, join }, &mut effects);
        for effect in effects {
            if let Effect::Refuse(_, refusal) = effect {
                state.streams.remove(&stream);
                tracing::warn!(node = %node.id, reason = %refusal, "node refused");
                return Err(refusal);
            }
            if effect == Effect::Welcome(stream) {
                let incarnation = node.incarnation.0;
                tracing::info!(node = %node.id, role = %node.role, incarnation, back, "node live");
            }
            state.apply(effect);
        }
        drop(state);
        self.sooner.notify_one();
        Ok((stream, orders))
    }

    /// Lets the registrar's time pass.
    async fn tick(&self) {
        loop {
            let wakes_at = {
                let mut state = self.lock();
                let now = Time::from_start(self.started.elapsed());
                if state.registrar.poll_timeout().is_some_and(|at| at <= now) {
                    self.handle(&mut state, Event::Timeout);
                }
                state.wakes_at = state.registrar.poll_timeout();
                state.wakes_at
            };
            let due = async {
                match wakes_at {
                    Some(at) => sleep_until(self.started + at.since_start()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.sooner.notified() => {}
            }
        }
    }
}

/// Microseconds since 1970: above every term and version of an earlier registry, if the clock
/// has not gone back. If it has, what the nodes have seen is above.
fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX >> 2)
}

// ---- the service

/// Answers the calls of nodes.
pub struct Handler {
    shared: Arc<Shared>,
    tasks: Tasks,
}

type Updates = Pin<Box<dyn Stream<Item = Result<pb::MapUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl pb::registry_server::Registry for Handler {
    type JoinStream = Updates;

    async fn join(
        &self,
        request: Request<Streaming<pb::NodeReport>>,
    ) -> Result<Response<Updates>, Status> {
        let mut reports = request.into_inner();
        let first = timeout(self.shared.timing.call_timeout, reports.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no join in time"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("no join"))?;
        let Report::Join(join) = registry::read_report(first).map_err(invalid)? else {
            return Err(Status::invalid_argument("the first report must be a join"));
        };
        let (stream, orders) = self.shared.join(join).map_err(refused)?;
        let unheard = CancellationToken::new();
        let feed = Feed {
            stream,
            orders,
            shared: Arc::clone(&self.shared),
            cancelled: self.tasks.token(),
            _reader: unheard.clone().drop_guard(),
        };
        let reader = Reader { stream, reports, shared: Arc::clone(&self.shared) };
        let cancelled = self.tasks.token();
        self.tasks.spawn("registry stream", async move {
            tokio::select! {
                () = reader.run(&unheard) => {}
                () = cancelled.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(feed.into_stream())))
    }

    async fn claim(
        &self,
        request: Request<pb::ClaimRequest>,
    ) -> Result<Response<pb::ClaimAnswer>, Status> {
        let request = request.into_inner();
        let (incarnation, shards) = registry::read_claim_request(request).map_err(invalid)?;
        let mut state = self.shared.lock();
        let call = CallId(state.id());
        let floor = Term(unix_micros());
        let claim = Event::Claim { call, incarnation, shards, floor };
        match self.shared.handle(&mut state, claim) {
            Some(Answer::Claims(claims)) => {
                count_claims(&claims);
                Ok(Response::new(registry::write_claims(&claims)))
            }
            Some(Answer::Released | Answer::NotLive) | None => Err(not_live()),
        }
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseAnswer>, Status> {
        let request = request.into_inner();
        let (incarnation, shards) = registry::read_release(request).map_err(invalid)?;
        let mut state = self.shared.lock();
        let call = CallId(state.id());
        match self.shared.handle(&mut state, Event::Release { call, incarnation, shards }) {
            Some(Answer::Released) => Ok(Response::new(pb::ReleaseAnswer {})),
            Some(Answer::Claims(_) | Answer::NotLive) | None => Err(not_live()),
        }
    }
}

/// Reads one node's reports.
struct Reader {
    stream: StreamId,
    reports: Streaming<pb::NodeReport>,
    shared: Arc<Shared>,
}

impl Reader {
    async fn run(mut self, unheard: &CancellationToken) {
        let stream = self.stream;
        let end = loop {
            let report = tokio::select! {
                report = self.reports.message() => report,
                () = unheard.cancelled() => break Event::Broke { stream },
            };
            match report.map(|report| report.map(registry::read_report)) {
                Ok(Some(Ok(Report::Beat(state)))) => {
                    self.shared.event(Event::Beat { stream, state });
                }
                Ok(Some(Ok(Report::Leave))) => break Event::Left { stream },
                Ok(Some(Ok(Report::Join(_)) | Err(_))) => {
                    tracing::warn!(stream = stream.0, "stream closed: it makes no sense");
                    break Event::Broke { stream };
                }
                Ok(None) | Err(_) => break Event::Broke { stream },
            }
        };
        let mut state = self.shared.lock();
        self.shared.handle(&mut state, end);
        // Without its orders the feed ends, and with it the stream.
        state.streams.remove(&stream);
    }
}

fn invalid(error: rpc::convert::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Full => Status::resource_exhausted(refusal.to_string()),
        Refusal::Malformed => Status::invalid_argument(refusal.to_string()),
    }
}

fn not_live() -> Status {
    Status::failed_precondition("this node is not live here: join first")
}
