//! What the terminal shows of a process's line: its name in front.

use daemon::{LogFormat, telemetry};

/// Dresses lines for the terminal.
#[derive(Clone, Debug)]
pub(super) struct Console {
    format: LogFormat,
    coloured: bool,
    /// Columns for names.
    width: usize,
}

impl Console {
    pub(super) fn new<'a>(format: LogFormat, names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            format,
            coloured: format == LogFormat::Pretty && telemetry::wants_colour(),
            width: names.map(str::len).max().unwrap_or(0),
        }
    }

    /// Shows a line of the process `name`.
    pub(super) fn show(&self, name: &str, line: &str) {
        telemetry::print(&self.dress(name, line));
    }

    /// Shows text of our own that is no log line; programs that read JSON are spared it.
    pub(super) fn say(&self, text: &str) {
        match self.format {
            LogFormat::Pretty => text.lines().for_each(telemetry::print),
            LogFormat::Json => {}
        }
    }

    /// Whether lines are for people.
    pub(super) fn is_for_people(&self) -> bool {
        self.format == LogFormat::Pretty
    }

    fn dress(&self, name: &str, line: &str) -> String {
        if self.format == LogFormat::Json {
            return line.to_owned();
        }
        let line: String = line.chars().map(visible).collect();
        let width = self.width;
        let parsed = Parsed::new(name, &line);
        if !self.coloured {
            return match parsed {
                Some(Parsed { time, level, rest }) => {
                    format!("{name:<width$}  {time} {level:<5} {rest}")
                }
                None => format!("{name:<width$}  {line}"),
            };
        }
        let colour = telemetry::name_colour(name);
        match parsed {
            Some(Parsed { time, level, rest }) => {
                let level_colour = level_colour(level);
                format!(
                    "{colour}{name:<width$}{RESET}  {DIM}{time}{RESET} \
                     {level_colour}{level:<5}{RESET} {rest}"
                )
            }
            None => format!("{colour}{name:<width$}{RESET}  {line}"),
        }
    }
}

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

fn level_colour(level: &str) -> &'static str {
    match level {
        "ERROR" => "\x1b[1;31m",
        "WARN" => "\x1b[33m",
        "INFO" => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

/// A character that cannot move the cursor or change the colours of the terminal.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A line in the log format, without the name that it is said under.
struct Parsed<'a> {
    time: &'a str,
    level: &'a str,
    rest: &'a str,
}

impl<'a> Parsed<'a> {
    fn new(name: &str, line: &'a str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let known = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
        let rest = rest.trim_start().strip_prefix(name)?.strip_prefix(' ')?;
        (known && time.ends_with('Z')).then_some(Self { time, level, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(coloured: bool, format: LogFormat) -> Console {
        Console { format, coloured, width: 11 }
    }

    const LINE: &str = "2026-11-23T22:40:01.123Z INFO  gate-1 session opened  session=17";

    #[test]
    fn the_name_goes_in_front() {
        let console = console(false, LogFormat::Pretty);
        assert_eq!(
            console.dress("gate-1", LINE),
            "gate-1       2026-11-23T22:40:01.123Z INFO  session opened  session=17"
        );
        // Not its own line: nothing is taken away.
        assert_eq!(console.dress("chat-1", LINE), format!("chat-1       {LINE}"));
        assert_eq!(
            console.dress("connector-2", "thread 'x' panicked"),
            "connector-2  thread 'x' panicked"
        );
        assert_eq!(console.dress("chat-1", ""), "chat-1       ");
    }

    #[test]
    fn colour_does_not_change_the_words() {
        let line = console(true, LogFormat::Pretty).dress("gate-1", LINE);
        assert!(line.contains("\x1b[32mINFO \x1b[0m session opened  session=17"), "{line:?}");
        assert!(line.contains("mgate-1     \x1b[0m  "), "{line:?}");
    }

    #[test]
    fn json_is_passed_on_as_it_is() {
        let json = r#"{"time":"x"}"#;
        assert_eq!(console(false, LogFormat::Json).dress("gate-1", json), json);
    }

    #[test]
    fn no_line_takes_over_the_terminal() {
        let line = console(false, LogFormat::Pretty).dress("gate-1", "a\x1b[2Jb\tc\u{9b}d");
        assert_eq!(line, "gate-1       a\u{fffd}[2Jb c\u{fffd}d");
    }
}
