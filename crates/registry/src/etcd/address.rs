//! `etcd://host:port,host:port/name`.

use cluster::Timing;
use model::limits;
use rpc::etcd::Keyspace;
use tonic::transport::Endpoint;

use crate::ConfigError;

/// Where etcd listens for clients if nothing is said.
const PORT: u16 = 2379;
/// The part of etcd that a cluster uses if nothing is said.
const NAME: &str = "tangelo";

const NO_USERS: &str =
    "users and passwords are not supported; let etcd listen only where this cluster reaches it";

/// An address, checked.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) keys: Keyspace,
}

impl Address {
    /// Reads what stands behind `etcd://`.
    pub(super) fn new(address: &str, rest: &str, timing: Timing) -> Result<Self, ConfigError> {
        let bad = |problem| ConfigError::Etcd(address.to_owned(), problem);
        let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.contains('@') {
            // A password is not repeated.
            return Err(ConfigError::Etcd("etcd://…@…".to_owned(), NO_USERS));
        }
        let name = if name.is_empty() { NAME } else { name };
        let keys = Keyspace::new(name).map_err(|_| {
            bad("the name behind the / is 1 to 64 letters, digits, hyphens, dots and _")
        })?;
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        if hosts.len() > limits::ETCD_ENDPOINTS_MAX {
            return Err(bad("name at most 16 members of etcd"));
        }
        let endpoints = hosts.into_iter().map(|host| endpoint(host, timing));
        let endpoints: Option<Vec<_>> = endpoints.collect();
        let endpoints = endpoints.ok_or_else(|| {
            bad("name the members of etcd as in etcd://10.0.0.1:2379,10.0.0.2:2379")
        })?;
        Ok(Self { endpoints, keys })
    }
}

fn endpoint(host: &str, timing: Timing) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{host}")).ok()?;
    let uri = endpoint.uri();
    if uri.host().is_none_or(str::is_empty) || uri.path() != "/" || uri.query().is_some() {
        return None;
    }
    let endpoint = match uri.port() {
        Some(port) if port.as_u16() == 0 => return None,
        Some(_) => endpoint,
        None if host.ends_with(':') => return None,
        None => Endpoint::from_shared(format!("http://{host}:{PORT}")).ok()?,
    };
    Some(endpoint.connect_timeout(timing.call_timeout).tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<(Vec<String>, Keyspace), ConfigError> {
        let rest = address.strip_prefix("etcd://").unwrap();
        let Address { endpoints, keys } = Address::new(address, rest, Timing::default())?;
        Ok((endpoints.iter().map(|endpoint| endpoint.uri().to_string()).collect(), keys))
    }

    #[test]
    fn members_and_a_name_are_read() {
        let keys = |name| Keyspace::new(name).unwrap();
        assert_eq!(
            read("etcd://a:1,10.0.0.2, [::1]:2379").unwrap(),
            (
                ["http://a:1/", "http://10.0.0.2:2379/", "http://[::1]:2379/"]
                    .map(str::to_owned)
                    .to_vec(),
                keys("tangelo")
            )
        );
        assert_eq!(read("etcd://a/blue").unwrap().1, keys("blue"));
        assert_eq!(read("etcd://a/").unwrap().1, keys("tangelo"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, part) in [
            ("etcd://", "name the members"),
            ("etcd://a,,b", "name the members"),
            ("etcd://a:", "name the members"),
            ("etcd://a:0", "name the members"),
            ("etcd://a:x", "name the members"),
            ("etcd://a b", "name the members"),
            ("etcd://a?x=1", "name the members"),
            ("etcd://a/b/c", "behind the /"),
            ("etcd://root:secret@a", "passwords are not supported"),
            (&format!("etcd://{}", ["a"; 17].join(",")), "at most 16"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
