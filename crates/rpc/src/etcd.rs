//! etcd as the registry: what is asked of it and what it answers, in types of crate `cluster`.
//!
//! What is stored under which key is described in `proto/tangelo/v1/etcd.proto`; what follows from
//! it is decided by [`cluster::Mirror`]. Everything here is asked of one endpoint over one
//! connection; without an answer nobody waits but the caller.

mod keys;
mod ops;
pub mod pb;

use std::time::Duration;

use cluster::{
    Node,
    mirror::{Change, Doomed, Swapped},
};
use model::{Incarnation, Role, Shard, Term, limits};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

use keys::Key;
pub use keys::{BadName, Keyspace};
use pb::{kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient};

/// Requests waiting on a stream: one is under way at a time.
const REQUESTS_MAX: usize = 4;

/// One endpoint of etcd. Clones share its connection.
#[derive(Clone, Debug)]
pub struct Etcd {
    keys: Keyspace,
    kv: KvClient<Channel>,
    leases: LeaseClient<Channel>,
    watches: WatchClient<Channel>,
}

/// A lease of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId(i64);

/// Who answers, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The identity of the cluster of etcd.
    pub store: u64,
    /// Its revision.
    pub revision: u64,
}

/// Everything stored at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// Everything, as puts.
    pub changes: Vec<Change>,
}

impl Etcd {
    /// Speaks over this channel, and to keys of this cluster only.
    #[must_use]
    pub fn new(channel: Channel, keys: Keyspace) -> Self {
        let max = limits::ETCD_MESSAGE_BYTES_MAX;
        Self {
            keys,
            kv: KvClient::new(channel.clone()).max_decoding_message_size(max),
            leases: LeaseClient::new(channel.clone()),
            watches: WatchClient::new(channel).max_decoding_message_size(max),
        }
    }

    /// Asks who answers, in a way that only an endpoint can that hears a majority.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn greet(&self) -> Result<Greeting, Status> {
        let (key, _) = self.keys.all();
        let request = pb::RangeRequest { key, count_only: true, ..Default::default() };
        let answer = self.kv.clone().range(request).await?.into_inner();
        let header = header(answer.header)?;
        Ok(Greeting { store: header.cluster_id, revision: number(header.revision) })
    }

    /// Reads everything stored.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn snapshot(&self) -> Result<Snapshot, Status> {
        let (key, range_end) = self.keys.all();
        let request = pb::RangeRequest { key, range_end, ..Default::default() };
        let answer = self.kv.clone().range(request).await?.into_inner();
        let revision = number(header(answer.header)?.revision);
        let changes = answer.kvs.iter().filter_map(|kv| self.keys.read_put(kv));
        Ok(Snapshot { revision, changes: changes.collect() })
    }

    /// Makes a lease that ends when it is not prolonged for `ttl`, in whole seconds.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, Status> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = pb::LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX) };
        let answer = self.leases.clone().lease_grant(request).await?.into_inner();
        Ok(LeaseId(answer.id))
    }

    /// Opens the stream on which a lease is prolonged.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive, Status> {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let request = pb::LeaseKeepAliveRequest { id: lease.0 };
        // The server opens its half with the first answer.
        let _ = requests.try_send(request);
        let answers = self.leases.clone().lease_keep_alive(ReceiverStream::new(receiver)).await?;
        Ok(KeepAlive { lease, requests, answers: answers.into_inner() })
    }

    /// Puts a node's record and its sign of life, and removes the records of earlier lives.
    /// Answers the revision.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn enlist(
        &self,
        node: &Node,
        lease: LeaseId,
        former: &[(Role, Incarnation)],
    ) -> Result<u64, Status> {
        let mut success = self.presence(node, lease);
        let former = former.iter().take(limits::ETCD_TXN_OPS);
        success.extend(former.map(|(role, i)| ops::delete(self.keys.node(*role, *i))));
        let answer = self.txn(Vec::new(), success).await?;
        Ok(number(header(answer.header)?.revision))
    }

    /// Puts a node's record and its sign of life if its record is still there; the revision.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn enlist_again(&self, node: &Node, lease: LeaseId) -> Result<Option<u64>, Status> {
        let success = self.presence(node, lease);
        let answer = self.txn(vec![self.is_listed(node.role, node.incarnation)], success).await?;
        let revision = number(header(answer.header)?.revision);
        Ok(answer.succeeded.then_some(revision))
    }

    fn presence(&self, node: &Node, lease: LeaseId) -> Vec<pb::RequestOp> {
        let record = crate::registry::write_node(node).encode_to_vec();
        vec![
            ops::put(self.keys.node(node.role, node.incarnation), record, 0),
            ops::put(self.keys.alive(node.incarnation), keys::write_alive(), lease.0),
        ]
    }

    /// Puts a node's record anew, if it is still there.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn update(&self, node: &Node) -> Result<(), Status> {
        let record = crate::registry::write_node(node).encode_to_vec();
        let success = vec![ops::put(self.keys.node(node.role, node.incarnation), record, 0)];
        self.txn(vec![self.is_listed(node.role, node.incarnation)], success).await.map(drop)
    }

    /// Removes a node's record and sign of life, and ends its lease.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn withdraw(&self, node: &Node, lease: LeaseId) -> Result<(), Status> {
        let success = vec![
            ops::delete(self.keys.node(node.role, node.incarnation)),
            ops::delete(self.keys.alive(node.incarnation)),
        ];
        self.txn(Vec::new(), success).await?;
        let request = pb::LeaseRevokeRequest { id: lease.0 };
        self.leases.clone().lease_revoke(request).await.map(drop)
    }

    /// Doubts a node, if its sign of life is still the one of this revision.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn doubt(
        &self,
        node: Incarnation,
        revision: u64,
        by: Incarnation,
    ) -> Result<(), Status> {
        let compare = vec![ops::modified(self.keys.alive(node), revision)];
        let doubt = ops::put_again(self.keys.alive(node), keys::write_doubt(by));
        self.txn(compare, vec![doubt]).await.map(drop)
    }

    /// Puts a node's sign of life anew, under its lease, if its record is still there.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn answer_doubt(&self, node: &Node, lease: LeaseId) -> Result<(), Status> {
        let sign = ops::put(self.keys.alive(node.incarnation), keys::write_alive(), lease.0);
        self.txn(vec![self.is_listed(node.role, node.incarnation)], vec![sign]).await.map(drop)
    }

    /// Removes the records of nodes that have no sign of life at that moment, or still the doubt
    /// that they did not answer; says how many.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn remove(&self, nodes: &[Doomed]) -> Result<usize, Status> {
        let remove = |doomed: &Doomed| {
            let Doomed { role, node, doubt } = *doomed;
            let compare = vec![
                ops::modified(self.keys.alive(node), doubt.unwrap_or(0)),
                self.is_listed(role, node),
            ];
            ops::nested(compare, ops::delete(self.keys.node(role, node)), None)
        };
        let answer = self.txn(Vec::new(), nodes.iter().map(remove).collect()).await?;
        let answers = answer.responses.into_iter().filter_map(ops::nested_answer);
        Ok(answers.filter(|txn| txn.succeeded).count())
    }

    /// Claims shards whose entries are still at the revisions given; none if the claimant's
    /// record is not there.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn claim(
        &self,
        claimant: Incarnation,
        shards: &[(Shard, u64)],
    ) -> Result<Option<Swapped>, Status> {
        let value = keys::write_owner(claimant);
        self.swap(claimant, shards.iter().map(|(shard, at)| (*shard, *at, value.clone()))).await
    }

    /// Gives up shards, each owned at the revision and the term given.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn release(
        &self,
        owner: Incarnation,
        shards: &[(Shard, u64, Term)],
    ) -> Result<Option<Swapped>, Status> {
        let free = |(shard, at, term): &(Shard, u64, Term)| (*shard, *at, keys::write_free(*term));
        self.swap(owner, shards.iter().map(free)).await
    }

    async fn swap(
        &self,
        owner: Incarnation,
        shards: impl Iterator<Item = (Shard, u64, Vec<u8>)>,
    ) -> Result<Option<Swapped>, Status> {
        let (key, range_end) = self.keys.nodes(Role::Connector);
        let connectors = pb::RangeRequest { key, range_end, keys_only: true, ..Default::default() };
        let mut success = vec![ops::range(connectors)];
        for (shard, revision, value) in shards {
            let key = self.keys.shard(shard);
            let compare = vec![ops::modified(key.clone(), revision)];
            let entry = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
            success.push(ops::nested(compare, ops::put(key, value, 0), Some(ops::range(entry))));
        }
        // All but the connectors.
        let asked = success.len() - 1;
        let answer = self.txn(vec![self.is_listed(Role::Chat, owner)], success).await?;
        if !answer.succeeded {
            return Ok(None);
        }
        let revision = number(header(answer.header)?.revision);
        let mut responses = answer.responses.into_iter();
        let connectors = responses.next().map(ops::ranged).unwrap_or_default();
        let connectors = connectors.iter().filter_map(|kv| match self.keys.read(&kv.key) {
            Some(Key::Node(_, incarnation)) => Some(incarnation),
            Some(Key::Alive(_) | Key::Shard(_)) | None => None,
        });
        let swaps = responses.map(Keyspace::read_swap);
        let answer = Swapped { revision, connectors: connectors.collect(), swaps: swaps.collect() };
        let complete = answer.swaps.len() == asked;
        complete.then_some(Some(answer)).ok_or_else(|| Status::internal("half an answer"))
    }

    fn is_listed(&self, role: Role, node: Incarnation) -> pb::Compare {
        ops::created(self.keys.node(role, node), pb::compare::Result::Greater)
    }

    async fn txn(
        &self,
        compare: Vec<pb::Compare>,
        success: Vec<pb::RequestOp>,
    ) -> Result<pb::TxnResponse, Status> {
        let request = pb::TxnRequest { compare, success, failure: Vec::new() };
        Ok(self.kv.clone().txn(request).await?.into_inner())
    }

    /// Follows all changes from `revision` on.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn watch(&self, revision: u64) -> Result<Watch, Status> {
        let (key, range_end) = self.keys.all();
        let start_revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let create = pb::WatchCreateRequest { key, range_end, start_revision };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let (requests, receiver) = mpsc::channel(1);
        let _ = requests.try_send(pb::WatchRequest { request_union: Some(union) });
        let mut request = Request::new(ReceiverStream::new(receiver));
        // Without it a member that has lost the majority would keep silent and look idle.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let answers = self.watches.clone().watch(request).await?.into_inner();
        Ok(Watch { keys: self.keys.clone(), answers, _requests: requests })
    }
}

/// Prolongs one lease.
#[derive(Debug)]
pub struct KeepAlive {
    lease: LeaseId,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    /// Asks for more time; whether the request could be queued.
    #[must_use]
    pub fn ask(&self) -> bool {
        self.requests.try_send(pb::LeaseKeepAliveRequest { id: self.lease.0 }).is_ok()
    }

    /// Waits for the next answer: whether the lease runs.
    ///
    /// # Errors
    ///
    /// If the stream ends.
    ///
    /// # Cancel safety
    ///
    /// No answer is lost.
    pub async fn answer(&mut self) -> Result<bool, Status> {
        match self.answers.message().await? {
            Some(answer) => Ok(answer.ttl > 0),
            None => Err(Status::unavailable("the stream of the lease has ended")),
        }
    }
}

/// Follows changes.
#[derive(Debug)]
pub struct Watch {
    keys: Keyspace,
    answers: Streaming<pb::WatchResponse>,
    /// Held, because its end ends the watch.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// What has changed, in order; complete revisions.
    Changes(Vec<Change>),
    /// Some of what was to be told is no longer stored: only a snapshot helps.
    Compacted,
}

impl Watch {
    /// Waits for the next changes.
    ///
    /// # Errors
    ///
    /// If the watch ends.
    ///
    /// # Cancel safety
    ///
    /// No change is lost.
    pub async fn next(&mut self) -> Result<Watched, Status> {
        loop {
            let answer = self.answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the watch has ended"))?;
            if answer.compact_revision > 0 {
                return Ok(Watched::Compacted);
            }
            if answer.canceled {
                return Err(Status::unavailable(answer.cancel_reason));
            }
            let changes: Vec<_> =
                answer.events.iter().filter_map(|event| self.keys.read_event(event)).collect();
            if !changes.is_empty() {
                return Ok(Watched::Changes(changes));
            }
        }
    }
}

fn header(header: Option<pb::ResponseHeader>) -> Result<pb::ResponseHeader, Status> {
    header.ok_or_else(|| Status::internal("an answer without a header"))
}

/// etcd's numbers are signed, and none is negative.
fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
