//! The plots of a report, as SVG.

use crate::engines::{FLOOR, RAFTWOOD};
use crate::log::Result;
use crate::plan::{Group, RAFTSTORE, WRITERS, writers_name};
use crate::results::Results;
use crate::tail::Tail;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1100, 540);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line, by name.
type Series = (String, Vec<(f64, f64)>);

/// Draws all that there are figures for, and returns the files, each with its title.
pub(crate) fn draw(results: &Results, dir: &Path) -> Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    for group in [Group::Growing, Group::Steady] {
        let name = group.name();
        for (figure, unit, what, file) in [
            ("batches_per_second", 1.0, "batches a second", "batches"),
            ("p99_us", 1000.0, "p99, ms", "p99"),
            ("p999_us", 1000.0, "p99.9, ms", "p999"),
        ] {
            let series = against_writers(results, name, figure, unit);
            let file = format!("{file}-{name}.svg");
            let title = format!("{what}, against writers, {name}");
            if logarithmic(&dir.join(&file), &title, ("writers", what), &series)? {
                drawn.push((file, title));
            }
        }
    }
    let title = format!("bytes to the device for one of payload (cut at {CUT})");
    if bars(&dir.join("device.svg"), &title, &device(results))? {
        drawn.push(("device.svg".into(), title));
    }
    let title = "open after a kill, ms, against regions".to_owned();
    if logarithmic(&dir.join("open.svg"), &title, ("regions", "ms"), &open(results))? {
        drawn.push(("open.svg".into(), title));
    }
    if let Some(tail) = &results.tail {
        over_time(&dir.join("tail.svg"), tail)?;
        drawn.push(("tail.svg".into(), "raftwood's latency over time".into()));
    }
    Ok(drawn)
}

fn against_writers(results: &Results, group: &str, figure: &str, unit: f64) -> Vec<Series> {
    let point = |engine: &str, writers: usize| {
        let row = results.row(group, &writers_name(writers), engine)?;
        Some((writers as f64, row.get(figure)? / unit))
    };
    let engines = results.measured.engines.iter();
    engines
        .map(|e| (e.name.clone(), WRITERS.iter().filter_map(|writers| point(&e.name, *writers)).collect()))
        .collect()
}

fn open(results: &Results) -> Vec<Series> {
    let group = Group::Open.name();
    let engines = results.measured.engines.iter();
    engines
        .map(|engine| {
            let rows = results.rows.iter().filter(|row| row.group == group && row.engine == engine.name);
            let points = rows.filter_map(|row| Some((row.work.parse().ok()?, row.get("open_ms")?)));
            (engine.name.clone(), points.collect())
        })
        .collect()
}

/// For each work that is worth it, each engine's figure.
fn device(results: &Results) -> Vec<(String, Vec<(String, f64)>)> {
    let mut groups = Vec::new();
    for group in [Group::Growing, Group::Steady] {
        for work in [writers_name(1), writers_name(16), writers_name(64), RAFTSTORE.to_owned()] {
            let engines = results.measured.engines.iter().filter(|engine| engine.name != FLOOR);
            let bars: Vec<(String, f64)> = engines
                .filter_map(|engine| {
                    let row = results.row(group.name(), &work, &engine.name)?;
                    Some((engine.name.clone(), row.get("device_written_x")?))
                })
                .collect();
            if !bars.is_empty() {
                groups.push((format!("{work}, {}", group.name()), bars));
            }
        }
    }
    groups
}

/// The colour of an engine, the same in every plot.
fn colour(engine: &str) -> RGBColor {
    match engine {
        FLOOR => RGBColor(120, 120, 120),
        RAFTWOOD => RED_LINE,
        "raft-engine" => RGBColor(30, 90, 200),
        "raft-engine-best" => RGBColor(90, 170, 250),
        "rocksdb" => RGBColor(20, 140, 60),
        "fjall" => RGBColor(150, 80, 190),
        "redb" => RGBColor(230, 140, 20),
        "okaywal" => RGBColor(120, 90, 40),
        _ => RGBColor(20, 160, 160),
    }
}

const RED_LINE: RGBColor = RGBColor(200, 30, 30);

/// To the right of a chart, where it hides nothing.
const LEGEND_WIDTH: i32 = 150;

/// Names and their colours.
fn legend(area: &Area<'_>, names: &[(String, RGBColor)]) -> Result<()> {
    let x = SIZE.0 as i32 - LEGEND_WIDTH;
    for (y, (name, colour)) in (50..).step_by(20).zip(names) {
        area.draw(&Rectangle::new([(x, y), (x + 16, y + 10)], colour.filled()))?;
        area.draw(&Text::new(name.clone(), (x + 24, y - 1), ("sans-serif", 13)))?;
    }
    Ok(())
}

fn canvas(path: &Path) -> Result<Area<'_>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

/// What stands around each chart; the heights are written in `width` beside it.
fn frame<'a, 'b>(area: &'a Area<'b>, title: &str, width: u32) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(title, ("sans-serif", 20)).margin(12).margin_right(LEGEND_WIDTH);
    chart.x_label_area_size(40).y_label_area_size(width);
    chart
}

/// Lines, both axes logarithmic. Returns whether there was anything to draw.
fn logarithmic(path: &Path, title: &str, axes: (&str, &str), series: &[Series]) -> Result<bool> {
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied()).filter(|(_, y)| *y > 0.0);
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (left, right) = bounds(&mut points().map(|(x, _)| x));
    let (bottom, top) = bounds(&mut points().map(|(_, y)| y));
    if left >= right {
        return Ok(false);
    }
    // Of the horizontal axis the places that were measured, of the other 1, 2 and 5 times each power of ten.
    let mut places: Vec<f64> = points().map(|(x, _)| x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let (bottom, top) = (bottom * 0.8, top * 1.25);
    let heights = (-3..10).flat_map(|n| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(n)));
    let heights = heights.filter(|h| (bottom..top).contains(h)).collect();
    let area = canvas(path)?;
    let mut chart = frame(&area, title, 70).build_cartesian_2d(
        (left * 0.9..right * 1.1).log_scale().with_key_points(places),
        (bottom..top).log_scale().with_key_points(heights),
    )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axes.0)
        .y_desc(axes.1)
        .x_label_formatter(&|x| x.to_string())
        .y_label_formatter(&|y| ((y * 1000.0).round() / 1000.0).to_string())
        .label_style(("sans-serif", 13))
        .draw()?;
    let mut names = Vec::new();
    for (name, points) in series.iter().filter(|(_, points)| !points.is_empty()) {
        let style = ShapeStyle::from(colour(name)).stroke_width(2);
        let points: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| *y > 0.0).collect();
        chart.draw_series(LineSeries::new(points, style).point_size(3))?;
        names.push((name.clone(), colour(name)));
    }
    legend(&area, &names)?;
    area.present()?;
    Ok(true)
}

/// An engine that writes tens of bytes for one would leave the others without a height: its bar is cut,
/// its figure stands in the table.
const CUT: f64 = 6.0;

/// Groups of bars. Returns whether there was anything to draw.
fn bars(path: &Path, title: &str, groups: &[(String, Vec<(String, f64)>)]) -> Result<bool> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in groups.iter().flat_map(|(_, bars)| bars) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(false);
    }
    let highest = groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value).fold(1.0, f64::max);
    let area = canvas(path)?;
    let mut chart =
        frame(&area, title, 50).build_cartesian_2d(0.0..groups.len() as f64, 0.0..highest.min(CUT) * 1.05)?;
    let label = |x: &f64| {
        let at = x.floor() as usize;
        let middle = (x - x.floor() - 0.5).abs() < 0.01;
        if middle { groups.get(at).map_or(String::new(), |(name, _)| name.clone()) } else { String::new() }
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(groups.len() * 2 + 1)
        .x_label_formatter(&label)
        .label_style(("sans-serif", 12))
        .draw()?;
    let width = 0.8 / names.len() as f64;
    for (n, name) in names.iter().enumerate() {
        let style = colour(name).filled();
        let bars = groups.iter().enumerate().filter_map(|(at, (_, bars))| {
            let (_, value) = bars.iter().find(|(other, _)| other == name)?;
            let left = at as f64 + 0.1 + n as f64 * width;
            Some(Rectangle::new([(left, 0.0), (left + width * 0.9, value.min(CUT))], style))
        });
        chart.draw_series(bars)?;
    }
    let names: Vec<_> = names.iter().map(|name| ((*name).to_owned(), colour(name))).collect();
    legend(&area, &names)?;
    area.present()?;
    Ok(true)
}

/// Latency over time, with what happened.
pub(crate) fn over_time(path: &Path, tail: &Tail) -> Result<()> {
    let top = tail.longest_ms.max(tail.bound_ms) * 1.1;
    let area = canvas(path)?;
    let rate = tail.rate.map_or(String::new(), |rate| format!(" at {rate:.0} batches a second"));
    let title = format!("raftwood, {} writers{rate}: the longest latency at each moment", tail.writers);
    let mut chart = frame(&area, &title, 60).build_cartesian_2d(0.0..tail.seconds, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("s")
        .y_desc("ms")
        .label_style(("sans-serif", 13))
        .draw()?;
    let mut names = vec![("longest latency".to_owned(), RED_LINE)];
    for (n, (begins, name, colour)) in MARKS.into_iter().enumerate() {
        let at: Vec<f64> =
            tail.marks.iter().filter(|(_, mark)| mark.starts_with(begins)).map(|(at, _)| *at).collect();
        if at.is_empty() {
            continue;
        }
        let style = ShapeStyle::from(colour).stroke_width(1);
        // Each kind at a height of its own, so that one does not hide the other.
        let low = top * (0.95 - 0.06 * n as f64);
        chart.draw_series(
            at.into_iter().map(|x| PathElement::new([(x, low), (x, low + top * 0.05)], style)),
        )?;
        names.push((name.to_owned(), colour));
    }
    let line = ShapeStyle::from(RED_LINE).stroke_width(1);
    chart.draw_series(tail.points.iter().map(|(x, y)| PathElement::new([(*x, 0.0), (*x, *y)], line)))?;
    let bound = [(0.0, tail.bound_ms), (tail.seconds, tail.bound_ms)];
    chart.draw_series(LineSeries::new(bound, BLACK.mix(0.4)))?;
    legend(&area, &names)?;
    area.present()?;
    Ok(())
}

/// How the names of marks begin, what they are called, and their colours.
const MARKS: [(&str, &str, RGBColor); 5] = [
    ("rotation", "rotation", RGBColor(30, 90, 200)),
    ("segment", "segment sealed", RGBColor(90, 170, 250)),
    ("checkpoint", "checkpoint", RGBColor(20, 140, 60)),
    ("purge", "purge", RGBColor(150, 80, 190)),
    ("the disk is slow", "the disk is slow", RGBColor(230, 140, 20)),
];
