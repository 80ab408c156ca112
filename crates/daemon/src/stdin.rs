//! Standard input as a sign of life: whoever has started a process holds the other end, and cannot
//! forget it, however it ends.

use std::{io, thread};

/// Calls `then` when standard input has ended, with how that was.
///
/// # Errors
///
/// If the system gives no thread for it.
pub fn when_ended(then: impl FnOnce(io::Result<u64>) + Send + 'static) -> io::Result<()> {
    // A read of standard input cannot be cancelled, so it has a thread that nothing waits for.
    let watch = || then(io::copy(&mut io::stdin().lock(), &mut io::sink()));
    thread::Builder::new().name("stdin".into()).spawn(watch).map(drop)
}
