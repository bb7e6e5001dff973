//! Tests that simulate what a machine does to a store: power cuts, failing calls, and
//! bytes that change.

mod crash;
mod damage;
mod forge;
mod oracle;
