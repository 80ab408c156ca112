//! A person who stays connected while the test does something else.

use std::time::Duration;

use anyhow::{Context as _, bail};
use client::{Client, Event, Push};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

/// When waiting for a message is pointless.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

struct Order {
    target: String,
    text: String,
    done: oneshot::Sender<()>,
}

/// A user in a room, driven by a task of its own. Being disconnected fails whatever is asked next.
pub(crate) struct User {
    orders: mpsc::Sender<Order>,
    heard: watch::Receiver<Vec<Push>>,
    life: JoinSet<anyhow::Result<()>>,
}

impl User {
    /// Takes over a client that has entered.
    pub(crate) fn start(client: Client) -> Self {
        let (orders, inbox) = mpsc::channel(1);
        let (heard_sender, heard) = watch::channel(Vec::new());
        let mut life = JoinSet::new();
        life.spawn(live(client, inbox, heard_sender));
        Self { orders, heard, life }
    }

    /// Says something, and waits for the answer.
    pub(crate) async fn say(&self, target: &str, text: &str) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        let order = Order { target: target.to_owned(), text: text.to_owned(), done };
        self.orders.send(order).await.ok().context("a user was disconnected")?;
        answer.await.with_context(|| format!("no answer to {text:?}"))
    }

    /// Everything pushed so far.
    pub(crate) fn heard(&self) -> Vec<Push> {
        self.heard.borrow().clone()
    }

    /// Waits until what was heard satisfies `enough`.
    pub(crate) async fn until_heard(
        &self,
        what: &str,
        enough: impl Fn(&[Push]) -> bool,
    ) -> anyhow::Result<()> {
        let mut heard = self.heard.clone();
        let wait = heard.wait_for(|heard| enough(heard));
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("disconnected while waiting: {what}"),
            Err(_) => bail!("waited in vain: {what}; heard {:?}", self.heard()),
        }
    }

    /// Leaves in order. Fails if the connection had ended before.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        drop(self.orders);
        self.life.join_next().await.context("a user lives once")??
    }
}

async fn live(
    mut client: Client,
    mut orders: mpsc::Receiver<Order>,
    heard: watch::Sender<Vec<Push>>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order { target, text, done }) => {
                    client.send(&target, &text).await?;
                    // The asker may have given up.
                    let _ = done.send(());
                }
                None => return client.close().await.map(drop).context("leaving"),
            },
            event = client.next() => match event? {
                Event::Push(push) => heard.send_modify(|heard| heard.push(push)),
                Event::Answer { id, .. } => bail!("an answer to {id:?} that nobody waits for"),
            },
        }
    }
}
