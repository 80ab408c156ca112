//! What all runs have measured, and what of it goes into tables and plots.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::series::{Series, Server, Spec};
use crate::compare::median;

/// Everything that was measured, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// For how long each run was measured.
    pub(crate) seconds: u32,
    pub(crate) runs: Vec<Run>,
}

/// What one run has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) series: Series,
    /// Where on the axis; 0 if it is there for all points.
    pub(crate) x: u32,
    pub(crate) server: Server,
    pub(crate) round: u32,
    /// Processor time of all server processes for one delivery, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of the room next door, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_door: Option<Latency>,
    /// Whether every promise was kept.
    pub(crate) is_clean: bool,
}

/// From due to delivered, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Run {
    /// Picks the figures out of what `tangelo bench` has printed.
    pub(crate) fn read(series: Series, spec: &Spec, round: u32, figures: &Value) -> Self {
        let number = |value: &Value| (value.as_f64().unwrap_or(0.0) * 1000.0).round() / 1000.0;
        let latency = |of: &Value| Latency {
            p50_ms: number(&of["latency_ms"]["p50"]),
            p99_ms: number(&of["latency_ms"]["p99"]),
        };
        let (rooms, big_room) = (latency(figures), &figures["big_room"]);
        let big_room = big_room.is_object().then(|| latency(big_room));
        let (counts, next_door) = match big_room {
            Some(big_room) if spec.is_one_room => (big_room, None),
            other => (rooms, other),
        };
        Self {
            series,
            x: spec.x,
            server: spec.server,
            round,
            cpu_us: number(&figures["server_cpu_us_per_delivery"]),
            deliveries_per_second: number(&figures["deliveries_per_second"]).round(),
            p50_ms: counts.p50_ms,
            p99_ms: counts.p99_ms,
            next_door,
            is_clean: figures["clean"] == Value::Bool(true),
        }
    }
}

/// The middle of all rounds, and how far they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these figures, unless there are none.
    fn of(figures: &[f64]) -> Option<Self> {
        let least = figures.iter().copied().min_by(f64::total_cmp)?;
        let most = figures.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(figures.to_vec()), least, most })
    }
}

impl Results {
    /// Reads what was kept.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it has something else in it.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} has no results", path.display()))
    }

    /// Keeps it, one run a line.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let runs = self.runs.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let (seconds, runs) = (self.seconds, runs.join(",\n  "));
        let text = format!("{{\n \"seconds\": {seconds},\n \"runs\": [\n  {runs}\n ]\n}}\n");
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where on its axis a series was measured, in order.
    pub(crate) fn points(&self, series: Series) -> Vec<u32> {
        let of_series = self.runs.iter().filter(|run| run.series == series && run.x > 0);
        let mut points: Vec<u32> = of_series.map(|run| run.x).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// All rounds of a server at a point; one that is there for all points is at each.
    pub(crate) fn at(&self, series: Series, server: Server, x: u32) -> impl Iterator<Item = &Run> {
        let is_it = move |run: &&Run| {
            run.series == series && run.server == server && (run.x == x || run.x == 0)
        };
        self.runs.iter().filter(is_it)
    }

    /// A figure of a server at a point, over all rounds.
    pub(crate) fn spread(
        &self,
        (series, server, x): (Series, Server, u32),
        pick: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        let figures: Vec<f64> = self.at(series, server, x).filter_map(pick).collect();
        Spread::of(&figures)
    }

    /// How many times the least processor time of a delivery, at one point, is in the most.
    pub(crate) fn unevenness(&self, series: Series) -> Option<f64> {
        let points = self.points(series).into_iter();
        let cost = |x| self.spread((series, Server::Tangelo, x), |run| Some(run.cpu_us));
        let costs: Vec<f64> = points.filter_map(cost).map(|it| it.median).collect();
        let all = Spread::of(&costs)?;
        (all.least > 0.0).then(|| all.most / all.least)
    }

    /// By how much Tangelo has more of something than what it is held against, in the same round.
    ///
    /// The machine's speed drifts more between rounds than within one.
    pub(crate) fn ratio(
        &self,
        series: Series,
        x: u32,
        pick: impl Fn(&Run) -> f64,
    ) -> Option<Spread> {
        let base = |round| self.at(series, series.base(), x).find(|run| run.round == round);
        let ratio = |run: &Run| {
            let base = pick(base(run.round)?);
            (base > 0.0).then(|| pick(run) / base)
        };
        let ratios: Vec<f64> = self.at(series, Server::Tangelo, x).filter_map(ratio).collect();
        Spread::of(&ratios)
    }
}

#[cfg(test)]
pub(super) fn example() -> Results {
    let mut runs = Vec::new();
    for (series, x, server) in [
        (Series::Members, 10, Server::Floor),
        (Series::Members, 10, Server::Tangelo),
        (Series::Members, 1000, Server::Floor),
        (Series::Members, 1000, Server::Tangelo),
        (Series::Neighbours, 0, Server::Alone),
        (Series::Neighbours, 1000, Server::Tangelo),
        (Series::Neighbours, 20_000, Server::Tangelo),
    ] {
        for round in 1..=3 {
            let (cost, slow) = (f64::from(round), f64::from(x.max(1)).sqrt());
            let cost = if server == Server::Tangelo { 3.0 * cost } else { cost };
            let next_door = (series == Series::Neighbours && x > 0)
                .then_some(Latency { p50_ms: slow, p99_ms: 3.0 * slow });
            runs.push(Run {
                series,
                x,
                server,
                round,
                cpu_us: cost,
                deliveries_per_second: 20_000.0,
                p50_ms: cost,
                p99_ms: cost * 2.0,
                next_door,
                is_clean: round < 3,
            });
        }
    }
    Results { seconds: 5, runs }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let results = example();
        assert_eq!(results.points(Series::Members), [10, 1000]);
        let ratio = results.ratio(Series::Members, 10, |run| run.cpu_us).unwrap();
        assert_eq!(ratio, Spread { median: 3.0, least: 3.0, most: 3.0 });
        let alone = results.ratio(Series::Neighbours, 20_000, |run| run.p99_ms).unwrap();
        assert!((alone.median - 3.0).abs() < 1e-9, "what is there for all points is at each");
        assert_eq!(results.ratio(Series::Rooms, 10, |run| run.cpu_us), None);
        assert_eq!(results.unevenness(Series::Members), Some(1.0));
        assert_eq!(results.unevenness(Series::Rooms), None);
        let cost = results.spread((Series::Members, Server::Floor, 10), |run| Some(run.cpu_us));
        assert_eq!(cost, Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    }

    #[test]
    fn what_is_kept_can_be_read() {
        let path = std::env::temp_dir().join(format!("sweep-{}.json", std::process::id()));
        example().save(&path).unwrap();
        let read = Results::load(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), example());
        assert!(Results::load(&path).is_err());
    }

    #[test]
    fn figures_of_one_room_are_those_of_the_big_one() {
        let figures = json!({
            "server_cpu_us_per_delivery": 7.12349, "deliveries_per_second": 19_999.7,
            "latency_ms": { "p50": 1.0, "p99": 2.0 }, "clean": true,
            "big_room": { "latency_ms": { "p50": 5.0, "p99": 9.0 } },
        });
        let spec = &Series::Members.round(false, 1 << 20)[15];
        let run = Run::read(Series::Members, spec, 2, &figures);
        assert_eq!((run.p50_ms, run.p99_ms, run.next_door), (5.0, 9.0, None));
        assert_eq!((run.cpu_us, run.deliveries_per_second), (7.123, 20_000.0));
        let spec = &Series::Neighbours.round(false, 1 << 20)[1];
        let run = Run::read(Series::Neighbours, spec, 2, &figures);
        assert_eq!(run.next_door, Some(Latency { p50_ms: 5.0, p99_ms: 9.0 }));
        assert_eq!(run.p99_ms, 2.0);
    }
}
