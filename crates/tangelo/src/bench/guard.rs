//! Looks after the machine: a crowd must not take the last of its memory.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::machine::available_memory;

/// Memory that is left to others, in bytes.
const LEFT_TO_OTHERS: u64 = 2 << 30;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Keeps an eye on the memory that is available.
pub(super) struct Guard {
    looked: Instant,
    /// The least that was available since the beginning, in bytes.
    pub(super) least: u64,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { looked: Instant::now(), least: available_memory().unwrap_or(u64::MAX) }
    }

    /// Looks, if it is time to.
    ///
    /// # Errors
    ///
    /// If too little is left: the run must end.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let Some(left) = available_memory() else { return Ok(()) };
        self.least = self.least.min(left);
        ensure!(
            left >= LEFT_TO_OTHERS,
            "the machine has only {} MiB of memory left, and {} are for others: given up",
            left >> 20,
            LEFT_TO_OTHERS >> 20,
        );
        Ok(())
    }
}
