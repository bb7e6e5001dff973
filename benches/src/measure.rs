//! What one process can say about itself: time, CPU time, resident memory.

use core::time::Duration;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Sums the time of the sections a workload wants measured; what it prepares
/// outside of them, and its idling, does not count.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    wall: Duration,
    cpu_us: i64,
}

impl Stopwatch {
    /// Runs `section` and adds its wall time and the CPU time of all threads.
    pub(crate) fn measure<R>(&mut self, section: impl FnOnce() -> R) -> R {
        let cpu_before_us = cpu_us(UsageWho::RUSAGE_SELF);
        let start = Instant::now();
        let result = section();
        self.wall += start.elapsed();
        self.cpu_us += cpu_us(UsageWho::RUSAGE_SELF) - cpu_before_us;
        result
    }

    /// Seconds of wall time so far.
    pub(crate) fn wall_s(&self) -> f64 {
        self.wall.as_secs_f64()
    }

    /// Seconds of CPU time so far, user and system, all threads.
    pub(crate) fn cpu_s(&self) -> f64 {
        seconds(self.cpu_us)
    }
}

/// Microseconds of CPU time, user and system; zero should the call fail, which
/// it cannot for these arguments.
pub(crate) fn cpu_us(who: UsageWho) -> i64 {
    let microseconds = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    getrusage(who).map_or(0, |usage| {
        microseconds(usage.user_time()) + microseconds(usage.system_time())
    })
}

/// Microseconds as seconds.
pub(crate) fn seconds(microseconds: i64) -> f64 {
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)).as_secs_f64()
}

/// The largest resident memory this process has had since its exec.
///
/// # Errors
///
/// When `/proc` is not there.
pub(crate) fn peak_rss_kib() -> Result<u64> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    field_kib(&status, "VmHWM:").context("no VmHWM in /proc/self/status")
}

/// The memory this process has resident now. From `smaps_rollup`, which walks
/// the page tables; the counter behind `statm` may lag by some pages a core.
///
/// # Errors
///
/// When `/proc` is not there.
pub(crate) fn rss_kib() -> Result<u64> {
    if let Ok(rollup) = fs::read_to_string("/proc/self/smaps_rollup")
        && let Some(kib) = field_kib(&rollup, "Rss:")
    {
        return Ok(kib);
    }
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    field_kib(&status, "VmRSS:").context("no VmRSS in /proc/self/status")
}

/// The memory that a new process could have now, as far as the system tells.
pub(crate) fn available_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    field_kib(&text, "MemAvailable:")
}

/// The number of KiB in the line that starts with `name`.
pub(crate) fn field_kib(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_the_start_of_its_line() {
        let text = "Name:\tx\nVmPeak:\t  200 kB\nVmHWM:\t    4321 kB\n";
        assert_eq!(field_kib(text, "VmHWM:"), Some(4321));
        assert_eq!(field_kib(text, "HWM:"), None);
    }

    #[test]
    fn resident_memory_is_seen_and_never_above_its_peak() {
        let block = vec![1_u8; 8 << 20];
        let now = rss_kib().expect("/proc is there");
        assert!(now >= 8 << 10, "{now} KiB resident with 8 MiB written");
        drop(block);
        // The two counters may differ by some pages a core.
        assert!(peak_rss_kib().expect("/proc is there") + 1024 >= now);
    }

    #[test]
    fn stopwatch_counts_only_its_sections() {
        let mut watch = Stopwatch::default();
        watch.measure(|| std::thread::sleep(Duration::from_millis(20)));
        std::thread::sleep(Duration::from_millis(30));
        assert!(watch.wall_s() >= 0.020);
        let counted = watch.wall_s();
        assert!((watch.wall_s() - counted).abs() < f64::EPSILON);
        assert!(
            watch.cpu_s() <= watch.wall_s(),
            "sleeping used {} s of CPU",
            watch.cpu_s()
        );
    }
}
