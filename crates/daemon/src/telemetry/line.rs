//! From an event to its line.

use std::{
    fmt::{self, Debug, Write as _},
    time::SystemTime,
};

use serde_json::{Map, Value};
use tracing::{
    Level,
    field::{Field, Visit},
};

/// How a line is dressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text without colour.
    Plain,
    /// Text with terminal colours.
    Coloured,
    /// A JSON object.
    Json,
}

/// The text and the fields of an event, or the fields of a span.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Adds the fields of a span around, except those that are set further in.
    pub fn add_outer(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            if !self.values.iter().any(|(inner, _)| inner == name) {
                self.values.push((name, value.clone()));
            }
        }
    }

    fn set(&mut self, field: &Field, value: Value) {
        // Events that come from the `log` crate carry where they were made in fields.
        if field.name().starts_with("log.") {
            return;
        }
        match self.values.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, old)) => *old = value,
            None => self.values.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.text);
        } else {
            self.set(field, value.into());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.text = value;
        } else {
            self.set(field, value.into());
        }
    }
}

/// All that a line tells.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When it happened.
    pub time: SystemTime,
    /// How serious it is.
    pub level: Level,
    /// The process that says it.
    pub process: &'a str,
    /// The module that says it; told in JSON only.
    pub target: &'a str,
    /// What happened.
    pub fields: &'a Fields,
}

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

impl Line<'_> {
    /// The line as text, without a newline.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let mut line = String::with_capacity(160);
        // Writing to a string cannot fail, but a value's own formatting can; then it is cut.
        let _ = match style {
            Style::Plain => self.plain(&mut line),
            Style::Coloured => self.coloured(&mut line),
            Style::Json => self.json(&mut line),
        };
        line
    }

    fn plain(&self, out: &mut String) -> fmt::Result {
        let time = humantime::format_rfc3339_millis(self.time);
        write!(out, "{time} {:<5} {} ", self.level, self.process)?;
        write_text(out, &self.fields.text)?;
        self.values(out, "", "")
    }

    fn coloured(&self, out: &mut String) -> fmt::Result {
        let time = humantime::format_rfc3339_millis(self.time);
        let colour = level_colour(self.level);
        write!(out, "{DIM}{time}{RESET} {colour}{:<5}{RESET} ", self.level)?;
        write!(out, "{}{}{RESET} ", name_colour(self.process), self.process)?;
        let loud = self.level <= Level::WARN;
        out.push_str(if loud { BOLD } else { "" });
        write_text(out, &self.fields.text)?;
        out.push_str(if loud { RESET } else { "" });
        self.values(out, DIM, RESET)
    }

    fn values(&self, out: &mut String, before: &str, after: &str) -> fmt::Result {
        for (index, (name, value)) in self.fields.values.iter().enumerate() {
            out.push_str(if index == 0 { "  " } else { " " });
            write!(out, "{before}{name}={after}")?;
            match value {
                Value::String(text) => write_value(out, text)?,
                Value::Null | Value::Bool(_) | Value::Number(_) => write!(out, "{value}")?,
                Value::Array(_) | Value::Object(_) => write_value(out, &value.to_string())?,
            }
        }
        Ok(())
    }

    fn json(&self, out: &mut String) -> fmt::Result {
        let mut object = Map::new();
        let time = humantime::format_rfc3339_millis(self.time).to_string();
        object.insert("time".into(), time.into());
        object.insert("level".into(), self.level.as_str().into());
        object.insert("process".into(), self.process.into());
        object.insert("target".into(), self.target.into());
        object.insert("event".into(), self.fields.text.as_str().into());
        for (name, value) in &self.fields.values {
            // A field must not hide what every line has.
            let taken = object.contains_key(*name);
            let name = if taken { format!("{name}_") } else { (*name).to_owned() };
            object.insert(name, value.clone());
        }
        write!(out, "{}", Value::Object(object))
    }
}

/// Writes an event's text, with control characters made visible.
fn write_text(out: &mut String, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(out, "{}", c.escape_default())?;
        } else {
            out.push(c);
        }
    }
    Ok(())
}

/// Writes a value so that the line can be read back: quoted if a reader could mistake its end.
fn write_value(out: &mut String, text: &str) -> fmt::Result {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '=';
    let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    if text.is_empty() || (!quoted && text.contains(odd)) || text.contains(char::is_control) {
        write!(out, "{text:?}")
    } else {
        out.push_str(text);
        Ok(())
    }
}

fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The colour of a process's name: the same in every run, different for neighbours.
#[must_use]
pub fn name_colour(process: &str) -> &'static str {
    const COLOURS: [&str; 8] = [
        "\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[32m", "\x1b[96m", "\x1b[95m", "\x1b[94m",
        "\x1b[92m",
    ];
    let sum =
        process.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLOURS[sum % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fields(text: &str, values: &[(&'static str, Value)]) -> Fields {
        Fields { text: text.to_owned(), values: values.to_vec() }
    }

    fn render(style: Style, fields: &Fields) -> String {
        let line = Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_473_601_123),
            level: Level::INFO,
            process: "connector-2",
            target: "connector::hub",
            fields,
        };
        line.render(style)
    }

    #[test]
    fn a_line_is_time_level_process_event_and_fields() {
        let event =
            fields("session opened", &[("session", 17.into()), ("peer", "127.0.0.1:4".into())]);
        assert_eq!(
            render(Style::Plain, &event),
            "2026-11-23T22:40:01.123Z INFO  connector-2 session opened  session=17 peer=127.0.0.1:4"
        );
        assert_eq!(
            render(Style::Json, &event),
            concat!(
                r#"{"time":"2026-11-23T22:40:01.123Z","level":"INFO","process":"connector-2","#,
                r#""target":"connector::hub","event":"session opened","session":17,"#,
                r#""peer":"127.0.0.1:4"}"#
            )
        );
    }

    #[test]
    fn an_event_without_fields_has_no_trailing_space() {
        let line = render(Style::Plain, &fields("ready", &[]));
        assert_eq!(line, "2026-11-23T22:40:01.123Z INFO  connector-2 ready");
    }

    #[test]
    fn no_value_breaks_the_line_or_colours_it() {
        let event = fields(
            "odd\nvalues\x1b[31m",
            &[
                ("user", "x y=z\n2026 ERROR".into()),
                ("quoted", "\"张 三\"".into()),
                ("empty", "".into()),
                ("sly", "\"a\u{1b}\"".into()),
                ("name", "张三".into()),
            ],
        );
        let line = render(Style::Plain, &event);
        assert_eq!(
            line.split_once("connector-2 ").unwrap().1,
            "odd\\nvalues\\u{1b}[31m  user=\"x y=z\\n2026 ERROR\" quoted=\"张 三\" empty=\"\" \
             sly=\"\\\"a\\u{1b}\\\"\" name=张三"
        );
        assert_eq!(render(Style::Json, &event).lines().count(), 1);
    }

    #[test]
    fn inner_fields_hide_outer_ones() {
        let mut event = fields("left", &[("session", 2.into())]);
        event.add_outer(&fields("", &[("session", 1.into()), ("room", "r".into())]));
        assert!(render(Style::Plain, &event).ends_with(" left  session=2 room=r"));
    }

    #[test]
    fn a_field_does_not_hide_what_every_json_line_has() {
        let line = render(Style::Json, &fields("x", &[("level", 3.into())]));
        assert!(line.contains(r#""level":"INFO""#), "{line}");
        assert!(line.contains(r#""level_":3"#), "{line}");
    }

    #[test]
    fn colour_is_only_dress() {
        let event = fields("session opened", &[("session", 17.into())]);
        let mut bare = String::new();
        let coloured = render(Style::Coloured, &event);
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            bare.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        bare.push_str(rest);
        assert_eq!(bare, render(Style::Plain, &event));
    }
}
