//! Programs for proptest. Numbers shrink towards plain keys and short values, lists to what
//! is needed.

use brickyard_store::Durability;
use proptest::prelude::*;

use crate::store_ops::Setup;
use crate::store_oracle::args::{Edge, Key, PACKED, PAIRS, Span, Turns, Value, View};
use crate::store_oracle::op::{End, Op};

/// A store and a list of up to `max_steps` operations.
pub fn program(max_steps: usize) -> impl Strategy<Value = (Setup, Vec<Op>)> {
    let setup = (any::<bool>(), 1..8_u8).prop_map(|(is_file, ring_pages)| Setup {
        is_file,
        ring_pages,
    });
    (setup, proptest::collection::vec(op(), 1..=max_steps))
}

fn table() -> impl Strategy<Value = u8> {
    prop_oneof![8 => 0..3_u8, 2 => 3..PACKED, 1 => Just(PACKED)]
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
        12 => change(),
        9 => pairs(),
        2 => prop_oneof![Just(Op::CommitAsync), Just(Op::Await)],
        8 => (table(), key()).prop_map(|(table, key)| Op::Delete { table, key }),
        12 => look(),
        1 => prop_oneof![table(), Just(PAIRS)].prop_map(Op::DropTable),
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
        1 => any::<u8>().prop_map(Op::Compact),
        1 => (any::<bool>(), key(), value())
            .prop_map(|(since, key, value)| Op::Backup { since, key, value }),
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
        2 => (table(), key(), value())
            .prop_map(|(table, key, value)| Op::Reserve { table, key, value }),
        1 => (table(), key(), 0..40_u8, any::<bool>()).prop_map(
            |(table, first, count, sorted)| Op::Load { table, first, count, sorted }
        ),
        3 => (table(), key(), 0..1_u32 << 24, value()).prop_map(
            |(table, key, steps, value)| Op::Walk { table, key, steps, value }
        ),
    ]
}

/// Of few different pairs, so that some are there.
fn pairs() -> impl Strategy<Value = Op> {
    let key = || (0..23_usize).prop_map(|number| Key::choose_few(&mut |_| number));
    let value = || (0..12_usize).prop_map(|number| Value::choose_few(&mut |_| number));
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Op::AddPair { key, value }),
        2 => (key(), value()).prop_map(|(key, value)| Op::RemovePair { key, value }),
        1 => key().prop_map(Op::RemoveKey),
        1 => (view(), span(), turns())
            .prop_map(|(view, span, turns)| Op::Pairs { view, span, turns }),
        1 => (view(), key(), turns())
            .prop_map(|(view, key, turns)| Op::Values { view, key, turns }),
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
