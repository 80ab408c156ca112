//! Listening sockets, with errors that say what to do.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

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
        format!("{ip} is not an address of this machine; choose another with {flag}")
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

    #[tokio::test]
    async fn a_foreign_address_is_explained() {
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(foreign, "--admin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 is not an address of this machine; choose another with --admin"
        );
    }
}
