//! What of this machine is in the way of many sessions, and what to set.

use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs beside its clients'.
const SPARE_FILES: u64 = 200;
/// Files that are left to everybody else on the machine.
const FILES_OF_OTHERS: u64 = 50_000;
/// Ports of an address that connections hold for a while after they have ended.
const SPARE_PORTS: u64 = 2_000;
/// Connections that may wait to be accepted where thousands come in per second.
const WAITING: u64 = 4_096;
/// Memory of the kernel for one end of a connection that is idle, and of a process that holds it,
/// in bytes: some 4 KiB each.
const END_BYTES: u64 = 8 * 1024;
/// Up to so many sessions any machine will do.
const FEW: u32 = 10_000;

/// What is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Sessions, or connections, on this machine.
    pub(crate) sessions: u32,
    /// Of one process, at most.
    pub(crate) per_process: u32,
    /// From one client address, at most; nothing if clients are elsewhere.
    pub(crate) per_address: Option<u32>,
}

/// What the machine allows. What is not known is absent, and not in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Files that one process may open.
    files_per_process: Option<u64>,
    /// Files that are open, and may be, in all processes.
    files: Option<(u64, u64)>,
    /// Sockets that may be waited for, of one user.
    watches: Option<u64>,
    /// Ports for outgoing connections of one address.
    ports: Option<u64>,
    /// Connections that may wait to be accepted, of one listener.
    waiting: Option<u64>,
    /// The same before their handshake is done.
    half_open: Option<u64>,
    /// Connections that are tracked, and may be.
    tracked: Option<(u64, u64)>,
    /// Memory that can be had, in bytes.
    memory: Option<u64>,
    /// 1 if connectors may write through io_uring, else 0.
    io_uring: Option<u64>,
}

/// A limit, and how it compares to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What is limited.
    pub(crate) what: &'static str,
    pub(crate) is: u64,
    pub(crate) wanted: u64,
    /// Whether nothing works without it; what is not slows down.
    pub(crate) is_needed: bool,
    /// What to set, and why.
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) const fn is_fine(&self) -> bool {
        self.is >= self.wanted
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.is_fine(), self.is_needed) {
            (true, _) => "ok     ",
            (false, true) => "too low",
            (false, false) => "low    ",
        };
        write!(f, "{word}  {:<36}{:>13}  wanted {}", self.what, self.is, self.wanted)?;
        if !self.is_fine() {
            write!(f, "\n         {}", self.advice)?;
        }
        Ok(())
    }
}

impl Machine {
    /// Looks at this machine and at the limits of this process.
    pub(crate) fn read() -> Self {
        let one = |path: &str| numbers(path).first().copied();
        let files = numbers("/proc/sys/fs/file-nr");
        let ports = numbers("/proc/sys/net/ipv4/ip_local_port_range");
        let tracked = one("/proc/sys/net/netfilter/nf_conntrack_count");
        // None, where everybody has some: nothing tracks connections here.
        let tracked = tracked.filter(|count| *count > 0);
        Self {
            files_per_process: getrlimit(Resource::Nofile).maximum,
            files: files.first().copied().zip(files.get(2).copied()),
            watches: one("/proc/sys/fs/epoll/max_user_watches"),
            ports: ports.first().zip(ports.get(1)).map(|(low, high)| high.saturating_sub(*low)),
            waiting: one("/proc/sys/net/core/somaxconn"),
            half_open: one("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
            tracked: tracked.zip(one("/proc/sys/net/netfilter/nf_conntrack_max")),
            memory: available_memory(),
            io_uring: Some(connector::may_use_io_uring().into()),
        }
    }

    /// Holds it against what is wanted.
    pub(crate) fn check(&self, demand: Demand) -> Vec<Finding> {
        let sessions = u64::from(demand.sessions);
        // Whoever plays clients here holds the other ends.
        let ends = if demand.per_address.is_some() { 2 * sessions } else { sessions };
        let per_process = u64::from(demand.per_process);
        let mut findings = Vec::new();
        let mut add = |what, is: Option<u64>, wanted, is_needed, advice: String| {
            findings.extend(is.map(|is| Finding { what, is, wanted, is_needed, advice }));
        };
        let wanted = per_process + SPARE_FILES;
        let advice = format!(
            "a session is an open file: `ulimit -Hn {wanted}` as root before the start, \
             LimitNOFILE= in a unit, `ulimits: nofile:` in a compose file; or more processes"
        );
        add("open files of a process", self.files_per_process, wanted, true, advice);
        let left = self.files.map(|(open, most)| most.saturating_sub(open));
        let wanted = ends + FILES_OF_OTHERS;
        let most = wanted + self.files.map_or(0, |(open, _)| open);
        let advice = format!("all processes share them: `sysctl -w fs.file-max={most}`");
        add("open files left (fs.file-max)", left, wanted, true, advice);
        let advice = format!(
            "each socket is waited for: `sysctl -w fs.epoll.max_user_watches={}`",
            2 * ends
        );
        add("fs.epoll.max_user_watches", self.watches, ends, true, advice);
        if let Some(per_address) = demand.per_address {
            let advice = "an address has so many outgoing connections: \
                          `sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`, \
                          or more processes with addresses of their own";
            let wanted = u64::from(per_address) + SPARE_PORTS;
            add("ports (ip_local_port_range)", self.ports, wanted, true, advice.to_owned());
        }
        if demand.sessions > FEW {
            let advice = "connections that come in at once wait for their turn, or are tried again \
                          after a second: `sysctl -w net.core.somaxconn=65535`";
            add("net.core.somaxconn", self.waiting, WAITING, false, advice.to_owned());
            let advice = "the same before their handshake is done: \
                          `sysctl -w net.ipv4.tcp_max_syn_backlog=65535`";
            add("tcp_max_syn_backlog", self.half_open, WAITING, false, advice.to_owned());
        }
        let free = self.tracked.map(|(count, most)| most.saturating_sub(count));
        let advice = format!(
            "connections are tracked, and no more than these: \
             `sysctl -w net.netfilter.nf_conntrack_max={}`, or a network namespace without rules",
            sessions + FILES_OF_OTHERS
        );
        add("tracked connections left", free, sessions, true, advice);
        let advice = "each end of a connection takes some 8 KiB of the machine: fewer sessions, or \
                      clients on another machine";
        add("memory available, in bytes", self.memory, ends * END_BYTES, true, advice.to_owned());
        let advice = "connectors write one by one, at up to half the cost more: \
                      `sysctl -w kernel.io_uring_disabled=0`, or a seccomp profile of the container that \
                      lets io_uring_setup, io_uring_enter and io_uring_register through";
        add("io_uring allowed (1)", self.io_uring, 1, false, advice.to_owned());
        findings
    }
}

/// Raises the number of files that this process may open to what it is allowed.
///
/// # Errors
///
/// If the system does not let it.
pub(crate) fn raise_file_limit() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Memory that can be had without swapping, in bytes.
pub(crate) fn available_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn numbers(path: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION: Demand =
        Demand { sessions: 1_000_000, per_process: 19_600, per_address: Some(18_600) };

    fn large() -> Machine {
        Machine {
            files_per_process: Some(20_000),
            files: Some((1_000, 2_400_000)),
            watches: Some(5_000_000),
            ports: Some(28_231),
            waiting: Some(4_096),
            half_open: Some(2_048),
            tracked: None,
            memory: Some(24 << 30),
            io_uring: Some(1),
        }
    }

    fn in_the_way(machine: Machine, demand: Demand) -> Vec<&'static str> {
        let findings = machine.check(demand);
        findings.iter().filter(|it| !it.is_fine() && it.is_needed).map(|it| it.what).collect()
    }

    #[test]
    fn a_million_fits_a_machine_that_is_set_for_it() {
        assert!(in_the_way(large(), MILLION).is_empty());
        let text: Vec<String> = large().check(MILLION).iter().map(ToString::to_string).collect();
        let low = text.iter().find(|line| line.starts_with("low")).unwrap();
        assert!(low.contains("tcp_max_syn_backlog=65535"), "{low}");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let tracked = Machine { tracked: Some((10, 262_144)), ..large() };
        assert_eq!(in_the_way(tracked, MILLION), ["tracked connections left"]);
        let one = Demand { per_process: 1_000_000, ..MILLION };
        assert_eq!(in_the_way(large(), one), ["open files of a process"]);
        let one = Demand { per_address: Some(60_000), ..MILLION };
        assert_eq!(in_the_way(large(), one), ["ports (ip_local_port_range)"]);
        let small = Machine { files: Some((1_000, 1_000_000)), memory: Some(4 << 30), ..large() };
        let expected = ["open files left (fs.file-max)", "memory available, in bytes"];
        assert_eq!(in_the_way(small, MILLION), expected);
    }

    #[test]
    fn nothing_is_in_the_way_of_a_few_on_this_machine() {
        let few = Demand { sessions: 10, per_process: 10, per_address: Some(10) };
        assert!(in_the_way(Machine::read(), few).is_empty());
        assert!(raise_file_limit().is_ok());
    }
}
