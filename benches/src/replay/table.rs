//! What a replay says.

use anyhow::Result;
use serde_json::{Value, json};

use super::build::Facts;
use super::calls::Ending;
use super::machine::Touch;
use super::{ReplayArgs, Side};
use crate::report;
use crate::stats::{median, ratio, spread};
use crate::table::{number, percent, table};

/// The figures of one allocator.
#[derive(Debug, Default)]
struct Figures {
    time_s: Option<f64>,
    spread: Option<f64>,
    cpu_s: Option<f64>,
    peak_kib: Option<f64>,
    mean_kib: Option<f64>,
}

impl Figures {
    fn of(side: &Side, epochs: usize) -> Self {
        let times = side.timed.figures(|sample| Some(sample.time_s));
        let timeline = side.timeline(epochs);
        Self {
            time_s: median(&times),
            spread: spread(&times),
            cpu_s: median(&side.timed.figures(|sample| Some(sample.cpu_s))),
            peak_kib: timeline.iter().copied().reduce(f64::max),
            mean_kib: mean(&timeline),
        }
    }
}

/// The arithmetic mean.
fn mean(values: &[f64]) -> Option<f64> {
    // At most some hundred values.
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The mean of what the program holds after the epochs, in KiB.
fn mean_live_kib(facts: &Facts) -> Option<f64> {
    // Exact below 2^53.
    let live: Vec<f64> = facts
        .live_bytes
        .iter()
        .map(|bytes| *bytes as f64 / 1024.0)
        .collect();
    mean(&live)
}

/// The table: one line an allocator.
pub(super) fn render(facts: &Facts, sides: &[Side]) -> String {
    let epochs = facts.live_bytes.len();
    let all: Vec<Figures> = sides.iter().map(|side| Figures::of(side, epochs)).collect();
    let live = mean_live_kib(facts);
    let none = Figures::default();
    let base = all.first().unwrap_or(&none);
    let mebibytes = |kib: Option<f64>| number(kib.map(|kib| kib / 1024.0), 1);
    let line = |(side, figures): (&Side, &Figures)| {
        vec![
            side.name.clone(),
            number(figures.time_s, 3),
            percent(figures.spread),
            number(ratio(figures.time_s, base.time_s), 2),
            number(ratio(figures.cpu_s, base.cpu_s), 2),
            mebibytes(figures.peak_kib),
            number(ratio(figures.peak_kib, base.peak_kib), 2),
            mebibytes(figures.mean_kib),
            number(ratio(figures.mean_kib, base.mean_kib), 2),
            number(ratio(figures.mean_kib, live), 2),
        ]
    };
    let header = [
        "under",
        "time\ns",
        "\n±",
        "time\nratio",
        "CPU\nratio",
        "peak\nM",
        "peak\nratio",
        "mean\nM",
        "mean\nratio",
        "mean\n÷ live",
    ];
    let lines = sides.iter().zip(&all).map(line).collect();
    table(header.map(String::from).to_vec(), lines).trim_fmt()
}

/// What is known of the recording.
pub(super) fn facts(facts: &Facts) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let plural = if facts.threads == 1 { "" } else { "s" };
    let mut text = format!(
        "{} calls in {} thread{plural} allocated {:.1} MiB\nlive: {:.1} MiB at most, {:.1} MiB in {} \
         blocks at the end",
        facts.calls,
        facts.threads,
        mebibytes(facts.allocated_bytes),
        mebibytes(facts.peak_bytes),
        mebibytes(facts.left_bytes()),
        facts.left_blocks,
    );
    let note = match facts.ending {
        Ending::Orderly { lost: 0 } => String::new(),
        Ending::Orderly { lost } => format!("\nnote: {lost} calls were not recorded"),
        Ending::Open => String::from("\nnote: the program was killed, its last calls are missing"),
        Ending::Broken(error) => format!("\nnote: {error}; replayed up to there"),
    };
    text.push_str(&note);
    if facts.unknown_frees > 0 {
        text.push_str(&format!(
            "\nnote: {} frees of blocks whose allocation was not recorded are left out",
            facts.unknown_frees
        ));
    }
    if facts.unseen_frees > 0 {
        text.push_str(&format!(
            "\nnote: {} blocks are freed late: when their place is given out again",
            facts.unseen_frees
        ));
    }
    text
}

/// How it was measured.
pub(super) fn remark(args: &ReplayArgs) -> String {
    format!(
        "{} round{}{}, {}; medians, ± half the range\nmemory: anonymous pages, at the ends of up to \
         256 epochs",
        args.rounds,
        if args.rounds == 1 { "" } else { "s" },
        if args.serial {
            ", all calls in one thread"
        } else {
            ""
        },
        match args.touch {
            Touch::None => "blocks not written to",
            Touch::Pages => "a byte of each page of a block written",
            Touch::All => "blocks written",
        },
    )
}

/// The JSON document: machine, versions, recording, rows.
pub(super) fn document(facts: &Facts, sides: &[Side]) -> Result<Value> {
    let epochs = facts.live_bytes.len();
    let row = |side: &Side| {
        let figures = Figures::of(side, epochs);
        json!({
            "under": side.name,
            "time_s": figures.time_s,
            "cpu_s": figures.cpu_s,
            "peak_rss_kib": figures.peak_kib,
            "mean_rss_kib": figures.mean_kib,
            "mean_rss_by_live": ratio(figures.mean_kib, mean_live_kib(facts)),
            "rss_kib": side.timeline(epochs),
        })
    };
    let rows: Vec<Value> = sides.iter().map(row).collect();
    Ok(json!({
        "machine": report::machine(),
        "versions": report::versions(),
        "recording": {
            "calls": facts.calls,
            "threads": facts.threads,
            "allocated_bytes": facts.allocated_bytes,
            "peak_bytes": facts.peak_bytes,
            "left_bytes": facts.left_bytes(),
            "left_blocks": facts.left_blocks,
            "live_bytes": facts.live_bytes,
        },
        "rows": rows,
    }))
}
