//! Writes inputs for the target `store_ops` from which a fuzzer can start: a program for each
//! thing that a store does, since random bytes rarely do one thing long enough.
//!
//! `cargo run -p brickyard-fuzz --example seeds -- FOLDER`, and then
//! `cargo +nightly fuzz cmin store_ops FOLDER`.

use std::path::PathBuf;

use brickyard_fuzz::replay::Recorder;
use brickyard_fuzz::store_oracle::op::Op;
use brickyard_fuzz::store_oracle::random::Random;

/// A name, and which operations follow one another; each line is done so often.
type Scenario = (&'static str, &'static [(usize, &'static [&'static str])]);

const SCENARIOS: [Scenario; 12] = [
    (
        "puts",
        &[
            (60, &["Put"]),
            (1, &["Commit"]),
            (20, &["Delete", "Get"]),
            (2, &["Commit", "Check"]),
        ],
    ),
    (
        "cursors",
        &[
            (30, &["Put"]),
            (12, &["Walk"]),
            (1, &["Commit"]),
            (6, &["Walk", "Range"]),
            (1, &["Check"]),
        ],
    ),
    (
        "loads",
        &[
            (4, &["Load"]),
            (1, &["Commit"]),
            (4, &["Load", "Put"]),
            (2, &["Commit", "Check"]),
        ],
    ),
    (
        "in-place",
        &[
            (12, &["Reserve"]),
            (1, &["Savepoint"]),
            (6, &["Reserve", "Put"]),
            (2, &["RollBack", "Commit"]),
        ],
    ),
    (
        "savepoints",
        &[
            (5, &["Put", "Savepoint"]),
            (9, &["Delete", "RollBack", "Put", "Release", "Savepoint"]),
            (2, &["Commit", "Check"]),
        ],
    ),
    (
        "futures",
        &[
            (4, &["Put", "CommitAsync"]),
            (1, &["Await"]),
            (4, &["Put", "CommitAsync", "Keep"]),
            (1, &["Check"]),
        ],
    ),
    (
        "multi-map",
        &[
            (30, &["AddPair"]),
            (8, &["Values", "Pairs"]),
            (1, &["Commit"]),
            (9, &["RemovePair", "AddPair", "RemoveKey"]),
            (2, &["Commit", "Check"]),
        ],
    ),
    (
        "snapshots",
        &[
            (10, &["Put"]),
            (3, &["Commit", "Keep", "Delete", "Put"]),
            (9, &["Get", "Ends", "Prefix", "GetMany"]),
            (2, &["Forget", "Commit"]),
        ],
    ),
    (
        "compaction",
        &[
            (60, &["Put"]),
            (1, &["Commit"]),
            (3, &["DeleteRange"]),
            (1, &["DropTable"]),
            (2, &["Commit", "Compact"]),
            (1, &["Check"]),
        ],
    ),
    (
        "backups",
        &[
            (20, &["Put"]),
            (1, &["Commit", "Backup"]),
            (10, &["Put", "AddPair"]),
            (3, &["Commit", "Backup", "Put"]),
            (1, &["Check"]),
        ],
    ),
    (
        "lives",
        &[
            (10, &["Put"]),
            (1, &["Commit", "Reopen"]),
            (10, &["Put", "Delete"]),
            (3, &["Commit", "Backup", "Reopen", "Put"]),
            (1, &["Check"]),
        ],
    ),
    (
        "swaps",
        &[
            (20, &["Put", "Insert"]),
            (20, &["Swap", "Insert", "Get"]),
            (1, &["Abort"]),
            (9, &["Swap"]),
            (2, &["Commit", "Checkpoint"]),
        ],
    ),
];

/// An operation of a kind, drawn until it is one.
fn op(kind: &str, random: &mut Random, input: &mut Recorder) {
    loop {
        let mut tried = input.clone();
        let op = Op::choose(&mut |n| tried.choice(n, random.below(n)));
        if op.kind() == kind {
            *input = tried;
            return;
        }
    }
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("say into which folder"))?;
    std::fs::create_dir_all(&folder)?;
    for (number, (name, lines)) in SCENARIOS.iter().enumerate() {
        for place in 0..4 {
            let mut random = Random::new(4 * number as u64 + place);
            let mut input = Recorder::default();
            // In memory or in files, and a short ring or a long one.
            input.choice(4, usize::from(place % 2 == 1));
            input.choice(8, if place < 2 { 0 } else { 7 });
            for &(count, kinds) in *lines {
                for kind in (0..count).flat_map(|_| kinds) {
                    op(kind, &mut random, &mut input);
                }
            }
            std::fs::write(folder.join(format!("{name}-{place}")), input.bytes())?;
        }
    }
    Ok(())
}
