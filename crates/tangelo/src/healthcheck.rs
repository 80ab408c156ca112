//! Asks one process whether it is well, for container engines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};

use crate::{cli::HealthcheckArgs, http};

/// Asks; `Ok` is "well".
///
/// # Errors
///
/// What is wrong with it.
pub(crate) async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let address = reachable(args.admin);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = http::get(address, path).await;
    let (status, body) = answer.with_context(|| format!("{address} does not answer"))?;
    if status != 200 {
        bail!("{path} answers {status}: {}", body.trim().replace('\n', "; "));
    }
    Ok(())
}

/// The address to dial for one that is listened on: "every address" includes the loopback.
pub(crate) fn reachable(listened: SocketAddr) -> SocketAddr {
    let ip = match listened.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listened.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_on_the_loopback() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reach("[::]:9090"), "[::1]:9090");
        assert_eq!(reach("10.0.0.7:9090"), "10.0.0.7:9090");
    }
}
