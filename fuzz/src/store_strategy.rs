//! Programs for proptest. Numbers shrink towards plain keys and short values, lists to what
//! is needed.

use brickyard_store::Durability;
use proptest::prelude::*;

use crate::store_ops::Setup;
use crate::store_oracle::op::{Edge, End, Key, Op, Span, TABLES, Turns, Value, View};

/// A store and a list of up to `max_steps` operations.
pub fn program(max_steps: usize) -> impl Strategy<Value = (Setup, Vec<Op>)> {
    let setup = (any::<bool>(), 1..8_u8).prop_map(|(is_file, ring_pages)| Setup {
        is_file,
        ring_pages,
    });
    (setup, proptest::collection::vec(op(), 1..=max_steps))
}

fn table() -> impl Strategy<Value = u8> {
    0..TABLES
}

fn key() -> impl Strategy<Value = Key> {
    (0..480_u16).prop_map(Key)
}

fn value() -> impl Strategy<Value = Value> {
    any::<u16>().prop_map(Value)
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![
        1 => Just(Edge::Open),
        2 => key().prop_map(Edge::At),
        1 => key().prop_map(Edge::Past),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    (edge(), edge()).prop_map(|(from, to)| Span { from, to })
}

fn view() -> impl Strategy<Value = View> {
    prop_oneof![
        Just(View::Fresh),
        Just(View::Txn),
        (0..8_u8).prop_map(View::Kept)
    ]
}

fn turns() -> impl Strategy<Value = Turns> {
    prop_oneof![Just(0), Just(255), any::<u8>()].prop_map(Turns)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => (table(), key(), value())
            .prop_map(|(table, key, value)| Op::Put { table, key, value }),
        7 => change(),
        8 => (table(), key()).prop_map(|(table, key)| Op::Delete { table, key }),
        12 => look(),
        1 => table().prop_map(Op::DropTable),
        3 => Just(Op::Savepoint),
        2 => (0..8_u8).prop_map(Op::RollBack),
        1 => (0..8_u8).prop_map(Op::Release),
        2 => Just(Op::Keep),
        1 => (0..8_u8).prop_map(Op::Forget),
        8 => Just(Op::Commit(Durability::Durable)),
        4 => Just(Op::Commit(Durability::Visible)),
        2 => Just(Op::Abort),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Check),
        1 => prop_oneof![Just(End::Close), Just(End::Drop), Just(End::Die)].prop_map(Op::Reopen),
    ]
}

fn change() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (table(), key(), value())
            .prop_map(|(table, key, value)| Op::Insert { table, key, value }),
        3 => (table(), key(), any::<bool>(), proptest::option::of(value())).prop_map(
            |(table, key, right, new)| Op::Swap { table, key, right, new }
        ),
        2 => (table(), span()).prop_map(|(table, span)| Op::DeleteRange { table, span }),
    ]
}

fn look() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (view(), table(), key()).prop_map(|(view, table, key)| Op::Get { view, table, key }),
        2 => (view(), table(), key(), 0..40_u8).prop_map(
            |(view, table, first, count)| Op::GetMany { view, table, first, count }
        ),
        3 => (view(), table(), span(), turns()).prop_map(
            |(view, table, span, turns)| Op::Range { view, table, span, turns }
        ),
        2 => (view(), table(), key(), 0..26_u8, turns()).prop_map(
            |(view, table, key, keep, turns)| Op::Prefix { view, table, key, keep, turns }
        ),
        1 => (view(), table()).prop_map(|(view, table)| Op::Ends { view, table }),
        1 => view().prop_map(Op::Tables),
    ]
}
