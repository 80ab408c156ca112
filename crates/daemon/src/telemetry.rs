//! One log format for every process.
//!
//! A line is `time LEVEL process event  key=value …`: the event's own fields first, then those of
//! the spans around it, the innermost first. Values that hold spaces or control characters are
//! quoted, so one event is always one line and no client can forge one. `json` has the same
//! content, one object per line.

mod line;
mod sink;

use std::{
    io::{self, BufWriter, IsTerminal},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use tracing::{
    Event, Subscriber,
    level_filters::{LevelFilter, STATIC_MAX_LEVEL},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub use line::{Fields, Line, Style, name_colour};
use sink::Sink;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event, coloured on a terminal.
    #[default]
    Pretty,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The format's name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

/// Libraries whose own events are too many below `info`; a filter that names one overrides this.
/// Their traces, and all others, are in debug builds only (see `tracing` in Cargo.toml).
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tonic=info,tower=info,tungstenite=info";

/// What a filter is, for those who have written another.
pub(crate) const FILTER_ADVICE: &str =
    "give a level (debug) or levels by module (info,session=debug)";

/// How long the last lines may take to be written when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that may wait for a slow reader of standard output; past it lines are dropped, and
/// their number is written when there is room again. A terminal that stands still must not stop
/// the process.
const QUEUE_LINES_MAX: usize = 16_384;

/// Turns the text of a filter, such as `debug` or `info,session=debug`, into a filter. In a build
/// without traces, who asks for them is told all else.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    let has_traces = LevelFilter::TRACE <= STATIC_MAX_LEVEL;
    let text = if has_traces { text.to_owned() } else { without_traces(text) };
    EnvFilter::builder()
        .parse(format!("{QUIET},{text}"))
        .map_err(|error| format!("{error}; {FILTER_ADVICE}"))
}

/// Asks for `debug` where a filter asks for `trace`. The library would print some lines about
/// features of crates, past the log.
fn without_traces(filter: &str) -> String {
    let is_trace = |level: &str| level.trim().eq_ignore_ascii_case("trace");
    let directives = filter.split(',').map(|directive| match directive.rsplit_once('=') {
        Some((module, level)) if is_trace(level) => format!("{module}=debug"),
        None if is_trace(directive) => "debug".to_owned(),
        _ => directive.to_owned(),
    });
    directives.collect::<Vec<_>>().join(",")
}

/// Starts logging to standard output as `process`, and logs panics.
///
/// The filter is `filter` if given, else `RUST_LOG`, else `info`. The first call of a process
/// wins; others change nothing.
///
/// # Errors
///
/// If `filter` or `RUST_LOG` is not a filter.
pub fn init(process: &str, format: LogFormat, filter: Option<&str>) -> Result<(), String> {
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Pretty if wants_colour() => Style::Coloured,
        LogFormat::Pretty => Style::Plain,
    };
    init_with(process, style, filter, |line| sink().write(line + "\n"))
}

/// Like [`init`], but hands every line, without colour and newline, to `write`, which must not
/// wait.
///
/// # Errors
///
/// If `filter` or `RUST_LOG` is not a filter.
pub fn init_through(
    process: &str,
    format: LogFormat,
    filter: Option<&str>,
    write: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), String> {
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Pretty => Style::Plain,
    };
    init_with(process, style, filter, move |line| write(&line))
}

fn init_with(
    process: &str,
    style: Style,
    filter: Option<&str>,
    write: impl Fn(String) + Send + Sync + 'static,
) -> Result<(), String> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match (filter, from_environment) {
        (Some(text), _) => parse_filter(text).map_err(|error| format!("--log: {error}"))?,
        (None, Some(text)) => parse_filter(&text).map_err(|error| format!("RUST_LOG: {error}"))?,
        (None, None) => parse_filter("info")?,
    };
    let lines = Lines { process: process.into(), style, write };
    let logger = tracing_subscriber::registry().with(lines.with_filter(filter));
    if logger.try_init().is_ok() {
        log_panics();
    }
    Ok(())
}

/// Whether standard output is a terminal and colour is not refused by `NO_COLOR`.
#[must_use]
pub fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal()
}

/// Writes a finished line to standard output, in order with the log and without waiting.
pub fn print(line: &str) {
    sink().write(format!("{line}\n"));
}

/// Waits, for a second at most, until all lines are written.
pub fn flush() {
    sink().flush(FLUSH_TIMEOUT);
}

fn sink() -> &'static Sink {
    static SINK: OnceLock<Sink> = OnceLock::new();
    SINK.get_or_init(|| Sink::start(BufWriter::new(io::stdout()), QUEUE_LINES_MAX))
}

/// Logs panics as events: a line on standard error alone is easily lost.
fn log_panics() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let cause = panic.payload();
        let text = cause
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| cause.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no text)");
        tracing::error!(
            cause = text,
            at = panic.location().map(tracing::field::display),
            thread = thread.name(),
            "panic"
        );
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            previous(panic);
        }
    }));
}

/// The layer that makes lines of events.
struct Lines<W> {
    process: String,
    style: Style,
    write: W,
}

impl<S, W> Layer<S> for Lines<W>
where
    W: Fn(String) + Send + Sync + 'static,
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_outer(outer);
            }
        }
        let line = Line {
            time: SystemTime::now(),
            level: *event.metadata().level(),
            process: &self.process,
            target: event.metadata().target(),
            fields: &fields,
        };
        (self.write)(line.render(self.style));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_traces_is_asked_for_none() {
        for (asked, wanted) in [
            ("trace", "debug"),
            ("info,h2=TRACE", "info,h2=debug"),
            ("info,session=debug", "info,session=debug"),
            ("trace=info,off", "trace=info,off"),
            ("", ""),
        ] {
            assert_eq!(without_traces(asked), wanted);
        }
    }
}
