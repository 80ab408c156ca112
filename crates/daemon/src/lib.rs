//! What every process of the cluster does alike: arguments, logs, signals, tasks, admin port.
//!
//! A role's `main` is [`run::main`] around the role's own `run(args)`, which begins with
//! [`Process::start`] and ends with [`Process::finish`].

mod admin;
mod alarm;
mod args;
pub mod net;
mod process;
mod readiness;
mod resources;
pub mod run;
pub mod signal;
pub mod stdin;
mod tasks;
pub mod telemetry;
mod vitals;
mod workers;

pub use admin::Admin;
pub use alarm::Alarm;
pub use args::{CommonArgs, When, filter_text, host_name, thread_count};
pub use process::{Cause, Process, Stop};
pub use readiness::Readiness;
pub use resources::{Usage, raise_open_files};
pub use run::{BugError, UsageError, threads};
pub use tasks::Tasks;
pub use telemetry::LogFormat;
pub use workers::Workers;
