//! Messages that a producer fills and a consumer empties, on two threads, without an
//! allocation per message: guards go through the channel.
//!
//! `cargo run --release -p brickyard-pool --example pipeline`

use std::io::{self, Write as _};
use std::sync::mpsc;
use std::thread;

use brickyard_pool::{Cleared, Pool, PooledOwned};

const MESSAGES: u32 = 200_000;
const BYTES: usize = 64;

fn main() -> io::Result<()> {
    // At most 256 messages exist: a producer that runs ahead waits in `get`.
    let Ok(messages) = Pool::builder()
        .name("messages")
        .capacity(256)
        .build_with::<Vec<u8>, _>(Cleared::new().room(BYTES));
    let (send, receive) = mpsc::channel::<PooledOwned<Vec<u8>, Cleared>>();
    let consumer = thread::spawn(move || receive.iter().map(|message| message.len()).sum());
    for number in 0..MESSAGES {
        let Ok(mut message) = messages.get();
        message.extend_from_slice(&number.to_le_bytes());
        message.resize(BYTES, 0);
        if send.send(message.into_owned()).is_err() {
            break;
        }
    }
    drop(send);
    let bytes: usize = consumer.join().unwrap_or(0);
    let metrics = messages.metrics();
    writeln!(
        io::stdout(),
        "{bytes} bytes in {MESSAGES} messages, {} buffers created, {} gets waited",
        metrics.created,
        metrics.waits
    )
}
