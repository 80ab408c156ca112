//! An endless response, and what waits for its reader.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use model::limits;
use session::CloseReason;
use tokio::sync::mpsc;

/// Pieces that may wait: as many as for any other client, and enough for all that one post
/// can bring about at once, an acknowledgement and an answer for each of its packets.
const PIECES_MAX: usize = limits::SESSION_QUEUE_ITEMS_MAX;

const _: () = assert!(PIECES_MAX >= 2 * limits::SOCKETIO_POST_PACKETS_MAX);

/// The session's end of an endless response.
#[derive(Debug)]
pub(crate) struct Pieces {
    sender: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The response's end.
#[derive(Debug)]
pub(crate) struct PiecesReader {
    receiver: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// The two ends; at most so many bytes may wait in between, or one piece.
pub(crate) fn pieces(bytes_max: usize) -> (Pieces, PiecesReader) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    (Pieces { sender, waiting: waiting.clone(), bytes_max }, PiecesReader { receiver, waiting })
}

impl Pieces {
    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// If too much waits for the reader, or it is gone.
    pub(super) fn add(&self, unit: Bytes) -> Result<(), CloseReason> {
        let length = unit.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        if before > 0 && before + length > self.bytes_max {
            return Err(CloseReason::SlowReader);
        }
        self.sender.try_send(unit).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CloseReason::SlowReader,
            mpsc::error::TrySendError::Closed(_) => CloseReason::ConnectionLost,
        })
    }

    /// Waits until the reader is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl PiecesReader {
    /// Waits for the next piece; nothing if there will be none.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let unit = self.receiver.recv().await?;
        self.waiting.fetch_sub(unit.len(), Ordering::Relaxed);
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_and_bytes_are_bounded() {
        let unit = Bytes::from_static(b"12345678");
        let (pieces, mut reader) = pieces(16);
        for _ in 0..3 {
            assert_eq!(pieces.add(unit.clone()), Ok(()));
            assert_eq!(pieces.add(unit.clone()), Ok(()));
            assert_eq!(reader.next().await, Some(unit.clone()));
            assert_eq!(reader.next().await, Some(unit.clone()));
        }
        assert_eq!(pieces.add(vec![0; 100].into()), Ok(()), "one piece may be larger");
        assert_eq!(pieces.add(unit), Err(CloseReason::SlowReader));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_lost() {
        let (pieces, reader) = pieces(16);
        drop(reader);
        assert_eq!(pieces.add(Bytes::new()), Err(CloseReason::ConnectionLost));
        let (pieces, _reader) = super::pieces(usize::MAX);
        for _ in 0..PIECES_MAX {
            assert_eq!(pieces.add(Bytes::new()), Ok(()));
        }
        assert_eq!(pieces.add(Bytes::new()), Err(CloseReason::SlowReader));
    }
}
