//! Programs for proptest.
//!
//! The weights make programs that grow a heap and then work in it: allocations
//! outweigh frees, and what checks is rarer than what it checks.

use proptest::prelude::*;

use crate::op::{Align, CacheSlot, Count, Edge, Op, Pick, Resize, Shape, Size, Via};

/// Lists of up to `max_steps` operations.
pub fn ops(max_steps: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..=max_steps)
}

fn op() -> impl Strategy<Value = Op> {
    let cache = || any::<u8>().prop_map(CacheSlot);
    prop_oneof![
        12 => (via(), shape(), count())
            .prop_map(|(via, shape, count)| Op::Alloc { via, shape, count }),
        4 => (via(), shape(), count())
            .prop_map(|(via, shape, count)| Op::AllocZeroed { via, shape, count }),
        6 => (via(), pick(), resize())
            .prop_map(|(via, pick, resize)| Op::Realloc { via, pick, resize }),
        12 => (via(), pick(), count())
            .prop_map(|(via, pick, count)| Op::Free { via, pick, count }),
        2 => pick().prop_map(|pick| Op::Inspect { pick }),
        2 => cache().prop_map(|cache| Op::Flush { cache }),
        1 => cache().prop_map(|cache| Op::Reopen { cache }),
        1 => Just(Op::Trim),
        1 => Just(Op::CheckStats),
        1 => Just(Op::Validate),
    ]
}

fn via() -> impl Strategy<Value = Via> {
    prop_oneof![
        1 => Just(Via::Heap),
        4 => any::<u8>().prop_map(|slot| Via::Cache(CacheSlot(slot))),
    ]
}

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        6 => Just(Count::One),
        3 => any::<u8>().prop_map(Count::Few),
        1 => any::<u16>().prop_map(Count::Many),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        Just(Pick::Oldest),
        Just(Pick::Newest),
        any::<u16>().prop_map(Pick::Nth),
    ]
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![Just(Edge::At), Just(Edge::Below), Just(Edge::Above)]
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        6 => any::<u8>().prop_map(Size::Tiny),
        6 => (any::<u8>(), edge()).prop_map(|(class, edge)| Size::Class(class, edge)),
        4 => (any::<u8>(), edge()).prop_map(|(power, edge)| Size::PowerOfTwo(power, edge)),
        2 => (any::<u16>(), edge()).prop_map(|(kib, edge)| Size::Medium(kib, edge)),
        1 => (any::<u8>(), edge()).prop_map(|(steps, edge)| Size::Big(steps, edge)),
        1 => any::<u8>().prop_map(Size::Huge),
    ]
}

fn align() -> impl Strategy<Value = Align> {
    prop_oneof![
        4 => Just(Align::Byte),
        4 => Just(Align::Word),
        3 => Just(Align::Sixteen),
        2 => any::<u8>().prop_map(Align::UpToOsPage),
        1 => any::<u8>().prop_map(Align::Wide),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    (size(), align()).prop_map(|(size, align)| Shape { size, align })
}

fn resize() -> impl Strategy<Value = Resize> {
    prop_oneof![
        3 => size().prop_map(Resize::To),
        2 => any::<u8>().prop_map(Resize::Grow),
        2 => any::<u8>().prop_map(Resize::Shrink),
        2 => Just(Resize::Double),
        1 => Just(Resize::Halve),
    ]
}
