//! Listening sockets, with errors that say what to do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

use crate::host_name;

/// Connections that may wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Binds a listening socket. `flag` is the command line flag that chose `address`.
///
/// # Errors
///
/// If the address cannot be had. The error keeps its kind, and its text says what to do.
pub fn bind(address: SocketAddr, flag: &str) -> io::Result<TcpListener> {
    listen(address).map_err(|error| explain(&error, address, flag))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted process must not wait for connections of its former life to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where a process of the same machine dials a socket bound to `bound`: one bound to every address
/// is dialled on the loopback.
#[must_use]
pub fn loopback(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// What other processes dial for a socket bound to `bound`, as `host:port`. One bound to every
/// address is dialled by this machine's host name, which inside a container is the container's.
#[must_use]
pub fn dialable(bound: SocketAddr) -> String {
    let ip = bound.ip();
    if !ip.is_unspecified() {
        return bound.to_string();
    }
    match &*host_name() {
        "" => format!("localhost:{}", bound.port()),
        name => format!("{name}:{}", bound.port()),
    }
}

/// Adds to `error` what a person can do about it.
#[must_use]
pub fn explain(error: &io::Error, address: SocketAddr, flag: &str) -> io::Error {
    let (ip, port) = (address.ip(), address.port());
    let text = if error.kind() == io::ErrorKind::AddrInUse {
        format!(
            "port {port} on {ip} is in use; stop the process that holds it, or choose another with {flag}"
        )
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!(
            "port {port} on {ip} is not allowed to this user; choose one above 1023 with {flag}"
        )
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        format!(
            "{ip} is not an address of this machine; choose another with {flag}, or 0.0.0.0 for \
             every address"
        )
    } else {
        format!("cannot listen on {address} ({flag}): {error}")
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_explained() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(any, "--listen").unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(taken, "--listen").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!(
                "port {} on 127.0.0.1 is in use; stop the process that holds it, \
                 or choose another with --listen",
                taken.port()
            )
        );
    }

    #[test]
    fn every_address_is_reached_on_the_loopback() {
        let reach = |text: &str| loopback(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reach("[::]:9090"), "[::1]:9090");
        assert_eq!(reach("10.0.0.7:9090"), "10.0.0.7:9090");
    }

    #[test]
    fn every_address_is_dialled_by_name() {
        assert_eq!(dialable("10.0.0.7:6050".parse().unwrap()), "10.0.0.7:6050");
        assert_eq!(dialable("[::1]:6050".parse().unwrap()), "[::1]:6050");
        let by_name = dialable("0.0.0.0:6050".parse().unwrap());
        assert!(by_name.ends_with(":6050") && !by_name.starts_with("0.0"), "{by_name}");
    }

    #[tokio::test]
    async fn a_foreign_address_is_explained() {
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(foreign, "--admin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 is not an address of this machine; choose another with --admin, \
             or 0.0.0.0 for every address"
        );
    }
}
