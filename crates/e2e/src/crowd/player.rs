//! One user of a crowd who plays a client as of old.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use client::{Client, Error, Event, Options, Push, RequestId, Route};
use serde_json::Map;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use verify::history::TextId;

use super::{Acked, Inner, Order, Records, UserKey, WORDS};

/// A user's own side.
pub(super) struct Player {
    records: Arc<Records>,
    key: usize,
    client: Client,
    /// Requests under way, and the number of the send that each carries.
    sends: BTreeMap<RequestId, (u32, Instant)>,
    enter: Option<RequestId>,
    entered: Option<oneshot::Sender<Result<(), Error>>>,
    text_bytes: usize,
}

impl Player {
    /// Connects, and asks to enter; `entered` tells what came of it.
    pub(super) async fn connect(
        records: Arc<Records>,
        options: &Options,
        connector: SocketAddr,
        (user, room): (&str, &str),
        text_bytes: usize,
        entered: oneshot::Sender<Result<(), Error>>,
    ) -> anyhow::Result<Self> {
        let client = Client::connect(connector, options).await?;
        let key = records.begin(user, room);
        let (sends, enter) = (BTreeMap::new(), None);
        let mut player = Self { records, key, client, sends, enter, entered: None, text_bytes };
        player.enter(user, room, entered)?;
        Ok(player)
    }

    pub(super) const fn key(&self) -> UserKey {
        UserKey(self.key)
    }

    fn enter(
        &mut self,
        user: &str,
        room: &str,
        entered: oneshot::Sender<Result<(), Error>>,
    ) -> anyhow::Result<()> {
        let mut body = Map::new();
        body.insert("username".to_owned(), user.into());
        body.insert("rid".to_owned(), room.into());
        self.enter = Some(self.client.begin(Route::Enter, &body)?);
        self.entered = Some(entered);
        Ok(())
    }

    pub(super) async fn live(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut chatter: watch::Receiver<Option<Duration>>,
    ) {
        // Whoever comes while the others speak speaks too.
        chatter.mark_changed();
        let mut every: Option<Duration> = None;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                event = self.client.next() => match event {
                    Ok(event) => self.hear(event),
                    Err(error) => return self.lost(&error, &mut orders),
                },
                order = orders.recv() => match order {
                    Some(Order::Say { target }) => self.say(&target),
                    Some(Order::Leave { done }) => return self.leave(done, &mut orders).await,
                    // The crowd is gone.
                    None => return,
                },
                Ok(()) = chatter.changed() => {
                    every = *chatter.borrow_and_update();
                    next = self.key().first_turn(every);
                },
                () = sleep_until(next), if every.is_some() && self.entered.is_none() => {
                    next += every.unwrap_or_default();
                    self.records.lock().unanswered += 1;
                    self.say("*");
                },
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let now = Instant::now();
        let mut inner = self.records.lock();
        let Inner { names, logs, unanswered, acked, refused, .. } = &mut *inner;
        let log = &mut logs[self.key];
        log.at(now - self.records.start);
        match event {
            Event::Push(Push::Add { user }) => log.saw_add(names.intern(&user)),
            Event::Push(Push::Leave { user }) => log.saw_leave(names.intern(&user)),
            Event::Push(Push::Chat { text, from, target }) => {
                match text.strip_suffix(WORDS).and_then(TextId::parse) {
                    Some(id) => log.saw(names.intern(&from), id, target != "*"),
                    None => log.saw_foreign(),
                }
            }
            // Clients of old are not told of it, and nobody is judged by it.
            Event::Push(Push::Count { .. }) => {}
            Event::Push(Push::Other { .. }) => log.saw_foreign(),
            Event::Answer { id, result } if self.enter == Some(id) => {
                let result = result.map(|body| {
                    let users = body.get("users").and_then(serde_json::Value::as_array);
                    let users = users.into_iter().flatten().filter_map(|user| user.as_str());
                    let users: Vec<_> = users.map(|user| names.intern(user)).collect();
                    log.joined(users);
                });
                if result.is_err() {
                    log.gone();
                }
                if let Some(entered) = self.entered.take() {
                    // Whoever asked may have gone away.
                    let _ = entered.send(result);
                }
            }
            Event::Answer { id, result } => {
                *unanswered = unanswered.saturating_sub(1);
                let (number, sent) = self.sends.remove(&id).unwrap_or((0, now));
                match result {
                    Ok(_) => {
                        acked.push(Acked { user: UserKey(self.key), sent, after: now - sent });
                        log.acked(number);
                    }
                    Err(error) => refused.push(format!("m:{}:{number}: {error}", self.key)),
                }
            }
        }
    }

    fn say(&mut self, target: &str) {
        let (number, text) = self.records.says(self.key, target, self.text_bytes);
        match self.client.begin_send(target, &text) {
            Ok(id) => drop(self.sends.insert(id, (number, Instant::now()))),
            // The connection is broken; the next look at it says so.
            Err(_) => self.records.lock().unanswered -= 1,
        }
    }

    fn lost(&mut self, error: &Error, orders: &mut mpsc::Receiver<Order>) {
        self.records.note_lost(self.key, error);
        self.gone(orders);
    }

    async fn leave(mut self, done: oneshot::Sender<()>, orders: &mut mpsc::Receiver<Order>) {
        self.gone(orders);
        if let Err(error) = self.client.close().await {
            self.records.note_lost(self.key, &error);
        }
        // Whoever asked may have gone away.
        let _ = done.send(());
    }

    /// From now on it is no member; what it was to do or to hear does not count.
    fn gone(&mut self, orders: &mut mpsc::Receiver<Order>) {
        let dropped = self.sends.len() + Order::refuse(orders);
        let now = self.records.start.elapsed();
        let mut inner = self.records.lock();
        inner.unanswered -= dropped;
        inner.logs[self.key].at(now);
        inner.logs[self.key].gone();
    }
}
