//! Servers to compare Tangelo with: what the kernel costs, and what one writes at first.
//!
//! Both are one process and speak just enough of the chat for `tangelo bench` to drive them: the
//! same generator sends the same bytes, hears the same bytes and judges the same history, so that
//! a ratio compares servers and nothing else. They promise nothing: no order between processes, no
//! limit, no timeout, no second node. Use them for nothing but figures.
//!
//! - [`epoll`]: the floor. One thread, one `write` per delivery, or one per socket and turn.
//! - [`textbook`]: `tokio-tungstenite` with its defaults, a task and a queue per connection.
//! - [`compare`]: runs Tangelo and these in turn, and prints what each costs as ratios.

pub mod compare;
pub mod epoll;
mod frame;
mod speech;
pub mod textbook;
