//! Connections of clients, without a socket: each drives a session on its connector's host, and
//! the client that has it. A client whose connection is lost goes on without it; its connector may
//! learn of that later.

use std::{sync::Arc, time::Duration};

use frontend::{Application, Client as Connected, Delivery, Handler, Mailbox};
use model::{NodeId, SessionId, limits};
use session::{CloseReason, Config, Effect, Event, Protocol, Session, Transport};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use verify::sim::Random;
use wire::pomelo::packet;

use crate::{
    client::{Act, Client},
    world::World,
};

/// How often a client gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// One connection.
pub(crate) struct Player<H> {
    world: World,
    /// Who has it; nobody any more if it is lost.
    client: Option<Client>,
    session: Session,
    handler: H,
    mailbox: Mailbox,
    effects: Vec<Effect>,
    start: Instant,
    /// When the client acts next; if it is gone, when that is noticed.
    acts_at: Instant,
    random: Random,
}

impl<H: Handler> Player<H> {
    /// Gives a client a connection to this host.
    pub(crate) fn connect<A: Application<Handler = H>>(
        mut client: Client,
        config: &Arc<Config>,
        app: &A,
        world: &World,
    ) -> Self {
        let id = SessionId(world.state().connected());
        let (protocol, transport) = (Protocol::Pomelo, Transport::WebSocket);
        let (items, bytes) = (limits::SESSION_QUEUE_ITEMS_MAX, limits::SESSION_QUEUE_BYTES_MAX);
        let (outbound, mailbox) = Mailbox::new(id, items, bytes);
        let nowhere = ([127, 0, 0, 1], 1).into();
        let (peer, local) = (nowhere, nowhere);
        let handler =
            app.accept(Connected { id, protocol, transport, peer, local, host: None, outbound });
        let time = model::Time::ZERO;
        let random = client.fork();
        Self {
            world: Arc::clone(world),
            client: Some(client),
            session: Session::new(time, Arc::clone(config), protocol, transport),
            handler,
            mailbox,
            effects: Vec::new(),
            start: Instant::now(),
            acts_at: Instant::now(),
            random,
        }
    }

    /// Runs until the session is over, or `end`.
    pub(crate) async fn play(mut self, host: NodeId, end: CancellationToken) {
        tokio::select! {
            reason = self.run(host.as_str()) => self.handler.closed(&reason).await,
            () = end.cancelled() => {}
        }
    }

    async fn run(&mut self, host: &str) -> CloseReason {
        self.event(Event::Connected);
        if let Some(hello) = self.client.as_mut().map(|client| client.connect(host)) {
            self.event(Event::Received(&hello));
        }
        let mut beats_at = Instant::now() + BEAT;
        loop {
            if let Some(reason) = self.settle().await {
                if let Some(mut client) = self.client.take() {
                    let mut state = self.world.state();
                    client.closed(reason, &mut state);
                    state.away.push(client);
                }
                return reason;
            }
            let timeout = self.session.poll_timeout().map(|at| self.start + at.since_start());
            let wakes_at = timeout.into_iter().chain([self.acts_at, beats_at]).min();
            tokio::select! {
                deliveries = self.mailbox.take() => deliveries.into_iter().for_each(|it| self.take(it)),
                () = sleep_until(wakes_at.unwrap_or(beats_at)) => {
                    let now = Instant::now();
                    if timeout.is_some_and(|at| at <= now) {
                        self.event(Event::Timeout);
                    }
                    if beats_at <= now {
                        beats_at = now + BEAT;
                        if self.client.is_some() {
                            self.event(Event::Received(&packet::HEARTBEAT));
                        }
                    }
                    if self.acts_at <= now {
                        self.act(now);
                    }
                }
            }
        }
    }

    fn act(&mut self, now: Instant) {
        self.acts_at = now + self.random.millis(20, 400);
        let Some(client) = &mut self.client else {
            return self.event(Event::Close(CloseReason::ConnectionLost));
        };
        let act = client.act(&mut self.world.state());
        match act {
            Act::Nothing => {}
            Act::Request(request) => self.event(Event::Received(&request)),
            Act::Leave => self.event(Event::Disconnected),
            Act::Lose(noticed) => {
                self.lose();
                self.acts_at = now + noticed;
            }
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let now = model::Time::from_start(self.start.elapsed());
        self.session.handle(now, event, &mut self.effects);
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Unit(unit) => self.effects.push(Effect::Transmit(unit)),
            Delivery::Event(event) => self.event(event),
        }
    }

    /// Applies effects, and those that follow from them. Returns why the session is over, if it is.
    async fn settle(&mut self) -> Option<CloseReason> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Transmit(unit) => {
                        let Some(client) = &mut self.client else { continue };
                        let answer = client.hears(&unit, &mut self.world.state());
                        if let Some(answer) = answer {
                            self.event(Event::Received(&answer));
                        }
                    }
                    Effect::Call { key, call } => {
                        let dialect = self.session.dialect();
                        self.handler.call(key, call, dialect).await;
                    }
                    Effect::Probe if self.client.is_some() => self.event(Event::Answered),
                    Effect::Probe => {}
                    Effect::Alive => self.handler.alive().await,
                    Effect::Count(oddity) => tracing::warn!(%oddity, "odd"),
                    Effect::Close(reason) => return Some(reason),
                }
            }
        }
        None
    }
}

impl<H> Player<H> {
    /// The client goes on without this connection.
    fn lose(&mut self) {
        if let Some(mut client) = self.client.take() {
            let mut state = self.world.state();
            client.lost(&mut state);
            state.away.push(client);
        }
    }
}

/// Whoever takes part in a crashed host has lost its connection.
impl<H> Drop for Player<H> {
    fn drop(&mut self) {
        self.lose();
    }
}
