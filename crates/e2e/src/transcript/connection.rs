//! One connection of a transcript: what its client does, and what is expected of the server.

use std::{collections::BTreeSet, net::SocketAddr};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    compare::{Difference, Expected},
    exchange::{Reply, Request, ask},
    item::{Framing, Item},
    socket::{Arrived, Inbox, Socket},
};

/// A request, ready to be sent as often as needed.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) address: SocketAddr,
    pub(super) request: Request,
    pub(super) bytes: Vec<u8>,
}

/// A socket, or HTTP requests under one name, or first these and then that.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) inbox: Inbox,
    pub(super) socket: Option<Socket>,
    pub(super) framing: Framing,
    pub(super) expected: Expected,
    /// The latest poll, to be sent again.
    poll: Option<Outgoing>,
    requests: JoinSet<()>,
}

impl Connection {
    /// What the server has sent so far.
    pub(super) fn actual(&self) -> Vec<Item> {
        self.inbox.look(|arrived| {
            let messages = arrived.messages.iter();
            let mut items: Vec<Item> =
                messages.flat_map(|message| self.framing.items(message)).collect();
            for (request, reply) in &arrived.replies {
                add_reply(&mut items, self.framing.reply_items(request, reply.as_ref()));
            }
            items
        })
    }

    /// Expects an answer to a request.
    pub(super) fn expect_reply(&mut self, request: &Request, reply: Option<&Reply>) {
        let items = self.framing.reply_items(request, reply);
        add_reply(&mut self.expected.items, items);
    }

    /// Whether the server has ended its socket.
    pub(super) fn ended(&self) -> bool {
        self.inbox.look(|arrived| arrived.ended)
    }

    /// Waits until the server has ended the connection; false if it does not.
    pub(super) async fn end(&self, deadline: Instant) -> bool {
        loop {
            let changed = self.inbox.changed();
            if self.ended() {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return self.ended();
            }
        }
    }

    /// Drops the socket without a word.
    pub(super) async fn abort(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.abort().await;
        }
        self.inbox.change(|arrived| arrived.ended = true);
    }

    /// Sends a request on a connection of its own. A session polls once at a time: if it does
    /// already, the poll that waits stands for this one.
    pub(super) fn ask(&mut self, outgoing: Outgoing) {
        if outgoing.request.is_poll {
            self.poll = Some(outgoing.clone());
            if self.inbox.look(|arrived| std::mem::replace(&mut arrived.polling, true)) {
                return;
            }
        }
        let inbox = self.inbox.clone();
        self.requests.spawn(async move {
            let Outgoing { address, request, bytes } = outgoing;
            let reply = ask(address, &bytes).await;
            inbox.change(|arrived| {
                arrived.polling &= !request.is_poll;
                arrived.replies.push((request, reply));
            });
        });
    }

    /// Polls once more than was recorded, if something is awaited and the session lives: how much
    /// one poll brings is a matter of time.
    pub(super) fn poll_on(&mut self) {
        let lives = |arrived: &mut Arrived| {
            let last = arrived.replies.iter().rev().find(|(request, _)| request.is_poll);
            last.is_none_or(|(_, reply)| reply.as_ref().is_some_and(|reply| reply.status == 200))
        };
        if let Some(poll) = self.poll.clone()
            && self.inbox.look(lives)
        {
            self.ask(poll);
        }
    }

    /// The session ids that the original gave out and ours did in the same place.
    pub(super) fn sids(&self) -> Vec<(String, String)> {
        let sid = |(request, reply): &(Request, Option<Reply>)| {
            let theirs = request.sid.clone()?;
            let body = &reply.as_ref()?.body;
            Some((theirs, super::socketio::sid_in_answer(&request.target, body)?))
        };
        self.inbox.look(|arrived| arrived.replies.iter().filter_map(sid).collect())
    }

    /// What has been recorded so far and is still to come, except what never will. Of HTTP any
    /// answer will do.
    pub(super) fn awaited(&self, name: &str, known: &BTreeSet<Difference>) -> Awaited {
        let actual = self.actual();
        let mut awaited = Awaited::default();
        for item in self.expected.missing(&actual) {
            let difference = Difference::missing(name, item);
            // What is known to be missing is not awaited; but if it is an answer, ours is.
            let is_given_up = known.contains(&difference) || item.is_http_answer();
            if !is_given_up || !item.is_replaced_in(&actual) {
                awaited.by_poll |= !item.is_http_answer();
                awaited.differences.insert(difference);
            }
        }
        awaited
    }
}

/// What is still to come.
#[derive(Default)]
pub(super) struct Awaited {
    pub(super) differences: BTreeSet<Difference>,
    /// A poll could bring some of it.
    pub(super) by_poll: bool,
}

/// That polls are answered, and how, counts once.
fn add_reply(items: &mut Vec<Item>, reply: Vec<Item>) {
    for item in reply {
        if !(item.is_of_polls() && items.contains(&item)) {
            items.push(item);
        }
    }
}
