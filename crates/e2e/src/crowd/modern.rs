//! One user of a crowd who plays a client that comes back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use client::{Error, Member, Options, Outcome, Placed, Position, Push, Seen};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use verify::history::{Log, Name, Names, TextId};

use super::{Acked, Inner, Lost, Order, Records, Returned, UserKey, WORDS};

/// A user's own side. Its log goes on over all its connections; a reset begins another one.
pub(super) struct Modern {
    records: Arc<Records>,
    user: UserKey,
    /// The log that it writes now.
    log: usize,
    member: Member,
    /// Up to where it has seen the room.
    seen: Position,
    away_since: Option<Instant>,
    back: Option<Back>,
    text_bytes: usize,
}

/// It is back, and is being told what it missed.
struct Back {
    outcome: Outcome,
    users: Vec<Name>,
    from: Position,
    to: Position,
    missed: usize,
}

impl Modern {
    pub(super) async fn enter(
        records: Arc<Records>,
        gate: SocketAddr,
        options: &Options,
        connector: SocketAddr,
        (user, room): (&str, &str),
        text_bytes: usize,
    ) -> anyhow::Result<Self> {
        let (member, joined) =
            Member::enter_at(connector, gate.to_string(), options, user, room).await?;
        let log = records.begin(user, room);
        let seen = joined.resume.position;
        {
            let mut inner = records.lock();
            let users = intern(&mut inner.names, &joined.users);
            inner.logs[log].at(records.start.elapsed());
            inner.logs[log].joined(users);
            inner.logs[log].joined_at(seen);
        }
        let (user, away_since, back) = (UserKey(log), None, None);
        Ok(Self { records, user, log, member, seen, away_since, back, text_bytes })
    }

    pub(super) const fn key(&self) -> UserKey {
        self.user
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
            // What is due while it is away is said when it is back: a try to come back is not
            // given up for it.
            let speaks = every.is_some() && self.away_since.is_none() && self.back.is_none();
            let done = tokio::select! {
                seen = self.member.next() => seen.map(|seen| self.see(seen, Instant::now())),
                order = orders.recv() => match order {
                    Some(Order::Say { target }) => self.say(&target, Instant::now()).await,
                    Some(Order::Leave { done }) => return self.leave(done, &mut orders).await,
                    // The crowd is gone.
                    None => return,
                },
                Ok(()) = chatter.changed() => {
                    every = *chatter.borrow_and_update();
                    next = self.user.first_turn(every);
                    Ok(())
                },
                () = sleep_until(next), if speaks => {
                    let due = next;
                    next += every.unwrap_or_default();
                    self.records.lock().unanswered += 1;
                    self.say("*", due).await
                },
            };
            if let Err(error) = done {
                return self.lost(&error, &mut orders);
            }
        }
    }

    /// Says something that was due at this time, and waits for the answer, over a lost connection
    /// too.
    async fn say(&mut self, target: &str, due: Instant) -> Result<(), Error> {
        let log = self.log;
        let (number, text) = self.records.says(log, target, self.text_bytes);
        let began = Instant::now();
        let answer = self.member.send(target, &text).await;
        {
            let mut inner = self.records.lock();
            inner.unanswered = inner.unanswered.saturating_sub(1);
            match answer {
                Ok(position) => {
                    inner.acked.push(Acked { user: self.user, sent: due, after: due.elapsed() });
                    inner.logs[log].acked_at(number, position);
                }
                Err(error) => inner.refused.push(format!("m:{log}:{number}: {error}")),
            }
        }
        // If the connection was lost meanwhile, it was at some time after this.
        loop {
            tokio::select! {
                biased;
                seen = self.member.next() => self.see(seen?, began),
                () = std::future::ready(()) => return Ok(()),
            }
        }
    }

    /// Takes in what was seen, at some time after `since`.
    fn see(&mut self, seen: Seen, since: Instant) {
        let now = Instant::now();
        let records = Arc::clone(&self.records);
        let mut inner = records.lock();
        inner.logs[self.log].at(now - records.start);
        match seen {
            Seen::Lost => {
                let since = *self.away_since.get_or_insert(since);
                inner.logs[self.log].at(since - records.start);
                inner.logs[self.log].lost();
            }
            Seen::Back { outcome, users, position, missed } => {
                let lost = self.away_since.take().unwrap_or(now);
                inner.returned.push(Returned { user: self.user, lost, back: now, outcome });
                let users = intern(&mut inner.names, &users);
                self.back = Some(Back { outcome, users, from: self.seen, to: position, missed });
            }
            Seen::Push(placed) => self.hear(&mut inner, placed),
        }
        if self.back.as_ref().is_some_and(|back| back.missed == 0) {
            self.is_back(&mut inner);
        }
    }

    /// It has been told all that it missed.
    fn is_back(&mut self, inner: &mut Inner) {
        let Some(Back { outcome, users, from, to, .. }) = self.back.take() else { return };
        self.seen = to;
        if outcome == Outcome::Resumed {
            inner.logs[self.log].resumed(users, from, to);
            return;
        }
        let now = self.records.start.elapsed();
        let old = &mut inner.logs[self.log];
        old.gone();
        let mut log = Log::new(old.room(), old.user());
        log.at(now);
        log.asks();
        log.began_by_reset();
        log.joined(users);
        log.joined_at(to);
        self.log = inner.logs.len();
        inner.logs.push(log);
    }

    fn hear(&mut self, inner: &mut Inner, placed: Placed) {
        let missed = self.back.as_mut().filter(|back| back.missed > 0);
        let is_missed = missed.is_some();
        if let Some(back) = missed {
            back.missed -= 1;
            if back.outcome != Outcome::Resumed {
                // What the room said before this user's time.
                return;
            }
        }
        let Inner { names, logs, .. } = inner;
        let log = &mut logs[self.log];
        let Placed { push, position, .. } = placed;
        let Some(position) = position else { return log.saw_foreign() };
        self.seen = position;
        match push {
            Push::Add { user } => log.saw_add(names.intern(&user)),
            Push::Leave { user } if is_missed => log.missed_leave_at(position, names.intern(&user)),
            Push::Leave { user } => log.saw_leave_at(position, names.intern(&user)),
            Push::Chat { text, from, target } => {
                match text.strip_suffix(WORDS).and_then(TextId::parse) {
                    Some(id) => log.saw_at(position, names.intern(&from), id, target != "*"),
                    None => log.saw_foreign(),
                }
            }
            // Nobody is judged by it.
            Push::Count { .. } => {}
            Push::Other { .. } => log.saw_foreign(),
        }
    }

    /// It does not get back.
    fn lost(&mut self, error: &Error, orders: &mut mpsc::Receiver<Order>) {
        let at = self.away_since.unwrap_or_else(Instant::now);
        let lost = Lost { user: self.user, at, how: error.to_string() };
        self.records.lock().lost.push(lost);
        self.gone(orders);
    }

    async fn leave(mut self, done: oneshot::Sender<()>, orders: &mut mpsc::Receiver<Order>) {
        self.gone(orders);
        let (records, user) = (Arc::clone(&self.records), self.user.0);
        if let Err(error) = self.member.leave().await {
            records.note_lost(user, &error);
        }
        // Whoever asked may have gone away.
        let _ = done.send(());
    }

    /// From now on it is no member; what it was to do or to hear does not count.
    fn gone(&mut self, orders: &mut mpsc::Receiver<Order>) {
        let dropped = Order::refuse(orders);
        let now = self.records.start.elapsed();
        let mut inner = self.records.lock();
        inner.unanswered -= dropped;
        inner.logs[self.log].at(now);
        inner.logs[self.log].gone();
    }
}

fn intern(names: &mut Names, users: &[String]) -> Vec<Name> {
    users.iter().map(|user| names.intern(user)).collect()
}
