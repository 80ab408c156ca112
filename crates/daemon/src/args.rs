//! Arguments that every process takes.

use std::{net::SocketAddr, path::PathBuf};

use model::{NodeId, Role};
use tracing_subscriber::filter::LevelFilter;

use crate::telemetry::{self, LogFormat};

/// Most threads of one process; a typing error must not start a thousand.
const THREADS_MAX: i64 = 256;

/// Arguments that every process takes; flattened into each role's own.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct CommonArgs {
    /// Name of this process in logs and in the registry [default: the role and the host name]
    #[arg(long, env = "TANGELO_NAME", value_parser = node_id)]
    pub name: Option<NodeId>,

    /// Where to answer /metrics, /healthz and /readyz; port 0 picks a free one, which is logged
    #[arg(long, env = "TANGELO_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,

    /// What to log: a level (error, warn, info, debug), or levels by module, such as
    /// `info,session=debug` [default: RUST_LOG, or info]. Traces are in debug builds only
    #[arg(long, env = "TANGELO_LOG", value_name = "FILTER", value_parser = filter_text)]
    pub log: Option<String>,

    /// How log lines look; `pretty` is coloured on a terminal unless NO_COLOR is set
    #[arg(long, env = "TANGELO_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty")]
    pub log_format: LogFormat,

    /// File to write all addresses listened on to, as a JSON object, once they are known
    #[arg(long, env = "TANGELO_ADDRESSES", value_name = "FILE")]
    pub addresses: Option<PathBuf>,

    /// Threads that do the work; several small processes are cheaper than a few large ones
    /// [default: one per processor]
    #[arg(long, env = "TANGELO_THREADS", value_name = "COUNT", value_parser = thread_count())]
    pub threads: Option<u16>,

    /// Drain when standard input ends: a supervisor holds the other end and cannot forget it
    #[arg(long, hide = true)]
    pub watch_stdin: bool,
}

impl CommonArgs {
    /// The name given, or `role-host`.
    #[must_use]
    pub fn name(&self, role: Role) -> NodeId {
        match &self.name {
            Some(name) => name.clone(),
            None => default_name(role, &host_name()),
        }
    }
}

/// When to use what not every system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// Where the system allows it.
    Auto,
    /// Never.
    Off,
}

/// How many threads a process may be given.
#[must_use]
pub fn thread_count() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=THREADS_MAX)
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(text)
        .map_err(|error| format!("{error}; use up to 64 letters, digits, hyphens, dots and _"))
}

/// Checks the text of a log filter without making one, as an argument parser wants it.
///
/// # Errors
///
/// What is wrong with it.
pub fn filter_text(text: &str) -> Result<String, String> {
    // A lone word that is no level would be a module, with all that it says and nothing of any
    // other: whoever writes `verbose` would wonder where the log is.
    let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
    for word in words {
        // Compose files pass what is not set as an empty text.
        if !word.is_empty() && word.parse::<LevelFilter>().is_err() {
            return Err(format!("{word} is no level; {}", telemetry::FILTER_ADVICE));
        }
    }
    telemetry::parse_filter(text).map(|_| text.to_owned())
}

/// This host's name, as the system tells it.
#[must_use]
pub fn host_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

fn default_name(role: Role, host: &str) -> NodeId {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let host: String = host.chars().filter(allowed).take(50).collect();
    let name = match host.as_str() {
        "" => role.name().to_owned(),
        _ => format!("{}-{host}", role.name()),
    };
    NodeId::new(&name).expect("a role and at most 50 allowed characters are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_modules_with_levels() {
        for good in ["", "debug", "WARN", "off", "info,session=debug", "info,session=trace"] {
            assert_eq!(filter_text(good), Ok(good.to_owned()));
        }
        for bad in ["verbose", "info,session", "info=loud", "a=b=c"] {
            let error = filter_text(bad).unwrap_err();
            assert!(
                error.ends_with("give a level (debug) or levels by module (info,session=debug)")
            );
        }
        assert!(filter_text("info,session").unwrap_err().starts_with("session is no level"));
    }

    #[test]
    fn a_process_without_a_name_is_named_after_its_host() {
        let name = |host: &str| default_name(Role::Chat, host).to_string();
        assert_eq!(name("9f3a"), "chat-9f3a");
        assert_eq!(name("büro (2)"), "chat-bro2");
        assert_eq!(name(""), "chat");
        assert!(name(&"x".repeat(300)).len() <= 64);
    }
}
