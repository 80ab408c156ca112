//! The listener.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use daemon::Tasks;
use session::{Protocol, Session, Transport as Kind};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::sleep,
};

use crate::{
    Application, Client, Outbound, Settings,
    admission::Permit,
    clock::Tick,
    connection::{Connection, Output},
    context::{Context, Shared},
    http::{Handshaken, Opened, open},
    meters::Meters,
    outbound::Direct,
    run::Form,
    socketio::Registration,
    transport::{Polling, Request, Tcp, Transport, WebSocket},
};

/// First and longest pause after a failure to accept: the process is out of files or memory, and
/// trying at once would fail at once. Connections wait in the kernel meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The clients' port: bound, and accepting once it [runs](Frontend::run).
#[derive(Debug)]
pub struct Frontend {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Looks at a frontend and drains it, from wherever. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Frontend {
    /// Binds the port. Connections wait in the kernel until the frontend runs.
    ///
    /// # Errors
    ///
    /// If the address cannot be had; the text says what to do.
    pub fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let listener = daemon::net::bind(address, "--listen")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, shared: Arc::new(Shared::new(settings)) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to look at it and to drain it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone() }
    }

    /// Accepts connections until the frontend is drained or `tasks` end, and tells their sessions
    /// the time until all have ended. Each is a task of its own, called `client`.
    ///
    /// `http` answers requests that ask for no WebSocket; their peer's address is in
    /// [`axum::extract::ConnectInfo`].
    pub async fn run<A: Application>(self, app: A, http: Router, tasks: &Tasks) {
        let (shared, end) = (self.shared.clone(), tasks.token());
        tokio::join!(self.accept(app, http, tasks), shared.clock.run(&end));
    }

    async fn accept<A: Application>(self, app: A, http: Router, tasks: &Tasks) {
        let Self { listener, shared, .. } = self;
        let end = tasks.token();
        let (shared_too, tasks_too) = (shared.clone(), tasks.clone());
        let context = Arc::new(Context { shared: shared_too, app, http, tasks: tasks_too, end });
        let mut pause = ACCEPT_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shared.clock.draining() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    admit(stream, peer, &context, tasks);
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    Meters::accept_failed();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        tracing::debug!("no more connections are accepted");
    }
}

impl Handle {
    /// Stops accepting, and ends the sessions evenly over this time, each with
    /// [`session::CloseReason::Draining`]. When all tasks are told to end, those that are left end
    /// at once.
    pub fn drain(&self, over: Duration) {
        self.shared.clock.drain(over);
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.sessions()
    }

    /// How many connections are open: sessions, those that will be or have been, and HTTP.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.admission.total()
    }
}

/// Whether the client gave up while it waited to be accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted]
        .contains(&error.kind())
}

fn admit<A: Application>(
    stream: TcpStream,
    peer: SocketAddr,
    context: &Arc<Context<A>>,
    tasks: &Tasks,
) {
    let permit = match context.shared.admission.admit(peer.ip()) {
        Ok(permit) => permit,
        Err(refusal) => {
            tracing::debug!(%peer, cap = refusal.name(), "connection refused");
            return Meters::refused(refusal);
        }
    };
    tasks.spawn("client", welcome(stream, peer, context.clone(), permit));
}

/// Finds out what a client speaks. Its session is a task of its own, since a task keeps to its end
/// the room of all that it ever was.
async fn welcome<A: Application>(
    stream: TcpStream,
    peer: SocketAddr,
    context: Arc<Context<A>>,
    permit: Permit,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    // Answers are small and awaited; what can wait is gathered before it is written.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(opened) = open(stream, peer, local, &context).await else {
        return;
    };
    let protocol = opened.protocol();
    let greet = |kind, host, opening| Greeting { protocol, kind, peer, local, host, opening };
    match opened {
        Opened::Tcp(stream, first) => {
            let greeting = greet(Kind::Tcp, None, None);
            start(&context, greeting, Tcp::new(stream), &first, permit);
        }
        Opened::WebSocket(handshaken) => {
            let Handshaken { stream, rest, host, opening, .. } = handshaken;
            let greeting = greet(Kind::WebSocket, host, opening);
            let bytes_max = context.shared.settings.session.limits.message_bytes_max;
            let transport = WebSocket::new(stream, rest, protocol, bytes_max);
            start(&context, greeting, transport, &[], permit);
        }
    }
}

/// What is known of a client before it has a session.
pub(crate) struct Greeting {
    pub(crate) protocol: Protocol,
    pub(crate) kind: Kind,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) host: Option<String>,
    /// What is said before the session says anything.
    pub(crate) opening: Option<Bytes>,
}

/// Starts a session that is reached by requests. False if there are too many connections: such a
/// session counts as one.
pub(crate) fn welcome_polling<A: Application>(
    context: &Arc<Context<A>>,
    greeting: Greeting,
    requests: mpsc::Receiver<Request>,
    registration: Registration,
) -> bool {
    let permit = match context.shared.admission.admit(greeting.peer.ip()) {
        Ok(permit) => permit,
        Err(refusal) => {
            Meters::refused(refusal);
            return false;
        }
    };
    let transport = Polling::new(&context.shared, greeting.protocol, requests, registration);
    start(context, greeting, transport, &[], permit);
    true
}

/// Opens a session and has it run. `first` was read before it was clear who would want it.
fn start<A: Application, T: Transport + 'static>(
    context: &Arc<Context<A>>,
    greeting: Greeting,
    transport: T,
    first: &[u8],
    permit: Permit,
) {
    let shared = &context.shared;
    let Greeting { protocol, kind, peer, local, host, opening } = greeting;
    let id = shared.opened();
    shared.clock.enter();
    let (spoken, carried) = (protocol.name(), kind.name());
    tracing::debug!(session = id.0, %peer, protocol = spoken, transport = carried, "connected");
    let settings = &shared.settings;
    let form = form(protocol, kind);
    let direct = (form != Form::Units).then(|| transport.share()).flatten();
    let direct = direct.map(|stream| Direct { stream, shared: shared.clone() });
    let (items_max, bytes_max) = (settings.queue_items_max, settings.queue_bytes_max);
    let (outbound, inbox) = Outbound::new(id, form, direct, items_max, bytes_max);
    let client = Client { id, protocol, transport: kind, peer, local, host, outbound };
    let mut connection = Connection {
        id,
        protocol,
        session: Session::new(shared.now(), settings.session.clone(), protocol, kind),
        transport,
        handler: context.app.accept(client),
        inbox,
        shared: shared.clone(),
        alarm: Tick::NEVER,
        effects: Vec::new(),
        output: opening.into_iter().map(Output::Unit).collect(),
    };
    connection.begin(first);
    context.tasks.spawn("client", async move {
        connection.run().await;
        drop(permit);
    });
}

/// How others may write to a client of this kind. The oldest dialect joins what leaves together,
/// and a session that is reached by requests may move, so they go through the session's task.
const fn form(protocol: Protocol, kind: Kind) -> Form {
    match (protocol, kind) {
        (Protocol::Pomelo, Kind::Tcp) => Form::Stream,
        (Protocol::Pomelo, Kind::WebSocket) => Form::Binary,
        (Protocol::SocketIo1, Kind::WebSocket) => Form::Text,
        (Protocol::Pomelo | Protocol::SocketIo1, _) | (Protocol::SocketIo09, _) => Form::Units,
    }
}
