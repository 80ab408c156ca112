//! Hands what a client asks to the worker of its room.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use cluster::shard_of;
use frontend::{Application, Client, Handler, Outbound, Turns};
use model::{Code, Resume, ResumeKey, SessionId, limits};
use room::message::Ticket;
use session::{Call, CloseReason, RequestKey};
use wire::{Dialect, Reply};

use crate::worker::{Input, Place, Workers};

/// Makes a handler for every client that connects.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    /// One word in each of them.
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    workers: Workers,
    connected: AtomicU32,
    entries: Turns,
}

impl Clients {
    /// Hands what clients ask to these workers, and lets them enter by these turns.
    pub(crate) fn new(workers: Workers, entries: Turns) -> Self {
        Self { shared: Arc::new(Shared { workers, connected: AtomicU32::new(0), entries }) }
    }

    /// How many clients are connected, entered or not.
    pub(crate) fn connected(&self) -> u32 {
        self.shared.connected.load(Ordering::Relaxed)
    }
}

impl Application for Clients {
    type Handler = Entrant;

    fn accept(&self, client: Client) -> Entrant {
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        Entrant {
            clients: self.clone(),
            session: client.id,
            outbound: client.outbound,
            place: None,
        }
    }
}

/// One connected client.
#[derive(Debug)]
pub(crate) struct Entrant {
    clients: Clients,
    session: SessionId,
    outbound: Outbound,
    /// The room that it is in or asked to enter last.
    place: Option<Place>,
}

impl Handler for Entrant {
    async fn call(&mut self, key: RequestKey, call: Call, dialect: Dialect) {
        let session = self.session;
        if matches!(call, Call::Enter { .. }) {
            // A session enters again only if it was refused; its first place must forget it.
            self.leave(false).await;
            if let Err(reply) = self.turn(dialect).await {
                self.outbound.reply(key, reply);
                return;
            }
        }
        let (shard, input) = match (call, &self.place) {
            (Call::Enter { user, room, resume }, _) => {
                let place = Place { shard: shard_of(&room), room };
                self.place = Some(place.clone());
                let shard = place.shard;
                let outbound = self.outbound.clone();
                let ticket = dialect.is_modern().then(|| ticket(resume));
                (shard, Input::Enter { place, session, user, ticket, key, dialect, outbound })
            }
            (Call::Say { number, target, content, id }, Some(place)) => {
                let place = place.clone();
                let shard = place.shard;
                (shard, Input::Say { place, session, number, target, content, id, key })
            }
            (Call::Say { .. }, None) => {
                let reply = Reply::Refused { code: Code::Unauthorized, error: false };
                self.outbound.reply(key, reply);
                return;
            }
            (Call::QueryEntry { .. }, _) => {
                let reply = Reply::Refused { code: Code::Absent, error: false };
                self.outbound.reply(key, reply);
                return;
            }
        };
        self.clients.shared.workers.shard(shard, input).await;
    }

    async fn alive(&mut self) {
        if let Some(place) = self.place.clone() {
            let session = self.session;
            self.clients.shared.workers.shard(place.shard, Input::Alive { place, session }).await;
        }
    }

    async fn closed(&mut self, reason: &CloseReason) {
        self.leave(reason.is_loss()).await;
        self.clients.shared.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entrant {
    /// Waits for the turn to enter. All who connect have waited for one before: here wait those who
    /// connected in peace and want in together.
    async fn turn(&self, dialect: Dialect) -> Result<(), Reply> {
        let turns = &self.clients.shared.entries;
        let turn = if dialect.is_modern() {
            // Who can be told to come again waits only if it would not be sooner in by that.
            turns.turn_within(limits::RETRY_AFTER).await
        } else {
            turns.turn().await
        };
        turn.map_err(|retry_after| Reply::Busy { retry_after })
    }

    async fn leave(&mut self, lost: bool) {
        if let Some(place) = self.place.take() {
            let (shard, session) = (place.shard, self.session);
            self.clients.shared.workers.shard(shard, Input::Leave { place, session, lost }).await;
        }
    }
}

/// What a client may come back with: who comes back keeps its key, others get a new one.
fn ticket(resume: Option<Resume>) -> Ticket {
    match resume {
        Some(Resume { key, position }) => Ticket { key, seen: Some(position) },
        None => {
            let mut bytes = [0; 16];
            // Without randomness no process starts; a node that has lost it gives out keys that
            // are no worse than none.
            let _ = getrandom::fill(&mut bytes);
            Ticket { key: ResumeKey(u128::from_ne_bytes(bytes)), seen: None }
        }
    }
}
