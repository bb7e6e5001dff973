//! The tables: for each measure the best of the others on a row, and all as ratios to it.

use crate::results::{Measure, Results, Row};
use crate::stats::geometric_mean;
use crate::table::{number, percent, table};

/// A table for each measure.
pub(super) fn render(results: &Results, ours: usize) -> String {
    let of =
        |title, measure, unit, digits| measure_table(results, ours, title, measure, unit, digits);
    [
        of("time, s", Measure::Time, 1.0, 3),
        of("CPU time, s", Measure::Cpu, 1.0, 3),
        of("peak RSS, MiB", Measure::PeakRss, 1024.0, 1),
    ]
    .join("\n\n")
}

/// The table of one measure. The best of a row is the best of all but ours, so that ours may be
/// below 1; where it is above, it is marked.
fn measure_table(
    results: &Results,
    ours: usize,
    title: &str,
    measure: Measure,
    unit: f64,
    digits: usize,
) -> String {
    let sides = || 0..results.allocators.len();
    let cell = |row: &Row, side: usize| {
        let ratio = row.ratio_to_best(side, ours, measure);
        let behind = side == ours && ratio.is_some_and(|ratio| ratio > 1.0);
        number(ratio, 2) + if behind { " !" } else { "" }
    };
    let line = |row: &Row| {
        let best = row.best(ours, measure);
        let spreads = row
            .series
            .iter()
            .filter_map(|series| series.spread(measure));
        let spread = spreads.reduce(f64::max);
        let mut line = vec![
            row.workload.clone(),
            number(best.map(|(value, _)| value / unit), digits),
            percent(spread),
        ];
        line.extend(sides().map(|side| cell(row, side)));
        line
    };
    let mut header = ["program", "best", "±"].map(String::from).to_vec();
    header.extend(results.allocators.iter().cloned());
    let mut lines: Vec<_> = results.rows.iter().map(line).collect();
    let mean = |side: usize| {
        let rows = results.rows.iter();
        let ratios: Option<Vec<f64>> = rows
            .map(|row| row.ratio_to_best(side, ours, measure))
            .collect();
        number(ratios.and_then(|ratios| geometric_mean(&ratios)), 2)
    };
    let mut footer = vec![String::from("geometric mean"), String::new(), String::new()];
    footer.extend(sides().map(mean));
    lines.push(footer);
    let table = table(header, lines).trim_fmt();
    format!(
        "{title}: the best but ours, the largest ± of the row, all as ratios to the best (! behind)\n{table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::made_up;

    #[test]
    fn ours_is_compared_with_the_best_of_the_others_and_marked_where_behind() {
        // Times 1, 1/2 and 1/3, memory 1, 2 and 3.
        let mut results = made_up(&["system", "brickyard", "peer"], &["one", "two"]);
        results.rows[1].series[1].time_s = vec![0.1; 3];
        let text = render(&results, 1);
        let rows: Vec<Vec<_>> = text
            .lines()
            .filter(|line| line.starts_with("one") || line.starts_with("two"))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[0],
            ["one", "0.333", "15%", "3.00", "1.50", "!", "1.00"]
        );
        assert_eq!(rows[1], ["two", "0.333", "15%", "3.00", "0.30", "1.00"]);
        assert_eq!(rows[4], ["one", "200.0", "0%", "1.00", "2.00", "!", "3.00"]);
    }

    #[test]
    fn a_mean_needs_all_rows() {
        let mut results = made_up(&["system", "brickyard"], &["one", "two"]);
        results.rows[1].series[1].failure = Some(String::from("signal 6"));
        let text = render(&results, 1);
        let mean = text.lines().find(|line| line.starts_with("geometric"));
        let cells: Vec<_> = mean.expect("a footer").split_whitespace().collect();
        assert_eq!(cells, ["geometric", "mean", "1.00", "-"]);
    }
}
