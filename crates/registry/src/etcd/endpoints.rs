//! Finding a member of etcd that answers.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use model::limits;
use rpc::{
    dial::Dialer,
    etcd::{Etcd, Greeting, Keyspace},
};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

use super::address::Address;
use crate::standing::describe;

/// The members of etcd, and which one to ask first.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    members: Vec<Endpoint>,
    keys: Keyspace,
    first: usize,
    call_timeout: Duration,
    dialer: Dialer,
}

impl Endpoints {
    /// Nodes with different seeds begin with different members.
    pub(super) fn new(
        address: &Address,
        seed: u64,
        call_timeout: Duration,
        dialer: Dialer,
    ) -> Self {
        let members = address.endpoints.clone();
        let first = usize::try_from(seed % members.len().max(1) as u64).unwrap_or(0);
        Self { members, keys: address.keys.clone(), first, call_timeout, dialer }
    }

    /// Begins with the next member from now on.
    pub(super) fn turn(&mut self) {
        self.first = (self.first + 1) % self.members.len().max(1);
    }

    /// Asks one member after the other, the next one as soon as one has failed or is slow, and
    /// takes the first that answers for a majority.
    ///
    /// # Errors
    ///
    /// Why the last one did not, if none does.
    pub(super) async fn connect(&mut self) -> Result<(Etcd, Greeting), String> {
        let count = self.members.len();
        let mut waiting = (0..count).map(|step| (self.first + step) % count);
        let mut tries = FuturesUnordered::new();
        let mut reason = String::new();
        loop {
            let next = waiting.next();
            if let Some(index) = next {
                tries.push(self.greet(index));
            }
            let slow = async {
                match next {
                    Some(_) => sleep(limits::ETCD_NEXT_ENDPOINT).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                tried = tries.next() => match tried {
                    Some(Ok((index, etcd, greeting))) => {
                        drop(tries);
                        self.first = index;
                        return Ok((etcd, greeting));
                    }
                    Some(Err(error)) => reason = error,
                    None => return Err(reason),
                },
                () = slow => {}
            }
        }
    }

    async fn greet(&self, index: usize) -> Result<(usize, Etcd, Greeting), String> {
        let member = &self.members[index];
        let etcd = Etcd::new(self.dialer.connect_lazy(member), self.keys.clone());
        let at = |why: &str| {
            format!("{}: {why}; does etcd run there, without TLS and passwords?", member.uri())
        };
        match timeout(self.call_timeout, etcd.greet()).await {
            Ok(Ok(greeting)) => Ok((index, etcd, greeting)),
            Ok(Err(status)) => Err(at(&describe(&status))),
            Err(_) => Err(at("no answer in time")),
        }
    }
}
