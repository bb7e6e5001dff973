//! Programs to begin with: what the literature knows to be bad, and a little more.

use crate::op::{CacheSlot, Edge, Size};
use crate::worst_case::program::{Keep, Phase, Scope};

const ALL: u8 = 15;
const VIA: CacheSlot = CacheSlot(0);

/// Allocates up to the budget, then leaves one block in `1 << (6 + window)` bytes; for each size.
fn ladder(sizes: impl Iterator<Item = (Size, u8)>, scope: Scope) -> Vec<Phase> {
    let mut program = Vec::new();
    for (size, window) in sizes {
        program.push(Phase::Alloc {
            size,
            fill: ALL,
            via: VIA,
        });
        program.push(Phase::Free {
            scope,
            keep: Keep::OnePer(window),
            via: VIA,
        });
    }
    program
}

/// The programs.
#[must_use]
pub fn seeds() -> Vec<Vec<Phase>> {
    let class = |n: u8| Size::Class(n, Edge::At);
    let power = |n: u8| Size::PowerOfTwo(n, Edge::At);
    vec![
        // Each class in turn pins all OS pages that it had: what undoes classes that share nothing.
        ladder((0..24).map(|n| (class(n), 6)), Scope::Newest),
        ladder((0..20).map(|n| (class(n), 10)), Scope::Newest),
        // Robson's: of each doubling so much stays that nothing of the next fits between.
        ladder(
            (3..20).map(|n| (power(n), (n + 1).saturating_sub(6))),
            Scope::All,
        ),
        ladder(
            (5..20).map(|n| (power(n), (n + 1).saturating_sub(6))),
            Scope::All,
        ),
        // The same in runs of granules alone.
        ladder(
            (0..5).map(|n| (Size::Medium(1 << (n + 1), Edge::Above), 10 + n)),
            Scope::All,
        ),
        ladder(
            (1..9u8).map(|n| (Size::Medium(28 * u16::from(n), Edge::At), 10)),
            Scope::Newest,
        ),
        // Large classes, whose blocks lie across OS pages.
        ladder((37..57).map(|n| (class(n), 9)), Scope::Newest),
        ladder((21..37).map(|n| (class(n), 6)), Scope::Newest),
    ]
}

/// The worst that searches found, without what did not matter. All are Robson's with steps left out;
/// the first begins anew when everything was freed, among free granules of all lengths, the second ends with
/// runs that are longer than those, and the third, when all is freed, with mappings.
#[must_use]
pub fn worst() -> Vec<Vec<Phase>> {
    let power = |n: u8| Size::PowerOfTwo(n, Edge::At);
    let alloc = |size| Phase::Alloc {
        size,
        fill: ALL,
        via: VIA,
    };
    let free = |keep| Phase::Free {
        scope: Scope::All,
        keep,
        via: VIA,
    };
    let keep = |window| free(Keep::OnePer(window));
    let free_all = free(Keep::Nothing);
    vec![
        vec![
            alloc(power(3)),
            keep(4),
            alloc(power(4)),
            keep(0),
            alloc(power(5)),
            keep(0),
            alloc(power(6)),
            keep(1),
            alloc(power(7)),
            keep(2),
            alloc(power(8)),
            keep(3),
            alloc(power(9)),
            keep(4),
            alloc(power(10)),
            keep(6),
            alloc(Size::Tiny(153)),
            keep(6),
            alloc(power(12)),
            keep(10),
            alloc(power(14)),
            keep(10),
            alloc(power(16)),
            keep(11),
            alloc(Size::Class(54, Edge::Above)),
            keep(12),
            alloc(power(18)),
            keep(13),
            alloc(power(19)),
            free_all,
            keep(0),
            alloc(power(5)),
            keep(0),
            alloc(power(6)),
            keep(1),
            alloc(power(7)),
        ],
        vec![
            alloc(power(3)),
            keep(6),
            alloc(power(4)),
            keep(0),
            alloc(Size::Class(11, Edge::Below)),
            keep(0),
            keep(4),
            alloc(power(5)),
            keep(1),
            alloc(power(7)),
            keep(3),
            alloc(power(7)),
            keep(3),
            alloc(power(9)),
            keep(4),
            alloc(power(10)),
            keep(5),
            keep(3),
            alloc(power(11)),
            keep(6),
            alloc(power(12)),
            keep(7),
            alloc(power(14)),
            keep(11),
            alloc(power(15)),
            keep(12),
            alloc(power(18)),
            keep(13),
            alloc(power(19)),
            keep(14),
            alloc(Size::Medium(854, Edge::Below)),
        ],
        vec![
            alloc(power(3)),
            keep(6),
            alloc(power(4)),
            keep(0),
            Phase::Alloc {
                size: Size::Tiny(65),
                fill: 14,
                via: CacheSlot(1),
            },
            keep(4),
            alloc(power(5)),
            keep(1),
            alloc(power(7)),
            keep(3),
            alloc(power(7)),
            keep(3),
            Phase::Alloc {
                size: Size::Tiny(124),
                fill: 11,
                via: CacheSlot(1),
            },
            Phase::Free {
                scope: Scope::Newest,
                keep: Keep::Every(5),
                via: VIA,
            },
            alloc(power(9)),
            keep(4),
            alloc(power(10)),
            keep(6),
            alloc(power(12)),
            keep(11),
            alloc(power(12)),
            keep(10),
            alloc(power(14)),
            keep(11),
            alloc(Size::Class(54, Edge::Above)),
            keep(12),
            alloc(power(18)),
            keep(13),
            alloc(power(19)),
            free_all,
            keep(1),
            Phase::Alloc {
                size: Size::Big(9, Edge::Below),
                fill: 12,
                via: CacheSlot(1),
            },
        ],
    ]
}
