//! Which processes a cluster has, and what each is told. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use daemon::{UsageError, net};
use model::Role;

use crate::cli::UpArgs;

/// One process to keep running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// Its name, such as `connector-2`.
    pub(super) name: String,
    pub(super) role: Role,
    /// Its command line, the role first.
    pub(super) args: Vec<String>,
    /// The ports it must have, each with the flag of `up` that chose it.
    pub(super) ports: Vec<(SocketAddr, &'static str)>,
    /// Where it writes its addresses.
    pub(super) addresses: PathBuf,
    /// Where the process writes its addresses that should listen before this one starts.
    pub(super) after: Option<PathBuf>,
}

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of starting.
    pub(super) specs: Vec<Spec>,
    /// Where a browser on this machine finds the page.
    pub(super) page: String,
}

impl Plan {
    /// Makes a plan.
    ///
    /// # Errors
    ///
    /// If there are not enough ports, or two processes would take one.
    pub(super) fn new(args: &UpArgs, processors: usize) -> Result<Self, UsageError> {
        let threads = args.threads.unwrap_or_else(|| share(args, processors));
        let hosted = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), args.registry_port);
        let etcd = etcd(args)?;
        let registry = etcd.map_or_else(|| format!("http://{hosted}"), str::to_owned);
        let mut specs = Vec::new();
        for index in 0..args.gates {
            let listen = client_address(args.host, args.gate_port, index, "--gate-port")?;
            let mut spec = Spec::new(args, Role::Gate, index);
            spec.listen(listen, "--listen", "--gate-port");
            if let Some(first) = args.web_port {
                let listen = client_address(args.host, first, index, "--web-port")?;
                spec.listen(listen, "--web-listen", "--web-port");
            }
            if let Some(folder) = args.web_root() {
                spec.flag("--web-root", folder.display());
            }
            if index == 0 && etcd.is_none() {
                spec.flag("--registry-listen", hosted);
                spec.ports.push((hosted, "--registry-port"));
            } else {
                spec.flag("--registry", &registry);
            }
            for (flag, path) in args.pomelo.flags() {
                // As in the original, whose gates have protos and no dictionary.
                if flag != "--dictionary" {
                    spec.flag(flag, path.display());
                }
            }
            specs.push(spec);
        }
        for index in 0..args.chats {
            let mut spec = Spec::new(args, Role::Chat, index);
            spec.flag("--listen", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
            spec.flag("--registry", &registry);
            spec.flag("--duplicates", args.duplicates);
            specs.push(spec);
        }
        for index in 0..args.connectors {
            let listen = client_address(args.host, args.connector_port, index, "--connector-port")?;
            let mut spec = Spec::new(args, Role::Connector, index);
            spec.listen(listen, "--listen", "--connector-port");
            spec.flag("--registry", &registry);
            for (flag, path) in args.pomelo.flags() {
                spec.flag(flag, path.display());
            }
            specs.push(spec);
        }
        check_ports(&specs)?;
        for spec in &mut specs {
            spec.flag("--threads", threads);
        }
        // All others look for the registry, which the first gate hosts.
        let first = specs.first().map(|spec| spec.addresses.clone());
        for spec in specs.iter_mut().skip(1) {
            spec.after.clone_from(&first);
        }
        let port = args.web_port.unwrap_or(args.gate_port);
        let page = net::loopback(SocketAddr::new(args.host, port));
        Ok(Self { specs, page: format!("http://{page}/") })
    }

    /// What the cluster is made of, such as `1 gate, 2 connectors, 2 chats`.
    pub(super) fn summary(&self) -> String {
        [Role::Gate, Role::Connector, Role::Chat]
            .map(|role| match self.specs.iter().filter(|spec| spec.role == role).count() {
                1 => format!("1 {role}"),
                count => format!("{count} {role}s"),
            })
            .join(", ")
    }
}

impl Spec {
    fn new(args: &UpArgs, role: Role, index: u16) -> Self {
        let name = format!("{role}-{}", index + 1);
        let addresses = addresses_folder(&args.logs).join(format!("{name}.json"));
        let mut spec = Self {
            name: name.clone(),
            role,
            args: vec![role.name().to_owned()],
            ports: Vec::new(),
            addresses,
            after: None,
        };
        spec.flag("--name", name);
        spec.flag("--admin", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        spec.flag("--addresses", spec.addresses.display().to_string());
        spec.flag("--log-format", args.log_format.name());
        if let Some(filter) = &args.log {
            spec.flag("--log", filter);
        }
        spec.args.push("--watch-stdin".to_owned());
        spec
    }

    fn flag(&mut self, name: &str, value: impl ToString) {
        self.args.extend([name.to_owned(), value.to_string()]);
    }

    /// Has it listen at `address`, which a flag of `up` has chosen.
    fn listen(&mut self, address: SocketAddr, name: &str, flag: &'static str) {
        self.flag(name, address);
        self.ports.push((address, flag));
    }
}

/// The threads of each process, so that those which work hardest have a processor for each of
/// theirs: every further thread is one more to wake.
fn share(args: &UpArgs, processors: usize) -> u16 {
    let busy = usize::from(args.connectors) + usize::from(args.chats);
    u16::try_from(processors / busy).unwrap_or(u16::MAX).max(1)
}

/// The folder below the logs where processes say where they listen.
pub(super) fn addresses_folder(logs: &Path) -> PathBuf {
    logs.join("addresses")
}

/// The address of etcd, if that is the registry. Another gate's cannot be: a gate of this cluster
/// hosts it.
fn etcd(args: &UpArgs) -> Result<Option<&str>, UsageError> {
    // Compose files pass what is not set as an empty text.
    let Some(address) = args.registry.as_deref().filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    if address.starts_with("etcd://") {
        return Ok(Some(address));
    }
    Err(UsageError(format!(
        "--registry {address}: `up` takes only etcd://host:port,host:port,…; without it, the \
         first gate hosts the registry"
    )))
}

fn client_address(
    host: IpAddr,
    first: u16,
    index: u16,
    flag: &str,
) -> Result<SocketAddr, UsageError> {
    let port = first.checked_add(index).ok_or_else(|| {
        UsageError(format!("{flag} {first}: there are no {} ports from there on", index + 1))
    })?;
    Ok(SocketAddr::new(host, port))
}

/// Refuses a port that two processes would listen on, even on different addresses: one of them is
/// often "every address", which takes in the other.
fn check_ports(specs: &[Spec]) -> Result<(), UsageError> {
    let mut taken = BTreeMap::new();
    for spec in specs {
        for (address, flag) in &spec.ports {
            if let Some((name, other)) = taken.insert(address.port(), (&spec.name, flag)) {
                return Err(UsageError(format!(
                    "port {} is for {name} by {other} and for {} by {flag}; \
                     choose ranges that do not meet",
                    address.port(),
                    spec.name
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn plan(args: &[&str]) -> Result<Plan, UsageError> {
        let cli = Cli::try_parse_from(["tangelo"].iter().chain(args)).unwrap();
        Plan::new(&cli.up, 8)
    }

    #[test]
    fn the_default_is_one_gate_two_connectors_two_chats() {
        let plan = plan(&[]).unwrap();
        let names: Vec<_> = plan.specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["gate-1", "chat-1", "chat-2", "connector-1", "connector-2"]);
        assert_eq!(plan.summary(), "1 gate, 2 connectors, 2 chats");
        assert_eq!(plan.page, "http://127.0.0.1:3014/");
        let ports = |index: usize| -> Vec<String> {
            plan.specs[index].ports.iter().map(|(address, _)| address.to_string()).collect()
        };
        assert_eq!(ports(0), ["127.0.0.1:3014", "127.0.0.1:3005"]);
        assert!(ports(1).is_empty());
        assert_eq!(ports(4), ["127.0.0.1:3051"]);
    }

    #[test]
    fn processors_are_shared_among_those_who_are_busy() {
        let threads = |args: &[&str]| {
            let specs = plan(args).unwrap().specs;
            let told = |spec: &Spec| spec.args[spec.args.len() - 2..].join(" ");
            let said: BTreeSet<_> = specs.iter().map(told).collect();
            said.into_iter().collect::<Vec<_>>().join(", ")
        };
        assert_eq!(threads(&[]), "--threads 2");
        assert_eq!(threads(&["--connectors", "20"]), "--threads 1");
        assert_eq!(threads(&["--threads", "3"]), "--threads 3");
    }

    #[test]
    fn every_role_understands_what_it_is_told() {
        let args = ["--gates", "2", "--log", "debug", "--log-format", "json"];
        for spec in plan(&args).unwrap().specs {
            let line = ["tangelo".to_owned()].into_iter().chain(spec.args);
            Cli::try_parse_from(line).unwrap();
        }
    }

    #[test]
    fn the_applications_files_reach_those_who_need_them() {
        let plan = plan(&["--dictionary", "d.json", "--server-protos", "s.json"]).unwrap();
        let gate = plan.specs[0].args.join(" ");
        assert!(gate.contains("--server-protos s.json"), "{gate}");
        assert!(!gate.contains("--dictionary"), "{gate}");
        assert!(!plan.specs[1].args.contains(&"--server-protos".to_owned()));
        let connector = plan.specs[3].args.join(" ");
        assert!(connector.contains("--dictionary d.json --server-protos s.json"), "{connector}");
    }

    #[test]
    fn the_page_can_be_another_on_a_port_of_its_own() {
        let plan = plan(&["--gates", "2", "--web-port", "3001", "--web-root", "public"]).unwrap();
        assert_eq!(plan.page, "http://127.0.0.1:3001/");
        for (index, address) in ["127.0.0.1:3001", "127.0.0.1:3002"].into_iter().enumerate() {
            let args = plan.specs[index].args.join(" ");
            let said = format!("--web-listen {address} --web-root public");
            assert!(args.contains(&said), "{args}");
        }
    }

    #[test]
    fn with_etcd_no_gate_hosts_the_registry() {
        let url = "etcd://127.0.0.1:2379/blue";
        for spec in plan(&["--registry", url]).unwrap().specs {
            assert!(spec.args.windows(2).any(|pair| pair == ["--registry", url]), "{}", spec.name);
            assert!(!spec.args.contains(&"--registry-listen".to_owned()), "{}", spec.name);
        }
        let error = plan(&["--registry", "http://gate:3005"]).unwrap_err().to_string();
        assert!(error.contains("the first gate hosts the registry"), "{error}");
    }

    #[test]
    fn only_what_clients_reach_is_opened_up() {
        let plan = plan(&["--host", "0.0.0.0"]).unwrap();
        assert_eq!(plan.page, "http://127.0.0.1:3014/");
        for spec in &plan.specs {
            for (address, flag) in &spec.ports {
                let open = address.ip().is_unspecified();
                assert_eq!(open, *flag != "--registry-port", "{address}");
            }
        }
    }

    #[test]
    fn ports_that_meet_are_refused() {
        let error = plan(&["--gate-port", "3051"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "port 3051 is for gate-1 by --gate-port and for connector-2 by --connector-port; \
             choose ranges that do not meet"
        );
        let error = plan(&["--connector-port", "65535"]).unwrap_err().to_string();
        assert_eq!(error, "--connector-port 65535: there are no 2 ports from there on");
    }
}
