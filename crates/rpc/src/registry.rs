//! Translates the registry's messages into the types of crate `cluster` and back.

use std::{sync::Arc, time::Duration};

use cluster::{
    Claim, ClientAddress, ClusterMap, Gone, Join, MapDelta, MapUpdate, Node, NodeState, Outcome,
    Ownership,
};
use model::{Incarnation, NodeId, Role, Shard, Term, limits};

use crate::{
    convert::{Invalid, Result, all, required, shard},
    pb,
};

/// What a node says on its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Who it is; first, and only first.
    Join(Box<Join>),
    /// It lives.
    Beat(NodeState),
    /// It ends.
    Leave,
}

/// What the registry says on a node's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The node is live.
    Welcome,
    /// The map has changed.
    Map(MapUpdate),
    /// The incarnation is over.
    Gone(Gone),
}

// ---- nodes

fn write_role(role: Role) -> pb::Role {
    match role {
        Role::Gate => pb::Role::Gate,
        Role::Connector => pb::Role::Connector,
        Role::Chat => pb::Role::Chat,
    }
}

fn read_role(role: pb::Role) -> Result<Role> {
    match role {
        pb::Role::Gate => Ok(Role::Gate),
        pb::Role::Connector => Ok(Role::Connector),
        pb::Role::Chat => Ok(Role::Chat),
        pb::Role::Unspecified => Err(Invalid("role")),
    }
}

const fn write_state(state: NodeState) -> pb::NodeState {
    pb::NodeState { load: state.load, ready: state.ready, draining: state.draining }
}

const fn read_state(state: pb::NodeState) -> NodeState {
    NodeState { load: state.load, ready: state.ready, draining: state.draining }
}

pub(crate) fn write_node(node: &Node) -> pb::Node {
    pb::Node {
        id: node.id.to_string(),
        incarnation: node.incarnation.0,
        role: write_role(node.role).into(),
        link: node.link.clone(),
        client: node.client.as_ref().map(|client| pb::ClientAddress {
            host: client.host.clone(),
            port: client.port.into(),
            admissions: client.admissions,
        }),
        admin: node.admin.clone(),
        state: Some(write_state(node.state())),
    }
}

pub(crate) fn read_node(node: pb::Node) -> Result<Node> {
    let role = read_role(node.role())?;
    let state = required(node.state, "node state")?;
    let client = node.client.map(|client| {
        let port = u16::try_from(client.port).ok().filter(|port| *port > 0);
        let port = required(port, "client port")?;
        Ok(ClientAddress { host: client.host, port, admissions: client.admissions })
    });
    let node = Node {
        id: NodeId::new(&node.id).map_err(|_| Invalid("node id"))?,
        incarnation: required(read_incarnation(node.incarnation), "incarnation")?,
        role,
        link: node.link,
        client: client.transpose()?,
        admin: node.admin,
        load: state.load,
        draining: state.draining,
        ready: state.ready,
    };
    required(node.is_within_bounds().then_some(node), "node address")
}

/// 0 is nobody.
fn read_incarnation(number: u64) -> Option<Incarnation> {
    (number != 0).then_some(Incarnation(number))
}

// ---- reports

/// Writes what a node says.
#[must_use]
pub fn write_report(report: Report) -> pb::NodeReport {
    use pb::node_report::Report as Kind;
    let kind = match report {
        Report::Join(join) => Kind::Join(pb::JoinReport {
            node: Some(write_node(&join.node)),
            map_version: join.map_version,
            owned: write_owned(&join.owned),
            terms_seen: join.terms_seen.iter().map(|term| term.0).collect(),
        }),
        Report::Beat(state) => Kind::Beat(write_state(state)),
        Report::Leave => Kind::Leave(pb::LeaveReport {}),
    };
    pb::NodeReport { report: Some(kind) }
}

/// Reads what a node says.
///
/// # Errors
///
/// If it is incomplete or out of bounds.
pub fn read_report(report: pb::NodeReport) -> Result<Report> {
    use pb::node_report::Report as Kind;
    Ok(match required(report.report, "report")? {
        Kind::Join(join) => {
            let join = Join {
                node: read_node(required(join.node, "node")?)?,
                map_version: join.map_version,
                owned: read_owned(join.owned)?,
                terms_seen: join.terms_seen.into_iter().map(Term).collect(),
            };
            required(join.is_within_bounds().then_some(()), "join")?;
            Report::Join(Box::new(join))
        }
        Kind::Beat(state) => Report::Beat(read_state(state)),
        Kind::Leave(pb::LeaveReport {}) => Report::Leave,
    })
}

fn write_owned(owned: &[(Shard, Term)]) -> Vec<pb::OwnedShard> {
    let write = |(shard, term): &(Shard, Term)| pb::OwnedShard {
        shard: shard.number().into(),
        term: term.0,
    };
    owned.iter().map(write).collect()
}

fn read_owned(owned: Vec<pb::OwnedShard>) -> Result<Vec<(Shard, Term)>> {
    let owned = at_most_all_shards(owned)?;
    all(owned, |owned| Ok((shard(owned.shard)?, Term(owned.term))))
}

fn at_most_all_shards<T>(list: Vec<T>) -> Result<Vec<T>> {
    let fits = list.len() <= usize::from(limits::SHARD_COUNT);
    required(fits.then_some(list), "list of shards")
}

// ---- notices

/// Writes what the registry says.
#[must_use]
pub fn write_notice(notice: &Notice) -> pb::MapUpdate {
    match notice {
        Notice::Welcome => update(pb::map_update::Update::Welcome(pb::Welcome {})),
        Notice::Map(MapUpdate::Snapshot(map)) => write_snapshot(map),
        Notice::Map(MapUpdate::Delta(delta)) => write_delta(delta),
        Notice::Gone(gone) => update(pb::map_update::Update::Gone(write_gone(*gone))),
    }
}

/// Writes the whole map.
#[must_use]
pub fn write_snapshot(map: &ClusterMap) -> pb::MapUpdate {
    update(pb::map_update::Update::Snapshot(pb::MapSnapshot {
        version: map.version,
        nodes: map.nodes.values().map(write_node).collect(),
        shards: map.shards.iter().copied().map(write_ownership).collect(),
    }))
}

/// Writes a change of the map.
#[must_use]
pub fn write_delta(delta: &MapDelta) -> pb::MapUpdate {
    let shards = delta.shards.iter().map(|(shard, now)| pb::ShardChange {
        shard: shard.number().into(),
        ownership: Some(write_ownership(*now)),
    });
    update(pb::map_update::Update::Delta(pb::MapDelta {
        base: delta.base,
        version: delta.version,
        nodes: delta.nodes.iter().map(write_node).collect(),
        gone: delta.gone.iter().map(|gone| gone.0).collect(),
        shards: shards.collect(),
    }))
}

const fn update(update: pb::map_update::Update) -> pb::MapUpdate {
    pb::MapUpdate { update: Some(update) }
}

/// Reads what the registry says.
///
/// # Errors
///
/// If it is incomplete or out of bounds.
pub fn read_notice(update: pb::MapUpdate) -> Result<Notice> {
    use pb::map_update::Update;
    Ok(match required(update.update, "map update")? {
        Update::Welcome(pb::Welcome {}) => Notice::Welcome,
        Update::Snapshot(map) => Notice::Map(MapUpdate::Snapshot(read_snapshot(map)?)),
        Update::Delta(delta) => Notice::Map(MapUpdate::Delta(read_delta(delta)?)),
        Update::Gone(gone) => Notice::Gone(read_gone(gone)?),
    })
}

fn read_snapshot(map: pb::MapSnapshot) -> Result<ClusterMap> {
    let complete = map.shards.len() == usize::from(limits::SHARD_COUNT);
    required(complete.then_some(()), "list of shards")?;
    let nodes = all(read_nodes(map.nodes)?, |node| Ok((node.incarnation, node)))?;
    Ok(ClusterMap {
        version: map.version,
        nodes: nodes.into_iter().collect(),
        shards: map.shards.into_iter().map(read_ownership).collect(),
    })
}

fn read_delta(delta: pb::MapDelta) -> Result<MapDelta> {
    let shards = at_most_all_shards(delta.shards)?;
    Ok(MapDelta {
        base: delta.base,
        version: delta.version,
        nodes: read_nodes(delta.nodes)?,
        gone: delta.gone.into_iter().map(Incarnation).collect(),
        shards: all(shards, |change| {
            let ownership = required(change.ownership, "ownership")?;
            Ok((shard(change.shard)?, read_ownership(ownership)))
        })?,
    })
}

fn read_nodes(nodes: Vec<pb::Node>) -> Result<Vec<Node>> {
    let fits = nodes.len() <= limits::NODES_MAX;
    all(required(fits.then_some(nodes), "list of nodes")?, read_node)
}

fn write_ownership(ownership: Ownership) -> pb::Ownership {
    pb::Ownership { owner: ownership.owner.map_or(0, |owner| owner.0), term: ownership.term.0 }
}

fn read_ownership(ownership: pb::Ownership) -> Ownership {
    Ownership { owner: read_incarnation(ownership.owner), term: Term(ownership.term) }
}

fn write_gone(gone: Gone) -> pb::Gone {
    use pb::gone::Reason;
    let reason = match gone {
        Gone::Silent => Reason::Silent,
        Gone::Broken => Reason::Broken,
        Gone::Replaced => Reason::Replaced,
        Gone::Left => Reason::Left,
    };
    pb::Gone { reason: reason.into() }
}

fn read_gone(gone: pb::Gone) -> Result<Gone> {
    use pb::gone::Reason;
    match gone.reason() {
        Reason::Silent => Ok(Gone::Silent),
        Reason::Broken => Ok(Gone::Broken),
        Reason::Replaced => Ok(Gone::Replaced),
        Reason::Left => Ok(Gone::Left),
        Reason::Unspecified => Err(Invalid("reason")),
    }
}

// ---- claims

/// Writes a claim of shards, each with the term seen of it.
#[must_use]
pub fn write_claim_request(claimant: Incarnation, shards: &[(Shard, Term)]) -> pb::ClaimRequest {
    let write = |(shard, seen): &(Shard, Term)| pb::ShardClaim {
        shard: shard.number().into(),
        seen: seen.0,
    };
    pb::ClaimRequest { incarnation: claimant.0, shards: shards.iter().map(write).collect() }
}

/// Reads a claim: who claims, and which shards at which terms.
///
/// # Errors
///
/// If a shard does not exist, or there are more than all.
pub fn read_claim_request(request: pb::ClaimRequest) -> Result<(Incarnation, Vec<(Shard, Term)>)> {
    let shards = at_most_all_shards(request.shards)?;
    let shards = all(shards, |claim| Ok((shard(claim.shard)?, Term(claim.seen))))?;
    Ok((Incarnation(request.incarnation), shards))
}

/// Writes what became of a claim.
#[must_use]
pub fn write_claims(claims: &[Claim]) -> pb::ClaimAnswer {
    use pb::claim_outcome::Outcome as Kind;
    let mut answer = pb::ClaimAnswer::default();
    for claim in claims {
        let kind = match &claim.outcome {
            Outcome::Won { term, connectors, map_version } => {
                // All shards of a batch are won at one moment, so they share these.
                if answer.map_version == 0 {
                    answer.connectors = connectors.iter().map(|i| i.0).collect();
                    answer.map_version = *map_version;
                }
                Kind::Term(term.0)
            }
            Outcome::Lost(ownership) => Kind::Lost(write_ownership(*ownership)),
            Outcome::Settling { retry_in } => {
                let millis = u32::try_from(retry_in.as_millis()).unwrap_or(u32::MAX);
                Kind::SettlingMillis(millis)
            }
        };
        answer
            .outcomes
            .push(pb::ClaimOutcome { shard: claim.shard.number().into(), outcome: Some(kind) });
    }
    answer
}

/// Reads what became of a claim.
///
/// # Errors
///
/// If it is incomplete or out of bounds.
pub fn read_claims(answer: pb::ClaimAnswer) -> Result<Vec<Claim>> {
    use pb::claim_outcome::Outcome as Kind;
    let connectors: Arc<[_]> = answer.connectors.into_iter().map(Incarnation).collect();
    all(at_most_all_shards(answer.outcomes)?, |outcome| {
        let shard = shard(outcome.shard)?;
        let outcome = match required(outcome.outcome, "outcome")? {
            Kind::Term(term) => Outcome::Won {
                term: Term(term),
                connectors: Arc::clone(&connectors),
                map_version: answer.map_version,
            },
            Kind::Lost(ownership) => Outcome::Lost(read_ownership(ownership)),
            Kind::SettlingMillis(millis) => {
                Outcome::Settling { retry_in: Duration::from_millis(millis.into()) }
            }
        };
        Ok(Claim { shard, outcome })
    })
}

/// Writes a release of shards, each with the term it is owned at.
#[must_use]
pub fn write_release(owner: Incarnation, shards: &[(Shard, Term)]) -> pb::ReleaseRequest {
    pb::ReleaseRequest { incarnation: owner.0, shards: write_owned(shards) }
}

/// Reads a release: who gives up which shards, owned at which terms.
///
/// # Errors
///
/// If a shard does not exist, or there are more than all.
pub fn read_release(request: pb::ReleaseRequest) -> Result<(Incarnation, Vec<(Shard, Term)>)> {
    Ok((Incarnation(request.incarnation), read_owned(request.shards)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> Node {
        Node {
            id: NodeId::new("chat-1").unwrap(),
            incarnation: Incarnation(11),
            role: Role::Chat,
            link: Some("http://10.0.0.1:6050".to_owned()),
            client: None,
            admin: Some("http://10.0.0.1:9000".to_owned()),
            load: 3,
            draining: true,
            ready: false,
        }
    }

    fn connector() -> Node {
        Node {
            id: NodeId::new("connector-1").unwrap(),
            incarnation: Incarnation(12),
            role: Role::Connector,
            link: None,
            client: Some(ClientAddress {
                host: Some("chat.example.org".to_owned()),
                port: 3050,
                admissions: 2000,
            }),
            admin: None,
            load: 0,
            draining: false,
            ready: true,
        }
    }

    fn map() -> ClusterMap {
        let mut map = ClusterMap { version: 77, ..ClusterMap::default() };
        for node in [chat(), connector()] {
            map.nodes.insert(node.incarnation, node);
        }
        map.shards[5] =
            Ownership { owner: Some(Incarnation(11)), term: Term(1_700_000_000_000_000) };
        map
    }

    #[test]
    fn reports_survive_the_way() {
        let join = Join {
            node: connector(),
            map_version: 9,
            owned: Vec::new(),
            terms_seen: vec![Term(7); 1024],
        };
        let owner = Join {
            node: chat(),
            map_version: 9,
            owned: vec![(Shard::new(1023).unwrap(), Term(8))],
            terms_seen: Vec::new(),
        };
        let beat = Report::Beat(chat().state());
        let joins = [join, owner].map(|join| Report::Join(Box::new(join)));
        for report in joins.into_iter().chain([beat, Report::Leave]) {
            assert_eq!(read_report(write_report(report.clone())), Ok(report));
        }
    }

    #[test]
    fn notices_survive_the_way() {
        let delta = ClusterMap::default().diff(&map());
        let notices = [
            Notice::Welcome,
            Notice::Map(MapUpdate::Snapshot(map())),
            Notice::Map(MapUpdate::Delta(delta)),
            Notice::Gone(Gone::Silent),
            Notice::Gone(Gone::Broken),
            Notice::Gone(Gone::Replaced),
            Notice::Gone(Gone::Left),
        ];
        for notice in notices {
            assert_eq!(read_notice(write_notice(&notice)), Ok(notice));
        }
    }

    #[test]
    fn claims_survive_the_way() {
        let outcomes = [
            Outcome::Lost(map().shards[5]),
            Outcome::Won {
                term: Term(9),
                connectors: [Incarnation(12), Incarnation(13)].into(),
                map_version: 78,
            },
            Outcome::Settling { retry_in: Duration::from_millis(1500) },
        ];
        let claims: Vec<_> =
            Shard::all().zip(outcomes).map(|(shard, outcome)| Claim { shard, outcome }).collect();
        assert_eq!(read_claims(write_claims(&claims)), Ok(claims));

        let shards = [(Shard::new(3).unwrap(), Term(4))];
        let request = write_claim_request(Incarnation(1), &shards);
        let expected = (Incarnation(1), shards.to_vec());
        assert_eq!(read_claim_request(request), Ok(expected.clone()));
        let request = write_release(Incarnation(1), &shards);
        assert_eq!(read_release(request), Ok(expected));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let mut node = write_node(&connector());
        node.client = Some(pb::ClientAddress { host: None, port: 0, admissions: 0 });
        assert_eq!(read_node(node), Err(Invalid("client port")));
        let mut node = write_node(&chat());
        node.admin = Some("x".repeat(limits::ADDRESS_BYTES_MAX + 1));
        assert_eq!(read_node(node), Err(Invalid("node address")));
        let request = pb::ClaimRequest {
            incarnation: 1,
            shards: vec![pb::ShardClaim { shard: 1024, seen: 0 }],
        };
        assert_eq!(read_claim_request(request), Err(Invalid("shard")));
        let request =
            pb::ClaimRequest { incarnation: 1, shards: vec![pb::ShardClaim::default(); 1025] };
        assert_eq!(read_claim_request(request), Err(Invalid("list of shards")));
    }
}
