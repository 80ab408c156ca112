//! Keys and values, as `proto/tangelo/v1/etcd.proto` describes them.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use cluster::mirror::{Change, Holding, What};
use model::{Incarnation, Role, Shard, Term};
use prost::Message as _;

use super::{number, pb};

/// Nobody has had the shard yet.
pub(super) const NOBODY: Holding = Holding::Free { last: Term(0) };

/// The part of etcd that one cluster uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace(Arc<str>);

/// The name cannot be part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 letters, digits, hyphens, dots and _")]
pub struct BadName;

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Node(Role, Incarnation),
    Alive(Incarnation),
    Shard(Shard),
}

impl Keyspace {
    /// The keys of the cluster of that name.
    ///
    /// # Errors
    ///
    /// If the name is empty, over 64 bytes, or has another character than letters, digits,
    /// hyphens, dots and `_`.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(BadName);
        }
        Ok(Self(format!("{name}/v1/").into()))
    }

    pub(super) fn node(&self, role: Role, node: Incarnation) -> Vec<u8> {
        format!("{}nodes/{role}/{node}", self.0).into()
    }

    pub(super) fn alive(&self, node: Incarnation) -> Vec<u8> {
        format!("{}alive/{node}", self.0).into()
    }

    pub(super) fn shard(&self, shard: Shard) -> Vec<u8> {
        format!("{}shards/{shard}", self.0).into()
    }

    /// All keys: from the first to below the second.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        folder(self.0.to_string())
    }

    /// The records of one role.
    pub(super) fn nodes(&self, role: Role) -> (Bytes, Bytes) {
        folder(format!("{}nodes/{role}/", self.0))
    }

    pub(super) fn read(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&*self.0)?;
        let mut parts = key.split('/');
        let incarnation = |text: &str| text.parse().ok().map(Incarnation);
        let key = match parts.next()? {
            "nodes" => {
                let name = parts.next()?;
                let roles = [Role::Gate, Role::Connector, Role::Chat];
                let role = roles.into_iter().find(|role| role.name() == name)?;
                Key::Node(role, incarnation(parts.next()?)?)
            }
            "alive" => Key::Alive(incarnation(parts.next()?)?),
            "shards" => Key::Shard(Shard::new(parts.next()?.parse().ok()?)?),
            _ => return None,
        };
        parts.next().is_none().then_some(key)
    }

    /// What was put; none if it makes no sense, which only somebody else can have put.
    pub(super) fn read_put(&self, kv: &pb::KeyValue) -> Option<Change> {
        let what = match self.read(&kv.key)? {
            Key::Node(role, incarnation) => {
                let node = crate::pb::Node::decode(kv.value.clone()).ok();
                let node = node.and_then(|node| crate::registry::read_node(node).ok());
                let node = node.filter(|node| node.role == role && node.incarnation == incarnation);
                let Some(node) = node else {
                    return foreign(kv);
                };
                What::Node { node: Box::new(node), created: number(kv.create_revision) }
            }
            Key::Alive(node) => {
                let Ok(sign) = crate::pb::StoredSign::decode(kv.value.clone()) else {
                    return foreign(kv);
                };
                match (sign.answers_doubts, sign.doubted_by) {
                    (false, _) => What::Mute(node),
                    (true, 0) => What::Alive(node),
                    (true, _) => What::Doubted(node),
                }
            }
            Key::Shard(shard) => {
                let Some(holding) = read_holding(&kv.value) else {
                    return foreign(kv);
                };
                What::Shard(shard, holding)
            }
        };
        Some(Change { revision: number(kv.mod_revision), what })
    }

    pub(super) fn read_event(&self, event: &pb::Event) -> Option<Change> {
        let kv = event.kv.as_ref()?;
        if event.r#type() == pb::event::Type::Put {
            return self.read_put(kv);
        }
        let what = match self.read(&kv.key)? {
            Key::Node(_, node) => What::NodeGone(node),
            Key::Alive(node) => What::NotAlive(node),
            Key::Shard(shard) => What::ShardGone(shard),
        };
        Some(Change { revision: number(kv.mod_revision), what })
    }
}

fn foreign(kv: &pb::KeyValue) -> Option<Change> {
    let mut key = String::new();
    for byte in kv.key.iter().take(128) {
        let _ = write!(key, "{}", byte.escape_ascii());
    }
    tracing::warn!(key, "ignored: no value of Tangelo; did somebody else write it?");
    None
}

/// The keys that begin with `folder`, which ends with a slash.
fn folder(folder: String) -> (Bytes, Bytes) {
    let mut end = folder.clone().into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (folder.into_bytes().into(), end.into())
}

pub(super) fn write_doubt(by: Incarnation) -> Vec<u8> {
    crate::pb::StoredSign { doubted_by: by.0, answers_doubts: true }.encode_to_vec()
}

/// The sign of life of a node of this build.
pub(super) fn write_alive() -> Vec<u8> {
    crate::pb::StoredSign { doubted_by: 0, answers_doubts: true }.encode_to_vec()
}

pub(super) fn write_owner(owner: Incarnation) -> Vec<u8> {
    crate::pb::StoredShard { owner: owner.0, last_term: 0 }.encode_to_vec()
}

pub(super) fn write_free(last: Term) -> Vec<u8> {
    crate::pb::StoredShard { owner: 0, last_term: last.0 }.encode_to_vec()
}

pub(super) fn read_holding(value: &[u8]) -> Option<Holding> {
    let stored = crate::pb::StoredShard::decode(value).ok()?;
    Some(match stored.owner {
        0 => Holding::Free { last: Term(stored.last_term) },
        owner => Holding::Owned(Incarnation(owner)),
    })
}

#[cfg(test)]
mod tests {
    use cluster::Node;
    use model::NodeId;

    use super::*;

    fn keys() -> Keyspace {
        Keyspace::new("tangelo").unwrap()
    }

    fn put(key: Vec<u8>, value: Vec<u8>) -> pb::KeyValue {
        let (create_revision, mod_revision) = (5, 7);
        pb::KeyValue { key: key.into(), create_revision, mod_revision, value: value.into() }
    }

    #[test]
    fn keys_are_as_described() {
        let keys = keys();
        let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
        let chat = keys.node(Role::Chat, Incarnation(42));
        assert_eq!(text(chat.clone()), "tangelo/v1/nodes/chat/42");
        assert_eq!(keys.read(&chat), Some(Key::Node(Role::Chat, Incarnation(42))));
        let alive = keys.alive(Incarnation(42));
        assert_eq!(text(alive.clone()), "tangelo/v1/alive/42");
        assert_eq!(keys.read(&alive), Some(Key::Alive(Incarnation(42))));
        let shard = keys.shard(Shard::new(1023).unwrap());
        assert_eq!(text(shard.clone()), "tangelo/v1/shards/1023");
        assert_eq!(keys.read(&shard), Shard::new(1023).map(Key::Shard));
        let (from, to) = keys.all();
        assert_eq!((&*from, &*to), (&b"tangelo/v1/"[..], &b"tangelo/v10"[..]));
        for key in [chat, alive, shard] {
            assert!(from[..] < key[..] && key[..] < to[..]);
        }
    }

    #[test]
    fn what_is_of_others_is_ignored() {
        let keys = keys();
        for key in [
            "other/v1/alive/1",
            "tangelo/v1/",
            "tangelo/v1/alive",
            "tangelo/v1/alive/x",
            "tangelo/v1/alive/1/2",
            "tangelo/v1/nodes/king/1",
            "tangelo/v1/shards/1024",
            "tangelo/v1/secrets/1",
        ] {
            assert_eq!(keys.read(key.as_bytes()), None, "{key}");
        }
        let chat = keys.node(Role::Chat, Incarnation(42));
        assert_eq!(keys.read_put(&put(chat, b"\xff".to_vec())), None);
        let shard = keys.shard(Shard::new(0).unwrap());
        assert_eq!(keys.read_put(&put(shard, b"\xff".to_vec())), None);
    }

    #[test]
    fn values_come_back() {
        let keys = keys();
        let node = Node {
            id: NodeId::new("chat-1").unwrap(),
            incarnation: Incarnation(42),
            role: Role::Chat,
            link: Some("http://10.0.0.7:6050".to_owned()),
            client: None,
            admin: None,
            load: 3,
            draining: true,
            ready: true,
        };
        let value = crate::registry::write_node(&node).encode_to_vec();
        let key = keys.node(Role::Chat, node.incarnation);
        let what = What::Node { node: Box::new(node.clone()), created: 5 };
        assert_eq!(keys.read_put(&put(key, value.clone())), Some(Change { revision: 7, what }));
        // Under the key of another it is nobody's.
        assert_eq!(
            keys.read_put(&put(keys.node(Role::Chat, Incarnation(43)), value.clone())),
            None
        );
        assert_eq!(keys.read_put(&put(keys.node(Role::Gate, Incarnation(42)), value)), None);

        let shard = Shard::new(9).unwrap();
        for (value, holding) in [
            (write_owner(Incarnation(42)), Holding::Owned(Incarnation(42))),
            (write_free(Term(6)), Holding::Free { last: Term(6) }),
        ] {
            let change = keys.read_put(&put(keys.shard(shard), value)).unwrap();
            assert_eq!(change.what, What::Shard(shard, holding));
        }
    }

    #[test]
    fn signs_of_life_can_be_in_doubt() {
        let (keys, node) = (keys(), Incarnation(42));
        let by_an_earlier_build = crate::pb::StoredSign { doubted_by: 43, ..Default::default() };
        for (value, what) in [
            (write_alive(), What::Alive(node)),
            (write_doubt(Incarnation(43)), What::Doubted(node)),
            (Vec::new(), What::Mute(node)),
            (by_an_earlier_build.encode_to_vec(), What::Mute(node)),
        ] {
            let change = keys.read_put(&put(keys.alive(node), value)).unwrap();
            assert_eq!(change, Change { revision: 7, what });
        }
        assert_eq!(keys.read_put(&put(keys.alive(node), b"\xff".to_vec())), None);
    }

    #[test]
    fn removals_are_read() {
        let keys = keys();
        let removed = |key: Vec<u8>| {
            let kv = Some(pb::KeyValue { create_revision: 0, ..put(key, Vec::new()) });
            let event = pb::Event { r#type: pb::event::Type::Delete.into(), kv };
            keys.read_event(&event).unwrap()
        };
        let node = Incarnation(42);
        let expected = |what| Change { revision: 7, what };
        assert_eq!(removed(keys.node(Role::Gate, node)), expected(What::NodeGone(node)));
        assert_eq!(removed(keys.alive(node)), expected(What::NotAlive(node)));
        let shard = Shard::new(0).unwrap();
        assert_eq!(removed(keys.shard(shard)), expected(What::ShardGone(shard)));
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert_eq!(Keyspace::new(bad), Err(BadName), "{bad}");
        }
    }
}
