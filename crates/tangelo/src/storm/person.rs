//! One of the crowd: comes, stays, comes back, stays, goes.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use client::{Client, Error, Member, Options, Result, Seen};
use tokio::time::sleep;

use super::part::{Arrival, Crowd, Phase};

/// How long somebody may try to come in.
const COME_PATIENCE: Duration = Duration::from_secs(240);
/// The wait after a failure, and up to as long again: a library of the original's time that tries
/// again does so.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Person {
    pub(super) crowd: Arc<Crowd>,
    pub(super) name: String,
    pub(super) room: String,
    pub(super) source: Option<IpAddr>,
}

/// Somebody who is in.
enum Present {
    Old(Box<Client>),
    Modern(Box<Member>),
}

impl Person {
    pub(super) async fn live(self) -> anyhow::Result<()> {
        let mut phase = self.crowd.phase.clone();
        let crowd = Arc::clone(&self.crowd);
        let door = crowd.doors.acquire().await?;
        let (mut present, _) = self.come().await?;
        drop(door);
        self.arrived(Instant::now(), 1).await?;
        // Whoever is lost before the storm is back for it.
        while *phase.borrow_and_update() == Phase::Come {
            tokio::select! {
                Err(_) = present.hear() => present = self.come().await?.0,
                changed = phase.changed() => changed?,
            }
        }
        let storm = Instant::now();
        let mut tries = 1;
        present = match present {
            Present::Old(client) => {
                drop(client);
                let (present, needed) = self.come().await?;
                tries = needed;
                present
            }
            Present::Modern(mut member) => {
                member.sever();
                while !matches!(member.next().await?, Seen::Back { .. }) {}
                Present::Modern(member)
            }
        };
        self.arrived(storm, tries).await?;
        while *phase.borrow_and_update() != Phase::End {
            tokio::select! {
                Err(_) = present.hear() => present = self.come().await?.0,
                changed = phase.changed() => changed?,
            }
        }
        Ok(())
    }

    async fn arrived(&self, since: Instant, tries: u64) -> anyhow::Result<()> {
        let arrival = Arrival { after: since.elapsed(), tries };
        self.crowd.arrivals.send(arrival).await.ok().context("nobody counts any more")
    }

    /// Tries until it is in; answers how often.
    async fn come(&self) -> anyhow::Result<(Present, u64)> {
        let options = Options { source: self.source, ..self.crowd.options.clone() };
        let deadline = Instant::now() + COME_PATIENCE;
        let mut tries = 1;
        loop {
            let error = match self.try_once(&options).await {
                Ok(present) => return Ok((present, tries)),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                bail!("{} does not get in: {error}", self.name);
            }
            tries += 1;
            let wait = error.retry_after().unwrap_or(PAUSE);
            // Names differ, and with them the waits.
            let share =
                self.name.bytes().fold(7_u32, |hash, byte| hash * 31 % 997 + u32::from(byte));
            sleep(wait + wait * (share % 100) / 100).await;
        }
    }

    async fn try_once(&self, options: &Options) -> Result<Present> {
        let Crowd { gate, .. } = &*self.crowd;
        if options.modern {
            let entered = Member::enter(gate.to_string(), options, &self.name, &self.room).await;
            return entered.map(|(member, _)| Present::Modern(Box::new(member)));
        }
        let entry = Client::query_entry(gate, options, &self.name, Some(&self.room)).await?;
        entry.slot().await;
        let mut client = Client::connect((entry.host.as_str(), entry.port), options).await?;
        client.enter(&self.name, &self.room).await?;
        Ok(Present::Old(Box::new(client)))
    }
}

impl Present {
    /// Hears what comes next.
    async fn hear(&mut self) -> Result<(), Error> {
        loop {
            match self {
                Self::Old(client) => drop(client.next().await?),
                Self::Modern(member) => drop(member.next().await?),
            }
        }
    }
}
