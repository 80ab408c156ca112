//! Parts of transactions.

use cluster::mirror::Swap;

use super::{Keyspace, keys, number, pb};

/// `key` was created at a revision that is equal to, or greater than, 0: it is not there, or it is.
pub(super) fn created(key: Vec<u8>, than_zero: pb::compare::Result) -> pb::Compare {
    pb::Compare {
        result: than_zero.into(),
        target: pb::compare::Target::Create.into(),
        key: key.into(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(0)),
    }
}

/// `key` was last put at `revision`; 0: it is not there.
pub(super) fn modified(key: Vec<u8>, revision: u64) -> pb::Compare {
    let revision = i64::try_from(revision).unwrap_or(i64::MAX);
    pb::Compare {
        result: pb::compare::Result::Equal.into(),
        target: pb::compare::Target::Mod.into(),
        key: key.into(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(revision)),
    }
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.into(), value: value.into(), lease, ignore_lease: false };
    op(pb::request_op::Request::RequestPut(put))
}

/// Puts what is there already, under the lease that it has.
pub(super) fn put_again(key: Vec<u8>, value: Vec<u8>) -> pb::RequestOp {
    let (key, value) = (key.into(), value.into());
    let put = pb::PutRequest { key, value, lease: 0, ignore_lease: true };
    op(pb::request_op::Request::RequestPut(put))
}

pub(super) fn delete(key: Vec<u8>) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key: key.into() };
    op(pb::request_op::Request::RequestDeleteRange(delete))
}

pub(super) fn range(range: pb::RangeRequest) -> pb::RequestOp {
    op(pb::request_op::Request::RequestRange(range))
}

/// A transaction within one, with a decision of its own.
pub(super) fn nested(
    compare: Vec<pb::Compare>,
    success: pb::RequestOp,
    failure: Option<pb::RequestOp>,
) -> pb::RequestOp {
    let failure = failure.into_iter().collect();
    op(pb::request_op::Request::RequestTxn(pb::TxnRequest {
        compare,
        success: vec![success],
        failure,
    }))
}

const fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// What a range has found; nothing if it was none.
pub(super) fn ranged(response: pb::ResponseOp) -> Vec<pb::KeyValue> {
    use pb::response_op::Response;
    match response.response {
        Some(Response::ResponseRange(range)) => range.kvs,
        Some(
            Response::ResponsePut(_) | Response::ResponseDeleteRange(_) | Response::ResponseTxn(_),
        )
        | None => Vec::new(),
    }
}

/// What a nested transaction has answered; nothing if it was none.
pub(super) fn nested_answer(response: pb::ResponseOp) -> Option<pb::TxnResponse> {
    use pb::response_op::Response;
    match response.response? {
        Response::ResponseTxn(txn) => Some(txn),
        Response::ResponseRange(_)
        | Response::ResponsePut(_)
        | Response::ResponseDeleteRange(_) => None,
    }
}

impl Keyspace {
    /// What became of a shard's entry.
    pub(super) fn read_swap(response: pb::ResponseOp) -> Swap {
        let nobody = Swap::Lost { holding: keys::NOBODY, revision: 0 };
        let Some(txn) = nested_answer(response) else {
            return nobody;
        };
        if txn.succeeded {
            return Swap::Done;
        }
        let entry = txn.responses.into_iter().next().map(ranged).unwrap_or_default();
        entry.first().map_or(nobody, |kv| Swap::Lost {
            holding: keys::read_holding(&kv.value).unwrap_or(keys::NOBODY),
            revision: number(kv.mod_revision),
        })
    }
}
