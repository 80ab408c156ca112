//! Asks the admin port of a running process how it is, for a container engine that knows health
//! only by a command's exit code.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Time for the connection, and again for each read of the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer read, in bytes; the reasons of a process that is not ready take a few lines.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Arguments of `tangelo healthcheck`.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthcheckArgs {
    /// The admin address that the process was given
    #[arg(long, env = "TANGELO_ADMIN", value_name = "ADDRESS")]
    pub admin: SocketAddr,

    /// Ask only whether the process is alive (/healthz), not whether it is ready (/readyz)
    #[arg(long)]
    pub alive: bool,
}

impl HealthcheckArgs {
    /// Asks, and waits for the answer for a few seconds.
    ///
    /// # Errors
    ///
    /// Why the process is not ready (or not alive), in its own words if it answered.
    pub fn run(&self) -> Result<(), String> {
        let address = reachable(self.admin);
        let path = if self.alive { "/healthz" } else { "/readyz" };
        let answer = get(address, path).map_err(|error| {
            format!("no answer from http://{address}{path}: {error}; is the process running?")
        })?;
        verdict(&answer)
    }
}

/// The address to dial for one that is listened on: "all addresses" includes the loopback.
fn reachable(listened: SocketAddr) -> SocketAddr {
    let ip = match listened.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listened.port())
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn verdict(answer: &str) -> Result<(), String> {
    let status = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        Some("200") => Ok(()),
        Some("503") => Err(format!("not ready: {}", body.trim().replace('\n', "; "))),
        Some(status) => Err(format!("the admin port answered with status {status}")),
        None => Err("what listens there is not an admin port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;

    #[test]
    fn a_listening_address_is_dialled_where_it_answers() {
        let dialled = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(dialled("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(dialled("[::]:9090"), "[::1]:9090");
        assert_eq!(dialled("192.0.2.7:9090"), "192.0.2.7:9090");
    }

    #[test]
    fn the_status_decides() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\nready\n"), Ok(()));
        assert_eq!(
            verdict("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nmap: none\nshards: none\n"),
            Err("not ready: map: none; shards: none".to_owned())
        );
        assert!(verdict("HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().contains("404"));
        assert!(verdict("220 mail.example ESMTP\r\n").is_err());
        assert!(verdict("").is_err());
    }

    #[test]
    fn a_running_process_is_asked_and_a_stopped_one_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nalive\n").unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let healthcheck = HealthcheckArgs { admin, alive: true };
        assert_eq!(healthcheck.run(), Ok(()));
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
        assert!(healthcheck.run().unwrap_err().contains("is the process running?"));
    }
}
