//! The tables and the verdict on the stores, each at most 100 columns wide.

use brickyard_bench::stores::DISK;

use crate::report;
use crate::stats::ratio;
use crate::table::{NONE, number, percent, table};

use super::results::{Results, Side};

/// Marks a row in which another is ahead.
const BEHIND: &str = "!";

/// The peer that the targets name.
const NAMED_PEER: &str = "LMDB";

/// All tables: ours against the best, everybody's figures, the floors, notes.
pub(crate) fn render(results: &Results) -> String {
    let floors = DISK
        .iter()
        .map(|&(name, unit)| format!("{name} {}: {unit}", number(results.floor(name), 1)));
    let subjects = results.subjects.iter();
    let notes = subjects.map(|subject| format!("{}: {}", subject.name, subject.note));
    [
        format!(
            "ours against the best; less is better\n{}",
            summary(results)
        ),
        format!("all\n{}", figures(results)),
        format!("floors\n{}", floors.collect::<Vec<_>>().join("\n")),
        notes.collect::<Vec<_>>().join("\n"),
    ]
    .join("\n\n")
}

/// A line for each row: ours, the best peer, the named one, the floor.
fn summary(results: &Results) -> String {
    let header = [
        "row",
        "",
        "ours",
        "±",
        "best peer",
        "",
        "±",
        "ratio",
        "",
        "of LMDB",
        "of floor",
    ];
    let line = |index: usize| {
        let row = results.rows[index];
        let (ours, best) = (results.ours(index), results.best(index));
        let mut line = vec![String::from(row.name), String::from(row.unit.sign())];
        line.extend(cells(ours));
        line.push(String::from(best.map_or(NONE, |best| best.name)));
        line.extend(cells(best));
        let to_best = results.ratio(index);
        line.push(number(to_best, 2));
        let behind = to_best.is_some_and(|ratio| ratio > 1.0);
        line.push(String::from(if behind { BEHIND } else { "" }));
        let to = |other| number(ratio(ours.map(|side| side.figure), other), 2);
        line.push(to(results.named(index, NAMED_PEER).map(|side| side.figure)));
        line.push(to(row.floor.and_then(|floor| results.floor(floor))));
        line
    };
    let header = header.map(String::from).to_vec();
    table(header, (0..results.rows.len()).map(line).collect()).trim_fmt()
}

fn cells(side: Option<Side>) -> [String; 2] {
    [
        short(side.map(|side| side.figure)),
        percent(side.and_then(|side| side.spread)),
    ]
}

/// A line for each row with everybody's figures.
fn figures(results: &Results) -> String {
    let mut header = vec![String::from("row"), String::new()];
    header.extend(
        results
            .subjects
            .iter()
            .map(|subject| String::from(subject.name)),
    );
    let line = |index: usize| {
        let row = results.rows[index];
        let sides = 0..results.subjects.len();
        let sides = sides.map(|side| short(results.side(index, side).map(|side| side.figure)));
        let names = [row.name, row.unit.sign()].map(String::from);
        names.into_iter().chain(sides).collect()
    };
    table(header, (0..results.rows.len()).map(line).collect()).trim_fmt()
}

/// A figure with three digits that say something, or more before the point.
fn short(figure: Option<f64>) -> String {
    let digits = match figure {
        Some(figure) if figure < 10.0 => 2,
        Some(figure) if figure < 100.0 => 1,
        _ => 0,
    };
    number(figure, digits)
}

/// One plain line.
pub(crate) fn verdict(results: &Results) -> String {
    let rows = 0..results.rows.len();
    let ratios: Vec<(f64, &str)> = rows
        .filter_map(|index| Some((results.ratio(index)?, results.rows[index].name)))
        .collect();
    let verdict = report::verdict_on(&ratios, "the cost of the best peer of each row");
    verdict.unwrap_or_else(|| String::from("verdict: nothing to compare"))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::made_up;
    use super::*;

    #[test]
    fn tables_fit_a_hundred_columns() {
        for scale in [0.04, 7000.0, 123_456.0] {
            let text = render(&made_up(scale));
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }

    #[test]
    fn summary_has_the_floor_and_without_peers_no_ratio() {
        let text = summary(&made_up(10.0));
        let line = text.lines().find(|line| line.starts_with("put "));
        let cells: Vec<_> = line.expect("a row").split_whitespace().collect();
        assert_eq!(cells[..4], ["put", "us", "10.0", "15%"], "{text}");
        assert_eq!(cells.last(), Some(&"1.00"), "{text}");
        let peers = brickyard_bench::stores::SUBJECTS.len() > 1;
        assert_eq!(cells.contains(&"0.50"), peers, "{text}");
    }

    #[test]
    fn verdict_needs_a_peer() {
        let text = verdict(&made_up(10.0));
        if brickyard_bench::stores::SUBJECTS.len() > 1 {
            assert!(text.contains("behind nowhere"), "{text}");
        } else {
            assert_eq!(text, "verdict: nothing to compare");
        }
    }
}
