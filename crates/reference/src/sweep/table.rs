//! What was measured, as tables in Markdown.

use std::fmt::{self, Write as _};

use super::{
    results::{Results, Run, Spread},
    series::{Series, Server},
};

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { x, server, round, cpu_us, p50_ms, p99_ms, .. } = self;
        let (name, per_second) = (self.series.name(), self.deliveries_per_second);
        let verdict = if self.is_clean { "clean" } else { "NOT CLEAN" };
        write!(
            f,
            "{round} {name:<10} {x:>7} {server:<8} {cpu_us:>7.2} µs {per_second:>8.0}/s  \
             p50 {p50_ms:.2}  p99 {p99_ms:.2} ms  {verdict}"
        )
    }
}

/// All series, each under a heading: medians of all rounds.
pub(super) fn markdown(results: &Results) -> String {
    let tables = Series::ALL.iter().filter(|series| !results.points(**series).is_empty());
    tables.map(|series| of_series(results, *series)).collect::<Vec<_>>().join("\n")
}

fn of_series(results: &Results, series: Series) -> String {
    let base = series.base();
    let is_next_door = series == Series::Neighbours;
    let ratio = if is_next_door { "p99, ratio" } else { "CPU, ratio" };
    let mut text = format!("### {}\n\n", series.title());
    let next_door = if is_next_door { " next door, p50 · p99 ms |" } else { "" };
    let columns = [
        series.axis(),
        "deliveries/s",
        &format!("{base}, µs"),
        "Tangelo, µs",
        ratio,
        &format!("{base}, p50 · p99 ms"),
        "Tangelo, p50 · p99 ms",
        "clean",
    ];
    let written = writeln!(text, "| {} |{next_door}", columns.join(" | "));
    debug_assert!(written.is_ok(), "a string takes everything");
    text.push_str(&"|---".repeat(columns.len() + usize::from(is_next_door)));
    text.push_str("|\n");
    for x in results.points(series) {
        text.push_str(&row(results, series, x));
    }
    text
}

fn row(results: &Results, series: Series, x: u32) -> String {
    let base = series.base();
    let of = |server, pick: fn(&Run) -> f64| {
        results.spread((series, server, x), |run| Some(pick(run))).map(|it| it.median)
    };
    let pair = |low: Option<f64>, high: Option<f64>| {
        low.zip(high).map_or_else(String::new, |(low, high)| format!("{low:.2} · {high:.2}"))
    };
    let latency = |server| pair(of(server, |run| run.p50_ms), of(server, |run| run.p99_ms));
    let next_door = |pick: fn(&Run) -> Option<f64>| {
        results.spread((series, Server::Tangelo, x), pick).map(|it| it.median)
    };
    let ratio = match series {
        Series::Neighbours => results.ratio(series, x, |run| run.p99_ms),
        Series::Members | Series::Rooms | Series::Connectors => {
            results.ratio(series, x, |run| run.cpu_us)
        }
    };
    let cost = |micros: Option<f64>| micros.map_or_else(String::new, |it| format!("{it:.2}"));
    let runs = || results.at(series, base, x).chain(results.at(series, Server::Tangelo, x));
    let clean = runs().filter(|run| run.is_clean).count();
    let mut cells = vec![
        thousands(x),
        of(Server::Tangelo, |run| run.deliveries_per_second)
            .map_or_else(String::new, |it| thousands(it as u32)),
        cost(of(base, |run| run.cpu_us)),
        cost(of(Server::Tangelo, |run| run.cpu_us)),
        ratio.map_or_else(String::new, with_bounds),
        latency(base),
        latency(Server::Tangelo),
        format!("{clean} of {}", runs().count()),
    ];
    if series == Series::Neighbours {
        let p50 = next_door(|run| run.next_door.map(|it| it.p50_ms));
        cells.push(pair(p50, next_door(|run| run.next_door.map(|it| it.p99_ms))));
    }
    format!("| {} |\n", cells.join(" | "))
}

/// The middle, and from where to where it goes if that is another figure.
fn with_bounds(spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    let middle = format!("**{median:.2}**");
    if format!("{least:.2}") == format!("{most:.2}") {
        return middle;
    }
    format!("{middle} ({least:.2} to {most:.2})")
}

/// A number as people read it, such as 20,000.
pub(super) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::results::example;

    #[test]
    fn every_row_has_all_columns() {
        let table = markdown(&example());
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 4 + 4, "two series of two points each, with their heads");
        let columns = |row: &&str| row.matches('|').count();
        assert!(rows[..4].iter().all(|row| columns(row) == 9), "{table}");
        assert!(rows[4..].iter().all(|row| columns(row) == 10), "{table}");
        assert_eq!(
            rows[2],
            "| 10 | 20,000 | 2.00 | 6.00 | **3.00** | 2.00 · 4.00 | 6.00 · 12.00 | 4 of 6 |"
        );
        assert!(rows[7].ends_with(" | 141.42 · 424.26 |"), "{}", rows[7]);
    }

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 999, 1_000, 100_000, 2_000_000].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "100,000", "2,000,000"]);
    }
}
