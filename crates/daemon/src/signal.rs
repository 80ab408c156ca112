//! Signals that ask a process to end.

use std::{fmt, io, time::Duration};

use tokio::{
    signal::unix::{self, SignalKind},
    time::Instant,
};

/// Within this time of a signal, another one is its echo and not a second wish: `timeout`, `make`
/// and the like signal a process and then its whole group, which it is in. Nobody presses Ctrl-C
/// twice as fast.
const ECHO: Duration = Duration::from_millis(150);

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// From a person at the keyboard.
    Interrupt,
    /// From a supervisor.
    Terminate,
}

impl Signal {
    /// The signal's name as the system writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What a shell shows as the exit code of a process that the signal ended.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Receives SIGINT and SIGTERM instead of being ended by them.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    last: Option<Instant>,
}

impl Signals {
    /// Takes the signals over, from now to the end of the process.
    ///
    /// # Errors
    ///
    /// If the system does not allow it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            last: None,
        })
    }

    /// Waits for the next signal that is no echo of the last one.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        loop {
            let signal = tokio::select! {
                _ = self.interrupt.recv() => Signal::Interrupt,
                _ = self.terminate.recv() => Signal::Terminate,
            };
            let now = Instant::now();
            if !is_echo(self.last, now) {
                self.last = Some(now);
                return signal;
            }
        }
    }
}

/// Whether a signal at `now` belongs to the one at `last`.
fn is_echo(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.duration_since(last) < ECHO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_at_once_is_an_echo() {
        let first = Instant::now();
        assert!(!is_echo(None, first));
        assert!(is_echo(Some(first), first));
        assert!(is_echo(Some(first), first + ECHO / 2));
        assert!(!is_echo(Some(first), first + ECHO));
    }
}
