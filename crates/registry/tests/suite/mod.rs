//! What every registry must do, whatever stands behind it.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{ClusterMap, Gone, Lease, Node, NodeState, Outcome, Ownership};
use daemon::Tasks;
use model::{Incarnation, NodeId, Role, Shard, Term};
use registry::{CallError, Membership, Registry};
use tokio::{sync::watch, time::timeout};

/// Long enough for any machine; nothing waits for it unless the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Runs every case on a registry of its own, which must be empty and must have settled when
/// its first claim is granted; claims are repeated until then.
pub(crate) async fn suite<F>(make_registry: impl Fn() -> F)
where
    F: Future<Output = (Registry, Tasks)>,
{
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            eprintln!("case {}", stringify!($case));
            let (registry, tasks) = make_registry().await;
            $case(&registry, &tasks).await;
            tasks.drain(DEADLINE).await;
        )*};
    }
    cases![
        nodes_see_each_other,
        states_travel,
        a_claim_names_the_connectors,
        a_shard_is_won_once,
        terms_grow,
        a_leave_frees_the_shards_at_once,
        a_killed_process_is_gone,
        a_node_that_lives_may_be_doubted,
        a_process_that_slept_learns_that_it_is_over,
        a_process_whose_beats_have_a_thread_may_be_busy,
        a_restarted_process_replaces_its_former_life,
        a_node_that_does_not_read_stays,
        strangers_claim_nothing,
    ];
}

// ---- helpers

pub(crate) fn node(role: Role, name: &str) -> Node {
    static LAST: AtomicU64 = AtomicU64::new(0);
    Node {
        link: (role == Role::Chat).then(|| "http://127.0.0.1:6050".to_owned()),
        ..Node::new(
            NodeId::new(name).unwrap(),
            Incarnation(LAST.fetch_add(1, Ordering::Relaxed) + 1),
            role,
        )
    }
}

pub(crate) async fn seen(
    membership: &Membership,
    what: impl FnMut(&Arc<ClusterMap>) -> bool,
) -> Arc<ClusterMap> {
    changed(&membership.map, what).await
}

pub(crate) async fn leased(membership: &Membership, lease: Lease) {
    changed(&membership.lease, |now| *now == lease).await;
}

async fn changed<T: Clone>(value: &watch::Receiver<T>, what: impl FnMut(&T) -> bool) -> T {
    let mut value = value.clone();
    let found = timeout(DEADLINE, value.wait_for(what)).await;
    found.expect("not seen in time").expect("nobody tells any more").clone()
}

pub(crate) fn shard(number: u16) -> Shard {
    Shard::new(number).unwrap()
}

/// Claims until the registry has settled; the terms of what was won.
pub(crate) async fn claim(
    membership: &Membership,
    shards: Vec<(Shard, Term)>,
) -> Vec<(Shard, Term)> {
    let claims = async {
        loop {
            let claims = membership.claim(shards.clone()).await;
            let settling = |claims: &Vec<cluster::Claim>| {
                claims.iter().any(|claim| matches!(claim.outcome, Outcome::Settling { .. }))
            };
            match claims {
                Ok(claims) if !settling(&claims) => return claims,
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let claims = timeout(DEADLINE, claims).await.expect("not settled in time");
    let won = claims.into_iter().filter_map(|claim| match claim.outcome {
        Outcome::Won { term, .. } => Some((claim.shard, term)),
        Outcome::Lost(_) | Outcome::Settling { .. } => None,
    });
    won.collect()
}

pub(crate) fn all_at(term: u64) -> Vec<(Shard, Term)> {
    Shard::all().map(|shard| (shard, Term(term))).collect()
}

// ---- cases

async fn nodes_see_each_other(registry: &Registry, tasks: &Tasks) {
    let mut members = Vec::new();
    for (role, name) in
        [(Role::Gate, "gate-1"), (Role::Connector, "connector-1"), (Role::Chat, "chat-1")]
    {
        members.push(registry.join(node(role, name), tasks).await);
    }
    for member in &members {
        leased(member, Lease::Held).await;
        let map = seen(member, |map| map.nodes.len() == 3).await;
        let names: BTreeSet<_> = map.nodes.values().map(|node| node.id.as_str()).collect();
        assert_eq!(names, ["chat-1", "connector-1", "gate-1"].into());
        assert_eq!(map.chats().count(), 1);
    }
}

async fn states_travel(registry: &Registry, tasks: &Tasks) {
    let one = registry.join(node(Role::Connector, "connector-1"), tasks).await;
    let two = registry.join(node(Role::Gate, "gate-1"), tasks).await;
    let state = |map: &ClusterMap| map.nodes.get(&one.incarnation()).map(Node::state);
    one.set_ready(true);
    seen(&two, |map| state(map).is_some_and(|state| state.ready)).await;
    one.set_load(7);
    seen(&two, |map| state(map).is_some_and(|state| state.load == 7)).await;
    one.set_draining(true);
    let end = NodeState { load: 7, ready: true, draining: true };
    seen(&two, |map| state(map) == Some(end)).await;
}

async fn a_claim_names_the_connectors(registry: &Registry, tasks: &Tasks) {
    let chat = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    let one = registry.join(node(Role::Connector, "connector-1"), tasks).await;
    let two = registry.join(node(Role::Connector, "connector-2"), tasks).await;
    seen(&chat, |map| map.nodes.len() == 3).await;
    claim(&chat, vec![(shard(0), Term(0))]).await;
    let map = seen(&chat, |map| map.owner(shard(0)).is_some()).await;
    let claims = chat.claim(vec![(shard(0), map.ownership(shard(0)).term)]).await.unwrap();
    let Outcome::Won { connectors, map_version, .. } = &claims[0].outcome else {
        panic!("{claims:?}");
    };
    let connectors: BTreeSet<_> = connectors.iter().copied().collect();
    assert_eq!(connectors, [one.incarnation(), two.incarnation()].into());
    seen(&chat, |map| map.version >= *map_version).await;
}

async fn a_shard_is_won_once(registry: &Registry, tasks: &Tasks) {
    let mut racers = Vec::new();
    for number in 1..=3 {
        let name = format!("chat-{number}");
        racers.push(registry.join(node(Role::Chat, &name), tasks).await);
    }
    let (a, b, c) = tokio::join!(
        claim(&racers[0], all_at(0)),
        claim(&racers[1], all_at(0)),
        claim(&racers[2], all_at(0)),
    );
    assert_eq!(a.len() + b.len() + c.len(), 1024);
    for (racer, won) in racers.iter().zip([a, b, c]) {
        let map = seen(racer, |map| map.shards.iter().all(|shard| shard.owner.is_some())).await;
        assert_eq!(map.owned_by(racer.incarnation()).collect::<Vec<_>>(), won);
    }
}

async fn terms_grow(registry: &Registry, tasks: &Tasks) {
    let one = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    let two = registry.join(node(Role::Chat, "chat-2"), tasks).await;
    let mut term = Term(0);
    for chat in [&one, &two, &one, &two] {
        // A chat claims what it sees free itself.
        let free = Ownership { owner: None, term };
        seen(chat, |map| map.ownership(shard(9)) == free).await;
        let won = claim(chat, vec![(shard(9), term)]).await;
        assert!(won[0].1 > term);
        let stale = claim(chat, vec![(shard(9), term)]).await;
        assert_eq!(stale, [], "this term is over");
        term = won[0].1;
        chat.release(won.clone()).await.unwrap();
        // A repeated release hurts nobody.
        chat.release(won).await.unwrap();
    }
    seen(&one, |map| map.ownership(shard(9)) == Ownership { owner: None, term }).await;
}

async fn a_leave_frees_the_shards_at_once(registry: &Registry, tasks: &Tasks) {
    let one = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    let two = registry.join(node(Role::Chat, "chat-2"), tasks).await;
    claim(&one, all_at(0)).await;
    seen(&two, |map| map.owned_by(one.incarnation()).count() == 1024).await;
    one.leave().await;
    assert_eq!(*one.lease.borrow(), Lease::Lost);
    assert_eq!(one.gone(), Some(Gone::Left));
    let map = seen(&two, |map| !map.nodes.contains_key(&one.incarnation())).await;
    assert_eq!(map.owned_by(one.incarnation()).count(), 0, "gone and owner in one version");
    assert!(map.shards.iter().all(|shard| shard.term > Term(0)));
}

async fn a_killed_process_is_gone(registry: &Registry, tasks: &Tasks) {
    let witness = registry.join(node(Role::Chat, "chat-2"), tasks).await;
    let victim = node(Role::Chat, "chat-1");
    let incarnation = victim.incarnation;
    let registry = registry.clone();
    let (sender, joined) = tokio::sync::oneshot::channel();
    // A runtime of its own: dropping it closes the sockets and says nothing, as a kill does.
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    process.spawn(async move {
        let membership = registry.join(victim, &Tasks::new()).await;
        claim(&membership, all_at(0)).await;
        let _ = sender.send(());
        std::future::pending::<()>().await;
    });
    joined.await.unwrap();
    seen(&witness, |map| map.owned_by(incarnation).count() == 1024).await;
    process.shutdown_background();
    let map = seen(&witness, |map| !map.nodes.contains_key(&incarnation)).await;
    assert_eq!(map.owned_by(incarnation).count(), 0);
    let terms: Vec<_> = Shard::all().map(|shard| (shard, map.ownership(shard).term)).collect();
    assert_eq!(claim(&witness, terms).await.len(), 1024);
}

/// Links break for other reasons than a death; whoever lives stays, however often it is doubted.
async fn a_node_that_lives_may_be_doubted(registry: &Registry, tasks: &Tasks) {
    let one = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    let two = registry.join(node(Role::Connector, "connector-1"), tasks).await;
    for member in [&one, &two] {
        seen(member, |map| map.nodes.len() == 2).await;
    }
    let started = tokio::time::Instant::now();
    // Longer than it takes to be a witness, and than a doubt may stand.
    while started.elapsed() < Duration::from_secs(6) {
        one.link_broken(two.incarnation());
        two.link_broken(one.incarnation());
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(one.map.borrow().nodes.len(), 2);
    }
    for member in [&one, &two] {
        assert_eq!(*member.lease.borrow(), Lease::Held);
        assert_eq!(member.map.borrow().nodes.len(), 2);
    }
}

async fn a_process_that_slept_learns_that_it_is_over(registry: &Registry, tasks: &Tasks) {
    let witness = registry.join(node(Role::Chat, "chat-2"), tasks).await;
    let sleeper = node(Role::Chat, "chat-1");
    let incarnation = sleeper.incarnation;
    let registry = registry.clone();
    let (sender, joined) = tokio::sync::oneshot::channel();
    let (wake, sleep) = std::sync::mpsc::channel();
    // One thread, which nothing else of the process can use while it is blocked.
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let membership = registry.join(sleeper, &Tasks::new()).await;
            claim(&membership, all_at(0)).await;
            let _ = sender.send(());
            sleep.recv().unwrap();
            leased(&membership, Lease::Lost).await;
            assert_eq!(membership.gone(), Some(Gone::Silent));
            assert!(membership.claim(all_at(0)).await.is_err());
        });
    });
    joined.await.unwrap();
    let map = seen(&witness, |map| map.owned_by(incarnation).count() == 1024).await;
    let terms: Vec<_> = map.owned_by(incarnation).collect();
    seen(&witness, |map| !map.nodes.contains_key(&incarnation)).await;
    assert_eq!(claim(&witness, terms).await.len(), 1024);
    wake.send(()).unwrap();
    tokio::task::spawn_blocking(|| process.join().unwrap()).await.unwrap();
}

async fn a_restarted_process_replaces_its_former_life(registry: &Registry, tasks: &Tasks) {
    let old = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    leased(&old, Lease::Held).await;
    claim(&old, vec![(shard(0), Term(0))]).await;
    let new = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    leased(&old, Lease::Lost).await;
    assert_eq!(old.gone(), Some(Gone::Replaced));
    let map = seen(&new, |map| map.nodes.contains_key(&new.incarnation())).await;
    assert_eq!(map.nodes.len(), 1);
    assert_eq!(map.ownership(shard(0)).owner, None);
    assert_eq!(old.claim(all_at(0)).await, Err(CallError::NotLive));
}

/// Nobody looks at this node's map, and it changes hundreds of times.
/// One process sleeps with its beats, one without. When the first is gone, the second is not.
async fn a_process_whose_beats_have_a_thread_may_be_busy(registry: &Registry, tasks: &Tasks) {
    let witness = registry.join(node(Role::Gate, "gate-1"), tasks).await;
    let runtimes = || tokio::runtime::Builder::new_multi_thread();
    let vitals = runtimes().worker_threads(1).enable_all().build().unwrap();
    let (asleep, busy) = (node(Role::Chat, "chat-1"), node(Role::Chat, "chat-2"));
    let (gone, stays) = (asleep.incarnation, busy.incarnation);
    let (registry, vital_tasks) = (registry.clone(), Tasks::new().on(vitals.handle().clone()));
    let (wake, sleep) = std::sync::mpsc::channel::<()>();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let asleep = registry.join(asleep, &Tasks::new()).await;
            let busy = registry.join(busy, &vital_tasks).await;
            leased(&asleep, Lease::Held).await;
            leased(&busy, Lease::Held).await;
            let _ = sleep.recv();
            assert_eq!(*busy.lease.borrow(), Lease::Held);
            vital_tasks.drain(DEADLINE).await;
        });
    });
    seen(&witness, |map| map.nodes.contains_key(&gone) && map.nodes.contains_key(&stays)).await;
    let map = seen(&witness, |map| !map.nodes.contains_key(&gone)).await;
    assert!(map.nodes.contains_key(&stays));
    drop(wake);
    tokio::task::spawn_blocking(move || process.join().unwrap()).await.unwrap();
    vitals.shutdown_background();
}

async fn a_node_that_does_not_read_stays(registry: &Registry, tasks: &Tasks) {
    let idle = registry.join(node(Role::Connector, "connector-1"), tasks).await;
    let chat = registry.join(node(Role::Chat, "chat-1"), tasks).await;
    seen(&chat, |map| map.nodes.len() == 2).await;
    let mut won = claim(&chat, vec![(shard(0), Term(0))]).await;
    for _ in 0..600 {
        won = claim(&chat, won).await;
    }
    let last = Ownership { owner: Some(chat.incarnation()), term: won[0].1 };
    let map = seen(&idle, |map| map.ownership(shard(0)) == last).await;
    assert!(map.nodes.contains_key(&idle.incarnation()));
    assert_eq!(*idle.lease.borrow(), Lease::Held);
}

async fn strangers_claim_nothing(registry: &Registry, tasks: &Tasks) {
    let gate = registry.join(node(Role::Gate, "gate-1"), tasks).await;
    leased(&gate, Lease::Held).await;
    assert_eq!(gate.claim(all_at(0)).await, Err(CallError::NotLive));
    assert_eq!(gate.release(all_at(0)).await, Err(CallError::NotLive));
}
