//! Ports for processes that must be told theirs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that the kernel hands out for port 0 and for outgoing connections, so that
/// neither takes a port between our look at it and the child's bind.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of `host` that nobody listens on at the loopback, and that this process has not handed out lately.
///
/// Another process may still be quicker: whoever starts a child tries again with another port.
pub(crate) fn free(host: IpAddr) -> anyhow::Result<SocketAddr> {
    // Tests run as several processes at once; each begins elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + offset) % COUNT;
        // The host may be in another network namespace, where nobody else listens.
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(SocketAddr::new(host, port));
        }
    }
    anyhow::bail!("no free port from {FIRST} on")
}
