//! A goal, and what was measured of it.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use super::Measure;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    goal: String,
    wanted: String,
    measured: String,
    /// Nothing if it was not measured, or has no bound.
    is_met: Option<bool>,
}

impl Row {
    /// A figure that should be no higher.
    pub(super) fn at_most(goal: impl Into<String>, most: f64, measured: f64) -> Self {
        let wanted = format!("≤ {}", figure(most));
        Self {
            goal: goal.into(),
            wanted,
            measured: figure(measured),
            is_met: Some(measured <= most),
        }
    }

    /// A figure that should be no lower.
    pub(super) fn at_least(goal: impl Into<String>, least: f64, measured: f64) -> Self {
        let wanted = format!("≥ {}", figure(least));
        let is_met = Some(measured >= least);
        Self { goal: goal.into(), wanted, measured: figure(measured), is_met }
    }

    /// A figure that has no bound.
    pub(super) fn told(goal: impl Into<String>, measured: f64) -> Self {
        let (goal, wanted) = (goal.into(), String::new());
        Self { goal, wanted, measured: figure(measured), is_met: None }
    }

    /// A goal of which there is no figure, and why.
    pub(super) fn not_measured(goal: impl Into<String>, error: &anyhow::Error) -> Self {
        let measured = format!("not measured: {error:#}").replace('|', "\\|").replace('\n', " ");
        Self { goal: goal.into(), wanted: String::new(), measured, is_met: None }
    }

    /// All goals that are measured together.
    pub(super) fn failed(measure: Measure, error: &anyhow::Error) -> Self {
        let name = measure.to_possible_value();
        Self::not_measured(name.map_or_else(String::new, |it| it.get_name().to_owned()), error)
    }

    /// A goal is not met by runs in which a promise was broken.
    pub(super) fn clean(mut self, is_clean: bool) -> Self {
        if !is_clean {
            self.measured.push_str(", not clean");
            self.is_met = Some(false);
        }
        self
    }
}

/// All of them, in Markdown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = "| goal | wanted | measured | |\n|---|---|---|---|\n".to_owned();
    for Row { goal, wanted, measured, is_met } in rows {
        let verdict = is_met.map_or("", |is_met| if is_met { "met" } else { "**missed**" });
        let written = writeln!(text, "| {goal} | {wanted} | {measured} | {verdict} |");
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    text
}

/// A number as one reads it: two places behind the point, or none, and thousands apart.
fn figure(number: f64) -> String {
    if number.abs() < 100.0 {
        let text = format!("{number:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{number:.0}");
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        for (number, text) in
            [(1.25, "1.25"), (5.0, "5"), (0.954, "0.95"), (512.0, "512"), (1e6, "1,000,000")]
        {
            assert_eq!(figure(number), text);
        }
    }

    #[test]
    fn a_goal_is_met_missed_or_not_measured() {
        let error = anyhow::anyhow!("nginx is missing").context("nchan");
        let rows = [
            Row::at_most("p50, ms", 1.0, 1.5),
            Row::at_least("deliveries/s", 1e6, 3_132_000.4).clean(true),
            Row::at_most("p99, ms", 5.0, 2.4).clean(false),
            Row::not_measured("ahead of nchan", &error),
            Row::failed(Measure::LargeRoom, &error),
        ];
        let lines = [
            "| goal | wanted | measured | |",
            "|---|---|---|---|",
            "| p50, ms | ≤ 1 | 1.5 | **missed** |",
            "| deliveries/s | ≥ 1,000,000 | 3,132,000 | met |",
            "| p99, ms | ≤ 5 | 2.4, not clean | **missed** |",
            "| ahead of nchan |  | not measured: nchan: nginx is missing |  |",
            "| large-room |  | not measured: nchan: nginx is missing |  |",
        ];
        assert_eq!(table(&rows).lines().collect::<Vec<_>>(), lines);
    }
}
