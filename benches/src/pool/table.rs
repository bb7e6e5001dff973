//! The tables and the verdict on the pools, each at most 100 columns wide.

use brickyard_bench::pools::Role;

use crate::report;
use crate::table::{NONE, number, percent, table};

use super::results::{Best, Results};

/// Marks a row in which another is ahead.
const BEHIND: &str = "!";

/// All tables: ours against the best, everybody's figures, what is beside the time, notes.
pub(crate) fn render(results: &Results) -> String {
    let mut parts = vec![
        format!("ours against the best, ns\n{}", summary(results)),
        format!("all, ns\n{}", figures(results)),
    ];
    parts.extend(beside(results));
    let notes = results.subjects.iter();
    let notes = notes.map(|subject| format!("{}: {}", subject.name, subject.note));
    parts.push(notes.collect::<Vec<_>>().join("\n"));
    parts.join("\n\n")
}

/// A line for each row: ours, the best other pool, the best allocation.
fn summary(results: &Results) -> String {
    let header = [
        "row",
        "ours",
        "±",
        "best pool",
        "",
        "±",
        "ratio",
        "",
        "best Box",
        "",
        "±",
        "ratio",
        "",
    ];
    let line = |index: usize| {
        let mut line = vec![String::from(results.rows[index].name)];
        let best = |role| results.best(index, role);
        let figures = |best: Option<Best<'_>>| {
            [
                short(best.map(|best| best.ns)),
                percent(best.and_then(|best| best.series.spread())),
            ]
        };
        line.extend(figures(best(Role::Ours)));
        for role in [Role::Peer, Role::Allocation] {
            let name = best(role).map_or(NONE, |best| best.name);
            line.push(String::from(name));
            line.extend(figures(best(role)));
            let ratio = results.ratio(index, role);
            line.push(number(ratio, 2));
            let behind = ratio.is_some_and(|ratio| ratio > 1.0);
            line.push(String::from(if behind { BEHIND } else { "" }));
        }
        line
    };
    let header = header.map(String::from).to_vec();
    table(header, (0..results.rows.len()).map(line).collect()).trim_fmt()
}

/// A line for each pool with its figures in all rows.
fn figures(results: &Results) -> String {
    let mut header = vec![String::from("\npool")];
    for row in &results.rows {
        let (first, second) = row.name.split_once(' ').unwrap_or((row.name, ""));
        header.push(format!("{first}\n{second}"));
    }
    let line = |side: usize| {
        let cells = results.series.iter().map(|row| short(row[side].ns()));
        let name = String::from(results.subjects[side].name);
        core::iter::once(name).chain(cells).collect()
    };
    table(header, (0..results.subjects.len()).map(line).collect()).trim_fmt()
}

/// Objects kept after a burst, and the percentiles of get, where a row gave them.
fn beside(results: &Results) -> Option<String> {
    let line = |side: usize| {
        let of_side = || results.series.iter().map(move |row| &row[side]);
        let kept = of_side().find_map(super::results::Series::kept);
        let latency = of_side().find_map(super::results::Series::latency);
        kept.is_some().then_some(()).or(latency.map(|_| ()))?;
        let mut line = vec![String::from(results.subjects[side].name), number(kept, 0)];
        for figures in [
            latency.map(|all| all.clock_ns),
            latency.map(|all| all.get_ns),
        ] {
            line.extend((0..3).map(|index| short(figures.map(|figures| figures[index]))));
        }
        Some(line)
    };
    let lines: Vec<_> = (0..results.subjects.len()).filter_map(line).collect();
    let header = [
        "\npool",
        "kept after\na burst",
        "clock\np50",
        "\np99",
        "\np99.9",
        "get\np50",
        "\np99",
        "\np99.9",
    ];
    let header = header.map(String::from).to_vec();
    (!lines.is_empty()).then(|| {
        let table = table(header, lines).trim_fmt();
        format!("objects kept of a burst of 640 over 64; nanoseconds in 8 threads, two clock readings included\n{table}")
    })
}

/// A figure of at most five characters.
fn short(ns: Option<f64>) -> String {
    let digits = usize::from(ns.is_some_and(|ns| ns < 100.0));
    number(ns, digits)
}

/// One plain line for each kind of competitor.
pub(crate) fn verdict(results: &Results) -> String {
    let roles = [
        (Role::Peer, "the best other pool of each row"),
        (Role::Allocation, "the better Box of each row"),
    ];
    let lines: Vec<_> = roles
        .into_iter()
        .filter_map(|(role, name)| verdict_on(results, role, name))
        .collect();
    if lines.is_empty() {
        return String::from("verdict: nothing to compare");
    }
    lines.join("\n")
}

/// The verdict against one kind of competitor; `None` where there is none.
fn verdict_on(results: &Results, role: Role, name: &str) -> Option<String> {
    let rows = 0..results.rows.len();
    let ratios: Vec<(f64, &str)> = rows
        .filter_map(|index| Some((results.ratio(index, role)?, results.rows[index].name)))
        .collect();
    report::verdict_on(&ratios, &format!("the time of {name}"))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::made_up;
    use super::*;

    #[test]
    fn tables_and_notes_fit_a_hundred_columns() {
        for scale in [0.4, 7000.0] {
            let text = render(&made_up(scale));
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }

    #[test]
    fn summary_names_the_best_and_marks_what_is_behind() {
        let mut results = made_up(10.0);
        results.series[0].swap(0, 1);
        let text = summary(&results);
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.expect("a row")
                .split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        let ours = &line("pair ")[..3];
        assert_eq!(ours, ["pair", "20.0", "15%"]);
        assert!(
            line("pair ").ends_with(&["2.00", "!"].map(String::from)),
            "{text}"
        );
        assert!(
            line("owned").ends_with(&["0.50"].map(String::from)),
            "{text}"
        );
    }

    #[test]
    fn verdict_lists_the_rows_that_are_behind() {
        let mut results = made_up(10.0);
        assert!(
            verdict(&results).contains("behind nowhere"),
            "{}",
            verdict(&results)
        );
        results.series[0].swap(0, 1);
        let text = verdict(&results);
        assert!(text.contains("behind on pair (2.00)"), "{text}");
        assert!(text.contains("of 12 rows"), "{text}");
    }
}
