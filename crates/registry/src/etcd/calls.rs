//! Claims and releases.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cluster::{Claim, Mirror, Timing, mirror::Swapped};
use futures_util::future::join_all;
use model::{Incarnation, Role, Shard, Term, Time, limits};
use rpc::etcd::Etcd;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::Status;

use crate::{CallError, membership::count_claims};

/// Carries out claims and releases. Clones share what is known of etcd.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(super) incarnation: Incarnation,
    pub(super) role: Role,
    pub(super) timing: Timing,
    pub(super) shared: Arc<Shared>,
    /// Takes in nodes whose links were ended by their systems.
    pub(super) broken: mpsc::Sender<Incarnation>,
}

/// What is known of etcd; the locks are never held across an await.
pub(super) struct Shared {
    started: Instant,
    mirror: Mutex<Mirror>,
    /// The member that answered last.
    etcd: Mutex<Option<Etcd>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("etcd", &self.etcd).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(mirror: Mirror) -> Self {
        Self { started: Instant::now(), mirror: Mutex::new(mirror), etcd: Mutex::default() }
    }

    pub(super) fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// When a time of the mirror is.
    pub(super) fn instant(&self, time: Time) -> Instant {
        self.started + time.since_start()
    }

    pub(super) fn use_member(&self, etcd: Etcd) {
        *self.etcd.lock().unwrap_or_else(PoisonError::into_inner) = Some(etcd);
    }

    /// No member answers: whoever asks is told so at once.
    pub(super) fn forget_member(&self) {
        *self.etcd.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn member(&self) -> Option<Etcd> {
        self.etcd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What became of one transaction.
type Answer = Result<Result<Option<Swapped>, Status>, tokio::time::error::Elapsed>;

impl Calls {
    /// The member to ask, if this node can own anything.
    fn member(&self) -> Result<Etcd, CallError> {
        if self.role != Role::Chat || !self.shared.mirror().is_live() {
            return Err(CallError::NotLive);
        }
        self.shared.member().ok_or(CallError::Unknown)
    }

    /// Notes that the system of this node has ended a link. If many are noted at once some may be
    /// left out: the ends of their leases will tell.
    pub(crate) fn broken(&self, node: Incarnation) {
        let _ = self.broken.try_send(node);
    }

    /// Claims in transactions of a bounded size, side by side. What it does not mention has
    /// failed.
    pub(crate) async fn claim(&self, shards: &[(Shard, Term)]) -> Result<Vec<Claim>, CallError> {
        let etcd = self.member()?;
        let (mut claims, mut open) = (BTreeMap::new(), Vec::new());
        {
            let (mirror, now) = (self.shared.mirror(), self.shared.now());
            for (shard, seen) in shards {
                match mirror.claim(now, *shard, *seen) {
                    Ok(revision) => open.push((*shard, revision)),
                    Err(outcome) => drop(claims.insert(*shard, outcome)),
                }
            }
        }
        let batches: Vec<_> = open.chunks(limits::ETCD_TXN_OPS).collect();
        let asked = batches
            .iter()
            .map(|batch| timeout(self.timing.call_timeout, etcd.claim(self.incarnation, batch)));
        let mut failure = None;
        for (batch, answer) in batches.iter().zip(join_all(asked).await) {
            match judge(answer) {
                Ok(swapped) => {
                    let shards: Vec<_> = batch.iter().map(|(shard, _)| *shard).collect();
                    let answered = self.shared.mirror().claimed(&shards, swapped);
                    claims.extend(answered.into_iter().map(|claim| (claim.shard, claim.outcome)));
                }
                Err(error) => failure = Some(error),
            }
        }
        let in_order = shards.iter().filter_map(|(shard, _)| {
            claims.remove(shard).map(|outcome| Claim { shard: *shard, outcome })
        });
        let claims: Vec<_> = in_order.collect();
        count_claims(&claims);
        match failure {
            Some(error) if claims.is_empty() => Err(error),
            Some(_) | None => Ok(claims),
        }
    }

    pub(crate) async fn release(&self, shards: &[(Shard, Term)]) -> Result<(), CallError> {
        let etcd = self.member()?;
        let open: Vec<_> = {
            let mirror = self.shared.mirror();
            let owned = shards.iter().filter_map(|(shard, term)| {
                mirror.release(*shard, *term).map(|revision| (*shard, revision, *term))
            });
            owned.collect()
        };
        let batches: Vec<_> = open.chunks(limits::ETCD_TXN_OPS).collect();
        let asked = batches
            .iter()
            .map(|batch| timeout(self.timing.call_timeout, etcd.release(self.incarnation, batch)));
        let mut result = Ok(());
        for (batch, answer) in batches.iter().zip(join_all(asked).await) {
            match judge(answer) {
                Ok(swapped) => {
                    let shards: Vec<_> =
                        batch.iter().map(|(shard, _, term)| (*shard, *term)).collect();
                    self.shared.mirror().released(&shards, &swapped);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

fn judge(answer: Answer) -> Result<Swapped, CallError> {
    match answer {
        Ok(Ok(Some(swapped))) => Ok(swapped),
        Ok(Ok(None)) => Err(CallError::NotLive),
        Ok(Err(_)) | Err(_) => Err(CallError::Unknown),
    }
}
