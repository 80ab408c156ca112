//! The HTTP side of Socket.IO: which session a request is for, and what it is answered.
//!
//! A path below `/socket.io/` names the generation: `/socket.io/1/…` is 0.9, `/socket.io/?…` is
//! everything later. A session that is reached by requests is a task like any other; here is the
//! table by which requests find it.

mod serve;
mod v09;
mod v1;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Uri;
use model::limits;
use session::SocketIoBeats;
use tokio::{sync::mpsc, time::Instant};

pub(crate) use crate::transport::Request;
pub(crate) use serve::{Asked, UNKNOWN_SESSION_FRAME, serve};
pub(crate) use v1::refusal_of_upgrade;

/// Bytes in a session id before they are made text: 20 characters, as the originals' have.
const ID_BYTES: usize = 15;

/// Which WebSocket a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Generation 0.9, with the session id of the handshake.
    V09 { id: String },
    /// Later ones; with a session id, a polling session tries it.
    V1 { id: Option<String> },
}

impl Upgrade {
    /// Reads the target of a request for a WebSocket. Nothing: it is for the binary protocol,
    /// which takes any target.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        if let Some(v09::Target::Carry { transport: v09::Carrier::WebSocket, id }) =
            v09::Target::of(uri)
        {
            return Some(Self::V09 { id: id.to_owned() });
        }
        let query = v1::Query::of(uri)?;
        let id = query.id.map(str::to_owned);
        (query.transport == Some("websocket")).then_some(Self::V1 { id })
    }
}

/// The sessions that requests can reach, and the ids that were given out.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sessions: HashMap<String, Entry>,
    /// The ids given out, oldest first. Some may have been used since.
    given: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
enum Entry {
    /// A client of generation 0.9 has the id, and has not used it yet.
    Given,
    Open(mpsc::Sender<Request>),
}

/// What an id stands for.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A session that may begin now.
    Given,
    Open(mpsc::Sender<Request>),
}

/// A session's place in the directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    directory: Arc<Directory>,
    id: String,
}

impl Directory {
    /// Gives out an id for a session of generation 0.9. The oldest that was never used is forgotten
    /// when there are too many, and each is after a while.
    pub(crate) fn give(&self, now: Instant) -> String {
        let id = new_id();
        let mut known = self.lock();
        known.expire(now);
        known.sessions.insert(id.clone(), Entry::Given);
        known.given.push_back((now, id.clone()));
        id
    }

    /// What this id stands for.
    pub(crate) fn find(&self, now: Instant, id: &str) -> Found {
        let mut known = self.lock();
        known.expire(now);
        match known.sessions.get(id) {
            None => Found::Nothing,
            Some(Entry::Given) => Found::Given,
            Some(Entry::Open(requests)) => Found::Open(requests.clone()),
        }
    }

    /// Takes an id that was given out, for a session that no request needs to find. False if it
    /// is not there (any more).
    pub(crate) fn take(&self, now: Instant, id: &str) -> bool {
        let mut known = self.lock();
        known.expire(now);
        let is_given = matches!(known.sessions.get(id), Some(Entry::Given));
        if is_given {
            known.sessions.remove(id);
        }
        is_given
    }

    /// Makes a session findable under a new id, or under one that was given out. Nothing if that
    /// is not there (any more).
    pub(crate) fn open(
        self: &Arc<Self>,
        given: Option<&str>,
    ) -> Option<(Registration, mpsc::Receiver<Request>)> {
        let id = given.map_or_else(new_id, str::to_owned);
        let (sender, requests) = mpsc::channel(limits::SOCKETIO_REQUESTS_MAX);
        let mut known = self.lock();
        if given.is_some() && !matches!(known.sessions.get(&id), Some(Entry::Given)) {
            return None;
        }
        known.sessions.insert(id.clone(), Entry::Open(sender));
        drop(known);
        Some((Registration { directory: self.clone(), id }, requests))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before anything that could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn expire(&mut self, now: Instant) {
        while let Some((given, _)) = self.given.front() {
            let is_old = now.duration_since(*given) >= limits::SOCKETIO_HANDSHAKE_EXPIRY;
            if !is_old && self.given.len() < limits::SOCKETIO_HANDSHAKES_MAX {
                return;
            }
            if let Some((_, id)) = self.given.pop_front()
                && matches!(self.sessions.get(&id), Some(Entry::Given))
            {
                self.sessions.remove(&id);
            }
        }
    }
}

impl Registration {
    /// The session's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Lets requests find the session no more.
    pub(crate) fn forget(&self) {
        self.directory.lock().sessions.remove(&self.id);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.forget();
    }
}

/// An id that nobody can guess: who has it speaks for the session.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; ID_BYTES];
    // Without randomness no process starts; a node that has lost it gives out what nobody finds.
    let _ = getrandom::fill(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The packet that opens a session, with the times that its client is to keep.
pub(crate) fn open_packet(id: &str, upgrades: &[&str], beats: &SocketIoBeats) -> Bytes {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    wire::socketio::v1::open(id, upgrades, millis(beats.interval), millis(beats.patience))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_the_originals_and_differ() {
        let (one, other) = (new_id(), new_id());
        assert_eq!(one.len(), 20);
        assert!(one.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_'));
        assert_ne!(one, other);
    }

    #[test]
    fn an_id_that_was_given_out_begins_one_session() {
        let directory = Arc::new(Directory::default());
        let now = Instant::now();
        let id = directory.give(now);
        assert!(matches!(directory.find(now, &id), Found::Given));
        let (registration, _requests) = directory.open(Some(&id)).unwrap();
        assert_eq!(registration.id(), id);
        assert!(matches!(directory.find(now, &id), Found::Open(_)));
        assert!(directory.open(Some(&id)).is_none());
        assert!(!directory.take(now, &id));
        drop(registration);
        assert!(matches!(directory.find(now, &id), Found::Nothing));
        assert!(directory.open(Some("made up")).is_none());
    }

    #[test]
    fn ids_that_nobody_uses_are_forgotten() {
        let directory = Arc::new(Directory::default());
        let now = Instant::now();
        let (unused, used) = (directory.give(now), directory.give(now));
        let open = directory.open(Some(&used));
        let later = now + limits::SOCKETIO_HANDSHAKE_EXPIRY;
        assert!(matches!(directory.find(later - Duration::from_millis(1), &unused), Found::Given));
        assert!(matches!(directory.find(later, &unused), Found::Nothing));
        assert!(matches!(directory.find(later, &used), Found::Open(_)));
        drop(open);
        for _ in 0..limits::SOCKETIO_HANDSHAKES_MAX {
            directory.give(later);
        }
        let newest = directory.give(later);
        assert!(directory.lock().sessions.len() <= limits::SOCKETIO_HANDSHAKES_MAX);
        assert!(matches!(directory.find(later, &newest), Found::Given));
    }

    #[test]
    fn targets_of_websockets_are_told_apart() {
        let of = |target: &str| Upgrade::of(&target.parse().unwrap());
        assert_eq!(of("/"), None);
        assert_eq!(of("/any?thing=1"), None);
        assert_eq!(of("/socket.io/1/websocket/abc"), Some(Upgrade::V09 { id: "abc".into() }));
        let later = |id: Option<&str>| Some(Upgrade::V1 { id: id.map(str::to_owned) });
        assert_eq!(of("/socket.io/?EIO=3&transport=websocket"), later(None));
        assert_eq!(of("/socket.io/?EIO=3&transport=websocket&sid=x"), later(Some("x")));
        assert_eq!(of("/socket.io/?EIO=3&transport=polling"), None);
    }
}
