//! loom model of the table that a signal handler reads.
//!
//! One thread closes a store and opens another, whose mapping takes the same place of the
//! table; on another thread a fault comes, in a mapping of its own or in none. The two
//! ranges are such that the start of one and the end of the other make one that covers
//! what neither does.

use loom::sync::Arc;
use loom::thread;

use crate::guarded::{Guarded, Mapping};
use crate::sync::{Step, without};

/// A mapping of the file of this number.
fn mapping(file: u32, start: u64, end: u64) -> Mapping {
    Mapping { start, end, file }
}

fn closing_and_opening_beside_a_fault() {
    loom::model(|| {
        let table = Arc::new(Guarded::new());
        let closed = table.add(mapping(1, 50, 60)).expect("there is room");
        let own = table.add(mapping(2, 100, 110)).expect("there is room");
        let opener = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                table.remove(closed);
                table.add(mapping(3, 10, 20)).expect("there is room");
            })
        };
        assert_eq!(table.find(30), None, "nobody's address is mended");
        let found = Some((own, mapping(2, 100, 110)));
        assert_eq!(table.find(105), found, "one's own address is found");
        opener.join().expect("it does not panic");
        assert!(table.find(55).is_none() && table.find(15).is_some());
    });
}

#[test]
fn loom_a_fault_is_mended_in_its_own_mapping_only() {
    closing_and_opening_beside_a_fault();
}

#[test]
#[should_panic(expected = "nobody's address is mended")]
fn loom_not_looking_at_the_turn_again_is_caught() {
    without(Step::LookAtTurnAgain, closing_and_opening_beside_a_fault);
}
