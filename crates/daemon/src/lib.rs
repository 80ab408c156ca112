//! What every process of the cluster does alike: arguments, logs, signals, tasks, admin port.
pub mod net;
pub mod tasks;
pub use tasks::Tasks;
