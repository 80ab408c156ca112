//! `main` of every binary: parse, run, say what went wrong, exit with a code.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    thread::available_parallelism,
    time::Duration,
};

use clap::Parser;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::telemetry;

/// The command line or the environment says something that cannot be.
pub const EXIT_USAGE: u8 = 64;
/// A task of the process panicked: a bug of ours.
pub const EXIT_BUG: u8 = 70;

/// Arguments that contradict each other or the world; the text says what to do. Ends the process
/// with [`EXIT_USAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A task panicked; the log says where. Ends the process with [`EXIT_BUG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BugError;

impl std::fmt::Display for BugError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a task panicked, which is a bug; the log says where")
    }
}

impl std::error::Error for BugError {}

/// Runs a binary: parses its arguments, runs `run` with them on a runtime of as many threads as
/// `threads` finds in them, and returns the process's exit code.
pub fn main<A, F>(threads: impl FnOnce(&A) -> Option<u16>, run: impl FnOnce(A) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = anyhow::Result<()>>,
{
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => return explain_usage(&error),
    };
    let runtime = match runtime(threads(&args)) {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    let result = runtime.block_on(run(args));
    // What still blocks a thread has been named as stuck already.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    };
    telemetry::flush();
    code
}

/// How many threads do the work of this process.
///
/// # Panics
///
/// If it is not called from within [`main`]'s `run`.
#[must_use]
pub fn threads() -> usize {
    Handle::current().metrics().num_workers()
}

fn runtime(threads: Option<u16>) -> io::Result<Runtime> {
    let processors = || available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or_else(processors, usize::from);
    // One thread has nobody to take work from or to wake, and need not pay for it.
    let mut builder =
        if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build()
}

/// Prints what clap has to say: help to standard output, errors to standard error.
fn explain_usage(error: &clap::Error) -> ExitCode {
    // There is nobody to tell that nobody listens.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

fn report(error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    let logged = tracing::dispatcher::has_been_set() && code != EXIT_USAGE;
    if logged {
        tracing::error!(error = format!("{error:#}"), exit_code = code, "failed");
    } else {
        let _ = writeln!(io::stderr(), "error: {error:#}");
    }
    ExitCode::from(code)
}

/// The exit code for an error: [`EXIT_USAGE`], [`EXIT_BUG`], or 1.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<UsageError>().is_some() {
        EXIT_USAGE
    } else if error.downcast_ref::<BugError>().is_some() {
        EXIT_BUG
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_have_codes_through_any_context() {
        let usage = Err::<(), _>(UsageError("no".to_owned())).context("config");
        assert_eq!(exit_code(&usage.unwrap_err()), 64);
        assert_eq!(exit_code(&BugError.into()), 70);
        assert_eq!(exit_code(&anyhow::anyhow!("else")), 1);
    }
}
