//! The charts: both axes in powers of two.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Point;
use crate::chart::{COLOURS, SIZE, draw_legend, mark};

/// What a chart shows.
struct Chart<'a> {
    x_title: &'a str,
    y_title: &'a str,
    /// A line an allocator.
    lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

/// Draws `threads.svg`, `live.svg` and `live-memory.svg`.
///
/// # Errors
///
/// When a file cannot be written.
pub(super) fn draw_all(
    folder: &Path,
    threads: &[Point],
    live: &[Point],
    allocators: &[String],
) -> Result<()> {
    let of_threads = |point: &Point| point.threads as f64;
    let of_live = |point: &Point| (point.bytes >> 20) as f64;
    let cost = "ns of CPU a free and allocation";
    let charts = [
        (
            "threads.svg",
            Chart {
                x_title: "threads",
                y_title: cost,
                lines: lines(threads, allocators, of_threads, Point::pair_ns),
            },
        ),
        (
            "live.svg",
            Chart {
                x_title: "live data, MiB",
                y_title: cost,
                lines: lines(live, allocators, of_live, Point::pair_ns),
            },
        ),
        (
            "live-memory.svg",
            Chart {
                x_title: "live data, MiB",
                y_title: "resident ÷ live memory",
                lines: lines(live, allocators, of_live, Point::overhead),
            },
        ),
    ];
    for (name, chart) in charts {
        let path = folder.join(name);
        draw(&path, &chart).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The points of each allocator that have a figure.
fn lines<'a>(
    points: &[Point],
    allocators: &'a [String],
    x: impl Fn(&Point) -> f64,
    y: impl Fn(&Point, usize) -> Option<f64>,
) -> Vec<(&'a str, Vec<(f64, f64)>)> {
    let line = |side: usize| {
        let at = |point: &Point| Some((x(point), y(point, side)?));
        points.iter().filter_map(at).collect()
    };
    (0..)
        .zip(allocators)
        .map(|(side, name)| (name.as_str(), line(side)))
        .collect()
}

fn draw(path: &Path, chart: &Chart<'_>) -> Result<(), Box<dyn core::error::Error>> {
    let all = || chart.lines.iter().flat_map(|(_, points)| points);
    let last = all().map(|(x, _)| *x).fold(2.0, f64::max);
    let highest = all().map(|(_, y)| *y).fold(0.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut context = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (1.0..last).log_scale().base(2.0),
            0.0..(highest * 1.1).max(1e-9),
        )?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .max_light_lines(1)
        .bold_line_style(BLACK.mix(0.08))
        .x_desc(chart.x_title)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_desc(chart.y_title)
        .draw()?;
    for ((name, points), colour) in chart.lines.iter().zip(COLOURS.iter().cycle()) {
        context
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(*name)
            .legend(|at| mark(*colour, at));
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, 3, colour.filled()));
        context.draw_series(dots)?;
    }
    draw_legend(&mut context)?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grow::work::Sample;

    #[test]
    fn each_chart_has_a_curve_for_each_allocator_that_has_figures() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let allocators = ["system", "arena"].map(String::from);
        let point = |threads: usize, bytes: usize| {
            let mut point = Point::new(threads, bytes, 2);
            let sample = Sample {
                pair_ns: threads as f64,
                rss_kib: 200,
                live_kib: 100,
            };
            point.series[0].record(|| Ok(sample));
            point.series[1].record(|| Err(anyhow!("it died")));
            point
        };
        let threads = [1, 2, 4].map(|threads| point(threads, 1 << 20));
        let live = [1, 4].map(|mib| point(1, mib << 20));
        draw_all(folder.path(), &threads, &live, &allocators).expect("a writable folder");
        for name in ["threads.svg", "live.svg", "live-memory.svg"] {
            let text = std::fs::read_to_string(folder.path().join(name)).expect("a chart");
            let curves = |colour: &str| {
                let of = |line: &&str| line.starts_with("<polyline") && line.contains(colour);
                text.lines().filter(of).count()
            };
            // In the plot, and beside the name.
            assert_eq!(curves("#0072B2"), 2, "{name}");
            assert!(text.contains("arena"), "it has a name, though no curve");
        }
    }
}
