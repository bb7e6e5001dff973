//! A table for each measure: the best of a row, and all allocators as ratios to it.

use crate::results::{Measure, Results, Row};
use crate::stats::geometric_mean;
use crate::table::{number, percent, table};

/// The tables of all measures that there are figures for, and live bytes over memory at rest
/// where that was looked at. `what` heads the rows, `ours` is the allocator that is
/// held against the best of the others; if it is none of those that ran, the best is that of all.
pub(crate) fn render(results: &Results, what: &str, ours: usize) -> String {
    let titles = [
        ("time, s", Measure::Time, 1.0, 3),
        ("CPU time, s", Measure::Cpu, 1.0, 3),
        ("peak RSS, MiB", Measure::PeakRss, 1024.0, 1),
        ("RSS at rest, MiB", Measure::RestRss, 1024.0, 1),
    ];
    let notes = match results.allocators.get(ours) {
        Some(name) => [format!(" but {name}"), format!(" (! {name} behind)")],
        None => [const { String::new() }; 2],
    };
    let [but, mark] = notes;
    let mut tables = Vec::new();
    for (title, measure, unit, digits) in titles {
        if results.has(measure) {
            let lines = lines(results, ours, measure, unit, digits);
            let header = header(what, &["best", "±"], results);
            tables.push(format!(
                "{title}: the best{but}, the largest ±, all as ratios to the best{mark}\n{}",
                table(header, lines).trim_fmt()
            ));
        }
    }
    if results.has(Measure::RestRss) {
        let shares = |row: &Row| {
            let shares = (0..row.series.len()).map(|side| number(row.live_share(side), 2));
            [row.workload.clone()].into_iter().chain(shares).collect()
        };
        let lines = results.rows.iter().map(shares).collect();
        let live = table(header(what, &[], results), lines);
        tables.push(format!("live / RSS at rest\n{}", live.trim_fmt()));
    }
    tables.join("\n\n")
}

/// The names of the columns.
fn header(what: &str, figures: &[&str], results: &Results) -> Vec<String> {
    let first = core::iter::once(&what).chain(figures);
    let first = first.map(|name| String::from(*name));
    first.chain(results.allocators.iter().cloned()).collect()
}

/// The rows of one measure, and the geometric means. The best of a row is the best of all but
/// ours, so that ours may be below 1; where it is above, it is marked.
fn lines(
    results: &Results,
    ours: usize,
    measure: Measure,
    unit: f64,
    digits: usize,
) -> Vec<Vec<String>> {
    let sides = || 0..results.allocators.len();
    let cell = |row: &Row, side: usize| {
        let ratio = row.ratio_to_best(side, ours, measure);
        let behind = side == ours && ratio.is_some_and(|ratio| ratio > 1.0);
        number(ratio, 2) + if behind { " !" } else { "" }
    };
    let line = |row: &Row| {
        let best = row.best(ours, measure);
        let spreads = row.series.iter();
        let spreads = spreads.filter_map(|series| series.spread(measure));
        let mut line = vec![
            row.workload.clone(),
            number(best.map(|(value, _)| value / unit), digits),
            percent(spreads.reduce(f64::max)),
        ];
        line.extend(sides().map(|side| cell(row, side)));
        line
    };
    let mean = |side: usize| {
        let rows = results.rows.iter();
        let ratios: Option<Vec<f64>> = rows
            .map(|row| row.ratio_to_best(side, ours, measure))
            .collect();
        number(ratios.and_then(|ratios| geometric_mean(&ratios)), 2)
    };
    let mut footer = vec![String::from("geometric mean"), String::new(), String::new()];
    footer.extend(sides().map(mean));
    let rows = results.rows.iter().map(line);
    rows.chain([footer]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{ALLOCATORS, made_up, wide};

    #[test]
    fn ours_is_compared_with_the_best_of_the_others_and_marked_where_behind() {
        // Times 1, 1/2 and 1/3, memory 1, 2 and 3.
        let mut results = made_up(&["system", "brickyard", "peer"], &["one", "two"]);
        results.rows[1].series[1].time_s = vec![0.1; 3];
        let text = render(&results, "program", 1);
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
        let text = render(&results, "program", 1);
        let mean = text.lines().find(|line| line.starts_with("geometric"));
        let cells: Vec<_> = mean.expect("a footer").split_whitespace().collect();
        assert_eq!(cells, ["geometric", "mean", "1.00", "-"]);
    }

    #[test]
    fn eight_allocators_fit_a_hundred_columns() {
        let text = render(&wide(&ALLOCATORS), "workload", 1);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?}:\n{text}");
    }

    #[test]
    fn a_measure_without_figures_has_no_table_and_one_allocator_is_its_own_best() {
        let mut results = made_up(&["system"], &["one"]);
        let text = render(&results, "workload", 1);
        let rows = |text: &str| text.lines().filter(|line| line.starts_with("one")).count();
        assert_eq!(rows(&text), 5, "{text}");
        assert!(text.starts_with("time, s: the best, the largest"), "{text}");
        results.rows[0].series[0].rest_rss_kib.clear();
        let text = render(&results, "workload", 1);
        assert_eq!(rows(&text), 3, "{text}");
        assert!(!text.contains("rest"), "{text}");
    }

    #[test]
    fn the_allocator_that_is_looked_at_is_named_in_the_titles() {
        let text = render(&made_up(&["system", "arena"], &["one"]), "workload", 1);
        let title = "time, s: the best but arena, the largest ±, all as ratios to the best (! arena behind)\n";
        assert!(text.starts_with(title), "{text}");
    }
}
