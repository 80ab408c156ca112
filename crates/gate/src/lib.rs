//! The gate: answers which connector to use, serves the chat page, and can host the registry.
//!
//! It follows the map of the cluster and holds no other state. Any number of gates can run; each
//! answers from the map it knows, also while the registry is silent.

mod args;
mod clients;
mod count;
mod entry;
mod http;
mod page;
mod presence;
mod run;
mod web_root;

pub use args::{Args, RegistryChoice};
pub use frontend::{PomeloFiles, path};
pub use run::run;
pub use web_root::WebRoot;
