//! Clients that ask over a WebSocket or raw TCP.

use daemon::Process;
use frontend::{Application, Client, Handler, Outbound};
use model::{Code, RoomId, SessionId};
use session::{Call, CloseReason, RequestKey};
use wire::{Dialect, Reply};

use crate::{
    count,
    entry::{self, Entries, Entry},
};

/// The gate, as its frontend sees it.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) entries: Entries,
}

impl Application for Clients {
    type Handler = Asker;

    fn accept(&self, client: Client) -> Asker {
        Asker {
            entries: self.entries.clone(),
            id: client.id,
            reached_by: entry::reached_by(client.host.as_deref(), client.local.ip()),
            outbound: client.outbound,
        }
    }
}

/// One client.
pub(crate) struct Asker {
    entries: Entries,
    id: SessionId,
    reached_by: String,
    outbound: Outbound,
}

impl Asker {
    async fn entry(&self, user: &str, room: Option<&RoomId>, dialect: Dialect) -> Reply {
        let entry = self.entries.place(Process::now(), user, room, &self.reached_by);
        count::entry(if entry.is_some() { count::PLACED } else { count::NO_CONNECTOR });
        match entry {
            Some(entry) => {
                let room = room.map(tracing::field::display);
                let (host, port) = (&entry.host, entry.port);
                tracing::debug!(session = self.id.0, user, room, host, port, "entry given");
                self.reply(entry, dialect).await
            }
            None => {
                tracing::debug!(session = self.id.0, user, "no connector takes clients");
                Reply::Refused { code: Code::NotApplied, error: false }
            }
        }
    }
}

impl Asker {
    /// Tells a client when to come, if it knows what that is; all others are told later.
    async fn reply(&self, entry: Entry, dialect: Dialect) -> Reply {
        if !dialect.is_modern() {
            self.entries.hold(&entry).await;
            return Reply::Entry { host: entry.host, port: entry.port };
        }
        entry.count_slot();
        match entry.slot {
            Ok(after) => Reply::Slot { host: entry.host, port: entry.port, after },
            Err(retry_after) => Reply::Busy { retry_after },
        }
    }
}

impl Handler for Asker {
    async fn call(&mut self, key: RequestKey, call: Call, dialect: Dialect) {
        let reply = match call {
            Call::QueryEntry { uid, room } => self.entry(&uid, room.as_ref(), dialect).await,
            // A session of a gate makes no such calls.
            Call::Enter { .. } | Call::Say { .. } => {
                Reply::Refused { code: Code::Absent, error: false }
            }
        };
        // Refused only when the session is over: nobody waits for the reply then.
        let _ = self.outbound.reply(key, reply);
    }

    async fn closed(&mut self, _: &CloseReason) {}
}
