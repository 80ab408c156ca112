//! What waits to be sent to one client.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use model::SessionId;
use session::{CloseReason, RequestKey};
use wire::Reply;

/// Idle queues keep room for so many items, at some 70 bytes each; more is freed.
const IDLE_ITEMS_MAX: usize = 4;
/// What an item without bytes of its own counts for.
const ITEM_BYTES: usize = 16;

/// The queue to one client, from whoever has something to say. Clones lead to the same client.
///
/// Nothing here ever waits. A client that leaves more than its budget unread is closed as a slow
/// reader, and what waited for it is freed at once. Order is kept.
#[derive(Clone)]
pub struct Outbound {
    queue: Arc<Queue>,
}

/// The other end of an [`Outbound`], for the connection's task. When it is dropped, the queue takes
/// nothing more.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Arc<Queue>,
    /// What was taken and is not yet written counts on, in frames and bytes.
    in_hand: (usize, usize),
}

/// Something for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A finished package.
    Push(Bytes),
    /// The answer to a call.
    Reply(RequestKey, Reply),
    /// A reason to go.
    Kick(String),
    /// The end. Always the last item.
    Close(CloseReason),
}

/// The client does not read what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

#[derive(Debug)]
struct Queue {
    session: SessionId,
    frames_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    /// Waiting and in hand.
    frames: usize,
    bytes: usize,
    phase: Phase,
    waker: Option<Waker>,
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
    pub(crate) fn new(session: SessionId, frames_max: usize, bytes_max: usize) -> (Self, Inbox) {
        let state =
            State { items: VecDeque::new(), frames: 0, bytes: 0, phase: Phase::Open, waker: None };
        let queue = Queue { session, frames_max, bytes_max, state: Mutex::new(state) };
        let queue = Arc::new(queue);
        (Self { queue: queue.clone() }, Inbox { queue, in_hand: (0, 0) })
    }

    /// The session at the other end.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.queue.session
    }

    /// Queues a finished package, encoded in the session's dialect. Returns whether it was taken:
    /// a session that is over, or too slow, takes none.
    pub fn push(&self, package: Bytes) -> bool {
        let bytes = package.len();
        self.offer(Item::Push(package), bytes)
    }

    /// Queues the answer to a call, whichever way the session wants it. Returns whether it was
    /// taken.
    pub fn reply(&self, key: RequestKey, reply: Reply) -> bool {
        let bytes = reply.json_len_hint();
        self.offer(Item::Reply(key, reply), bytes)
    }

    /// Queues a push and the answer to the call that caused it, in this order or the other, so
    /// that they leave together. Returns whether both were taken.
    pub fn push_and_reply(
        &self,
        package: Bytes,
        key: RequestKey,
        reply: Reply,
        reply_first: bool,
    ) -> bool {
        let push = (package.len(), Item::Push(package));
        let reply = (reply.json_len_hint(), Item::Reply(key, reply));
        let (first, second) = if reply_first { (reply, push) } else { (push, reply) };
        let mut state = self.queue.lock();
        let taken = [first, second].into_iter().all(|(bytes, item)| {
            let fits = self.queue.add(&mut state, item, bytes);
            fits == Some(true)
        });
        wake(state);
        taken
    }

    /// Tells the client a reason and closes its session, after what was queued before. Returns
    /// whether the session was still open.
    pub fn kick(&self, reason: String) -> bool {
        self.end(Item::Kick(reason))
    }

    /// Closes the session, after what was queued before.
    pub fn close(&self, reason: CloseReason) {
        self.end(Item::Close(reason));
    }

    fn offer(&self, item: Item, bytes: usize) -> bool {
        let mut state = self.queue.lock();
        match self.queue.add(&mut state, item, bytes) {
            None => false,
            Some(fits) => {
                wake(state);
                fits
            }
        }
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

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbound").field(&self.queue.session.0).finish()
    }
}

impl Inbox {
    /// Takes all that waits, into `batch`, which must be empty.
    pub(crate) fn poll_take(
        &mut self,
        context: &Context<'_>,
        batch: &mut VecDeque<Item>,
    ) -> Poll<Result<(), Overflow>> {
        let mut state = self.queue.lock();
        if state.phase == Phase::Overflowed {
            return Poll::Ready(Err(Overflow));
        }
        if state.items.is_empty() {
            state.wait(context);
            return Poll::Pending;
        }
        mem::swap(&mut state.items, batch);
        self.in_hand = (state.frames, state.bytes);
        Poll::Ready(Ok(()))
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

    /// Notes that all that was taken has been written. `batch` is what it was taken into.
    pub(crate) fn written(&mut self, batch: &mut VecDeque<Item>) {
        let (frames, bytes) = mem::take(&mut self.in_hand);
        if frames > 0 {
            let mut state = self.queue.lock();
            state.frames = state.frames.saturating_sub(frames);
            state.bytes = state.bytes.saturating_sub(bytes);
        }
        if batch.capacity() > IDLE_ITEMS_MAX {
            *batch = VecDeque::new();
        }
    }

    /// Takes nothing more: the session is over.
    pub(crate) fn end(&mut self) {
        let mut state = self.queue.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Ending;
        }
        // Others may hold on to their end for a while.
        state.items = VecDeque::new();
        state.waker = None;
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl Queue {
    /// Adds an item, or gives the client up as too slow. Nothing if the session is over.
    fn add(&self, state: &mut State, item: Item, bytes: usize) -> Option<bool> {
        if state.phase != Phase::Open {
            return None;
        }
        let bytes = ITEM_BYTES + bytes;
        // A lone frame may be of any size: a large room's member list must get through.
        let fits = state.frames == 0
            || (state.frames < self.frames_max && state.bytes + bytes <= self.bytes_max);
        if fits {
            state.frames += 1;
            state.bytes += bytes;
            state.items.push_back(item);
        } else {
            tracing::debug!(
                session = self.session.0,
                frames = state.frames,
                bytes = state.bytes,
                "slow reader"
            );
            state.phase = Phase::Overflowed;
            state.items = VecDeque::new();
        }
        Some(fits)
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
}

fn wake(mut state: MutexGuard<'_, State>) {
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
        Outbound::new(SessionId(1), 3, 100)
    }

    fn package(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn taken(inbox: &mut Inbox) -> Poll<Result<usize, Overflow>> {
        let mut batch = VecDeque::new();
        let context = Context::from_waker(Waker::noop());
        inbox.poll_take(&context, &mut batch).map_ok(|()| batch.len())
    }

    fn written(inbox: &mut Inbox) {
        inbox.written(&mut VecDeque::new());
    }

    #[test]
    fn frames_are_bounded_until_they_are_written() {
        let (outbound, mut inbox) = queue();
        assert!(taken(&mut inbox).is_pending());
        assert!(outbound.push(package(1)) && outbound.push(package(1)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Ok(2)));
        assert!(outbound.push(package(1)));
        written(&mut inbox);
        assert!(outbound.push(package(1)) && outbound.push(package(1)));
        assert!(!outbound.push(package(1)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Err(Overflow)));
        assert!(!outbound.push(package(1)));
    }

    #[test]
    fn bytes_are_bounded_but_a_lone_frame_is_not() {
        let (outbound, mut inbox) = queue();
        assert!(outbound.push(package(1_000_000)));
        assert_eq!(taken(&mut inbox), Poll::Ready(Ok(1)));
        written(&mut inbox);
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
