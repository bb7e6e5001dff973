//! Tests that simulate what a machine does to a store: power cuts, failing calls, and
//! bytes that change.

mod crash;
mod damage;
mod forge;
mod loads;
/// The oracle of `fuzz/`: one for every test of the store.
#[expect(
    unreachable_pub,
    reason = "public where it is a module of `brickyard-fuzz`"
)]
#[expect(dead_code, reason = "what is for files only, and for other crates")]
#[path = "../../../fuzz/src/store_oracle/mod.rs"]
mod oracle;
