//! tmp
use brickyard_pool::Pool;
use std::hint::black_box;
fn main() {
    let n: u64 = std::env::args().nth(1).map_or(1000, |s| s.parse().unwrap());
    let owned = std::env::args().nth(2).is_some();
    let pool = Pool::new(|| Box::new([0u8; 64]));
    let t = std::time::Instant::now();
    if owned {
        for i in 0..n {
            let Ok(g) = pool.get();
            let mut g = g.into_owned();
            g[0] = i as u8;
            black_box(&mut *g);
        }
    } else {
        for i in 0..n {
            let Ok(mut g) = pool.get();
            g[0] = i as u8;
            black_box(&mut *g);
        }
    }
    eprintln!("{:.2} ns", t.elapsed().as_nanos() as f64 / n as f64);
}
