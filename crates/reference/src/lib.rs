//! Servers to compare Tangelo with: what the kernel costs, and what one writes at first.
//!
//! They speak just enough of the chat for `tangelo bench` to drive them: the same generator sends
//! the same bytes, hears the same bytes and judges the same history, so that a ratio compares
//! servers and nothing else. They promise nothing: no limit, no timeout, no life after a process
//! that ended. Use them for nothing but figures.
//!
//! - [`epoll`]: the floor. One thread, one `write` per delivery, or one per socket and turn; the
//!   latter through io_uring too.
//! - [`textbook`]: `tokio-tungstenite` with its defaults, a task and a queue per connection.
//! - [`split`]: the floor cut into connectors and an owner of the rooms, as Tangelo is.
//! - [`compare`]: runs Tangelo and these in turn, and prints what each costs as ratios.
//! - [`peers`]: the same with servers that others have built, each in its own protocol.
//! - [`goals`]: every goal of the project, measured, and whether it is met.
//! - [`sweep`]: Tangelo beside the floor as rooms, members or connectors grow, with plots.

pub mod compare;
pub mod epoll;
mod frame;
pub mod goals;
pub mod hop;
pub mod peers;
mod ring;
mod speech;
pub mod split;
pub mod sweep;
pub mod textbook;

/// Raises the number of files that this process and its children may open to what is allowed.
pub(crate) fn raise_open_files() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?)
}
