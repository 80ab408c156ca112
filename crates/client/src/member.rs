//! One user's place in a room, kept over lost connections.

use std::{
    collections::VecDeque,
    fmt,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use model::{Code, Outcome, Position};
use tokio::{net::ToSocketAddrs, time::sleep};

use crate::{
    chat::{Client, Options},
    error::{Closed, Error, Result},
    event::Queued,
    modern::{Joined, Resume, new_id},
    push::Placed,
};

/// The wait before a second attempt; it doubles up to the limit. Enough for one lost connector.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Attempts in a row to come back, or to get one message through: with the waits above, a minute
/// and more, within which servers still know what was missed.
const ATTEMPTS_MAX: u32 = 20;
/// WebSocket close codes after which one does not come back: this client did something wrong, or
/// another has come back in its place.
const FINAL_CODES: [u16; 3] = [1008, 1009, 4409];

/// What a [`Member`] sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Something has happened in the room, later than all seen before.
    Push(Placed),
    /// The connection was lost. All that is said from now on is seen later, or not at all.
    Lost,
    /// There is another connection. What was missed comes next.
    Back {
        /// Whether something may be missing ([`Outcome::Reset`]), or not ([`Outcome::Resumed`]).
        outcome: Outcome,
        /// Everybody in the room now.
        users: Vec<String>,
        /// Where the room stands now.
        position: Position,
        /// How many of the pushes that follow tell what was before that.
        missed: usize,
    },
}

/// One user's place in a room, kept over lost connections: it comes back by itself, through the
/// gate, sees everything once and in order, and says everything once.
///
/// Like a [`Client`] it is a value that must be driven: it notices nothing and comes back to
/// nothing unless one of its methods is awaited. Two cannot share a place: the one that came last
/// has it.
pub struct Member {
    gate: String,
    options: Options,
    user: String,
    room: String,
    client: Option<Client>,
    resume: Resume,
    seen: VecDeque<Seen>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("user", &self.user)
            .field("room", &self.room)
            .field("client", &self.client)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Asks a gate for a connector and enters.
    ///
    /// # Errors
    ///
    /// As [`Client::query_entry`], [`Client::connect`] and [`Client::join`]. A first entry is not
    /// tried again.
    pub async fn enter(
        gate: impl Into<String>,
        options: &Options,
        user: &str,
        room: &str,
    ) -> Result<(Self, Joined)> {
        let gate = gate.into();
        let options = Options { modern: true, ..options.clone() };
        let entered = arrive(&gate, &options, user, room, None).await?;
        Ok(Self::new(gate, options, (user, room), entered))
    }

    /// Enters at this connector, whichever the gate would name. It is the gate that is asked for
    /// another one when the connection is lost.
    ///
    /// # Errors
    ///
    /// As [`Member::enter`].
    pub async fn enter_at(
        connector: impl ToSocketAddrs,
        gate: impl Into<String>,
        options: &Options,
        user: &str,
        room: &str,
    ) -> Result<(Self, Joined)> {
        let options = Options { modern: true, ..options.clone() };
        let entered = arrive_at(connector, &options, user, room, None).await?;
        Ok(Self::new(gate.into(), options, (user, room), entered))
    }

    fn new(
        gate: String,
        options: Options,
        (user, room): (&str, &str),
        (client, joined): (Client, Joined),
    ) -> (Self, Joined) {
        let member = Self {
            gate,
            options,
            user: user.to_owned(),
            room: room.to_owned(),
            client: Some(client),
            resume: joined.resume.clone(),
            seen: VecDeque::new(),
        };
        (member, joined)
    }

    /// What to show to be let in again where this one is.
    #[must_use]
    pub const fn resume(&self) -> &Resume {
        &self.resume
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    ///
    /// If the server does not want it any more, or cannot be reached for a long time. It may be
    /// asked again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Result<Seen> {
        loop {
            if let Some(seen) = self.seen.pop_front() {
                return Ok(seen);
            }
            let Some(client) = &mut self.client else {
                self.come_back().await?;
                continue;
            };
            match client.next_queued().await {
                Ok(queued) => self.take(queued),
                Err(error) => self.lose(error)?,
            }
        }
    }

    /// Says something to one user of the room, or to `*`, and waits until it has its place; over a
    /// lost connection too, and once whatever happens. What is seen meanwhile is kept for
    /// [`Member::next`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it was not done; with [`Code::Unknown`], and if the server cannot be
    /// reached for a long time, nobody knows.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the message may or may not be said.
    pub async fn send(&mut self, target: &str, text: &str) -> Result<Position> {
        let id = new_id();
        let mut attempt = 0;
        loop {
            let Some(client) = &mut self.client else {
                self.come_back().await?;
                continue;
            };
            let error = match client.say(&id, target, text).await {
                Ok(position) => return Ok(position),
                Err(error) => error,
            };
            attempt += 1;
            if attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            if error.is_final() {
                self.lose(error)?;
            } else if error.code() == Some(Code::Unauthorized) {
                // The connection is good, and has lost its place.
                self.sever();
                self.seen.push_back(Seen::Lost);
            } else if error.code().is_some_and(Code::retry_is_safe) {
                sleep(pause(attempt, &error)).await;
            } else {
                return Err(error);
            }
        }
    }

    /// Cuts the connection without a word, as a lost network does.
    pub fn sever(&mut self) {
        if let Some(mut client) = self.client.take() {
            while let Some(queued) = client.take_queued() {
                self.take(queued);
            }
        }
    }

    /// Leaves, and waits until the server has closed the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], if the connection ended in any other way before.
    pub async fn leave(self) -> Result<()> {
        match self.client {
            Some(client) => client.close().await.map(drop),
            None => Ok(()),
        }
    }

    /// Notes that the connection has ended.
    fn lose(&mut self, error: Error) -> Result<()> {
        self.sever();
        self.seen.push_back(Seen::Lost);
        if is_for_good(&error) { Err(error) } else { Ok(()) }
    }

    async fn come_back(&mut self) -> Result<()> {
        let mut attempt = 0;
        loop {
            let Self { gate, options, user, room, resume, .. } = &*self;
            let error = match arrive(gate, options, user, room, Some(resume)).await {
                Ok((client, joined)) => {
                    self.client = Some(client);
                    self.take_in(joined);
                    return Ok(());
                }
                Err(error) => error,
            };
            attempt += 1;
            if is_for_good(&error) || attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            sleep(pause(attempt, &error)).await;
        }
    }

    fn take_in(&mut self, joined: Joined) {
        let Joined { outcome, users, events, resume } = joined;
        // A room that stands before our place has begun anew: none of it was seen.
        let anew = resume.position < self.resume.position;
        let is_new = |event: &Placed| {
            anew || event.position.is_none_or(|position| position > self.resume.position)
        };
        let events: Vec<_> = events.into_iter().filter(is_new).collect();
        let (position, missed) = (resume.position, events.len());
        self.seen.push_back(Seen::Back { outcome, users, position, missed });
        self.seen.extend(events.into_iter().map(Seen::Push));
        self.resume = resume;
    }

    fn take(&mut self, queued: Queued) {
        match queued {
            Queued::Push(placed) => {
                if let Some(position) = placed.position {
                    // The answer to entering has told it already.
                    if position <= self.resume.position {
                        return;
                    }
                    self.resume.position = position;
                }
                self.seen.push_back(Seen::Push(placed));
            }
            // Of a send that nobody waits for any more.
            Queued::Answer { .. } => {}
        }
    }
}

/// Finds a connector and enters there.
async fn arrive(
    gate: &str,
    options: &Options,
    user: &str,
    room: &str,
    resume: Option<&Resume>,
) -> Result<(Client, Joined)> {
    let entry = Client::query_entry(gate, options, user, Some(room)).await?;
    entry.slot().await;
    arrive_at((entry.host.as_str(), entry.port), options, user, room, resume).await
}

/// Enters at this connector.
async fn arrive_at(
    connector: impl ToSocketAddrs,
    options: &Options,
    user: &str,
    room: &str,
    resume: Option<&Resume>,
) -> Result<(Client, Joined)> {
    let mut client = Client::connect(connector, options).await?;
    let mut attempt = 0;
    loop {
        let error = match client.join(user, room, resume).await {
            Ok(joined) => return Ok((client, joined)),
            Err(error) => error,
        };
        attempt += 1;
        // The connection is good: another one would be one more in the crowd.
        let is_to_wait = matches!(error.code(), Some(Code::SlowDown | Code::NotApplied));
        if !is_to_wait || attempt >= ATTEMPTS_MAX {
            return Err(error);
        }
        client.rest(pause(attempt, &error)).await?;
    }
}

/// Whether trying again is of no use.
fn is_for_good(error: &Error) -> bool {
    match error {
        Error::Closed(Closed::Kicked(_)) | Error::NotModern => true,
        Error::Closed(Closed::WithCode(code)) => FINAL_CODES.contains(code),
        // A gate without connectors says what no modern code says.
        Error::Refused { .. } => error.code().is_some_and(|code| !code.retry_is_safe()),
        Error::Request(_) => true,
        Error::Connect(_)
        | Error::Upgrade(_)
        | Error::Busy { .. }
        | Error::Http(_)
        | Error::Handshake(_)
        | Error::Unreadable(_)
        | Error::Unexpected(_)
        | Error::Closed(
            Closed::ByServer | Closed::Broken(_) | Closed::Silent | Closed::Nonsense(_),
        ) => false,
    }
}

/// How long to wait after so many attempts: longer each time, and never all clients at once.
fn pause(attempt: u32, error: &Error) -> Duration {
    let ceiling = BACKOFF_MAX.min(BACKOFF_FIRST * 2_u32.saturating_pow(attempt.min(8) - 1));
    let asked = error.retry_after().map_or(Duration::ZERO, jittered);
    asked.max(ceiling / 2 + random_part(ceiling / 2))
}

/// So long, and up to a fifth longer.
pub(crate) fn jittered(span: Duration) -> Duration {
    span + random_part(span / 5)
}

fn random_part(whole: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1000;
    whole * (random as u32) / 1000
}
