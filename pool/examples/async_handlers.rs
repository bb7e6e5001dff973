//! Handlers on tokio that share a few expensive sessions: bounded, waiting in turn, with
//! a time limit. A handler that is cancelled while it waits gives its place to the next.
//!
//! `cargo run --release -p brickyard-pool --example async_handlers`

use core::time::Duration;
use std::io::{self, Write as _};
use std::sync::Arc;

use brickyard_pool::Pool;

/// Something expensive of which there must not be many.
struct Session {
    requests: u32,
}

impl Session {
    async fn handle(&mut self) {
        self.requests += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let sessions = Arc::new(
        Pool::builder()
            .name("sessions")
            .capacity(4)
            .build(|| Session { requests: 0 }),
    );
    let mut handlers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let sessions = Arc::clone(&sessions);
        handlers.spawn(async move {
            let turn = tokio::time::timeout(Duration::from_millis(25), sessions.get_async());
            match turn.await {
                Ok(Ok(mut session)) => {
                    session.handle().await;
                    true
                }
                Err(_too_late) => false,
            }
        });
    }
    let served = handlers.join_all().await;
    let in_time = served.iter().filter(|&&served| served).count();
    writeln!(io::stdout(), "{in_time} of 200 served in time")?;
    write!(io::stdout(), "{}", sessions.metrics())
}
