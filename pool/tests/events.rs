//! Events for `tracing`.
//!
//! What could go wrong: the leak report at a pool's drop is missing, names the wrong place,
//! or accuses who has returned its object.

#![cfg(all(not(loom), feature = "tracing"))]

use std::sync::{Arc, Mutex};

use brickyard_pool::Pool;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps events as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn core::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn who_still_holds_an_object_as_its_pool_is_dropped_is_reported() {
    let lines = Lines::default();
    let kept = tracing::subscriber::with_default(lines.clone(), || {
        let pool = Pool::builder()
            .name("bricks")
            .track_holders(true)
            .build(|| 0_u8);
        let Ok(kept) = pool.get();
        drop(pool.get());
        kept.into_owned()
    });
    drop(kept);
    let lines = lines.0.lock().expect("no panic");
    let reported: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("WARN"))
        .collect();
    let [report] = reported.as_slice() else {
        panic!("{lines:?}");
    };
    assert!(report.contains("pool=\"bricks\""), "{report}");
    assert!(report.contains(file!()), "{report}");
    assert!(
        lines.iter().any(|line| line.contains("object created")),
        "{lines:?}"
    );
}
