//! The tables, each at most 100 columns wide.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row as Line, Table};

use crate::results::{Measure, Results, Row};
use crate::stats::geometric_mean;

/// What a cell without a figure shows.
pub(crate) const NONE: &str = "-";

/// The form that fits: all figures in one table for the arena alone, a table
/// for each measure when there are more allocators.
pub(crate) fn render(results: &Results) -> String {
    if results.allocators.len() == 2 && results.allocators[1].len() <= 6 {
        detailed(results)
    } else {
        by_measure(results)
    }
}

/// One table of two allocators with all measures. Memory at rest is left out
/// when there is none.
pub(crate) fn detailed(results: &Results) -> String {
    let at_rest = results
        .rows
        .iter()
        .any(|row| row.series[0].median(Measure::RestRss).is_some());
    let [first, second] = [0, 1].map(|index| results.allocators[index].as_str());
    let head = |title: &str, name: &str| format!("{title}\n{name}");
    let mut header = vec![
        head("", "workload"),
        head("time s", first),
        head("", "±"),
        head("time s", second),
        head("", "±"),
        head("time", "ratio"),
        head("CPU", "ratio"),
        head("peak M", first),
        head("peak M", second),
        head("peak", "ratio"),
    ];
    if at_rest {
        header.extend([head("rest M", first), head("rest M", second)]);
        header.extend([head("live %", first), head("live %", second)]);
    }
    let lines = results.rows.iter().map(|row| detailed_line(row, at_rest));
    let mut table = table(header, lines.collect());
    let mean = |measure| number(geometric_mean(&results.ratios(1, measure)), 2);
    let mut footer = vec![String::from("geometric mean")];
    footer.extend([const { String::new() }; 4]);
    footer.extend([mean(Measure::Time), mean(Measure::Cpu)]);
    footer.extend([const { String::new() }; 2]);
    footer.push(mean(Measure::PeakRss));
    table.add_row(right(footer));
    table.trim_fmt()
}

/// A row of the detailed table.
fn detailed_line(row: &Row, at_rest: bool) -> Vec<String> {
    let median = |side: usize, measure| row.series[side].median(measure);
    let mebibytes = |side, measure| number(median(side, measure).map(|kib| kib / 1024.0), 1);
    let spread = |side: usize| percent(row.series[side].spread(Measure::Time));
    let mut line = vec![
        row.workload.clone(),
        number(median(0, Measure::Time), 3),
        spread(0),
        number(median(1, Measure::Time), 3),
        spread(1),
        number(row.ratio(1, Measure::Time), 2),
        number(row.ratio(1, Measure::Cpu), 2),
        mebibytes(0, Measure::PeakRss),
        mebibytes(1, Measure::PeakRss),
        number(row.ratio(1, Measure::PeakRss), 2),
    ];
    if at_rest {
        line.extend([
            mebibytes(0, Measure::RestRss),
            mebibytes(1, Measure::RestRss),
        ]);
        line.extend([0, 1].map(|side| number(row.live_share(side).map(|share| share * 100.0), 0)));
    }
    line
}

/// A table for each measure: the first allocator's figure, the others' ratios.
fn by_measure(results: &Results) -> String {
    let titles = [
        ("time, s", Measure::Time, 1.0, 3),
        ("CPU time, s", Measure::Cpu, 1.0, 3),
        ("peak RSS, MiB", Measure::PeakRss, 1024.0, 1),
        ("RSS at rest, MiB", Measure::RestRss, 1024.0, 1),
    ];
    let mut tables: Vec<String> = titles
        .into_iter()
        .map(|(title, measure, unit, digits)| {
            let table = measure_table(results, measure, unit, digits);
            format!("{title}; the others as ratios\n{}", table.trim_fmt())
        })
        .collect();
    let shares = |row: &Row| {
        let shares = (0..row.series.len()).map(|index| number(row.live_share(index), 2));
        core::iter::once(row.workload.clone())
            .chain(shares)
            .collect()
    };
    let live = table(names(results), results.rows.iter().map(shares).collect());
    tables.push(format!("live / RSS at rest\n{}", live.trim_fmt()));
    tables.join("\n\n")
}

/// The table of one measure.
fn measure_table(results: &Results, measure: Measure, unit: f64, digits: usize) -> Table {
    let others = || 1..results.allocators.len();
    let line = |row: &Row| {
        let base = row.series[0].median(measure).map(|value| value / unit);
        let ratios = others().map(|index| number(row.ratio(index, measure), 2));
        [row.workload.clone(), number(base, digits)]
            .into_iter()
            .chain(ratios)
            .collect()
    };
    let mut table = table(names(results), results.rows.iter().map(line).collect());
    let means = others().map(|index| number(geometric_mean(&results.ratios(index, measure)), 2));
    let footer = [String::from("geometric mean"), String::new()]
        .into_iter()
        .chain(means);
    table.add_row(right(footer.collect()));
    table
}

/// The header of a table by measure.
fn names(results: &Results) -> Vec<String> {
    core::iter::once(String::from("workload"))
        .chain(results.allocators.iter().cloned())
        .collect()
}

/// A table without rules whose first column is aligned left, the others right.
pub(crate) fn table(header: Vec<String>, lines: Vec<Vec<String>>) -> Table {
    let columns = header.len();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(right(header));
    for line in lines {
        table.add_row(right(line));
    }
    for index in 0..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 1));
        }
    }
    table
}

/// A line whose cells are aligned right, but for the first.
fn right(cells: Vec<String>) -> Line {
    let align = |(index, text): (usize, String)| {
        let side = if index == 0 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(side)
    };
    Line::from(cells.into_iter().enumerate().map(align).collect::<Vec<_>>())
}

/// A figure with so many digits behind the point.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(String::from(NONE), |value| format!("{value:.digits$}"))
}

/// A share as a percentage.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or(String::from(NONE), |share| format!("{:.0}%", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::made_up;
    use crate::workloads;

    /// The widest figures that occur: a minute, gibibytes, spreads of 100 %.
    fn wide(allocators: &[&str]) -> Results {
        let names: Vec<_> = workloads::ALL
            .iter()
            .map(|workload| workload.name)
            .collect();
        let mut results = made_up(allocators, &names);
        for series in results.rows.iter_mut().flat_map(|row| &mut row.series) {
            series.time_s = vec![1.0, 19.876, 38.0];
            series.peak_rss_kib = vec![2_097_152.0];
            series.rest_rss_kib = vec![1_048_577.0];
        }
        results
    }

    fn widest(text: &str) -> usize {
        text.lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn tables_fit_a_hundred_columns() {
        let two = render(&wide(&["system", "arena"]));
        assert!(widest(&two) <= 100, "{}:\n{two}", widest(&two));
        let all = [
            "system",
            "arena",
            "mimalloc3",
            "mimalloc2",
            "jemalloc",
            "snmalloc",
            "rpmalloc",
            "rusty_alloc",
        ];
        let eight = render(&wide(&all));
        assert!(widest(&eight) <= 100, "{}:\n{eight}", widest(&eight));
    }

    #[test]
    fn detailed_table_shows_every_figure() {
        let text = render(&made_up(&["system", "arena"], &["one"]));
        let line = text
            .lines()
            .find(|line| line.starts_with("one"))
            .expect("a row");
        let cells: Vec<_> = line.split_whitespace().collect();
        let expected = [
            "one", "1.000", "15%", "0.500", "15%", "0.50", "0.50", "200.0", "400.0", "2.00",
            "100.0", "200.0", "50", "25",
        ];
        assert_eq!(cells, expected);
        let mean = text.lines().last().expect("a last line");
        assert_eq!(
            mean.split_whitespace().collect::<Vec<_>>(),
            ["geometric", "mean", "0.50", "0.50", "2.00"]
        );
    }

    #[test]
    fn failed_row_shows_dashes() {
        let mut results = made_up(&["system", "arena"], &["one"]);
        results.rows[0].series[1].failure = Some(String::from("signal 6"));
        let text = render(&results);
        assert!(text.contains(" - "), "{text}");
    }

    #[test]
    fn peers_get_a_table_for_each_measure() {
        let text = render(&made_up(&["system", "arena", "mimalloc3"], &["one"]));
        assert_eq!(
            text.lines().filter(|line| line.starts_with("one")).count(),
            5
        );
        assert!(text.contains("mimalloc3"));
        let line = text
            .lines()
            .find(|line| line.starts_with("one"))
            .expect("a row");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["one", "1.000", "0.50", "0.33"]
        );
    }
}
