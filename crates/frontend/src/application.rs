//! What a role brings.

use std::net::SocketAddr;

use model::SessionId;
use session::{Call, CloseReason, Protocol, RequestKey, Transport};
use wire::Dialect;

use crate::Outbound;

/// A role, as its frontend sees it.
pub trait Application: Clone + Send + Sync + 'static {
    /// What the role keeps of one session.
    type Handler: Handler;

    /// Makes the handler of a session whose client has just connected.
    fn accept(&self, client: Client) -> Self::Handler;
}

/// What the role does for one session.
pub trait Handler: Send + 'static {
    /// Carries out a call, or has it carried out. It is answered, once, with
    /// [`Outbound::reply`] and its `key`.
    ///
    /// Nothing more is read from this client until the future is done: a role that has too much to
    /// do holds back the clients that ask for it.
    fn call(
        &mut self,
        key: RequestKey,
        call: Call,
        dialect: Dialect,
    ) -> impl Future<Output = ()> + Send;

    /// Notes that the client lives, as somebody asked by [`Outbound::probe`].
    fn alive(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Notes that the session is over. Called once, as the last thing. What was sent to the
    /// session's [`Outbound`] since is lost.
    fn closed(&mut self, reason: &CloseReason) -> impl Future<Output = ()> + Send;
}

/// A client that has connected.
#[derive(Clone, Debug)]
pub struct Client {
    /// The number of its session; never used twice by one frontend.
    pub id: SessionId,
    /// What it speaks.
    pub protocol: Protocol,
    /// What carries its bytes, at first.
    pub transport: Transport,
    /// Its address.
    pub peer: SocketAddr,
    /// Ours, as this client reached it.
    pub local: SocketAddr,
    /// The host by which it reached us, without a port, if it says so. An IPv6 address stands in
    /// brackets. It comes from the client and is not checked in any way.
    pub host: Option<String>,
    /// Where to send it something.
    pub outbound: Outbound,
}
