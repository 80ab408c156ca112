//! The registry on real processes of etcd (Debian: `etcd-server`).

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

#[path = "etcd/proxy.rs"]
mod proxy;
mod suite;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::{ClusterMap, Gone, Lease, Outcome, Ownership, Timing, mirror::What};
use daemon::Tasks;
use e2e::Etcd;
use model::{Role, Shard, Term};
use proxy::Proxy;
use registry::{CallError, Config, Membership, Registry};
use suite::{DEADLINE, all_at, claim, leased, node, seen, shard, suite};
use tonic::transport::Endpoint;

/// Short where a test waits for it, long where a busy machine must not fail it.
const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    beat: Duration::from_millis(200),
    after_break: Duration::from_secs(1),
    settle: Duration::from_millis(50),
    load_interval: Duration::from_millis(50),
    retry_max: Duration::from_millis(100),
    call_timeout: Duration::from_secs(1),
};

fn registry(address: &str, timing: Timing) -> Registry {
    Registry::new(&Config { timing, ..Config::new(address) }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let Some(etcd) = Etcd::start("registry-suite", 1).await.unwrap() else { return };
    // Each case has a part of etcd for itself.
    let cases = AtomicUsize::new(0);
    suite(|| async {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        (registry(&etcd.url(&format!("case-{case}")), TIMING), Tasks::new())
    })
    .await;
}

/// Two chats that own all shards, and a connector, whose maps must stay complete.
struct Cast {
    tasks: Tasks,
    one: Membership,
    two: Membership,
    connector: Membership,
    before: Arc<ClusterMap>,
}

impl Cast {
    async fn start(address: &str) -> Self {
        let (registry, tasks) = (registry(address, TIMING), Tasks::new());
        let one = registry.join(node(Role::Chat, "chat-1"), &tasks).await;
        let two = registry.join(node(Role::Chat, "chat-2"), &tasks).await;
        let connector = registry.join(node(Role::Connector, "connector-1"), &tasks).await;
        assert_eq!(claim(&one, all_at(0)[..500].to_vec()).await.len(), 500);
        // The last shards stay free.
        assert_eq!(claim(&two, all_at(0)[500..1020].to_vec()).await.len(), 520);
        let complete = |map: &ClusterMap| {
            map.nodes.len() == 3 && map.shards[..1020].iter().all(|shard| shard.owner.is_some())
        };
        for member in [&one, &two] {
            seen(member, |map| complete(map)).await;
        }
        let before = seen(&connector, |map| complete(map)).await;
        let cast = Self { tasks, one, two, connector, before };
        cast.observe();
        cast
    }

    fn all(&self) -> [&Membership; 3] {
        [&self.one, &self.two, &self.connector]
    }

    /// Whatever is shown from here on, nobody is missing and nothing has moved.
    fn observe(&self) {
        for member in self.all() {
            let (mut map, before) = (member.map.clone(), Arc::clone(&self.before));
            let (mut lease, token) = (member.lease.clone(), self.tasks.token());
            self.tasks.spawn("observer", async move {
                while !token.is_cancelled() {
                    {
                        let map = map.borrow_and_update();
                        assert!(before.nodes.keys().all(|node| map.nodes.contains_key(node)));
                        assert_eq!(map.shards[..1020], before.shards[..1020]);
                        assert_ne!(*lease.borrow_and_update(), Lease::Lost);
                    }
                    tokio::select! {
                        changed = map.changed() => if changed.is_err() { return },
                        changed = lease.changed() => if changed.is_err() { return },
                        () = token.cancelled() => {}
                    }
                }
            });
        }
    }

    async fn each(&self, lease: Lease) {
        for member in self.all() {
            leased(member, lease).await;
        }
    }

    /// A claim of a free shard is granted.
    async fn claims_work(&self) {
        let term = self.two.map.borrow().ownership(shard(1023)).term;
        let won = claim(&self.two, vec![(shard(1023), term)]).await;
        assert_eq!(won.len(), 1);
        assert!(won[0].1 > term);
        self.two.release(won.clone()).await.unwrap();
        let free = Ownership { owner: None, term: won[0].1 };
        seen(&self.two, |map| map.ownership(shard(1023)) == free).await;
    }

    async fn end(self) {
        assert!(!self.tasks.have_failed(), "an observer saw a change");
        self.tasks.drain(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_members_is_killed() {
    let Some(mut etcd) = Etcd::start("registry-three", 3).await.unwrap() else { return };
    let cast = Cast::start(&etcd.url("three")).await;
    let newcomers = registry(&etcd.url("three"), TIMING);
    for _ in 0..2 {
        // The one that leads: the worst.
        let leader = etcd.leader().await.unwrap();
        etcd.kill(leader);
        etcd.leader().await.unwrap();
        cast.claims_work().await;
        cast.each(Lease::Held).await;
        let newcomer = newcomers.join(node(Role::Gate, "gate-1"), &cast.tasks).await;
        leased(&newcomer, Lease::Held).await;
        seen(&cast.connector, |map| map.nodes.contains_key(&newcomer.incarnation())).await;
        newcomer.leave().await;
        etcd.start_all().await.unwrap();
    }
    cast.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_members_hangs() {
    let Some(etcd) = Etcd::start("registry-hang", 3).await.unwrap() else { return };
    let cast = Cast::start(&etcd.url("hang")).await;
    etcd.stop(etcd.leader().await.unwrap()).unwrap();
    etcd.leader().await.unwrap();
    cast.claims_work().await;
    cast.each(Lease::Held).await;
    // Longer than a lease.
    tokio::time::sleep(TIMING.lease + TIMING.lease / 2).await;
    cast.each(Lease::Held).await;
    cast.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_away_and_comes_back() {
    let Some(mut etcd) = Etcd::start("registry-away", 1).await.unwrap() else { return };
    let cast = Cast::start(&etcd.url("away")).await;
    etcd.kill_all();
    cast.each(Lease::Silent).await;
    let free = vec![(shard(1022), Term(0))];
    assert_eq!(cast.two.claim(free.clone()).await, Err(CallError::Unknown));
    // Longer than any lease.
    tokio::time::sleep(TIMING.lease * 2).await;
    etcd.start_all().await.unwrap();
    cast.each(Lease::Held).await;
    cast.claims_work().await;
    // Longer than it takes to declare anybody gone.
    tokio::time::sleep(TIMING.lease * 2).await;
    cast.each(Lease::Held).await;
    cast.end().await;
}

/// When etcd wakes up it ends all leases at once, as if every node had died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_sleeps_and_wakes_up() {
    let Some(etcd) = Etcd::start("registry-asleep", 3).await.unwrap() else { return };
    let cast = Cast::start(&etcd.url("asleep")).await;
    etcd.stop_all().unwrap();
    cast.each(Lease::Silent).await;
    tokio::time::sleep(TIMING.lease * 2).await;
    etcd.cont_all().unwrap();
    cast.each(Lease::Held).await;
    cast.claims_work().await;
    tokio::time::sleep(TIMING.lease * 2).await;
    cast.each(Lease::Held).await;
    cast.end().await;
}

/// What etcd has of signs of life.
async fn signs(etcd: &Etcd, name: &str) -> Vec<What> {
    let address = etcd.url(name);
    let (_, address) = address.split_once("://").unwrap();
    let (member, _) = address.split_once(['/', ',']).unwrap();
    let channel = Endpoint::new(format!("http://{member}")).unwrap().connect().await.unwrap();
    let store = rpc::etcd::Etcd::new(channel, rpc::etcd::Keyspace::new(name).unwrap());
    let stored = store.snapshot().await.unwrap().changes.into_iter().map(|change| change.what);
    stored.filter(|what| matches!(what, What::Alive(_) | What::Doubted(_))).collect()
}

/// Somebody says that its link to it broke: it is gone while its lease still runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_and_doubted_is_gone_before_its_lease_ends() {
    let Some(etcd) = Etcd::start("registry-doubt", 1).await.unwrap() else { return };
    let timing = Timing { lease: Duration::from_secs(8), ..TIMING };
    let (registry, tasks) = (registry(&etcd.url("doubt"), timing), Tasks::new());
    let witness = registry.join(node(Role::Connector, "connector-1"), &tasks).await;
    leased(&witness, Lease::Held).await;
    let victim = node(Role::Chat, "chat-1");
    let incarnation = victim.incarnation;
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    process.spawn(async move {
        let _membership = registry.join(victim, &Tasks::new()).await;
        std::future::pending::<()>().await;
    });
    seen(&witness, |map| map.nodes.contains_key(&incarnation)).await;
    // The witness has just joined, and the victim after it.
    process.shutdown_background();
    witness.link_broken(incarnation);
    seen(&witness, |map| !map.nodes.contains_key(&incarnation)).await;
    let signs = signs(&etcd, "doubt").await;
    assert!(signs.contains(&What::Doubted(incarnation)), "{signs:?}");
    tasks.drain(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_claims_before_the_settle_time() {
    let Some(mut etcd) = Etcd::start("registry-settle", 1).await.unwrap() else { return };
    let (timing, tasks) = (Timing { settle: DEADLINE, ..TIMING }, Tasks::new());
    let starting = registry(&etcd.url("settle"), TIMING);
    let owner = starting.join(node(Role::Chat, "chat-1"), &tasks).await;
    claim(&owner, vec![(shard(0), Term(0))]).await;

    // In a cluster that runs nobody waits.
    let one = vec![(shard(1), Term(0))];
    let registry = registry(&etcd.url("settle"), timing);
    let chat = registry.join(node(Role::Chat, "chat-2"), &tasks).await;
    leased(&chat, Lease::Held).await;
    let outcome = |claims: Vec<cluster::Claim>| claims.into_iter().next().unwrap().outcome;
    let won = outcome(chat.claim(one).await.unwrap());
    let Outcome::Won { term, .. } = won else { panic!("{won:?}") };

    etcd.kill_all();
    leased(&chat, Lease::Silent).await;
    etcd.start_all().await.unwrap();
    leased(&chat, Lease::Held).await;
    let free = outcome(chat.claim(vec![(shard(2), Term(0))]).await.unwrap());
    assert!(matches!(free, Outcome::Settling { .. }), "{free:?}");
    let own = outcome(chat.claim(vec![(shard(1), term)]).await.unwrap());
    assert!(matches!(own, Outcome::Won { .. }), "{own:?}");
    tasks.drain(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_died_while_etcd_was_away_is_replaced() {
    let Some(mut etcd) = Etcd::start("registry-died", 1).await.unwrap() else { return };
    let registry = registry(&etcd.url("died"), TIMING);
    let (tasks, mortal) = (Tasks::new(), Tasks::new());
    let one = registry.join(node(Role::Chat, "chat-1"), &mortal).await;
    let two = registry.join(node(Role::Chat, "chat-2"), &tasks).await;
    claim(&one, all_at(0)).await;
    let before = seen(&two, |map| map.owned_by(one.incarnation()).count() == 1024).await;
    etcd.kill_all();
    leased(&two, Lease::Silent).await;
    mortal.drain(DEADLINE).await;
    assert_eq!(two.map.borrow().shards, before.shards, "silence changes nothing");
    etcd.start_all().await.unwrap();
    let after = seen(&two, |map| !map.nodes.contains_key(&one.incarnation())).await;
    let free = |shard| (after.ownership(shard).owner, after.ownership(shard).term);
    for shard in Shard::all() {
        assert_eq!(free(shard), (None, before.ownership(shard).term));
    }
    let terms = Shard::all().map(|shard| (shard, after.ownership(shard).term)).collect();
    assert_eq!(claim(&two, terms).await.len(), 1024);
    tasks.drain(DEADLINE).await;
}

/// Others have acted on its absence, so it must not come back as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_learns_that_it_is_over() {
    let Some(etcd) = Etcd::start("registry-cut", 1).await.unwrap() else { return };
    let proxy = Proxy::start(etcd.client(0)).await;
    let tasks = Tasks::new();
    let near = registry(&etcd.url("cut"), TIMING);
    let far = registry(&proxy.url("cut"), TIMING);
    let stays = near.join(node(Role::Chat, "chat-1"), &tasks).await;
    let cut = far.join(node(Role::Chat, "chat-2"), &tasks).await;
    let won = claim(&cut, all_at(0)).await;
    let everything = |map: &Arc<ClusterMap>| map.owned_by(cut.incarnation()).count() == 1024;
    seen(&stays, everything).await;
    seen(&cut, everything).await;

    proxy.cut();
    leased(&cut, Lease::Silent).await;
    let map = seen(&stays, |map| !map.nodes.contains_key(&cut.incarnation())).await;
    assert!(map.shards.iter().all(|shard| shard.owner.is_none()));
    assert_eq!(claim(&stays, won).await.len(), 1024);
    assert!(everything(&cut.map.borrow().clone()), "silence changes nothing");
    proxy.mend();
    leased(&cut, Lease::Lost).await;
    assert_eq!(cut.gone(), Some(Gone::Silent));
    tasks.drain(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_what_is_forgotten_reads_everything_anew() {
    let Some(etcd) = Etcd::start("registry-compact", 1).await.unwrap() else { return };
    let proxy = Proxy::start(etcd.client(0)).await;
    // Its lease must outlive what the test does meanwhile.
    let (timing, tasks) = (Timing { lease: DEADLINE, ..TIMING }, Tasks::new());
    let far = registry(&proxy.url("compact"), timing);
    let behind = far.join(node(Role::Connector, "connector-1"), &tasks).await;
    let near = registry(&etcd.url("compact"), timing);
    let chat = near.join(node(Role::Chat, "chat-1"), &tasks).await;
    claim(&chat, all_at(0)).await;
    seen(&behind, |map| map.owned_by(chat.incarnation()).count() == 1024).await;

    proxy.cut();
    leased(&behind, Lease::Silent).await;
    let guest = near.join(node(Role::Gate, "gate-1"), &tasks).await;
    leased(&guest, Lease::Held).await;
    let again = vec![(shard(7), chat.map.borrow().ownership(shard(7)).term)];
    let won = claim(&chat, again).await;
    etcd.compact().await.unwrap();
    proxy.mend();
    let map = seen(&behind, |map| map.ownership(shard(7)).term == won[0].1).await;
    assert!(map.nodes.contains_key(&guest.incarnation()));
    leased(&behind, Lease::Held).await;
    tasks.drain(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_its_memory_is_not_believed() {
    let Some(mut etcd) = Etcd::start("registry-wiped", 1).await.unwrap() else { return };
    let cast = Cast::start(&etcd.url("wiped")).await;
    etcd.kill_all();
    cast.each(Lease::Silent).await;
    etcd.wipe(0).unwrap();
    etcd.start_all().await.unwrap();
    // Many tries.
    tokio::time::sleep(TIMING.lease).await;
    cast.each(Lease::Silent).await;
    cast.end().await;
}
