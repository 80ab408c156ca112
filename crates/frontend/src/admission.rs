//! Who may connect.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections, in all and by address.
#[derive(Debug)]
pub(crate) struct Admission {
    total_max: usize,
    per_address_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Only addresses that have a connection.
    by_address: HashMap<IpAddr, usize>,
}

/// One admitted connection; counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many.
    Total,
    /// There are too many from its address.
    Address,
}

impl Refusal {
    /// The refusal's name in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

impl Admission {
    pub(crate) fn new(total_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_address_max, counts: Mutex::default() })
    }

    /// Admits a connection from `address`.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refusal> {
        let address = network(address);
        let mut counts = self.lock();
        if counts.total >= self.total_max {
            return Err(Refusal::Total);
        }
        if counts.by_address.get(&address).is_some_and(|count| *count >= self.per_address_max) {
            return Err(Refusal::Address);
        }
        counts.total += 1;
        *counts.by_address.entry(address).or_insert(0) += 1;
        drop(counts);
        Ok(Permit { admission: self.clone(), address })
    }

    /// How many connections there are.
    pub(crate) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.total -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// Who shares a count: one address of IPv4, or a network of 64 bits of IPv6, which any one
/// subscriber has whole.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_caps_hold_and_nothing_is_left_behind() {
        let admission = Admission::new(3, 2);
        let admit = |text| admission.admit(address(text));
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Refusal::Address);
        let third = admit("192.0.2.2").unwrap();
        assert_eq!(admit("192.0.2.3").unwrap_err(), Refusal::Total);
        drop((first, third));
        assert_eq!(admission.total(), 1);
        assert_eq!(admission.lock().by_address.len(), 1);
        assert!(admit("192.0.2.1").is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let admission = Admission::new(9, 1);
        let _first = admission.admit(address("2001:db8::1")).unwrap();
        assert_eq!(admission.admit(address("2001:db8::2")).unwrap_err(), Refusal::Address);
        assert!(admission.admit(address("2001:db8:0:1::1")).is_ok());
        let _mapped = admission.admit(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), Refusal::Address);
    }
}
