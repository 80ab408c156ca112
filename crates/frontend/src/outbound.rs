//! What waits to be sent to one client.

mod item;

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use model::SessionId;
use session::{CloseReason, RequestKey};
use tokio::net::TcpStream;
use wire::Reply;

use self::item::ITEM_BYTES;
pub(crate) use self::item::Item;
use crate::{
    context::Shared,
    run::{Answer, Form, Run, frame},
};

/// The way to one client, from whoever has something to say. Clones lead to the same client.
///
/// Nothing here ever waits. While the client's socket takes them, pushes are written at once, by
/// whoever calls; what it does not take is queued for the session's task, and with it everything
/// behind it. A client that leaves more than its budget unread is closed as a slow reader, and
/// what waited for it is freed at once. Order is kept.
///
/// The budget is in bytes and in items. What came together, as the pushes of one [`Run`], is one
/// item: a server that is behind tells its clients much at once, and who reads all of that as it
/// comes is not slow.
#[derive(Clone)]
pub struct Outbound {
    queue: Arc<Queue>,
}

/// The other end of an [`Outbound`], for the connection's task. When it is dropped, the queue takes
/// nothing more.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Arc<Queue>,
    /// What was taken and is not yet written counts on, in items and bytes.
    in_hand: (usize, usize),
    has_turn: bool,
}

/// The client does not read what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// A socket that others than the session's task may write to.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
struct Queue {
    session: SessionId,
    form: Form,
    items_max: u32,
    bytes_max: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    /// Waiting and in hand, of those that count.
    counted: usize,
    bytes: usize,
    phase: Phase,
    /// The session's task writes, or is about to: nobody else may.
    is_busy: bool,
    /// The first item is the rest of a run of which some is out: nothing may come before it.
    is_begun: bool,
    waker: Option<Waker>,
    /// Calls of `send` whose replies went past the session, which is yet to hear of them.
    replied: u32,
    /// Until the session is over.
    direct: Option<Direct>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last item is in the queue, or taken.
    Ending,
    Overflowed,
}

impl Outbound {
    /// Makes the two ends of a session's queue.
    pub(crate) fn new(
        session: SessionId,
        form: Form,
        direct: Option<Direct>,
        items_max: usize,
        bytes_max: usize,
    ) -> (Self, Inbox) {
        let state = State {
            items: VecDeque::new(),
            counted: 0,
            bytes: 0,
            phase: Phase::Open,
            is_busy: false,
            is_begun: false,
            waker: None,
            replied: 0,
            direct,
        };
        let (items_max, bytes_max) = (saturated(items_max), saturated(bytes_max));
        let queue = Queue { session, form, items_max, bytes_max, state: Mutex::new(state) };
        let queue = Arc::new(queue);
        (Self { queue: queue.clone() }, Inbox { queue, in_hand: (0, 0), has_turn: false })
    }

    /// How a [`Run`] for this client is put together.
    #[must_use]
    pub fn form(&self) -> Form {
        self.queue.form
    }

    /// Sends a finished package, encoded in the session's dialect. Returns whether it was taken:
    /// a session that is over, or too slow, takes none.
    pub fn push(&self, package: Bytes) -> bool {
        match self.queue.form {
            Form::Units => {
                let mut state = self.queue.lock();
                let taken = self.queue.add(&mut state, Item::Push(package));
                wake(state);
                taken
            }
            Form::Stream => self.write(&package, 1, 0),
            form @ (Form::Binary | Form::Text) => {
                let mut framed = Vec::with_capacity(package.len() + 10);
                frame(form, &package, &mut framed);
                self.write(&framed.into(), 1, 0)
            }
        }
    }

    /// Sends pushes in order, from one of them on, and the answers to those sends of this client
    /// that they carry out, each right before its push or right after it. The run must be in this
    /// client's form and dialect, the answers in the order of the pushes. Returns whether all was
    /// taken.
    pub fn deliver(&self, run: &Run, from: usize, answers: &[Answer], reply_first: bool) -> bool {
        debug_assert_eq!(run.form(), self.queue.form, "a run of another form");
        let replied = saturated(answers.len());
        if run.form() == Form::Units {
            let mut state = self.queue.lock();
            state.replied += replied;
            let units = (from..).zip(run.units().iter().skip(from));
            let taken = self.queue.add_units(&mut state, units, answers, reply_first);
            wake(state);
            return taken;
        }
        let (bytes, frames) = run.with(from, answers, reply_first);
        self.write(&bytes, frames, replied)
    }

    /// Queues the answer to a call, whichever way the session wants it. Returns whether it was
    /// taken.
    pub fn reply(&self, key: RequestKey, reply: Reply) -> bool {
        let mut state = self.queue.lock();
        let taken = self.queue.add(&mut state, Item::Reply(key, reply));
        wake(state);
        taken
    }

    /// Asks whether the client lives, behind what was sent before. [`Handler::alive`] is called if
    /// it does. Whoever asks waits for that, or gives the session up, before it asks again: such
    /// questions have no other bound.
    ///
    /// [`Handler::alive`]: crate::Handler::alive
    pub fn probe(&self) {
        self.tell(Item::Probe);
    }

    /// Tells the session that its time has come. Whoever rings it does so once for each time.
    pub(crate) fn ring(&self) {
        self.tell(Item::Alarm);
    }

    /// Of which session it is.
    pub(crate) fn id(&self) -> SessionId {
        self.queue.session
    }

    fn tell(&self, item: Item) {
        let mut state = self.queue.lock();
        if state.phase == Phase::Open {
            state.items.push_back(item);
            wake(state);
        }
    }

    /// Tells the client a reason and closes its session, after what was sent before. Returns
    /// whether the session was still open.
    pub fn kick(&self, reason: String) -> bool {
        self.end(Item::Kick(reason))
    }

    /// Closes the session, after what was sent before.
    pub fn close(&self, reason: CloseReason) {
        self.end(Item::Close(reason));
    }

    /// Writes at once what the socket takes, and queues the rest.
    pub(crate) fn write(&self, bytes: &Bytes, frames: usize, replied: u32) -> bool {
        let Some(started) = self.start(replied) else { return false };
        // The session's task meets an error, too, and knows what to do.
        let written = started.socket().and_then(|socket| socket.try_write(bytes).ok());
        let written = written.unwrap_or(0);
        if let Some(Direct { shared, .. }) = &started.state.direct {
            shared.meters.sent.add(out(bytes, frames, written), written);
        }
        started.end(bytes, frames, written)
    }

    /// Begins a write with these replies to calls in it. None if the session takes nothing more.
    pub(crate) fn start(&self, replied: u32) -> Option<Started<'_>> {
        let mut state = self.queue.lock();
        if state.phase != Phase::Open {
            return None;
        }
        state.replied += replied;
        Some(Started { queue: &self.queue, state })
    }

    fn end(&self, item: Item) -> bool {
        let mut state = self.queue.lock();
        let was_open = state.phase == Phase::Open;
        if was_open {
            state.phase = Phase::Ending;
            state.items.push_back(item);
            wake(state);
        }
        was_open
    }
}

/// A write that has begun: nobody else can write meanwhile.
pub(crate) struct Started<'a> {
    queue: &'a Queue,
    state: MutexGuard<'a, State>,
}

impl Started<'_> {
    /// The socket, if it may be written to now: it is nobody's turn and nothing waits.
    pub(crate) fn socket(&self) -> Option<&Arc<TcpStream>> {
        let is_free = !self.state.is_busy && self.state.items.is_empty();
        self.state.direct.as_ref().filter(|_| is_free).map(|direct| &direct.stream)
    }

    /// Queues what the socket has not taken, which the session's task counts once it has written
    /// it; what is written counts for whoever wrote it. Returns whether all was taken by either.
    pub(crate) fn end(self, bytes: &Bytes, frames: usize, written: usize) -> bool {
        let Self { queue, mut state } = self;
        if written == bytes.len() {
            return true;
        }
        state.is_begun |= written > 0;
        let taken = queue.add(&mut state, Item::Run(bytes.slice(written..), frames));
        wake(state);
        taken
    }

    /// Gives the client up: nobody knows what of this has reached it, so nothing can follow.
    pub(crate) fn give_up(self) {
        let Self { mut state, .. } = self;
        state.phase = Phase::Overflowed;
        state.items = VecDeque::new();
        wake(state);
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbound").field(&self.queue.session.0).finish()
    }
}

impl Inbox {
    /// The other end.
    pub(crate) fn outbound(&self) -> Outbound {
        Outbound { queue: Arc::clone(&self.queue) }
    }

    /// Takes all that waits, and the turn to write.
    ///
    /// With the room that it had: what a queue is used for is rarer than a delivery, so an idle one
    /// keeps none.
    pub(crate) fn poll_take(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Result<VecDeque<Item>, Overflow>> {
        let mut state = self.queue.lock();
        if state.phase == Phase::Overflowed {
            return Poll::Ready(Err(Overflow));
        }
        if state.items.is_empty() {
            state.wait(context);
            return Poll::Pending;
        }
        let items = mem::take(&mut state.items);
        state.is_busy = true;
        state.is_begun = false;
        self.has_turn = true;
        self.in_hand = (state.counted, state.bytes);
        Poll::Ready(Ok(items))
    }

    /// Takes the turn to write. Returns what must be written first, and how many frames end in it:
    /// the rest of a unit that somebody else has begun.
    pub(crate) fn begin(&mut self) -> Option<(Bytes, usize)> {
        if self.has_turn {
            return None;
        }
        let mut state = self.queue.lock();
        state.is_busy = true;
        self.has_turn = true;
        let (rest, frames) = state.take_begun()?;
        self.in_hand = (1, ITEM_BYTES + rest.len());
        Some((rest, frames))
    }

    /// Waits until the client has too much unread.
    pub(crate) fn poll_overflow(&self, context: &Context<'_>) -> Poll<Overflow> {
        let mut state = self.queue.lock();
        if state.phase == Phase::Overflowed {
            return Poll::Ready(Overflow);
        }
        state.wait(context);
        Poll::Pending
    }

    /// Notes that all that was taken has been written, and gives the turn back.
    pub(crate) fn written(&mut self) {
        if mem::take(&mut self.has_turn) {
            let (items, bytes) = mem::take(&mut self.in_hand);
            let mut state = self.queue.lock();
            state.is_busy = false;
            state.counted = state.counted.saturating_sub(items);
            state.bytes = state.bytes.saturating_sub(bytes);
        }
    }

    /// How many replies to sends went past the session since the last time.
    pub(crate) fn take_replied(&self) -> usize {
        mem::take(&mut self.queue.lock().replied) as usize
    }

    /// Takes nothing more: the session is over. Returns the rest of a unit of which some is out.
    pub(crate) fn end(&mut self) -> Option<Bytes> {
        let mut state = self.queue.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Ending;
        }
        let rest = state.take_begun();
        // Others may hold on to their end for a while.
        state.items = VecDeque::new();
        state.waker = None;
        state.direct = None;
        rest.map(|(rest, _)| rest)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl Queue {
    /// Adds an item, or gives the client up as too slow. False if it was not taken.
    fn add(&self, state: &mut State, item: Item) -> bool {
        if state.phase != Phase::Open {
            return false;
        }
        let (items, bytes) = item.weight();
        let (items_max, bytes_max) = (self.items_max as usize, self.bytes_max as usize);
        // A lone item may be of any size: a large room's member list must get through.
        let fits = state.counted == 0
            || (state.counted + items <= items_max && state.bytes + bytes <= bytes_max);
        if fits {
            state.counted += items;
            state.bytes += bytes;
            state.items.push_back(item);
        } else {
            tracing::debug!(
                session = self.session.0,
                items = state.counted,
                bytes = state.bytes,
                "slow reader"
            );
            state.phase = Phase::Overflowed;
            // A unit of which some is out must be ended before anything else can be said.
            state.items.truncate(usize::from(state.is_begun));
            state.items.shrink_to_fit();
        }
        fits
    }

    /// Adds units that have these numbers, with the answers among them.
    fn add_units<'a>(
        &self,
        state: &mut State,
        units: impl Iterator<Item = (usize, &'a Option<Bytes>)>,
        answers: &[Answer],
        reply_first: bool,
    ) -> bool {
        let mut answers = answers.iter().peekable();
        for (number, unit) in units {
            let answer = answers.next_if(|answer| answer.push == number);
            let answer = answer.and_then(|answer| answer.unit.clone());
            let unit = unit.clone();
            let (first, second) = if reply_first { (answer, unit) } else { (unit, answer) };
            let mut both = first.into_iter().chain(second);
            if !both.all(|unit| self.add(state, Item::Push(unit))) {
                return false;
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, context: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => self.waker = Some(context.waker().clone()),
        }
    }

    fn take_begun(&mut self) -> Option<(Bytes, usize)> {
        if !mem::take(&mut self.is_begun) {
            return None;
        }
        match self.items.pop_front() {
            Some(Item::Run(rest, frames)) => Some((rest, frames)),
            Some(
                Item::Push(_)
                | Item::Reply(..)
                | Item::Probe
                | Item::Alarm
                | Item::Kick(_)
                | Item::Close(_),
            )
            | None => None,
        }
    }
}

/// How many of these frames are out with so many bytes: all, or those that are end with the rest.
pub(crate) fn out(bytes: &Bytes, frames: usize, written: usize) -> usize {
    if written == bytes.len() { frames } else { 0 }
}

fn saturated(bound: usize) -> u32 {
    u32::try_from(bound).unwrap_or(u32::MAX)
}

fn wake(mut state: MutexGuard<'_, State>) {
    if state.is_busy && state.phase != Phase::Overflowed {
        // The task looks again when its turn ends.
        return;
    }
    let waker = state.waker.take();
    // The woken task must not find the lock taken.
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn queue() -> (Outbound, Inbox) {
        Outbound::new(SessionId(1), Form::Units, None, 3, 100)
    }

    fn package(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn taken(inbox: &mut Inbox) -> Poll<Result<usize, Overflow>> {
        inbox.poll_take(&Context::from_waker(Waker::noop())).map_ok(|items| items.len())
    }

    #[test]
    fn items_are_bounded_until_they_are_written() {
        let (outbound, mut inbox) = queue();
        assert!(taken(&mut inbox).is_pending());
        assert!(outbound.push(package(1)) && outbound.push(package(1)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Ok(2)));
        assert!(outbound.push(package(1)));
        inbox.written();
        assert!(outbound.push(package(1)) && outbound.push(package(1)));
        assert!(!outbound.push(package(1)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Err(Overflow)));
        assert!(!outbound.push(package(1)));
    }

    #[test]
    fn what_came_together_is_one_item() {
        let (outbound, mut inbox) = Outbound::new(SessionId(1), Form::Stream, None, 3, 1_000);
        let run = Run::new(Form::Stream, (0..10).map(|_| Some(package(10))));
        for _ in 0..3 {
            assert!(outbound.deliver(&run, 0, &[], true));
        }
        assert!(!outbound.deliver(&run, 0, &[], true), "a fourth");
        assert_eq!(taken(&mut inbox), Poll::Ready(Err(Overflow)));

        let (outbound, _inbox) = Outbound::new(SessionId(1), Form::Stream, None, 99, 300);
        assert!(outbound.deliver(&run, 0, &[], true) && outbound.deliver(&run, 0, &[], true));
        assert!(!outbound.deliver(&run, 0, &[], true), "more bytes than there may be");
    }

    #[test]
    fn bytes_are_bounded_but_a_lone_frame_is_not() {
        let (outbound, mut inbox) = queue();
        assert!(outbound.push(package(1_000_000)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Ok(1)));
        inbox.written();
        assert!(outbound.push(package(84)));
        assert!(!outbound.push(package(1)));
        let context = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll_overflow(&context), Poll::Ready(Overflow));
    }

    #[test]
    fn a_close_comes_last_and_always_fits() {
        let (outbound, mut inbox) = queue();
        for _ in 0..3 {
            assert!(outbound.push(package(1)));
        }
        outbound.close(CloseReason::Draining);
        assert!(!outbound.push(package(1)));
        assert!(!outbound.kick("late".to_owned()));
        assert_eq!(taken(&mut inbox), Poll::Ready(Ok(4)));
        assert!(taken(&mut inbox).is_pending());
    }

    #[test]
    fn nothing_is_kept_for_a_session_that_is_over() {
        let (outbound, inbox) = queue();
        assert!(outbound.push(package(1)));
        drop(inbox);
        assert!(!outbound.push(package(1)));
        assert_eq!(outbound.queue.lock().items.capacity(), 0);
    }
}
