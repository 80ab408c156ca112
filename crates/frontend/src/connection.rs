//! One client's task: drives its session between the socket, the role and the queue.

use std::{collections::VecDeque, future::poll_fn, mem, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use model::{SessionId, limits};
use session::{CloseReason, Effect, Event, Farewell, Protocol, Session};
use tokio::{
    net::TcpStream,
    select,
    time::{sleep, timeout},
};
use wire::socketio::v09;

use crate::{
    Handler,
    clock::Tick,
    context::Shared,
    meters::Meters,
    outbound::{Inbox, Item, Overflow},
    transport::{Arrival, Transport},
};

/// One client.
#[derive(Debug)]
pub(crate) struct Connection<T, H> {
    pub(crate) id: SessionId,
    pub(crate) protocol: Protocol,
    pub(crate) session: Session,
    pub(crate) transport: T,
    pub(crate) handler: H,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    /// When it will be rung, at the latest.
    pub(crate) alarm: Tick,
    /// Not yet applied.
    pub(crate) effects: Vec<Effect>,
    /// Not yet written.
    pub(crate) output: VecDeque<Output>,
}

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Output {
    /// One unit.
    Unit(Bytes),
    /// So many, with their headers.
    Framed(Bytes, usize),
}

impl<T: Transport, H: Handler> Connection<T, H> {
    /// Lets the session begin. `first` was read before it was clear who would want it.
    pub(crate) fn begin(&mut self, first: &[u8]) {
        self.event(Event::Connected);
        if !first.is_empty() {
            self.received(first.len());
            self.event(Event::Received(first));
        }
    }

    /// Runs until the session is over, all is said and the connection closed.
    ///
    /// Borrows itself, here and below, so that the task holds it once: futures that own what they
    /// are given keep a copy's room for each.
    pub(crate) async fn run(&mut self) {
        let reason = self.serve().await;
        self.shared.clock.leave(self.alarm, self.id);
        tracing::debug!(session = self.id.0, %reason, "closed");
        Box::pin(self.finish(reason)).await;
    }

    async fn serve(&mut self) -> CloseReason {
        loop {
            if let Some(reason) = self.settle().await {
                return reason;
            }
            self.inbox.written();
            self.set_alarm();
            select! {
                () = self.transport.ready() => self.read(),
                taken = poll_fn(|context| self.inbox.poll_take(context)) => match taken {
                    Ok(items) => self.take(items),
                    Err(Overflow) => self.event(Event::Close(CloseReason::SlowReader)),
                },
            }
        }
    }

    /// Moves the alarm to an earlier moment, never to a later one: most of the time something was
    /// heard before it rings, and then it is set anew.
    fn set_alarm(&mut self) {
        let at = self.session.poll_timeout().map_or(Tick::NEVER, Tick::after);
        if at < self.alarm {
            self.shared.clock.stop(self.alarm, self.id);
            self.alarm = self.shared.clock.set(at, self.inbox.outbound());
        }
    }

    fn rung(&mut self) {
        self.shared.clock.stop(mem::replace(&mut self.alarm, Tick::NEVER), self.id);
        // What the client sent while this task was busy counts before the clock does.
        if self.transport.ready().now_or_never().is_some() {
            self.read();
        }
        let is_over = self.shared.clock.is_over(self.id);
        self.event(if is_over { Event::Drain } else { Event::Timeout });
    }

    fn event(&mut self, event: Event<'_>) {
        self.session.handle(self.shared.now(), event, &mut self.effects);
    }

    fn received(&self, bytes: usize) {
        self.shared.meters.received.add(1, bytes);
    }

    fn read(&mut self) {
        let replied = self.inbox.take_replied();
        if replied > 0 {
            self.event(Event::Replied(replied));
        }
        let (session, effects) = (&mut self.session, &mut self.effects);
        let now = self.shared.now();
        let arrival = self.transport.read(&mut |event| session.handle(now, event, effects));
        match arrival {
            Arrival::Bytes(bytes) => self.received(bytes),
            Arrival::Nothing => {}
            Arrival::End(CloseReason::ClientLeft) => self.event(Event::Disconnected),
            Arrival::End(reason) => self.event(Event::Close(reason)),
        }
    }

    /// Takes what others have queued, in order: replies through the session, which knows how they
    /// are wanted.
    fn take(&mut self, items: VecDeque<Item>) {
        for item in items {
            match item {
                Item::Push(package) => self.effects.push(Effect::Transmit(package)),
                Item::Run(bytes, frames) => {
                    // What the session has said before stays before it.
                    let said = |effect: &mut Effect| matches!(effect, Effect::Transmit(_));
                    for effect in self.effects.extract_if(.., said) {
                        if let Effect::Transmit(package) = effect {
                            self.output.push_back(Output::Unit(package));
                        }
                    }
                    self.output.push_back(Output::Framed(bytes, frames));
                }
                Item::Reply(request, reply) => self.event(Event::Reply { request, reply }),
                Item::Probe => self.event(Event::Probe),
                Item::Alarm => self.rung(),
                Item::Kick(reason) => self.event(Event::Kick { reason }),
                Item::Close(reason) => self.event(Event::Close(reason)),
            }
        }
    }

    /// Applies all effects and writes what they transmit. Returns why the session is over, if it
    /// is.
    ///
    /// What waits here is boxed: it is large, most sessions do not do it at most times, and one
    /// allocation is nothing beside a call or a write.
    async fn settle(&mut self) -> Option<CloseReason> {
        if self.effects.is_empty() && self.output.is_empty() && !self.transport.is_unflushed() {
            return None;
        }
        let mut over = None;
        // What is left of it is freed: an idle session keeps no room.
        let mut effects = mem::take(&mut self.effects).into_iter();
        while let Some(waiting) = self.apply(&mut effects, &mut over) {
            waiting.await;
        }
        if !self.output.is_empty() || self.transport.is_unflushed() {
            let written = Box::pin(self.write()).await;
            return over.or(written.err());
        }
        over
    }

    /// Applies effects up to the next that is to be waited for.
    fn apply(
        &mut self,
        effects: &mut impl Iterator<Item = Effect>,
        over: &mut Option<CloseReason>,
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> {
        for effect in effects {
            match effect {
                Effect::Transmit(package) => self.output.push_back(Output::Unit(package)),
                Effect::Call { key, call } => {
                    let dialect = self.session.dialect();
                    return Some(Box::pin(self.handler.call(key, call, dialect)));
                }
                Effect::Probe => self.transport.probe(),
                Effect::Alive => return Some(Box::pin(self.handler.alive())),
                Effect::Count(oddity) => {
                    tracing::debug!(session = self.id.0, %oddity, "odd");
                    Meters::odd(oddity);
                }
                Effect::Close(reason) => *over = Some(reason),
            }
        }
        None
    }

    async fn write(&mut self) -> Result<(), CloseReason> {
        self.join();
        let Self { output, transport, inbox, shared, .. } = self;
        let (limit, meters) = (shared.settings.write_timeout, &shared.meters);
        let (mut frames, mut bytes) = (0, 0);
        if let Some((rest, count)) = inbox.begin() {
            output.push_front(Output::Framed(rest, count));
        }
        while let Some(next) = output.pop_front() {
            match next {
                Output::Unit(unit) => {
                    (frames, bytes) = (frames + 1, bytes + unit.len());
                    attempt(limit, inbox, transport.feed(unit)).await?;
                }
                Output::Framed(run, count) => {
                    (frames, bytes) = (frames + count, bytes + run.len());
                    attempt(limit, inbox, transport.feed_framed(run)).await?;
                }
            }
        }
        attempt(limit, inbox, transport.flush()).await?;
        meters.sent.add(frames, bytes);
        // An idle session has nothing to say, and keeps no room for it.
        *output = VecDeque::new();
        Ok(())
    }

    /// Joins units that leave together, where the dialect has that. Such a session is sent nothing
    /// else.
    fn join(&mut self) {
        if self.protocol != Protocol::SocketIo09 || self.output.len() < 2 {
            return;
        }
        let unit = |output| match output {
            Output::Unit(unit) | Output::Framed(unit, _) => unit,
        };
        let units: Vec<_> = self.output.drain(..).map(unit).collect();
        self.output = v09::join(&units).into_iter().map(Output::Unit).collect();
    }

    /// Closes the connection, while the role notes that the session is over: neither waits for
    /// the other.
    ///
    /// A crowd that is lost in one moment does so by a few at a time: those who stay have their
    /// turn in between. Nothing is written to those who wait for it.
    async fn finish(&mut self, reason: CloseReason) {
        let Self { transport, handler, inbox, shared, protocol, .. } = self;
        let protocol = *protocol;
        let rest = inbox.end();
        // Nobody closes it.
        let turn = shared.closings.acquire().await;
        shared.closed(reason);
        let close = async {
            let over = limits::CLOSE_TIMEOUT + limits::SOCKETIO_FAREWELL;
            let over = match reason.farewell(protocol) {
                Farewell::Wait => over,
                Farewell::Frame | Farewell::Cut => limits::CLOSE_TIMEOUT,
            };
            let closed = timeout(over, transport.close(reason, rest)).await;
            if closed.is_err() {
                // What the client has not read by now, the kernel need not keep for it.
                let _ = transport.socket().map(TcpStream::set_zero_linger);
            }
        };
        let noted = async {
            handler.closed(&reason).await;
            drop(turn);
        };
        tokio::join!(noted, close);
    }
}

/// Waits for a write, but for no longer than a write may take, and not once the client has too
/// much unread.
async fn attempt(
    limit: Duration,
    inbox: &Inbox,
    write: impl Future<Output = Result<(), CloseReason>>,
) -> Result<(), CloseReason> {
    select! {
        // Most writes are done at once; the others are then never looked at.
        biased;
        written = write => written,
        Overflow = poll_fn(|context| inbox.poll_overflow(context)) => Err(CloseReason::SlowReader),
        () = sleep(limit) => Err(CloseReason::SlowReader),
    }
}
