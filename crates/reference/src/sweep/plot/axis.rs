//! Where values are on an axis, and which of them are named.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::sweep::table::thousands;

/// Most numbers beside an axis.
const TICKS_MAX: f64 = 6.0;
/// Least value of a logarithmic axis, which has no zero.
const LEAST: f64 = 1e-3;
/// Factors between named values that people like.
const NICE: [f64; 3] = [1.0, 2.0, 5.0];

/// One axis: from where to where, and what of it is named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    ends: (f64, f64),
    ticks: Vec<f64>,
    is_log: bool,
}

impl Axis {
    /// A logarithmic one, with all these on it. Few that are close are named themselves, and of many
    /// the powers of ten among them.
    pub(super) fn of_points(points: &[u32]) -> Self {
        let points: Vec<f64> = points.iter().copied().map(f64::from).collect();
        let least = points.first().copied().unwrap_or(1.0);
        let most = points.last().copied().unwrap_or(10.0);
        let decades = (most / least).log10();
        let edge = 10f64.powf((decades * 0.04).max(0.05));
        let is_among = |it: &f64| *it > least * 0.99 && *it < most * 1.01;
        let powers = (0..10).map(|power| 10f64.powi(power)).filter(is_among);
        let ticks = if decades < 1.5 { points } else { powers.collect() };
        Self { ends: (least / edge, most * edge), ticks, is_log: true }
    }

    /// One that values from least to most fit on: from zero if it is not logarithmic.
    pub(super) fn around(least: f64, most: f64, is_log: bool) -> Self {
        if !is_log {
            let most = most.max(0.01) * 1.05;
            let step = above(most / TICKS_MAX);
            let count = (most / step).ceil();
            let ticks = (0..=count as u32).map(|number| f64::from(number) * step).collect();
            return Self { ends: (0.0, count * step), ticks, is_log };
        }
        let from = below(least.max(LEAST));
        let to = above(most.max(from * 2.0));
        let factors = if (to / from).log10() > 2.5 { &NICE[..1] } else { &NICE[..] };
        let powers = (-3..7).map(|power| 10f64.powi(power));
        let named = powers.flat_map(|power| factors.iter().map(move |factor| power * factor));
        let ticks = named.filter(|it| *it > from * 0.99 && *it < to * 1.01).collect();
        Self { ends: (from, to), ticks, is_log }
    }

    /// Which part of the way from one end to the other a value is.
    fn part(&self, value: f64) -> f64 {
        let (from, to) = self.ends;
        if self.is_log {
            return (value.max(LEAST) / from).ln() / (to / from).ln();
        }
        (value - from) / (to - from)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (begin, end): (i32, i32)) -> i32 {
        begin + (self.part(*value) * f64::from(end - begin)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        if *value > 9.99 || (value - value.round()).abs() < 1e-6 {
            return thousands(value.round() as u32);
        }
        format!("{value:.2}").trim_end_matches('0').to_owned()
    }
}

fn below(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let mut factors = NICE.iter().rev().map(|factor| factor * power);
    factors.find(|it| *it <= value * 1.000_001).unwrap_or(power)
}

/// The next nice number from here on.
fn above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let mut factors = NICE.iter().map(|factor| factor * power);
    factors.find(|it| *it >= value * 0.999_999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(Axis::format).collect()
    }

    #[test]
    fn points_are_named_by_themselves_or_by_powers_of_ten() {
        let connectors = Axis::of_points(&[1, 2, 4, 8]);
        assert_eq!(labels(&connectors), ["1", "2", "4", "8"]);
        let members = Axis::of_points(&[10, 50, 1_000, 20_000]);
        assert_eq!(labels(&members), ["10", "100", "1,000", "10,000"]);
        assert!(members.part(10.0) > 0.0 && members.part(20_000.0) < 1.0);
        assert_eq!(members.map(&members.range().end, (40, 440)), 440);
        let one = Axis::of_points(&[100]);
        assert!((one.part(100.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn values_are_between_nice_ends() {
        let cost = Axis::around(6.0, 18.3, false);
        assert_eq!(labels(&cost), ["0", "5", "10", "15", "20"]);
        let small = Axis::around(0.1, 0.35, false);
        assert_eq!(labels(&small), ["0", "0.1", "0.2", "0.3", "0.4"]);
        let latency = Axis::around(1.4, 47.0, true);
        assert_eq!(labels(&latency), ["1", "2", "5", "10", "20", "50"]);
        let wide = Axis::around(0.3, 900.0, true);
        assert_eq!(labels(&wide), ["1", "10", "100", "1,000"]);
        assert!(wide.part(0.3) > 0.0 && wide.part(900.0) < 1.0);
    }
}
