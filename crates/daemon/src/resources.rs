//! What a process uses, and the file limit it starts with.

use std::{fmt::Write as _, fs, time::SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and returns it: a session is an open
/// file, and the usual soft limit of 1,024 is far below what a process can hold. `None` is no
/// limit.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit { current: maximum, maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, limit = current, "limit of open files not raised");
            current
        }
    }
}

/// What a process used until now, read from `/proc`; absent where that is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory held, in bytes.
    pub resident_bytes: Option<u64>,
    /// User and system CPU time since the start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Most files that may be open.
    pub open_files_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// The process that started it.
    pub parent: Option<u64>,
}

impl Usage {
    /// Reads the usage of this process.
    #[must_use]
    pub fn now() -> Self {
        let mut usage = Self::of(std::process::id());
        // The directory's own descriptor is open while it is read.
        let open_files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        usage.open_files = open_files.map(|count| count.saturating_sub(1) as u64);
        usage.open_files_max = getrlimit(Resource::Nofile).current;
        usage
    }

    /// Reads the usage of any process, but for its files; all absent if there is none.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let page_bytes = rustix::param::page_size() as u64;
        Self::from_stat(&stat, page_bytes, rustix::param::clock_ticks_per_second())
    }

    /// Reads `/proc/<pid>/stat`. The command in parentheses may hold anything, so fields are
    /// counted from the last parenthesis; the first after it is the state, number 3 in proc(5).
    fn from_stat(stat: &str, page_bytes: u64, ticks_per_second: u64) -> Self {
        let after_command = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_command.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "ticks pass 2^52 after a million years")]
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second.max(1) as f64;
        Self {
            resident_bytes: number(24).map(|pages| pages * page_bytes),
            cpu_seconds: number(14).zip(number(15)).map(|(u, s)| seconds(u + s)),
            threads: number(20),
            parent: number(4),
            open_files: None,
            open_files_max: None,
        }
    }

    /// The usage as metrics, under the names that every Prometheus client uses.
    #[must_use]
    pub fn render(&self, started: SystemTime) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ =
                    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            }
        };
        let started = started.duration_since(SystemTime::UNIX_EPOCH).ok();
        let count = |value: Option<u64>| value.map(|value| value.to_string());
        add(
            "process_resident_memory_bytes",
            "gauge",
            "Memory held, in bytes.",
            count(self.resident_bytes),
        );
        add(
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time, in seconds.",
            self.cpu_seconds.map(|seconds| seconds.to_string()),
        );
        add("process_open_fds", "gauge", "Open files.", count(self.open_files));
        add("process_max_fds", "gauge", "Most files that may be open.", count(self.open_files_max));
        add("process_threads", "gauge", "Threads.", count(self.threads));
        add(
            "process_start_time_seconds",
            "gauge",
            "When the process started, in seconds since 1970.",
            started.map(|time| time.as_secs_f64().to_string()),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_nasty_command_name() {
        let stat = "4242 (a) b (c)) S 1 4242 4242 0 -1 4194560 100 0 0 0 \
                    250 50 0 0 20 0 7 0 12345 1000000 300 18446744073709551615";
        let usage = Usage::from_stat(stat, 4096, 100);
        assert_eq!(usage.resident_bytes, Some(300 * 4096));
        assert_eq!(usage.cpu_seconds, Some(3.0));
        assert_eq!(usage.threads, Some(7));
        assert_eq!(usage.parent, Some(1));
    }

    #[test]
    fn nonsense_is_absent() {
        assert_eq!(Usage::from_stat("", 4096, 100), Usage::default());
        let parent_alone = Usage { parent: Some(1), ..Usage::default() };
        assert_eq!(Usage::from_stat("1 (x) S 1", 4096, 0), parent_alone);
        assert!(!Usage::default().render(SystemTime::UNIX_EPOCH).contains("cpu"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > Some(0));
        assert!(usage.open_files > Some(0));
        assert!(usage.threads > Some(0));
    }

    #[test]
    fn the_limit_of_open_files_can_be_raised_twice() {
        let raised = raise_open_files();
        assert_eq!(raise_open_files(), raised);
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
