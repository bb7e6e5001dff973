//! The table of two allocators, and what all tables are made of; each is at most 100 columns wide.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row as Line, Table};

use crate::results::{Measure, Results, Row};
use crate::stats::geometric_mean;

/// What a cell without a figure shows.
pub(crate) const NONE: &str = "-";

/// Whether [`detailed`] has room for these allocators.
pub(crate) fn fits(results: &Results) -> bool {
    results.allocators.len() == 2 && results.allocators[1].len() <= 6
}

/// One table of two allocators with all measures. Memory at rest is left out
/// when there is none.
pub(crate) fn detailed(results: &Results) -> String {
    let at_rest = results.has(Measure::RestRss);
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
    use crate::results::tests::{made_up, wide};

    fn widest(text: &str) -> usize {
        text.lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn two_allocators_fit_a_hundred_columns() {
        let two = detailed(&wide(&["system", "arena"]));
        assert!(widest(&two) <= 100, "{}:\n{two}", widest(&two));
    }

    #[test]
    fn detailed_table_shows_every_figure() {
        let text = detailed(&made_up(&["system", "arena"], &["one"]));
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
        let text = detailed(&results);
        assert!(text.contains(" - "), "{text}");
    }
}
