//! Which crate may use which, and what a pure crate may not use at all.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::step::{cargo, top};

/// `(a, b)`: `a` may use each of `b`, and any crate may use `model`. What is absent is forbidden.
/// Dev-dependencies are free: a test may look at its crate from all sides.
const ARROWS: [(&str, &[&str]); 18] = [
    ("model", &[]),
    ("wire", &[]),
    ("session", &["wire"]),
    ("room", &[]),
    ("cluster", &[]),
    ("verify", &["session", "room", "wire", "cluster"]),
    ("rpc", &["room", "cluster"]),
    // Its tasks are spawned through `daemon::Tasks`, as everywhere.
    ("registry", &["cluster", "rpc", "daemon"]),
    ("daemon", &[]),
    ("frontend", &["session", "wire", "daemon"]),
    ("gate", &["frontend", "session", "wire", "cluster", "registry", "daemon"]),
    ("connector", &["frontend", "session", "wire", "room", "cluster", "rpc", "registry", "daemon"]),
    ("chat", &["room", "cluster", "rpc", "registry", "daemon"]),
    ("client", &["wire"]),
    ("tangelo", &["gate", "connector", "chat", "daemon", "client", "verify"]),
    ("e2e", &["tangelo", "gate", "connector", "chat", "client", "verify", "wire"]),
    ("reference", &["wire", "client", "rpc"]),
    ("xtask", &[]),
];

/// The crates where every decision lives: no async, clock, randomness or socket.
pub(super) const PURE: [&str; 6] = ["model", "wire", "session", "room", "cluster", "verify"];

/// Packages that a pure crate must not reach, however far away.
const IMPURE: [&str; 7] = ["tokio", "mio", "socket2", "getrandom", "rand", "async-io", "tracing"];

/// Asks cargo for the graph of all packages and names every forbidden arrow.
///
/// # Errors
///
/// If cargo fails or answers something unknown.
pub(super) fn problems() -> anyhow::Result<Vec<String>> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(top())
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let graph = Graph::read(&metadata).context("cargo metadata has an unknown form")?;
    let mut problems = graph.forbidden_arrows();
    problems.extend(graph.impurities());
    Ok(problems)
}

/// The packages that a build of the workspace uses; no dev-dependencies.
#[derive(Debug, Default)]
struct Graph {
    /// Names by package id.
    names: BTreeMap<String, String>,
    /// Ids of our own packages.
    members: BTreeSet<String>,
    /// What a package uses when it runs.
    normal: BTreeMap<String, BTreeSet<String>>,
    /// What a package uses when it runs or is built.
    all: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Option<Self> {
        let mut graph = Self::default();
        for package in metadata["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            graph.names.insert(id.to_owned(), name.to_owned());
        }
        for member in metadata["workspace_members"].as_array()? {
            graph.members.insert(member.as_str()?.to_owned());
        }
        for node in metadata["resolve"]["nodes"].as_array()? {
            let id = node["id"].as_str()?;
            for used in node["deps"].as_array()? {
                let kinds: Vec<&Value> =
                    used["dep_kinds"].as_array()?.iter().map(|kind| &kind["kind"]).collect();
                let target = used["pkg"].as_str()?;
                if kinds.iter().any(|kind| kind.is_null()) {
                    graph.normal.entry(id.to_owned()).or_default().insert(target.to_owned());
                }
                if kinds.iter().any(|kind| *kind != "dev") {
                    graph.all.entry(id.to_owned()).or_default().insert(target.to_owned());
                }
            }
        }
        Some(graph)
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    fn forbidden_arrows(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for member in &self.members {
            let from = self.name(member);
            let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
                problems.push(format!("crates/{from}: has no line in xtask's table of arrows"));
                continue;
            };
            for used in self.all.get(member).into_iter().flatten() {
                let to = self.name(used);
                if self.members.contains(used) && to != "model" && !allowed.contains(&to) {
                    problems.push(format!("crates/{from}/Cargo.toml: {from} must not use {to}"));
                }
            }
        }
        problems
    }

    /// Pure crates that reach an impure package, with one way there.
    fn impurities(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for member in self.members.iter().filter(|id| PURE.contains(&self.name(id))) {
            let name = self.name(member);
            for way in self.ways_to_impure(member) {
                problems.push(format!("crates/{name}/Cargo.toml: a pure crate uses {way}"));
            }
        }
        problems
    }

    fn ways_to_impure(&self, start: &str) -> Vec<String> {
        let mut ways = Vec::new();
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![(start, self.name(start).to_owned())];
        while let Some((id, way)) = open.pop() {
            for used in self.normal.get(id).into_iter().flatten() {
                if seen.insert(used) {
                    let name = self.name(used);
                    let way = format!("{way} > {name}");
                    if IMPURE.contains(&name) {
                        ways.push(way);
                    } else {
                        open.push((used, way));
                    }
                }
            }
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str, Value)]) -> Graph {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
        let packages: Vec<Value> =
            names.iter().map(|name| serde_json::json!({"id": name, "name": name})).collect();
        let nodes: Vec<Value> = edges
            .iter()
            .map(|(from, to, kind)| {
                serde_json::json!({
                    "id": from,
                    "deps": [{"pkg": to, "dep_kinds": [{"kind": kind}]}],
                })
            })
            .collect();
        let ours = |name: &&str| ARROWS.iter().any(|(ours, _)| ours == name);
        let members: Vec<&str> = names.iter().copied().filter(ours).collect();
        Graph::read(&serde_json::json!({
            "packages": packages,
            "workspace_members": members,
            "resolve": {"nodes": nodes},
        }))
        .unwrap()
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_forbidden() {
        let graph = graph(&[
            ("session", "wire", Value::Null),
            ("session", "model", Value::Null),
            ("session", "room", "dev".into()),
            ("room", "session", Value::Null),
            ("gate", "rpc", "build".into()),
            ("gate", "serde", Value::Null),
        ]);
        assert_eq!(
            graph.forbidden_arrows(),
            [
                "crates/gate/Cargo.toml: gate must not use rpc",
                "crates/room/Cargo.toml: room must not use session",
            ]
        );
    }

    #[test]
    fn a_pure_crate_reaches_no_runtime_however_far() {
        let graph = graph(&[
            ("wire", "bytes", Value::Null),
            ("wire", "util", Value::Null),
            ("util", "tokio", Value::Null),
            ("room", "proptest", "dev".into()),
            ("proptest", "rand", Value::Null),
            ("daemon", "tokio", Value::Null),
        ]);
        assert_eq!(
            graph.impurities(),
            ["crates/wire/Cargo.toml: a pure crate uses wire > util > tokio"]
        );
    }

    #[test]
    fn every_arrow_is_between_crates_of_the_table() {
        let known = |name: &str| ARROWS.iter().any(|(from, _)| *from == name);
        for (from, to) in ARROWS {
            assert!(to.iter().all(|to| known(to)), "of {from}");
        }
        assert!(PURE.iter().all(|name| known(name)));
    }
}
