//! The timeline: what the program holds, and what each allocator keeps resident for it.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Side;
use super::build::Facts;
use crate::chart::{COLOURS, SIZE, draw_legend, mark};

/// Draws the timeline into `path`.
///
/// # Errors
///
/// When the file cannot be written.
pub(super) fn draw(path: &Path, facts: &Facts, sides: &[Side]) -> Result<()> {
    let epochs = facts.live_bytes.len();
    let live: Vec<f64> = facts
        .live_bytes
        .iter()
        .map(|bytes| mebibytes(*bytes as f64))
        .collect();
    let lines: Vec<(&str, Vec<f64>)> = sides
        .iter()
        .map(|side| {
            let kib = side.timeline(epochs).into_iter();
            (
                side.name.as_str(),
                kib.map(|kib| mebibytes(kib * 1024.0)).collect(),
            )
        })
        .collect();
    draw_lines(path, facts.calls as f64, &live, &lines)
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// Draws values that belong to points at even distances up to `calls`.
fn draw_lines(
    path: &Path,
    calls: f64,
    live: &[f64],
    lines: &[(&str, Vec<f64>)],
) -> Result<(), Box<dyn core::error::Error>> {
    let (unit, scale) = if calls >= 1e6 {
        ("million calls", 1e6)
    } else {
        ("thousand calls", 1e3)
    };
    let last = calls / scale;
    let count = live.len().max(1) as f64;
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        let at = |(index, value): (usize, &f64)| ((index + 1) as f64 * last / count, *value);
        values.iter().enumerate().map(at).collect()
    };
    let highest = lines
        .iter()
        .flat_map(|(_, values)| values)
        .chain(live)
        .copied()
        .fold(0.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last.max(1e-9), 0.0..(highest * 1.05).max(1e-9))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .max_light_lines(1)
        .bold_line_style(BLACK.mix(0.08))
        .x_desc(unit)
        .y_desc("MiB")
        .draw()?;
    chart
        .draw_series(AreaSeries::new(points(live), 0.0, BLACK.mix(0.15)))?
        .label("live bytes")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], BLACK.mix(0.15).filled()));
    for ((name, values), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points(values), colour.stroke_width(2)))?
            .label(*name)
            .legend(|at| mark(*colour, at));
    }
    draw_legend(&mut chart)?;
    area.present()?;
    Ok(())
}
