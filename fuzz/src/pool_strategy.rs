//! Programs for proptest: more gets and returns than faults, more returns than forgets.

use proptest::prelude::*;

use crate::op::Pick;
use crate::pool_op::{Bound, CreateFault, How, On, Op, PutFault, Setup};

/// A pool and a list of up to `max_steps` operations.
pub fn program(max_steps: usize) -> impl Strategy<Value = (Setup, Vec<Op>)> {
    (setup(), proptest::collection::vec(op(), 1..=max_steps))
}

fn setup() -> impl Strategy<Value = Setup> {
    let bound = prop_oneof![
        1 => Just(Bound::None),
        4 => any::<u8>().prop_map(Bound::Few),
        2 => any::<u8>().prop_map(Bound::Many),
    ];
    let retain = proptest::option::weighted(0.3, 0..20_u8);
    let flags = (any::<bool>(), proptest::bool::weighted(0.2), any::<bool>());
    (bound, retain, 0..40_u8, flags).prop_map(|(bound, retain, prewarm, flags)| Setup {
        bound,
        retain,
        prewarm,
        decays: flags.0,
        tracks: flags.1,
        panics_at_close: flags.2,
    })
}

fn on() -> impl Strategy<Value = On> {
    any::<u8>().prop_map(On)
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        Just(Pick::Oldest),
        Just(Pick::Newest),
        any::<u16>().prop_map(Pick::Nth),
    ]
}

fn create_fault() -> impl Strategy<Value = CreateFault> {
    prop_oneof![
        6 => Just(CreateFault::None),
        1 => Just(CreateFault::Error),
        1 => Just(CreateFault::Panic),
        1 => Just(CreateFault::PanicAfterwards),
    ]
}

fn put_fault() -> impl Strategy<Value = PutFault> {
    prop_oneof![
        8 => Just(PutFault::None),
        1 => Just(PutFault::ResetPanics),
        1 => Just(PutFault::KeepPanics),
        1 => Just(PutFault::NotKept),
        1 => Just(PutFault::NotKeptAndDropPanics),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![Just(How::Try), Just(How::NoTime), Just(How::Blocking)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (on(), how(), create_fault()).prop_map(|(on, how, fault)| Op::Get { on, how, fault }),
        3 => (on(), any::<u8>(), any::<bool>())
            .prop_map(|(on, count, batch)| Op::GetMany { on, count, batch }),
        10 => (on(), pick(), put_fault()).prop_map(|(on, pick, fault)| Op::Put { on, pick, fault }),
        2 => (on(), any::<u8>(), any::<bool>())
            .prop_map(|(on, count, batch)| Op::PutMany { on, count, batch }),
        2 => (on(), pick(), any::<bool>())
            .prop_map(|(on, pick, panics)| Op::Discard { on, pick, panics }),
        1 => (on(), pick()).prop_map(|(on, pick)| Op::Detach { on, pick }),
        1 => on().prop_map(|on| Op::Attach { on }),
        2 => pick().prop_map(|pick| Op::IntoOwned { pick }),
        1 => pick().prop_map(|pick| Op::Forget { pick }),
        1 => (on(), any::<bool>()).prop_map(|(on, panics)| Op::Trim { on, panics }),
        1 => (on(), any::<u8>(), create_fault())
            .prop_map(|(on, objects, fault)| Op::Prewarm { on, objects, fault }),
        6 => (on(), create_fault()).prop_map(|(on, fault)| Op::StartWait { on, fault }),
        6 => (on(), pick(), create_fault())
            .prop_map(|(on, pick, fault)| Op::PollWait { on, pick, fault }),
        3 => (on(), pick()).prop_map(|(on, pick)| Op::DropWait { on, pick }),
        2 => on().prop_map(|on| Op::Restart { on }),
        10 => key_op(),
    ]
}

fn key_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => on().prop_map(|on| Op::Insert { on }),
        3 => (on(), pick()).prop_map(|(on, pick)| Op::Publish { on, pick }),
        3 => (on(), pick()).prop_map(|(on, pick)| Op::Lookup { on, pick }),
        2 => (on(), pick(), put_fault()).prop_map(|(on, pick, fault)| Op::Leave { on, pick, fault }),
        2 => (on(), pick(), put_fault()).prop_map(|(on, pick, fault)| Op::Remove { on, pick, fault }),
        1 => (on(), pick()).prop_map(|(on, pick)| Op::Stale { on, pick }),
        1 => on().prop_map(|on| Op::ListKeys { on }),
    ]
}
