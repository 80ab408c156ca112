//! What one node hears: the response half of its stream.

use std::sync::Arc;

use cluster::{ClusterMap, Gone, MapDelta, registrar::StreamId};
use futures_util::Stream;
use metrics::counter;
use rpc::{
    pb,
    registry::{Notice, write_delta, write_notice, write_snapshot},
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::server::Shared;

/// What the registrar has decided about one stream.
pub(super) enum Order {
    Welcome,
    Follow(Following),
    Dismiss(Gone),
    Close,
}

/// A place to follow the map from: all changes after this picture.
pub(super) struct Following {
    pub(super) map: Arc<ClusterMap>,
    pub(super) changes: broadcast::Receiver<Arc<MapDelta>>,
}

/// Orders that can wait for one stream: it gets each kind once.
pub(super) const ORDERS_MAX: usize = 4;

/// Pulled by the connection when it has room, so a slow reader holds up nobody, and what waits
/// for it is bounded by the queue of changes that all readers share.
pub(super) struct Feed {
    pub(super) stream: StreamId,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) shared: Arc<Shared>,
    /// The process ends.
    pub(super) cancelled: CancellationToken,
    /// Tells the task that reads the node's reports that nobody listens any more.
    pub(super) _reader: DropGuard,
}

impl Feed {
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<pb::MapUpdate, Status>> + Send {
        futures_util::stream::unfold(Some((self, None)), |state| async move {
            let (mut feed, mut changes) = state?;
            let (update, last) = feed.next(&mut changes).await?;
            Some((Ok(update), (!last).then_some((feed, changes))))
        })
    }

    /// The next thing to say, and whether it is the last.
    async fn next(
        &mut self,
        changes: &mut Option<broadcast::Receiver<Arc<MapDelta>>>,
    ) -> Option<(pb::MapUpdate, bool)> {
        let changed = async {
            match changes.as_mut() {
                Some(changes) => changes.recv().await,
                None => std::future::pending().await,
            }
        };
        let following = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => return None,
            order = self.orders.recv() => match order? {
                Order::Welcome => return Some((write_notice(&Notice::Welcome), false)),
                Order::Dismiss(gone) => return Some((write_notice(&Notice::Gone(gone)), true)),
                Order::Close => return None,
                Order::Follow(following) => following,
            },
            delta = changed => match delta {
                Ok(delta) => return Some((write_delta(&delta), false)),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(stream = self.stream.0, missed, "slow reader gets a snapshot");
                    counter!("tangelo_registry_readers_lagged_total").increment(1);
                    self.shared.following()
                }
            },
        };
        *changes = Some(following.changes);
        Some((write_snapshot(&following.map), false))
    }
}
