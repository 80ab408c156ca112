//! One link per live chat: relay messages out, room messages in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use daemon::Tasks;
use metrics::{counter, gauge};
use model::Incarnation;
use registry::Membership;
use room::{RelayEvent, message::ToOwner};
use rpc::{
    dial::Dialer,
    link::{self, FromOwner, Hello},
    token::ClusterToken,
};
use tokio_util::sync::CancellationToken;

use crate::worker::{Input, Workers};

/// Pause before the first new try to reach a chat; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest pause between tries. A live chat is in the map, so that tries are few and cheap.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Who opens links, and by what.
#[derive(Clone, Debug)]
pub struct Dialling {
    /// What chats are told.
    pub me: Hello,
    /// The secret that the cluster shares, if it has one.
    pub token: Option<ClusterToken>,
    /// Who opens the connections.
    pub dialer: Dialer,
}

/// Keeps a link to every live chat of the map until `token` is cancelled.
pub(crate) async fn follow(
    dialling: Dialling,
    membership: Membership,
    workers: Workers,
    tasks: Tasks,
    token: CancellationToken,
) {
    let mut map = membership.map.clone();
    let mut kept: BTreeMap<Incarnation, CancellationToken> = BTreeMap::new();
    loop {
        let current = Arc::clone(&map.borrow_and_update());
        kept.retain(|chat, kept| {
            let live = current.nodes.contains_key(chat);
            if !live {
                kept.cancel();
            }
            live
        });
        for chat in current.chats() {
            let Some(address) = chat.link.clone() else { continue };
            kept.entry(chat.incarnation).or_insert_with(|| {
                let token = token.child_token();
                let link = Link {
                    dialling: dialling.clone(),
                    membership: membership.clone(),
                    peer: Hello { node: chat.id.clone(), incarnation: chat.incarnation },
                    address,
                    workers: workers.clone(),
                    token: token.clone(),
                };
                tasks.spawn("link", link.keep());
                token
            });
        }
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            () = token.cancelled() => return,
        }
    }
}

type Sender = link::Sender<ToOwner>;

/// A link that is opened again whenever it breaks.
struct Link {
    dialling: Dialling,
    membership: Membership,
    peer: Hello,
    address: String,
    workers: Workers,
    token: CancellationToken,
}

impl Link {
    async fn keep(self) {
        let token = self.token.clone();
        let mut pause = RETRY_MIN;
        while !token.is_cancelled() {
            let opened = tokio::select! {
                opened = self.dial() => opened,
                () = token.cancelled() => return,
            };
            match opened {
                Ok((sender, receiver, peer)) if peer.incarnation == self.peer.incarnation => {
                    pause = RETRY_MIN;
                    self.serve(sender, receiver).await;
                }
                Ok((_, _, peer)) => {
                    tracing::debug!(chat = %peer.node, "another life of the chat answers there");
                }
                Err(error) => {
                    tracing::debug!(chat = %self.peer.node, %error, "cannot reach the chat");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                () = token.cancelled() => {}
            }
        }
    }

    async fn dial(&self) -> Result<(Sender, FromOwner, Hello), link::Error> {
        let Dialling { me, token, dialer } = &self.dialling;
        let chat = self.peer.incarnation;
        link::dial(&**dialer, &self.address, chat, me.clone(), token.as_ref()).await
    }

    async fn serve(&self, sender: Sender, receiver: FromOwner) {
        let peer = self.peer.incarnation;
        let connection = receiver.ended().clone();
        let cut = self.token.child_token();
        let way = if receiver.is_local() { "unix socket" } else { "network" };
        tracing::info!(chat = %self.peer.node, address = self.address, way, "link open");
        gauge!("tangelo_connector_links").increment(1);
        let up = || {
            let (name, sender, cut) = (self.peer.node.clone(), sender.clone(), cut.clone());
            Input::LinkUp { peer, name, sender, cut }
        };
        self.workers.all(up).await;
        drop(sender);
        let ended = tokio::select! {
            ended = self.receive(receiver) => ended,
            () = cut.cancelled() => Ok("cut at this end"),
        };
        gauge!("tangelo_connector_links").decrement(1);
        counter!("tangelo_connector_links_lost_total").increment(1);
        if connection.by_peer() {
            self.membership.link_broken(peer);
        }
        let chat = &self.peer.node;
        match ended {
            Ok(reason) => tracing::info!(%chat, reason, "link closed"),
            Err(error) => tracing::warn!(%chat, reason = %error, "link lost"),
        }
        self.workers.all(|| Input::Room(RelayEvent::LinkDown(peer))).await;
    }

    /// Feeds the workers until the chat ends the stream.
    async fn receive(&self, mut receiver: FromOwner) -> Result<&'static str, link::Error> {
        loop {
            let Some(frames) = receiver.receive().await? else {
                return Ok("closed by the chat");
            };
            let input = |frames| Input::Frames { from: self.peer.incarnation, frames };
            self.workers.batch(frames, |frame| frame.shard, input).await;
        }
    }
}
