//! Finds out under which port clients reach this connector from outside its container.
//!
//! A scaled connector listens on one port inside every replica, while the engine publishes each
//! replica on some port of a range (`3050-3069:3050`), and tells nobody inside which. So the
//! connector asks from outside: it requests `GET /tangelo/whoami` on each port of the range at
//! the *probe host*, an address where the published ports answer, seen from the container. Every
//! connector answers with its incarnation there; the port that answers with ours is ours.
//!
//! The probe host is the configured one, else the container's default gateway (with a bridge
//! network that is the host itself), else `host.docker.internal` (a virtual machine between).
//!
//! Only the port is found here. The host that a gate tells a client is the one by which that
//! client reached the gate, unless one is configured: a container cannot know it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The path on every connector's client port that answers with its incarnation, as text.
pub const WHOAMI_PATH: &str = "/tangelo/whoami";

/// Most ports in a range; each is one connection per round of probing.
pub const PORTS_MAX: usize = 1024;

/// Time for one port to answer, from the connection to the last byte. A published port on the
/// same host takes about a millisecond; a dropped packet must not hold up the round.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Ports asked at the same time.
const PROBES_AT_ONCE: usize = 32;

/// Largest answer read, in bytes. The right one has some 150.
const ANSWER_BYTES_MAX: usize = 4096;

/// First and longest pause between two rounds.
const RETRY: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(15);

/// Where Linux tells the routes of this network namespace.
const ROUTES: &str = "/proc/net/route";

/// The name by which Docker Desktop and Podman make the host known inside a container.
const HOST_NAME: &str = "host.docker.internal";

/// The published ports among which this connector's own is: `3050-3069`, or a single `3050`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPorts(RangeInclusive<u16>);

impl PublishedPorts {
    /// The ports as a range that is never empty and never longer than [`PORTS_MAX`].
    pub fn range(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }

    /// The port, if there is no choice and so nothing to find out.
    pub fn single(&self) -> Option<u16> {
        (self.0.start() == self.0.end()).then_some(*self.0.start())
    }
}

impl fmt::Display for PublishedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(port) => write!(f, "{port}"),
            None => write!(f, "{}-{}", self.0.start(), self.0.end()),
        }
    }
}

/// A text that names no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a port or a range of at most {PORTS_MAX} ports, such as 3050 or 3050-3069, got {0:?}"
)]
pub struct BadPorts(String);

impl FromStr for PublishedPorts {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        let bad = || BadPorts(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: u16 = first.trim().parse().map_err(|_| bad())?;
        let last: u16 = last.trim().parse().map_err(|_| bad())?;
        if first == 0 || first > last || usize::from(last - first) >= PORTS_MAX {
            return Err(bad());
        }
        Ok(Self(first..=last))
    }
}

/// Names the hosts to probe, best first: only the configured one, or else (also if that is empty)
/// the one address that ports are published on, if it is known and can be reached from here, the
/// default gateway of this network namespace, if there is one, and `host.docker.internal`.
pub async fn probe_hosts(configured: Option<&str>, published_on: Option<&str>) -> Vec<String> {
    if let Some(host) = configured.filter(|host| !host.is_empty()) {
        return vec![host.to_owned()];
    }
    let published_on = published_on.and_then(|text| text.parse::<IpAddr>().ok());
    let one = published_on.filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    let routes = tokio::fs::read_to_string(ROUTES).await.unwrap_or_default();
    let gateway = default_gateway(&routes).map(IpAddr::from);
    let hosts = one.into_iter().chain(gateway).map(|ip| ip.to_string());
    hosts.chain([HOST_NAME.to_owned()]).collect()
}

/// Finds the port of `ports` that leads to this connector, whose incarnation is `whoami`, at the
/// first of `probe_hosts` where one does.
///
/// The client port must be accepting already. Tries until it finds one: at once, then with
/// growing pauses of 0.5 s up to 15 s. It logs what it found, or what to do as long as it finds
/// nothing. A single port is taken as it is, without a probe.
///
/// # Cancel safety
///
/// Dropping the future stops the probing; nothing is lost.
pub async fn discover(ports: &PublishedPorts, probe_hosts: &[String], whoami: &str) -> u16 {
    if let Some(port) = ports.single() {
        tracing::info!(port, "clients reach this connector on the configured port");
        return port;
    }
    let mut pause = *RETRY.start();
    loop {
        match probe_once(ports.range(), probe_hosts, whoami).await {
            Ok(found) => {
                tracing::info!(
                    port = found.port,
                    probe_host = found.host,
                    "found the published port that leads to this connector"
                );
                return found.port;
            }
            Err(tally) => tracing::warn!(
                ports = %ports,
                probe_hosts = probe_hosts.join(","),
                other_nodes = tally.other_nodes,
                strangers = tally.strangers,
                silent = tally.silent,
                retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "no published port leads to this connector, so clients are not sent here yet; {}",
                tally.advice()
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*RETRY.end());
    }
}

/// The port that is ours, and where it answered.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    host: String,
    port: u16,
}

/// What the ports of one round answered when none was ours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Ports that lead to another connector.
    other_nodes: usize,
    /// Ports where something else than a connector answers.
    strangers: usize,
    /// Ports where nothing answers in time.
    silent: usize,
}

impl Tally {
    fn advice(&self) -> &'static str {
        if self.other_nodes > 0 {
            "other connectors answer there: is the published range large enough, and the same as \
             TANGELO_ADVERTISE_PORTS?"
        } else {
            "set TANGELO_PROBE_HOST to an address at which this container reaches the published \
             ports (those on 127.0.0.1 no container reaches), or TANGELO_ADVERTISE_PORTS to the \
             one port that is published"
        }
    }
}

/// Asks every port at every host once. The first host with our own answer ends the round.
async fn probe_once(
    ports: RangeInclusive<u16>,
    probe_hosts: &[String],
    whoami: &str,
) -> Result<Found, Tally> {
    let mut tally = Tally::default();
    for host in probe_hosts {
        let mut answers = futures_util::stream::iter(ports.clone())
            .map(|port| async move { (port, ask(host, port).await) })
            .buffer_unordered(PROBES_AT_ONCE);
        while let Some((port, answer)) = answers.next().await {
            tracing::debug!(probe_host = host, port, ?answer, "probed a published port");
            match answer {
                Answer::Node(name) if name == whoami => {
                    let host = host.clone();
                    return Ok(Found { host, port });
                }
                Answer::Node(_) => tally.other_nodes += 1,
                Answer::Stranger => tally.strangers += 1,
                Answer::Silence => tally.silent += 1,
            }
        }
    }
    Err(tally)
}

/// What one port said.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A connector's incarnation.
    Node(String),
    /// Something that is no connector.
    Stranger,
    /// Refused, unreachable, or too late.
    Silence,
}

async fn ask(host: &str, port: u16) -> Answer {
    match tokio::time::timeout(PROBE_TIMEOUT, request(host, port)).await {
        Ok(Ok(response)) => match whoami_of(&response) {
            Some(name) => Answer::Node(name.to_owned()),
            None => Answer::Stranger,
        },
        Ok(Err(_)) | Err(_) => Answer::Silence,
    }
}

/// Sends the request and reads until the answer is complete, the peer closes, or the bound.
async fn request(host: &str, port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request =
        format!("GET {WHOAMI_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    while response.len() < ANSWER_BYTES_MAX && whoami_of(&response).is_none() {
        let mut chunk = [0; 512];
        match stream.read(&mut chunk).await? {
            0 => break,
            read => response.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(response)
}

/// The incarnation in a complete answer to `GET /tangelo/whoami`: one line of text after a head
/// that says 200 and the length of the body.
fn whoami_of(response: &[u8]) -> Option<&str> {
    let response = std::str::from_utf8(response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n")?;
    let mut status = status.split(' ');
    if !status.next()?.starts_with("HTTP/1.") || status.next()? != "200" {
        return None;
    }
    let length: usize = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    let name = body.get(..length)?.trim();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

/// The gateway of the default route with the least metric, from the text of `/proc/net/route`.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    /// Bit of the column `Flags`: the route goes through a gateway.
    const VIA_GATEWAY: u32 = 0x2;
    routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[_, destination, gateway, flags, _, _, metric, mask, ..] = columns.as_slice()
            else {
                return None;
            };
            let hex = |text: &str| u32::from_str_radix(text, 16).ok();
            let (gateway, metric) = (hex(gateway)?, metric.parse::<u32>().ok()?);
            let is_default = hex(destination)? == 0 && hex(mask)? == 0;
            // The kernel prints the address as it lies in memory, read as a native integer.
            (is_default && hex(flags)? & VIA_GATEWAY != 0 && gateway != 0)
                .then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
        })
        .min_by_key(|&(metric, _)| metric)
        .map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::net::TcpListener;

    #[test]
    fn ports_are_one_or_a_range() {
        let ports = |text: &str| text.parse::<PublishedPorts>();
        assert_eq!(ports("3050-3069").unwrap().range(), 3050..=3069);
        assert_eq!(ports("3050-3069").unwrap().single(), None);
        assert_eq!(ports("3050").unwrap().single(), Some(3050));
        assert_eq!(ports("3050-3050").unwrap().single(), Some(3050));
        assert_eq!(ports(" 3050 - 3051 ").unwrap().to_string(), "3050-3051");
        assert_eq!(ports("64512-65535").unwrap().range().count(), PORTS_MAX);
        for bad in ["", "-", "0", "0-5", "3069-3050", "1-65535", "70000", "a-b", "3050-", "-1"] {
            assert_eq!(ports(bad), Err(BadPorts(bad.to_owned())));
        }
    }

    #[test]
    fn the_default_gateway_is_read_from_the_kernels_table() {
        const HEAD: &str =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let gateway = |routes: &str| default_gateway(&format!("{HEAD}{routes}"));
        assert_eq!(
            gateway(
                "eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                 eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
            ),
            Some(Ipv4Addr::new(172, 18, 0, 1))
        );
        // Two defaults: the smaller metric.
        assert_eq!(
            gateway(
                "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                 eth0\t00000000\t010010AC\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
            ),
            Some(Ipv4Addr::new(172, 16, 0, 1))
        );
        // No default route, a default without a gateway, a table cut short, an empty one.
        assert_eq!(gateway("eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"), None);
        assert_eq!(gateway("tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"), None);
        assert_eq!(gateway("eth0\t00000000\t0100\n"), None);
        assert_eq!(gateway(""), None);
        assert_eq!(default_gateway(""), None);
    }

    #[test]
    fn an_answer_counts_once_it_is_complete() {
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 8\r\n\r\nabc-0123";
        assert_eq!(whoami_of(answer), Some("abc-0123"));
        for end in 0..answer.len() {
            assert_eq!(whoami_of(&answer[..end]), None, "of {end} bytes");
        }
        for stranger in [
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na b c d",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nabc",
            b"SSH-2.0-OpenSSH\r\n",
            b"\xff\xfe\r\n\r\n",
        ] {
            assert_eq!(whoami_of(stranger), None);
        }
    }

    /// Answers every connection on a free loopback port with the given bytes, until dropped.
    async fn server(answer: String) -> (u16, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /tangelo/whoami HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        (port, serve)
    }

    fn ok(name: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
    }

    #[tokio::test]
    async fn the_port_that_answers_with_our_name_is_ours() {
        let (ours, serve) = server(ok("me")).await;
        // An unreachable host before it costs nothing but its refusals.
        let hosts = ["127.0.0.2".to_owned(), "127.0.0.1".to_owned()];
        tokio::select! {
            found = probe_once(ours..=ours, &hosts, "me") => {
                assert_eq!(found, Ok(Found { host: "127.0.0.1".to_owned(), port: ours }));
            }
            () = serve => {}
        }
    }

    #[tokio::test]
    async fn what_else_answers_is_counted() {
        let (other, serve_other) = server(ok("you")).await;
        let (stranger, serve_stranger) = server("220 mail.example ESMTP\r\n".to_owned()).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let hosts = ["127.0.0.1".to_owned()];
        let probes = async {
            let mut tallies = Vec::new();
            for port in [other, stranger, closed] {
                tallies.push(probe_once(port..=port, &hosts, "me").await.unwrap_err());
            }
            tallies
        };
        let tallies = tokio::select! {
            tallies = probes => tallies,
            () = serve_other => unreachable!(),
            () = serve_stranger => unreachable!(),
        };
        assert_eq!(tallies[0], Tally { other_nodes: 1, ..Tally::default() });
        assert_eq!(tallies[1], Tally { strangers: 1, ..Tally::default() });
        assert_eq!(tallies[2], Tally { silent: 1, ..Tally::default() });
        assert_ne!(tallies[0].advice(), tallies[2].advice());
    }

    #[tokio::test]
    async fn discovery_goes_on_until_a_port_leads_here() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = PublishedPorts(port.saturating_sub(1)..=port);
        let hosts = ["127.0.0.1".to_owned()];
        let serve = async {
            // The first round meets another node, as when replicas change places.
            for name in ["you", "me"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(ok(name).as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            found = discover(&ports, &hosts, "me") => assert_eq!(found, port),
            () = serve => {}
        }
    }

    #[tokio::test]
    async fn a_single_port_needs_no_probe() {
        assert_eq!(discover(&PublishedPorts(3050..=3050), &[], "me").await, 3050);
    }

    #[tokio::test]
    async fn a_configured_probe_host_is_the_only_one() {
        assert_eq!(probe_hosts(Some("192.0.2.1"), Some("192.0.2.2")).await, ["192.0.2.1"]);
        for unset in [None, Some("")] {
            assert_eq!(probe_hosts(unset, None).await.last().map(String::as_str), Some(HOST_NAME));
        }
        let first = probe_hosts(None, Some("192.0.2.2")).await.swap_remove(0);
        assert_eq!(first, "192.0.2.2");
        let without = probe_hosts(None, None).await;
        for unreachable in ["0.0.0.0", "127.0.0.1", "::", ""] {
            assert_eq!(probe_hosts(None, Some(unreachable)).await, without);
        }
    }
}
