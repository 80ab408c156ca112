//! Network namespaces: a hub, and one place apart whose way to the hub can be cut.
//!
//! A process enters a namespace only when it is started, so a test that needs the hub runs itself
//! again inside ([`Hub::run_again`]). Nothing outside the two namespaces is touched, and both go
//! with the [`Hub`].

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};

/// Tells a test that runs again inside the hub the name of the place apart.
const APART: &str = "TANGELO_E2E_APART";
/// The address of everything in the hub.
pub const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The address of the place apart.
pub const APART_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// The hub, made by a test for its second run.
#[derive(Debug)]
pub struct Hub {
    hub: String,
    apart: String,
}

impl Hub {
    /// Makes both namespaces and the way between them.
    ///
    /// # Errors
    ///
    /// If this process may not, or the tools `ip` and `iptables` are not there.
    pub fn new() -> anyhow::Result<Self> {
        // Tests of one process may have one each at the same time.
        static LAST: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let hub = Self { hub: format!("tangelo-{id}-hub"), apart: format!("tangelo-{id}-apart") };
        let (name, apart) = (hub.hub.as_str(), hub.apart.as_str());
        ip(&["netns", "add", name])?;
        ip(&["netns", "add", apart])?;
        ip(&[
            "-n", name, "link", "add", "way", "type", "veth", "peer", "name", "way", "netns", apart,
        ])?;
        for (namespace, address) in [(name, HUB), (apart, APART_ADDRESS)] {
            let address = format!("{address}/30");
            ip(&["-n", namespace, "address", "add", &address, "dev", "way"])?;
            ip(&["-n", namespace, "link", "set", "way", "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        run(&["ip", "netns", "exec", apart, "iptables", "--list"])?;
        Ok(hub)
    }

    /// Runs the test of this name of this very executable once more, inside the hub.
    ///
    /// # Errors
    ///
    /// If it fails there; it has said why on its own.
    pub fn run_again(&self, test: &str) -> anyhow::Result<()> {
        let status = Command::new("ip")
            .args(["netns", "exec", &self.hub])
            .arg(env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(APART, &self.apart)
            .status()?;
        ensure!(status.success(), "{test} failed inside its network: {status}");
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Both take their end of the way along. They may not have come into being.
        let _ = ip(&["netns", "delete", &self.apart]);
        let _ = ip(&["netns", "delete", &self.hub]);
    }
}

/// The place apart, as a test inside the hub sees it.
#[derive(Clone, Debug)]
pub struct Apart {
    namespace: String,
}

/// Which packets do not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the place apart.
    Out,
    /// To the place apart.
    In,
}

impl Apart {
    /// The place apart; none if this test does not run inside the hub yet.
    #[must_use]
    pub fn inside_hub() -> Option<Self> {
        Some(Self { namespace: env::var(APART).ok()? })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Drops what goes one way between the place apart and a port in the hub.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    pub fn cut(&self, port: u16, direction: Direction) -> anyhow::Result<()> {
        let (chain, end) = match direction {
            Direction::Out => ("OUTPUT", "--dport"),
            Direction::In => ("INPUT", "--sport"),
        };
        let port = port.to_string();
        self.iptables(&["--append", chain, "--protocol", "tcp", end, &port, "--jump", "DROP"])
    }

    /// Lets everything through again.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.iptables(&["--flush"])
    }

    fn iptables(&self, arguments: &[&str]) -> anyhow::Result<()> {
        run(&[&["ip", "netns", "exec", &self.namespace, "iptables"], arguments].concat())
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(&[&["ip"], arguments].concat())
}

fn run(command: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.with_context(|| format!("cannot run {}", command[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", command.join(" "), said.trim());
    Ok(())
}
