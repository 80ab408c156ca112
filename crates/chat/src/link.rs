//! One task per connector: relay messages in, room messages out.

use daemon::Tasks;
use metrics::gauge;
use registry::Membership;
use room::{LinkId, OwnerEvent};
use rpc::link::{FromConnector, Incoming};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::worker::{Input, Workers};

/// Takes the links that connectors open, each into a task of its own.
pub(crate) async fn accept(
    mut incoming: mpsc::Receiver<Incoming>,
    membership: Membership,
    workers: Workers,
    tasks: Tasks,
) {
    let token = tasks.token();
    let mut last = 0;
    loop {
        let link = tokio::select! {
            link = incoming.recv() => link,
            () = token.cancelled() => return,
        };
        let Some(link) = link else { return };
        last += 1;
        let (membership, workers) = (membership.clone(), workers.clone());
        tasks.spawn("link", serve(LinkId(last), link, membership, workers, token.clone()));
    }
}

/// Feeds the workers from one connector until the stream ends, a worker cuts it, or the process
/// ends.
async fn serve(
    link: LinkId,
    incoming: Incoming,
    membership: Membership,
    workers: Workers,
    token: CancellationToken,
) {
    let Incoming { peer, sender, receiver } = incoming;
    let connector = peer.incarnation;
    let connection = receiver.ended().clone();
    let cut = token.child_token();
    tracing::info!(connector = %peer.node, incarnation = connector.0, link = link.0, "link open");
    gauge!("tangelo_chat_links").increment(1);
    let up = || {
        let (name, sender, cut) = (peer.node.clone(), sender.clone(), cut.clone());
        Input::LinkUp { connector, name, link, sender, cut }
    };
    workers.all(up).await;
    drop(sender);
    let ended = tokio::select! {
        ended = receive(link, connector, receiver, &workers) => ended,
        () = cut.cancelled() => Ok("cut at this end"),
    };
    cut.cancel();
    gauge!("tangelo_chat_links").decrement(1);
    if connection.by_peer() {
        membership.link_broken(connector);
    }
    match ended {
        Ok(reason) => {
            tracing::info!(connector = %peer.node, link = link.0, reason, "link closed");
        }
        Err(error) => {
            tracing::warn!(connector = %peer.node, link = link.0, reason = %error, "link lost");
        }
    }
    workers.all(|| Input::Room(OwnerEvent::LinkDown { connector, link })).await;
}

async fn receive(
    link: LinkId,
    connector: model::Incarnation,
    mut receiver: FromConnector,
    workers: &Workers,
) -> Result<&'static str, rpc::link::Error> {
    loop {
        let Some(frames) = receiver.receive().await? else {
            return Ok("closed by the connector");
        };
        let input = |frames| Input::Frames { connector, link, frames };
        workers.batch(frames, |frame| frame.shard, input).await;
    }
}
