//! Socket.IO by requests: one that waits for what the server says, and one at a time that brings
//! what the client says; and the move to a WebSocket.

mod form;

use std::{net::SocketAddr, pin::Pin};

use bytes::Bytes;
use tokio::select;
use wire::socketio::{
    client::{Opening, PROBE, UPGRADE, cut_html_file},
    v1, v09,
};

use crate::{
    connection::Unit,
    error::{Closed, Error, Result},
    http::{Answer, Http},
    socket::{Messages, Socket},
};
use form::Form;
pub(crate) use form::Kind;

/// Units that may wait for a request to bring them: more than a server lets one client have
/// unanswered.
const WAITING_MAX: usize = 1024;

/// What a server says last: nothing comes by any further request.
const LAST_WORDS: [Bytes; 4] = [v09::DISCONNECT, v09::UNKNOWN_SESSION, v1::DISCONNECT, v1::CLOSE];

/// A session that is carried by requests. Nothing happens while nobody waits in
/// [`Polling::receive`].
pub(crate) struct Polling {
    form: Form,
    address: SocketAddr,
    source: Option<SocketAddr>,
    polls: Http,
    posts: Http,
    /// What waits to be brought.
    out: Vec<Bytes>,
    /// What the server said when it opened the session.
    early: Vec<Bytes>,
    /// The part of an endless page that has not been taken apart.
    page: Vec<u8>,
    tried: Tried,
    /// The server has said its last word.
    is_over: bool,
}

/// How far the move to a WebSocket has come.
enum Tried {
    /// There is none, or not any more.
    Never,
    /// It is still to be tried.
    Yet,
    Dialled(Pin<Box<dyn Future<Output = Result<Socket>> + Send>>),
    /// The server was asked whether it hears.
    Asked(Box<Socket>),
    /// It does. What is under way by requests is awaited, and nothing more begun.
    Works(Box<Socket>),
    Moved(Box<Socket>),
}

/// What woke the client.
enum Woken {
    Polled(Result<Answer, Closed>),
    Page(Result<Bytes, Closed>),
    Posted(Result<Answer, Closed>),
    Tried,
}

impl Polling {
    /// Opens a session.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Http`].
    pub(crate) async fn open(
        address: SocketAddr,
        kind: Kind,
        source: Option<SocketAddr>,
    ) -> Result<(Self, Opening)> {
        let mut form = Form::new(kind);
        let mut polls = Http::new(address, source);
        let answer = polls.ask(form.handshake()).await?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        if !answer.is_ok {
            return Err(Error::Http(text()));
        }
        let (opening, early) = form.opened(&answer.body).ok_or_else(|| Error::Http(text()))?;
        let upgrades = kind == Kind::Upgrade && opening.has_upgrade;
        let polling = Self {
            form,
            address,
            source,
            polls,
            posts: Http::new(address, source),
            out: Vec::new(),
            early,
            page: Vec::new(),
            tried: if upgrades { Tried::Yet } else { Tried::Never },
            is_over: false,
        };
        Ok((polling, opening))
    }

    /// Lets a unit wait for the next request.
    ///
    /// # Errors
    ///
    /// [`Closed::Silent`], if too many wait: the server takes nothing.
    pub(crate) fn send(&mut self, unit: &[u8]) -> Result<(), Closed> {
        if self.out.len() == WAITING_MAX {
            return Err(Closed::Silent);
        }
        self.out.push(Bytes::copy_from_slice(unit));
        Ok(())
    }

    /// Says that the client leaves, and waits until the server has taken it.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(crate) async fn close(&mut self) -> Result<(), Closed> {
        self.tried = Tried::Never;
        self.out.extend(self.form.farewell());
        while !self.out.is_empty() || !self.posts.is_idle() {
            self.post();
            posted(self.posts.answer().await?)?;
        }
        Ok(())
    }

    /// The WebSocket that the session has moved to.
    pub(crate) fn take_moved(&mut self) -> Option<Socket> {
        if !matches!(self.tried, Tried::Moved(_)) {
            return None;
        }
        match std::mem::replace(&mut self.tried, Tried::Never) {
            Tried::Moved(socket) => Some(*socket),
            Tried::Never | Tried::Yet | Tried::Dialled(_) | Tried::Asked(_) | Tried::Works(_) => {
                None
            }
        }
    }

    /// Waits until something has come or has been done, and hands out every unit.
    ///
    /// # Errors
    ///
    /// How the session has ended. Units that came before were handed out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped while it waits.
    pub(crate) async fn receive(
        &mut self,
        mut on_unit: impl FnMut(Unit<'_>),
    ) -> Result<(), Closed> {
        if self.is_over {
            return Err(Closed::ByServer);
        }
        if !self.early.is_empty() {
            self.early.drain(..).for_each(|unit| on_unit(Unit::Text(&unit)));
            return Ok(());
        }
        self.begin()?;
        if matches!(self.tried, Tried::Moved(_)) {
            return Ok(());
        }
        let is_page = self.form.is_page();
        let Self { polls, posts, tried, .. } = self;
        let said = async {
            if is_page {
                Woken::Page(polls.piece().await)
            } else {
                Woken::Polled(polls.answer().await)
            }
        };
        let woken = select! {
            woken = said => woken,
            answer = posts.answer() => Woken::Posted(answer),
            () = tried.step() => Woken::Tried,
        };
        let is_over = &mut self.is_over;
        let mut on_unit = |unit: Unit<'_>| {
            *is_over |= matches!(unit, Unit::Text(text) if LAST_WORDS.iter().any(|it| it == text));
            on_unit(unit);
        };
        match woken {
            Woken::Polled(answer) => {
                let answer = answer?;
                // Who has left is told that nobody has this id.
                if !answer.is_ok {
                    return Err(Closed::ByServer);
                }
                self.form.polled(&answer.body, on_unit)?;
            }
            Woken::Page(piece) => {
                self.page.extend_from_slice(&piece?);
                let fits = cut_html_file(&mut self.page, |frame| {
                    on_unit(Unit::Text(frame.as_bytes()));
                });
                if !fits {
                    return Err(Closed::Nonsense("an endless script".to_owned()));
                }
            }
            Woken::Posted(answer) => posted(answer?)?,
            Woken::Tried => {}
        }
        Ok(())
    }

    /// Begins what can begin.
    fn begin(&mut self) -> Result<(), Closed> {
        match &self.tried {
            Tried::Works(_) => {
                if self.polls.is_idle() && self.posts.is_idle() {
                    self.move_over()?;
                }
                return Ok(());
            }
            Tried::Moved(_) => return Ok(()),
            Tried::Yet => {
                let (address, source) = (self.address, self.source);
                let target = self.form.upgrade_target();
                self.tried = Tried::Dialled(Box::pin(async move {
                    Socket::websocket(address, source, &target, Messages::Texts).await
                }));
            }
            Tried::Never | Tried::Dialled(_) | Tried::Asked(_) => {}
        }
        self.post();
        if self.polls.is_idle() {
            let ask = self.form.poll();
            if self.form.is_page() {
                self.polls.begin_stream(ask);
            } else {
                self.polls.begin(ask);
            }
        }
        Ok(())
    }

    /// Moves to the WebSocket, and says by it what has waited.
    fn move_over(&mut self) -> Result<(), Closed> {
        if let Tried::Works(mut socket) = std::mem::replace(&mut self.tried, Tried::Never) {
            socket.send(&UPGRADE)?;
            for unit in self.out.drain(..) {
                socket.send(&unit)?;
            }
            self.tried = Tried::Moved(socket);
        }
        Ok(())
    }

    /// Brings what waits, all at once, after what was brought before.
    fn post(&mut self) {
        if !self.out.is_empty() && self.posts.is_idle() {
            let ask = self.form.post(&self.out);
            self.out.clear();
            self.posts.begin(ask);
        }
    }
}

impl Tried {
    /// Goes one step on, when the server allows it. Waits for ever where only the client can.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    async fn step(&mut self) {
        *self = match self {
            Self::Dialled(socket) => match socket.as_mut().await {
                Ok(mut socket) => match socket.send(&PROBE) {
                    Ok(()) => Self::Asked(Box::new(socket)),
                    Err(_) => Self::Never,
                },
                // Without a WebSocket the session goes on as it is.
                Err(_) => Self::Never,
            },
            Self::Asked(socket) => {
                let mut works = false;
                let answered = socket.receive(|unit| {
                    works |= matches!(unit, Unit::Text(text) if text == v1::PONG_PROBE);
                });
                match (answered.await, std::mem::replace(self, Self::Never)) {
                    (Ok(()), Self::Asked(socket)) if works => Self::Works(socket),
                    _ => Self::Never,
                }
            }
            Self::Never | Self::Yet | Self::Works(_) | Self::Moved(_) => {
                return std::future::pending().await;
            }
        };
    }
}

/// What a request that brings something was answered.
fn posted(answer: Answer) -> Result<(), Closed> {
    let is_unknown = answer.body == v09::UNKNOWN_SESSION;
    if answer.is_ok && !is_unknown { Ok(()) } else { Err(Closed::ByServer) }
}
