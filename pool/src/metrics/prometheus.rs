//! Metrics in the Prometheus text exposition format.

use core::fmt::{self, Write as _};
use core::time::Duration;

use super::Metrics;
use crate::recycle::DropReason;

impl fmt::Display for Metrics {
    /// The Prometheus text exposition format, without time stamps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MetricsPage(core::slice::from_ref(self)).fmt(f)
    }
}

/// The metrics of several pools in the Prometheus text exposition format, without time
/// stamps: each metric once, as the format wants it, with one line a pool. Pools are told
/// apart by the label `pool`, size classes of buffers by the label `class` (bytes).
///
/// # Examples
///
/// ```
/// use brickyard_pool::{BufferPool, MetricsPage, Pool};
///
/// let lines = Pool::builder().name("lines").build(String::new);
/// let buffers = BufferPool::new();
/// let mut all = vec![lines.metrics()];
/// all.extend(buffers.metrics().map(|(_, metrics)| metrics));
/// println!("{}", MetricsPage(&all));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MetricsPage<'m>(pub &'m [Metrics]);

/// Name, help, and value of a metric.
type Family = (&'static str, &'static str, fn(&Metrics) -> u64);

const GAUGES: [Family; 4] = [
    ("live", "Objects that exist.", |pool| pool.live as u64),
    ("idle", "Objects that wait in the pool.", |pool| {
        pool.idle as u64
    }),
    ("in_use", "Objects in the hands of users.", |pool| {
        pool.in_use as u64
    }),
    ("slot_bytes", "Bytes held for slots.", |pool| {
        pool.slot_bytes as u64
    }),
];

const COUNTERS: [Family; 5] = [
    (
        "hits_total",
        "Gets that the thread's own cache answered.",
        |pool| pool.hits,
    ),
    ("misses_total", "Gets that had to look further.", |pool| {
        pool.misses
    }),
    ("created_total", "Objects created.", |pool| pool.created),
    (
        "steals_total",
        "Times that all caches were emptied.",
        |pool| pool.steals,
    ),
    ("waits_total", "Gets that waited.", |pool| pool.waits),
];

impl fmt::Display for MetricsPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gauges = GAUGES.iter().map(|family| (family, "gauge"));
        let counters = COUNTERS.iter().map(|family| (family, "counter"));
        for ((metric, help, value), kind) in gauges.chain(counters) {
            head(f, metric, help, kind)?;
            for pool in self.0 {
                let (labels, value) = (Labels(pool), value(pool));
                writeln!(f, "brickyard_pool_{metric}{{{labels}}} {value}")?;
            }
        }
        head(f, "dropped_total", "Objects dropped.", "counter")?;
        for pool in self.0 {
            for reason in DropReason::ALL {
                let (labels, count) = (Labels(pool), pool.dropped.by(reason));
                let reason = reason.name();
                writeln!(
                    f,
                    "brickyard_pool_dropped_total{{{labels},reason=\"{reason}\"}} {count}"
                )?;
            }
        }
        head(f, "wait_seconds", "How long gets waited.", "histogram")?;
        self.0.iter().try_for_each(|pool| pool.write_wait_times(f))
    }
}

fn head(f: &mut fmt::Formatter<'_>, metric: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(f, "# HELP brickyard_pool_{metric} {help}")?;
    writeln!(f, "# TYPE brickyard_pool_{metric} {kind}")
}

/// What tells a pool from others, as labels.
struct Labels<'m>(&'m Metrics);

impl fmt::Display for Labels<'_> {
    /// The format knows three escapes and takes all else as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pool=\"")?;
        for character in self.0.name.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')?;
        match self.0.class {
            Some(bytes) => write!(f, ",class=\"{bytes}\""),
            None => Ok(()),
        }
    }
}

impl Metrics {
    /// The histogram of waiting times, cumulative as Prometheus wants it. Sums of times are
    /// not kept, so it has no `_sum`.
    fn write_wait_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = Labels(self);
        let mut so_far = 0;
        for (limit, count) in self.wait_times.buckets() {
            so_far += count;
            write!(f, "brickyard_pool_wait_seconds_bucket{{{labels},le=\"")?;
            match limit {
                Duration::MAX => f.write_str("+Inf")?,
                limit => write!(f, "{}", limit.as_secs_f64())?,
            }
            writeln!(f, "\"}} {so_far}")?;
        }
        writeln!(f, "brickyard_pool_wait_seconds_count{{{labels}}} {so_far}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::metrics::Counters;
    use alloc::string::ToString as _;
    use alloc::vec::Vec;

    /// A line that Prometheus cannot read makes the whole page unreadable.
    #[test]
    fn every_line_is_a_comment_or_a_name_with_labels_and_a_number() {
        let counters = Counters::new();
        counters.note_wait(Duration::from_micros(3));
        counters.note_wait(Duration::from_secs(5));
        let mut metrics = Metrics {
            name: "a \"quoted\" name",
            ..Metrics::default()
        };
        counters.read(&mut metrics);
        let text = metrics.to_string();
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(
                name.contains("{pool=\"a \\\"quoted\\\" name\"") && name.ends_with('}'),
                "{line}"
            );
        }
        assert!(text.contains("le=\"0.000004\"} 1\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 2\n"), "{text}");
    }

    /// Any other escape is an error to the reader, and each metric may be declared once.
    #[test]
    fn a_page_of_many_pools_declares_a_metric_once_and_escapes_names_as_the_format_says() {
        let pool = |name, class| Metrics {
            name,
            class,
            ..Metrics::default()
        };
        let pools = [
            pool("user's \\ Größe\t\"1\"\n", None),
            pool("b", Some(512)),
            pool("b", Some(1024)),
        ];
        let text = MetricsPage(&pools).to_string();
        assert!(
            text.contains("live{pool=\"user's \\\\ Größe\t\\\"1\\\"\\n\"} 0\n"),
            "{text}"
        );
        let mut lines: Vec<&str> = text.lines().collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "a line twice: {text}");
        assert_eq!(text.matches("# TYPE brickyard_pool_live ").count(), 1);
        assert!(
            text.contains("live{pool=\"b\",class=\"1024\"} 0\n"),
            "{text}"
        );
    }
}
