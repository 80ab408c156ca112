//! From a session's number to its queue; a push is encoded once per dialect, however many hear it.
//!
//! What a room's members hear in a row is gathered while the worker is busy with what has arrived,
//! and then goes to each of them in one piece, in one walk through the room: the busier the worker,
//! the fewer the writes. Whatever else a session is told ends the gathering first, so that the
//! order stays.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use frontend::{Answer, Form, Outbound, Run};
use model::{Code, SendNumber, SessionId, UserName, limits};
use room::{
    Push,
    message::{Body, Event},
};
use session::{CloseReason, RequestKey};
use wire::{Dialect, Reply, pomelo::Options};

/// Pushes gathered for one room at most. Fewer than a queue holds: a client that reads is never
/// taken for slow because much came at once.
const GATHERED_MAX: usize = limits::SESSION_QUEUE_FRAMES_MAX / 4;
/// Bytes of text gathered for one room after which it is told.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// The sessions of one worker that have asked to enter a room.
#[derive(Debug)]
pub(crate) struct Hub {
    sessions: HashMap<SessionId, Client>,
    /// The dictionary and the definitions that clients were told in their handshake.
    options: Arc<Options>,
    /// What rooms are yet to be told.
    gathered: Vec<Gathered>,
    /// How often members were told something, since the last [`Hub::flush`].
    told: usize,
}

/// What one room is yet to be told.
#[derive(Debug)]
struct Gathered {
    audience: Arc<[SessionId]>,
    except: Option<SessionId>,
    /// Each with the send of a member that it answers.
    pushes: Vec<(Push, Option<(SessionId, SendNumber)>)>,
    bytes: usize,
}

/// What a worker needs to answer a client.
#[derive(Debug)]
struct Client {
    outbound: Outbound,
    dialect: Dialect,
    /// The `enter` that waits for its answer.
    entering: Option<RequestKey>,
    /// The sends that wait for theirs, in order.
    saying: VecDeque<(SendNumber, RequestKey)>,
    /// Those of them that what is gathered answers.
    answers: Vec<Answer>,
}

impl Hub {
    /// A hub without sessions.
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { sessions: HashMap::new(), options, gathered: Vec::new(), told: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session that asks to enter.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        outbound: Outbound,
        dialect: Dialect,
        key: RequestKey,
    ) {
        self.tell_all();
        let (saying, answers) = (VecDeque::new(), Vec::new());
        let client = Client { outbound, dialect, entering: Some(key), saying, answers };
        self.sessions.insert(session, client);
    }

    /// Notes which request a send answers.
    pub(crate) fn say(&mut self, session: SessionId, number: SendNumber, key: RequestKey) {
        if let Some(client) = self.sessions.get_mut(&session) {
            client.saying.push_back((number, key));
        }
    }

    /// Forgets a session.
    pub(crate) fn leave(&mut self, session: SessionId) {
        self.tell_all();
        self.sessions.remove(&session);
    }

    /// Tells a client that it is in.
    pub(crate) fn entered(&mut self, session: SessionId, users: Vec<UserName>) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Users(users));
        }
    }

    /// Tells a client that it is not in.
    pub(crate) fn enter_refused(&mut self, session: SessionId, code: Code) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session)
            && let Some(key) = client.entering.take()
        {
            client.outbound.reply(key, Reply::Refused { code, error: true });
        }
    }

    /// Tells a client how its send ended.
    pub(crate) fn said(&mut self, session: SessionId, number: SendNumber, code: Code) {
        self.tell_all();
        if let Some(client) = self.sessions.get_mut(&session) {
            client.answer(number, code);
        }
    }

    /// Closes a session.
    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        self.tell_all();
        if let Some(client) = self.sessions.remove(&session) {
            client.outbound.close(reason);
        }
    }

    /// Tells members something, at the next [`Hub::flush`]; `answered` gets the reply to its send
    /// beside it, in the order that its dialect wants.
    pub(crate) fn push(
        &mut self,
        sessions: &Arc<[SessionId]>,
        except: Option<SessionId>,
        push: &Push,
        answered: Option<(SessionId, SendNumber)>,
    ) {
        // A room has one audience at a time, and a session is in one room: another audience with
        // the same session in it comes only after something that has ended the gathering.
        let is_same = |it: &Gathered| Arc::ptr_eq(&it.audience, sessions) && it.except == except;
        let at = self.gathered.iter().position(is_same).unwrap_or_else(|| {
            if except.is_some() || sessions.len() <= 1 {
                self.tell_all();
            }
            let audience = Arc::clone(sessions);
            self.gathered.push(Gathered { audience, except, pushes: Vec::new(), bytes: 0 });
            self.gathered.len() - 1
        });
        let room = &mut self.gathered[at];
        room.bytes += weight(push);
        room.pushes.push((push.clone(), answered));
        if room.pushes.len() >= GATHERED_MAX || room.bytes >= GATHERED_BYTES_MAX {
            self.tell_all();
        }
    }

    /// Tells everybody what was gathered. Returns how often a member was told something since the
    /// last time.
    pub(crate) fn flush(&mut self) -> usize {
        self.tell_all();
        std::mem::take(&mut self.told)
    }

    fn tell_all(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        for room in gathered.drain(..) {
            self.tell(&room);
        }
        self.gathered = gathered;
    }

    fn tell(&mut self, room: &Gathered) {
        let mut astray = Vec::new();
        for (number, (_, answered)) in room.pushes.iter().enumerate() {
            let Some((session, said)) = *answered else { continue };
            let Some(client) = self.sessions.get_mut(&session) else { continue };
            let Some(key) = client.answers(said) else { continue };
            // The sender may have left the audience between its send and now.
            if room.audience.contains(&session) {
                client.answers.push(Answer { push: number, key });
            } else {
                astray.push((session, key));
            }
        }
        let mut encoded = Encoded::new(room);
        let mut members = 0;
        for session in room.audience.iter().filter(|session| Some(**session) != room.except) {
            let Some(client) = self.sessions.get_mut(session) else { continue };
            let run = encoded.of(client.dialect, client.outbound.form(), &self.options);
            client.outbound.deliver(run, &client.answers, client.dialect.reply_before_push());
            client.answers = Vec::new();
            self.told += run.frames();
            members += 1;
        }
        for (session, key) in astray {
            if let Some(client) = self.sessions.get(&session) {
                client.outbound.reply(key, Reply::Done);
            }
        }
        room.log(members);
    }
}

impl Gathered {
    fn log(&self, members: usize) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for (push, answered) in &self.pushes {
            if let Push::Chat(event) = push {
                let (session, number) = answered.unzip();
                tracing::debug!(
                    position = %event.position, members,
                    session = session.map(|session| session.0), number = number.map(|it| it.0),
                    "told"
                );
            }
        }
    }
}

impl Client {
    /// The request that this send was, once.
    fn answers(&mut self, number: SendNumber) -> Option<RequestKey> {
        // Answers come in the order of the sends, but for refusals that need no owner.
        let at = self.saying.iter().position(|(said, _)| *said == number)?;
        self.saying.remove(at).map(|(_, key)| key)
    }

    fn answer(&mut self, number: SendNumber, code: Code) {
        let Some(key) = self.answers(number) else { return };
        let reply = match code {
            Code::Ok => Reply::Done,
            Code::Malformed
            | Code::Unauthorized
            | Code::Forbidden
            | Code::Absent
            | Code::NameTaken
            | Code::TooLarge
            | Code::SlowDown
            | Code::NotApplied
            | Code::Unknown => Reply::Refused { code, error: false },
        };
        self.outbound.reply(key, reply);
    }
}

/// Pushes in the bytes of each dialect and form that somebody in the room wants.
struct Encoded<'a> {
    pushes: Vec<Option<wire::Push<'a>>>,
    runs: Vec<(Dialect, Run)>,
}

impl<'a> Encoded<'a> {
    fn new(room: &'a Gathered) -> Self {
        let pushes = room.pushes.iter().map(|(push, _)| in_wire_terms(push));
        Self { pushes: pushes.collect(), runs: Vec::new() }
    }

    fn of(&mut self, dialect: Dialect, form: Form, options: &Options) -> &Run {
        let is_it = |(of, run): &(Dialect, Run)| *of == dialect && run.form() == form;
        let at = self.runs.iter().position(is_it).unwrap_or_else(|| {
            let units = self.pushes.iter();
            let units = units.map(|push| dialect.encode_push(push.as_ref()?, options));
            self.runs.push((dialect, Run::new(form, units)));
            self.runs.len() - 1
        });
        &self.runs[at].1
    }
}

/// Roughly how many bytes a push will take. Only the text can be large.
fn weight(push: &Push) -> usize {
    match push {
        Push::Add(_) | Push::Leave(_) => 64,
        Push::Chat(event) => event.weight(),
    }
}

fn in_wire_terms(push: &Push) -> Option<wire::Push<'_>> {
    match push {
        Push::Add(user) => Some(wire::Push::Add { user }),
        Push::Leave(user) => Some(wire::Push::Leave { user }),
        Push::Chat(event) => chat(event),
    }
}

fn chat(event: &Event) -> Option<wire::Push<'_>> {
    match &event.body {
        Body::Said { from, shown, content, .. } | Body::Whispered { from, shown, content, .. } => {
            Some(wire::Push::Chat { content, from: &from.user, target: shown })
        }
        Body::Joined(_) | Body::Left(_) | Body::Hidden => None,
    }
}
