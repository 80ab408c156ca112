//! The thread that writes lines, so that no task waits for a terminal or a pipe.

use std::{
    io::Write,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

enum Item {
    Line(String),
    /// Answer when all before is written.
    Flush(SyncSender<()>),
}

/// A bounded queue of lines and the thread that empties it.
pub(super) struct Sink {
    queue: SyncSender<Item>,
    lost: &'static AtomicU64,
}

impl Sink {
    /// Starts the thread; `room` lines may wait.
    pub(super) fn start(out: impl Write + Send + 'static, room: usize) -> Self {
        // One sink lives as long as its process; leaking its counter saves counting owners.
        let lost: &'static AtomicU64 = Box::leak(Box::default());
        let (queue, items) = sync_channel(room);
        let writer = thread::Builder::new().name("log".into());
        // Without its thread the queue is closed, and lines are dropped without a word: a process
        // that cannot log can still serve.
        let _ = writer.spawn(move || write_all(&items, out, lost));
        Self { queue, lost }
    }

    /// Queues a line that ends in a newline. Never waits.
    pub(super) fn write(&self, line: String) {
        match self.queue.try_send(Item::Line(line)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until all that was queued before is written, at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        loop {
            match self.queue.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => item = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(Duration::from_millis(5));
        }
        match written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

/// Writes until every sender is gone. A reader that went away is no reason to stop: nothing else
/// in the process depends on it.
fn write_all(items: &Receiver<Item>, mut out: impl Write, lost: &AtomicU64) {
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    let _ = out.write_all(line.as_bytes());
                    let lost = lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        let _ = writeln!(out, "({lost} log lines lost: their reader was too slow)");
                    }
                }
                Item::Flush(done) => {
                    let _ = out.flush();
                    let _ = done.try_send(());
                }
            }
            next = items.try_recv().ok();
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, mpsc},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A writer that takes nothing until its gate is dropped.
    struct Slow {
        gate: mpsc::Receiver<()>,
        reached: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            self.reached.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (gate, closed) = mpsc::channel::<()>();
        let reached = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow { gate: closed, reached: reached.clone() };
        let sink = Sink::start(slow, 4);
        for number in 0..100 {
            sink.write(format!("line {number}\n"));
        }
        drop(gate);
        sink.flush(LONG);
        let text = String::from_utf8(reached.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.contains("log lines lost"), "{text}");
        let kept = text.lines().filter(|line| line.starts_with("line ")).count();
        assert!((4..=6).contains(&kept), "{text}");
    }
}
