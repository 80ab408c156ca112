//! What an etcd stores, and what becomes of transactions.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;
use rpc::etcd::pb::{
    self, compare, event, request_op::Request as Op, response_op::Response as Done,
};
use tonic::Status;

/// The identity of the cluster.
const CLUSTER: u64 = 0x7a11_9e10;

/// What is stored.
#[derive(Debug)]
pub(super) struct Data {
    revision: i64,
    keys: BTreeMap<Bytes, Entry>,
    /// All changes ever, in order.
    history: Vec<pb::Event>,
    /// How long leases are, in seconds.
    leases: BTreeMap<i64, i64>,
    last_lease: i64,
}

#[derive(Clone, Debug)]
struct Entry {
    created: i64,
    modified: i64,
    value: Bytes,
    lease: i64,
}

impl Default for Data {
    fn default() -> Self {
        let (keys, history, leases) = Default::default();
        Self { revision: 1, keys, history, leases, last_lease: 0 }
    }
}

impl Data {
    pub(super) const fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) const fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: CLUSTER, revision: self.revision }
    }

    // ---- leases

    pub(super) fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(lease, ttl)| (*lease, *ttl))
    }

    pub(super) fn ttl(&self, lease: i64) -> Option<i64> {
        self.leases.get(&lease).copied()
    }

    pub(super) fn grant(&mut self, ttl: i64) -> i64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, ttl);
        self.last_lease
    }

    /// Ends a lease: its keys go, all at one revision.
    pub(super) fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let held = self.keys.iter().filter(|(_, entry)| entry.lease == lease);
        let keys: Vec<_> = held.map(|(key, _)| key.clone()).collect();
        let revision = self.revision + 1;
        for key in keys {
            self.delete(key, revision);
        }
    }

    // ---- keys

    pub(super) fn range(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        let pb::RangeRequest { key, range_end, keys_only, count_only } = request;
        let found: Vec<_> = self.between(key, range_end).collect();
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let kvs = found.into_iter().filter(|_| !count_only).map(|(key, entry)| pb::KeyValue {
            key: key.clone(),
            create_revision: entry.created,
            mod_revision: entry.modified,
            value: if *keys_only { Bytes::new() } else { entry.value.clone() },
        });
        pb::RangeResponse { header: None, kvs: kvs.collect(), count }
    }

    fn between(&self, from: &Bytes, end: &Bytes) -> impl Iterator<Item = (&Bytes, &Entry)> {
        let end = if end.is_empty() {
            Bound::Included(from.clone())
        } else {
            Bound::Excluded(end.clone().max(from.clone()))
        };
        self.keys.range((Bound::Included(from.clone()), end))
    }

    /// What has changed there after one revision, up to another.
    pub(super) fn events(
        &self,
        after: i64,
        upto: i64,
        from: &Bytes,
        end: &Bytes,
    ) -> Vec<pb::Event> {
        let revision = |event: &pb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let first = self.history.partition_point(|event| revision(event) <= after);
        let is_meant = |event: &&pb::Event| {
            let key = event.kv.as_ref().map(|kv| &kv.key);
            key.is_some_and(
                |key| if end.is_empty() { key == from } else { key >= from && key < end },
            )
        };
        let events = self.history[first..].iter().take_while(|event| revision(event) <= upto);
        events.filter(is_meant).cloned().collect()
    }

    fn put(&mut self, put: &pb::PutRequest, revision: i64) {
        let old = self.keys.get(&put.key);
        let created = old.map_or(revision, |entry| entry.created);
        let lease = if put.ignore_lease { old.map_or(0, |entry| entry.lease) } else { put.lease };
        let entry = Entry { created, modified: revision, value: put.value.clone(), lease };
        self.keys.insert(put.key.clone(), entry);
        let kv = pb::KeyValue {
            key: put.key.clone(),
            create_revision: created,
            mod_revision: revision,
            value: put.value.clone(),
        };
        self.happened(event::Type::Put, kv);
    }

    fn delete(&mut self, key: Bytes, revision: i64) -> bool {
        let was_there = self.keys.remove(&key).is_some();
        if was_there {
            let kv = pb::KeyValue { key, mod_revision: revision, ..Default::default() };
            self.happened(event::Type::Delete, kv);
        }
        was_there
    }

    fn happened(&mut self, kind: event::Type, kv: pb::KeyValue) {
        self.revision = kv.mod_revision;
        self.history.push(pb::Event { r#type: kind.into(), kv: Some(kv) });
    }

    // ---- transactions

    /// Carries out a transaction, all of it at one revision, or nothing.
    pub(super) fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let mut ways = VecDeque::new();
        self.choose(txn, &mut ways)?;
        let revision = self.revision + 1;
        Ok(self.carry_out(txn, &mut ways, revision))
    }

    /// Decides all comparisons, those of transactions within it too, by what was before, and
    /// checks what is to be put.
    fn choose(&self, txn: &pb::TxnRequest, ways: &mut VecDeque<bool>) -> Result<(), Status> {
        let mut holds = true;
        for compare in &txn.compare {
            holds &= self.compare(compare)?;
        }
        ways.push_back(holds);
        let ops = if holds { &txn.success } else { &txn.failure };
        for op in ops.iter().filter_map(|op| op.request.as_ref()) {
            match op {
                Op::RequestPut(put) if put.ignore_lease && !self.keys.contains_key(&put.key) => {
                    return Err(Status::invalid_argument("etcdserver: key not found"));
                }
                Op::RequestPut(put) if put.lease != 0 && self.ttl(put.lease).is_none() => {
                    return Err(Status::not_found("etcdserver: requested lease not found"));
                }
                Op::RequestTxn(txn) => self.choose(txn, ways)?,
                Op::RequestPut(_) | Op::RequestRange(_) | Op::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn compare(&self, compare: &pb::Compare) -> Result<bool, Status> {
        let entry = self.keys.get(&compare.key);
        let (is, than) = match (compare.target(), compare.target_union) {
            (compare::Target::Create, Some(compare::TargetUnion::CreateRevision(than))) => {
                (entry.map_or(0, |entry| entry.created), than)
            }
            (compare::Target::Mod, Some(compare::TargetUnion::ModRevision(than))) => {
                (entry.map_or(0, |entry| entry.modified), than)
            }
            _ => return Err(Status::unimplemented("no other comparison is asked for")),
        };
        Ok(match compare.result() {
            compare::Result::Equal => is == than,
            compare::Result::Greater => is > than,
        })
    }

    fn carry_out(
        &mut self,
        txn: &pb::TxnRequest,
        ways: &mut VecDeque<bool>,
        revision: i64,
    ) -> pb::TxnResponse {
        let succeeded = ways.pop_front().unwrap_or(false);
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let ops = ops.iter().filter_map(|op| op.request.as_ref());
        let done = ops.map(|op| match op {
            Op::RequestRange(range) => Done::ResponseRange(self.range(range)),
            Op::RequestPut(put) => {
                self.put(put, revision);
                Done::ResponsePut(pb::PutResponse {})
            }
            Op::RequestDeleteRange(delete) => {
                let deleted = i64::from(self.delete(delete.key.clone(), revision));
                Done::ResponseDeleteRange(pb::DeleteRangeResponse { deleted })
            }
            Op::RequestTxn(txn) => Done::ResponseTxn(self.carry_out(txn, ways, revision)),
        });
        let responses = done.map(|done| pb::ResponseOp { response: Some(done) }).collect();
        pb::TxnResponse { header: None, succeeded, responses }
    }
}
