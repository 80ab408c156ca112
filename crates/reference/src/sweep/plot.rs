//! What was measured, as plots: two panels for each series, in SVG.
//!
//! `plotters` places what is drawn; with its SVG backend alone it brings three small crates. Which
//! colours a viewer gets is decided as it looks: a rule in the file has the dark theme's stand in
//! for each of them.

mod axis;
mod theme;

use axis::Axis;
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, cartesian::Cartesian2d},
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, PathElement, Text},
    prelude::SVGBackend,
    series::{DashedLineSeries, LineSeries},
    style::{
        Color as _, FontStyle, IntoFont as _, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use theme::{BACK, BLUE, FAINT, INK, MUTED, ORANGE, VIOLET};

use super::{
    results::{Results, Run, Spread},
    series::{Series, Server},
};

/// Of a whole picture, in pixels.
const SIZE: (u32, u32) = (960, 400);
/// What is above a panel's axes: the title of all, its own, and its legend.
const HEAD: u32 = 92;
/// Between the border and what is drawn.
const MARGIN: i32 = 24;
/// Width of the numbers beside an axis.
const NUMBERS: u32 = 48;
/// About how wide a letter of the legend is.
const LETTER: i32 = 6;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// One line of a panel.
struct Line {
    name: String,
    color: RGBColor,
    /// Drawn with dashes and hollow points: the worst of a hundred, beside a median.
    is_tail: bool,
    points: Vec<(f64, Spread)>,
}

/// One pair of axes.
struct Panel {
    /// What is measured, and its unit.
    title: &'static str,
    lines: Vec<Line>,
    is_log: bool,
}

/// Draws a series; nothing if it was not measured.
///
/// # Errors
///
/// If `plotters` cannot draw.
pub(super) fn svg(results: &Results, series: Series) -> anyhow::Result<Option<String>> {
    if results.points(series).is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&BACK)?;
        text(&root, series.title(), (MARGIN, 14), font(18, INK, FontStyle::Bold))?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        let [first, second] = panels(results, series);
        let points = results.points(series);
        draw(&left, &first, series.axis(), &points)?;
        draw(&right, &second, series.axis(), &points)?;
        root.present()?;
    }
    Ok(Some(theme::with_style(&svg)))
}

fn panels(results: &Results, series: Series) -> [Panel; 2] {
    let line = |server, color, (name, is_tail): (String, bool), pick: fn(&Run) -> Option<f64>| {
        let points = results.points(series).into_iter();
        let spread = |x| Some((f64::from(x), results.spread((series, server, x), pick)?));
        Line { name, color, is_tail, points: points.filter_map(spread).collect() }
    };
    let base = series.base();
    let (its, bases) = match base {
        Server::Alone => ("beside it", "without it"),
        Server::Floor | Server::Tangelo => ("Tangelo", "floor"),
    };
    let latency = |title| {
        let p50: fn(&Run) -> Option<f64> = |run| Some(run.p50_ms);
        let p99: fn(&Run) -> Option<f64> = |run| Some(run.p99_ms);
        let lines = vec![
            line(Server::Tangelo, ORANGE, (format!("{its} p50"), false), p50),
            line(Server::Tangelo, ORANGE, (format!("{its} p99"), true), p99),
            line(base, BLUE, (format!("{bases} p50"), false), p50),
            line(base, BLUE, (format!("{bases} p99"), true), p99),
        ];
        Panel { title, lines, is_log: true }
    };
    if base == Server::Alone {
        let lines = vec![
            line(Server::Tangelo, VIOLET, ("p50".to_owned(), false), |run| {
                run.next_door.map(|it| it.p50_ms)
            }),
            line(Server::Tangelo, VIOLET, ("p99".to_owned(), true), |run| {
                run.next_door.map(|it| it.p99_ms)
            }),
        ];
        let next_door = Panel { title: "Latency in the room next door, ms", lines, is_log: true };
        return [latency("Latency in the ten rooms, ms"), next_door];
    }
    let cost: fn(&Run) -> Option<f64> = |run| Some(run.cpu_us);
    let lines = vec![
        line(Server::Tangelo, ORANGE, (its.to_owned(), false), cost),
        line(base, BLUE, (bases.to_owned(), false), cost),
    ];
    [Panel { title: "Server CPU per delivery, µs", lines, is_log: false }, latency("Latency, ms")]
}

fn draw(area: &Area<'_>, panel: &Panel, name: &str, points: &[u32]) -> anyhow::Result<()> {
    let most = panel.lines.iter().flat_map(|line| &line.points).map(|(_, y)| y.most);
    let least = panel.lines.iter().flat_map(|line| &line.points).map(|(_, y)| y.least);
    let (least, most) = (least.fold(f64::MAX, f64::min), most.fold(f64::MIN, f64::max));
    let y = Axis::around(least, most, panel.is_log);
    text(area, panel.title, (MARGIN, 46), font(14, INK, FontStyle::Normal))?;
    legend(area, panel)?;
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .margin_top(HEAD)
        .margin_bottom(12)
        .margin_left(12)
        .margin_right(MARGIN)
        .x_label_area_size(44)
        .y_label_area_size(NUMBERS)
        .build_cartesian_2d(Axis::of_points(points), y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(FAINT.mix(0.0))
        .axis_style(MUTED)
        .x_desc(name)
        .axis_desc_style(font(13, MUTED, FontStyle::Normal))
        .label_style(font(12, MUTED, FontStyle::Normal))
        .draw()?;
    for line in &panel.lines {
        draw_line(&mut chart, line)?;
    }
    Ok(())
}

fn draw_line(chart: &mut Chart<'_, '_>, line: &Line) -> anyhow::Result<()> {
    let middles: Vec<_> = line.points.iter().map(|(x, y)| (*x, y.median)).collect();
    let style = line.color.stroke_width(2);
    if line.is_tail {
        chart.draw_series(DashedLineSeries::new(middles.iter().copied(), 6, 4, style))?;
    } else {
        chart.draw_series(LineSeries::new(middles.iter().copied(), style))?;
    }
    // From the least round to the most.
    let bars = line
        .points
        .iter()
        .map(|(x, y)| PathElement::new([(*x, y.least), (*x, y.most)], line.color.stroke_width(1)));
    chart.draw_series(bars)?;
    for (size, style) in marks(line) {
        chart.draw_series(middles.iter().map(|at| Circle::new(*at, size, style)))?;
    }
    Ok(())
}

/// The circles at a point, one over the other.
fn marks(line: &Line) -> Vec<(i32, ShapeStyle)> {
    let full = (4, line.color.filled());
    if line.is_tail { vec![full, (2, BACK.filled())] } else { vec![full] }
}

/// Names the lines, in a row above the axes.
fn legend(area: &Area<'_>, panel: &Panel) -> anyhow::Result<()> {
    let (mut left, top) = (MARGIN, 76);
    for line in &panel.lines {
        let style = line.color.stroke_width(2);
        let strokes: &[(i32, i32)] = if line.is_tail { &[(0, 6), (16, 22)] } else { &[(0, 22)] };
        for (from, to) in strokes {
            area.draw(&PathElement::new([(left + from, top), (left + to, top)], style))?;
        }
        for (size, style) in marks(line) {
            area.draw(&Circle::new((left + 11, top), size, style))?;
        }
        text(area, &line.name, (left + 28, top - 7), font(12, INK, FontStyle::Normal))?;
        left += 28 + LETTER * i32::try_from(line.name.len())? + 10;
    }
    Ok(())
}

fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: TextStyle<'static>,
) -> anyhow::Result<()> {
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

fn font(size: u32, color: RGBColor, weight: FontStyle) -> TextStyle<'static> {
    let font = ("sans-serif", size, weight).into_font();
    font.color(&color).pos(Pos::new(HPos::Left, VPos::Top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::results::example;

    #[test]
    fn every_series_that_was_measured_is_drawn() {
        let results = example();
        for (series, words) in [
            (Series::Members, ["Server CPU per delivery, µs", "floor p99", "members per room"]),
            (
                Series::Neighbours,
                ["Latency in the ten rooms, ms", "without it p50", "next door, ms"],
            ),
        ] {
            let svg = svg(&results, series).unwrap().unwrap();
            assert!(svg.starts_with("<svg ") && svg.contains("prefers-color-scheme: dark"));
            for word in words {
                assert!(svg.contains(word), "{word}");
            }
        }
        assert_eq!(svg(&results, Series::Rooms).unwrap(), None);
    }
}
