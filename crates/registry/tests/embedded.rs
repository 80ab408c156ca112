//! The embedded registry over real sockets.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod suite;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cluster::{ClusterMap, Gone, Lease, Member, Node, Timing};
use daemon::Tasks;
use model::{Incarnation, Role, Shard, Term};
use registry::{Config, ConfigError, EmbeddedServer, Registry};
use rpc::{
    pb,
    pb::registry_client::RegistryClient,
    registry::{Notice, Report, read_notice, write_report},
    token::ClusterToken,
};
use suite::{DEADLINE, all_at, claim, leased, node, seen, suite};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Short where a test waits for it, long where a busy machine must not fail it.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    beat: Duration::from_millis(100),
    after_break: Duration::from_millis(100),
    settle: Duration::from_millis(50),
    load_interval: Duration::from_millis(50),
    retry_max: Duration::from_millis(50),
    call_timeout: Duration::from_secs(5),
};

/// A registry that can be ended and started again at the same place.
struct Host {
    address: SocketAddr,
    tasks: Tasks,
    server: EmbeddedServer,
}

impl Host {
    async fn start(timing: Timing, token: Option<ClusterToken>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, timing, token)
    }

    fn on(listener: TcpListener, timing: Timing, token: Option<ClusterToken>) -> Self {
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let server = EmbeddedServer::start(timing, token, &tasks);
        let serving = server.clone();
        tasks.spawn("registry server", async move { serving.serve(listener).await.unwrap() });
        Self { address, tasks, server }
    }

    /// Ends it; all its memory is lost.
    async fn stop(self) -> SocketAddr {
        assert_eq!(self.tasks.drain(DEADLINE).await, Vec::<String>::new());
        self.address
    }

    async fn restart(self, timing: Timing) -> Self {
        let address = self.stop().await;
        Self::on(TcpListener::bind(address).await.unwrap(), timing, None)
    }

    fn registry(&self, timing: Timing) -> Registry {
        let config = Config { timing, ..Config::new(self.address.to_string()) };
        Registry::new(&config).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    suite(|| async {
        let host = Host::start(TIMING, None).await;
        (host.registry(TIMING), host.tasks)
    })
    .await;
}

#[test]
fn addresses_are_checked() {
    for good in ["127.0.0.1:3005", "http://gate:3005", "http://[::1]:3005"] {
        assert!(Registry::new(&Config::new(good)).is_ok(), "{good}");
    }
    let scheme = Registry::new(&Config::new("https://gate:3005")).unwrap_err();
    assert_eq!(scheme, ConfigError::Scheme("https://gate:3005".to_owned()));
    for bad in ["", "http://", "http://gate", "a b:1"] {
        let error = Registry::new(&Config::new(bad)).unwrap_err();
        assert_eq!(error, ConfigError::Address(bad.to_owned()));
    }
}

// ---- a registry that restarts

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_changes_nothing() {
    let timing = Timing { settle: Duration::from_millis(1500), ..TIMING };
    let host = Host::start(TIMING, None).await;
    let registry = host.registry(timing);
    let tasks = Tasks::new();
    let one = registry.join(node(Role::Chat, "chat-1"), &tasks).await;
    let two = registry.join(node(Role::Chat, "chat-2"), &tasks).await;
    let connector = registry.join(node(Role::Connector, "connector-1"), &tasks).await;
    claim(&one, all_at(0)[..500].to_vec()).await;
    claim(&two, all_at(0)[500..].to_vec()).await;
    let complete = |map: &ClusterMap| {
        map.nodes.len() == 3 && map.shards.iter().all(|shard| shard.owner.is_some())
    };
    for member in [&one, &two, &connector] {
        seen(member, |map| complete(map)).await;
    }
    let before = Arc::clone(&connector.map.borrow());

    // Whatever this node is shown from here on must be complete.
    let mut shown = connector.map.clone();
    shown.mark_unchanged();
    let token = tasks.token();
    let observer = {
        let before = Arc::clone(&before);
        async move {
            while let Some(Ok(())) = token.run_until_cancelled(shown.changed()).await {
                let map = shown.borrow_and_update();
                assert_eq!(map.nodes.keys().count(), 3, "somebody is missing");
                assert_eq!(map.shards, before.shards, "an owner has changed");
            }
        }
    };
    tasks.spawn("observer", observer);

    let host = host.restart(timing).await;
    for member in [&one, &two, &connector] {
        let newer = seen(member, |map| map.version > before.version).await;
        assert_eq!(newer.shards, before.shards);
        leased(member, Lease::Held).await;
    }
    let floor = before.shards.iter().map(|shard| shard.term).max().unwrap();
    let again = claim(&one, before.owned_by(one.incarnation()).collect()).await;
    assert_eq!(again.len(), 500);
    assert!(again.iter().all(|(_, term)| *term > floor), "terms grow across restarts");
    assert!(!tasks.have_failed());
    drop(host);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_died_in_between_is_replaced_after_the_settle_time() {
    let host = Host::start(TIMING, None).await;
    let registry = host.registry(TIMING);
    let (tasks, mortal) = (Tasks::new(), Tasks::new());
    let one = registry.join(node(Role::Chat, "chat-1"), &mortal).await;
    let two = registry.join(node(Role::Chat, "chat-2"), &tasks).await;
    claim(&one, all_at(0)).await;
    let before = seen(&two, |map| map.owned_by(one.incarnation()).count() == 1024).await;

    let address = host.stop().await;
    leased(&two, Lease::Silent).await;
    mortal.drain(DEADLINE).await;
    assert_eq!(two.map.borrow().shards, before.shards, "silence changes nothing");
    let listener = TcpListener::bind(address).await.unwrap();
    let _host = Host::on(listener, TIMING, None);
    let after = seen(&two, |map| map.version > before.version).await;
    let free = |shard| (after.ownership(shard).owner, after.ownership(shard).term);
    for shard in Shard::all() {
        assert_eq!(free(shard), (None, before.ownership(shard).term));
    }
    let seen_terms = Shard::all().map(|shard| (shard, after.ownership(shard).term)).collect();
    assert_eq!(claim(&two, seen_terms).await.len(), 1024);
}

// ---- nodes without our client

/// A node that says only what the test says.
struct Raw {
    reports: mpsc::Sender<pb::NodeReport>,
    notices: Streaming<pb::MapUpdate>,
}

impl Raw {
    async fn join(host: &Host, node: Node) -> Self {
        Self::say(host, Report::Join(Box::new(Member::new(node).join()))).await.unwrap()
    }

    async fn say(host: &Host, report: Report) -> Result<Self, tonic::Status> {
        let channel = Channel::from_shared(format!("http://{}", host.address)).unwrap();
        // A small window, so that not reading soon shows.
        let channel = channel.initial_stream_window_size(32 * 1024);
        let mut stub = RegistryClient::new(channel.connect().await.unwrap());
        let (reports, requests) = mpsc::channel(4);
        reports.try_send(write_report(report)).unwrap();
        let notices = stub.join(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { reports, notices })
    }

    async fn next(&mut self) -> Option<Notice> {
        let update = timeout(DEADLINE, self.notices.message()).await.expect("silence");
        update.ok().flatten().map(|update| read_notice(update).unwrap())
    }

    /// Reads to the end; the last word.
    async fn last(&mut self) -> Option<Notice> {
        let mut last = None;
        while let Some(notice) = self.next().await {
            last = Some(notice);
        }
        last
    }
}

#[tokio::test]
async fn a_silent_node_is_gone_and_is_told_again_and_again() {
    let timing = Timing { lease: Duration::from_millis(400), ..TIMING };
    let host = Host::start(timing, None).await;
    let silent = node(Role::Chat, "chat-1");
    let mut raw = Raw::join(&host, silent.clone()).await;
    assert_eq!(raw.next().await, Some(Notice::Welcome));
    assert_eq!(raw.last().await, Some(Notice::Gone(Gone::Silent)));
    assert!(host.server.map().nodes.is_empty());

    let mut raw = Raw::join(&host, silent.clone()).await;
    assert_eq!(raw.next().await, Some(Notice::Gone(Gone::Silent)));
    assert_eq!(raw.next().await, None);

    let membership = host.registry(timing).join(silent, &host.tasks).await;
    leased(&membership, Lease::Lost).await;
    assert_eq!(membership.gone(), Some(Gone::Silent));
    membership.leave().await;
}

#[tokio::test]
async fn a_node_that_breaks_and_comes_back_is_not_gone() {
    let timing = Timing { after_break: Duration::from_secs(20), ..TIMING };
    let host = Host::start(timing, None).await;
    let back = node(Role::Connector, "connector-1");
    let mut raw = Raw::join(&host, back.clone()).await;
    assert_eq!(raw.next().await, Some(Notice::Welcome));
    drop(raw);
    let mut raw = Raw::join(&host, back.clone()).await;
    assert_eq!(raw.next().await, Some(Notice::Welcome));
    assert!(host.server.map().nodes.contains_key(&back.incarnation));

    // A second stream while the first one lives: the first is closed, without a word.
    let mut second = Raw::join(&host, back.clone()).await;
    assert_eq!(second.next().await, Some(Notice::Welcome));
    assert!(matches!(raw.last().await, Some(Notice::Map(_))));
    assert!(host.server.map().nodes.contains_key(&back.incarnation));
}

#[tokio::test]
async fn nonsense_is_refused() {
    let host = Host::start(TIMING, None).await;
    let first_beat = Report::Beat(cluster::NodeState::default());
    let status = Raw::say(&host, first_beat).await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);

    let mut twice = Raw::join(&host, node(Role::Gate, "gate-1")).await;
    let again = Report::Join(Box::new(Member::new(node(Role::Gate, "gate-1")).join()));
    twice.reports.send(write_report(again)).await.unwrap();
    assert!(!matches!(twice.last().await, Some(Notice::Gone(_))), "just closed");
}

/// The stream's window fills up, changes go by, and the reader must still get it right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_a_snapshot() {
    let timing = Timing { lease: DEADLINE, ..TIMING };
    let host = Host::start(timing, None).await;
    let mut slow = Raw::join(&host, node(Role::Gate, "gate-1")).await;
    let chat = host.registry(timing).join(node(Role::Chat, "chat-1"), &host.tasks).await;
    leased(&chat, Lease::Held).await;
    // 25 of these fill the window of the stream, and 256 more the queue that readers share.
    let mut won = claim(&chat, all_at(0)[..64].to_vec()).await;
    for _ in 0..400 {
        won = claim(&chat, won).await;
    }
    let end = host.server.map();
    let mut map = ClusterMap::default();
    let (mut snapshots, mut deltas) = (0, 0);
    while map.version < end.version {
        match slow.next().await.expect("the stream has ended") {
            Notice::Welcome => {}
            Notice::Map(update) => {
                match update {
                    cluster::MapUpdate::Snapshot(_) => snapshots += 1,
                    cluster::MapUpdate::Delta(_) => deltas += 1,
                }
                map.apply(update).unwrap();
            }
            Notice::Gone(gone) => panic!("{gone}"),
        }
    }
    assert_eq!(map, *end);
    assert!(snapshots >= 2, "{snapshots} snapshots and {deltas} changes");
}

#[tokio::test]
async fn the_cluster_token_is_asked_for() {
    let token = |text| Some(ClusterToken::new(text).unwrap());
    let host = Host::start(TIMING, token("right")).await;
    let join = |token| {
        let config = Config { token, timing: TIMING, ..Config::new(host.address.to_string()) };
        let registry = Registry::new(&config).unwrap();
        let tasks = &host.tasks;
        async move { registry.join(node(Role::Chat, "chat-1"), tasks).await }
    };
    let (without, wrong) = (join(None).await, join(token("wrong")).await);
    let right = join(token("right")).await;
    leased(&right, Lease::Held).await;
    let one = vec![(Shard::new(0).unwrap(), Term(0))];
    assert!(wrong.claim(one.clone()).await.is_err());
    assert!(without.claim(one).await.is_err());
    for stranger in [without, wrong] {
        assert_eq!(*stranger.lease.borrow(), Lease::Silent);
    }
    let live: Vec<Incarnation> = host.server.map().nodes.keys().copied().collect();
    assert_eq!(live, [right.incarnation()]);
}
