//! The figures of a heap as Prometheus reads them.

use core::fmt;

use crate::stats::{ClassStats, Stats};

impl Stats {
    /// Writes the figures in the text format of Prometheus (0.0.4, which `OpenMetrics`
    /// readers take, too). Does not allocate.
    ///
    /// One gauge for each field, `brickyard_arena_purged_bytes_total` as a counter, and for
    /// each size class in use its blocks and spans, with the block size as the label `size`.
    ///
    /// # Errors
    ///
    /// When `out` has one.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut page = String::new();
    /// brickyard_arena::Arena::stats().prometheus(&mut page)?;
    /// assert!(page.contains("\nbrickyard_arena_live_bytes "));
    /// # Ok::<(), core::fmt::Error>(())
    /// ```
    pub fn prometheus(&self, out: &mut impl fmt::Write) -> fmt::Result {
        for (name, kind, help, value) in self.metrics() {
            declare(out, name, kind, help)?;
            writeln!(out, "brickyard_arena_{name} {value}")?;
        }
        let name = "fragmentation_ratio";
        declare(
            out,
            name,
            "gauge",
            "Share of committed memory without a live block.",
        )?;
        writeln!(out, "brickyard_arena_{name} {}", self.fragmentation())?;
        let name = "class_blocks";
        declare(out, name, "gauge", "Blocks of a size class, by state.")?;
        for class in self.used_classes() {
            let states = [
                ("live", class.live_blocks),
                ("cached", class.cached_blocks),
                ("free", class.free_blocks),
            ];
            for (state, blocks) in states {
                let size = class.block_size;
                writeln!(
                    out,
                    "brickyard_arena_{name}{{size=\"{size}\",state=\"{state}\"}} {blocks}"
                )?;
            }
        }
        let name = "class_spans";
        declare(out, name, "gauge", "Spans cut into blocks of a size class.")?;
        for class in self.used_classes() {
            let (size, spans) = (class.block_size, class.spans);
            writeln!(out, "brickyard_arena_{name}{{size=\"{size}\"}} {spans}")?;
        }
        Ok(())
    }

    /// Name, type, help and value of each metric without labels.
    fn metrics(&self) -> [(&'static str, &'static str, &'static str, usize); 8] {
        [
            (
                "requested_bytes",
                "gauge",
                "Asked for by live allocations, estimated.",
                self.requested,
            ),
            (
                "live_bytes",
                "gauge",
                "In blocks that the program holds.",
                self.live,
            ),
            (
                "cached_bytes",
                "gauge",
                "In free blocks in thread caches.",
                self.cached,
            ),
            (
                "cached_large_bytes",
                "gauge",
                "In free blocks above 32 KiB in thread caches.",
                self.cached_large,
            ),
            (
                "committed_bytes",
                "gauge",
                "Held from the operating system, without metadata.",
                self.committed,
            ),
            (
                "metadata_bytes",
                "gauge",
                "Upper bound of the memory for metadata.",
                self.metadata,
            ),
            (
                "large_bytes",
                "gauge",
                "In live blocks above 32 KiB.",
                self.large,
            ),
            (
                "purged_bytes_total",
                "counter",
                "Given back to the operating system.",
                self.purged,
            ),
        ]
    }

    fn used_classes(&self) -> impl Iterator<Item = &ClassStats> {
        self.classes.iter().filter(|class| class.spans > 0)
    }
}

fn declare(out: &mut impl fmt::Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP brickyard_arena_{name} {help}")?;
    writeln!(out, "# TYPE brickyard_arena_{name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut stats = Stats::new();
        stats.live = 4800;
        stats.committed = 9600;
        stats.classes[3].live_blocks = 100;
        stats.classes[3].spans = 1;
        let mut text = String::new();
        stats.prometheus(&mut text).expect("strings take all");
        text
    }

    /// A line that Prometheus cannot read makes the whole page unreadable.
    #[test]
    fn every_line_is_a_declaration_or_a_declared_name_and_a_number() {
        let text = page();
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.split(' ');
                assert!(matches!(words.next(), Some("HELP" | "TYPE")), "{line}");
                declared.push(words.next().expect("a name"));
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().expect("a name");
            assert_eq!(declared.last(), Some(&name), "{line}");
        }
        declared.sort_unstable();
        let all = declared.len();
        declared.dedup();
        assert_eq!(
            declared.len() * 2,
            all,
            "each name has one HELP and one TYPE"
        );
    }

    #[test]
    fn figures_and_classes_in_use_are_in_the_page() {
        let text = page();
        assert!(
            text.contains("\nbrickyard_arena_live_bytes 4800\n"),
            "{text}"
        );
        assert!(
            text.contains("\nbrickyard_arena_fragmentation_ratio 0.5\n"),
            "{text}"
        );
        let size = Stats::new().classes[3].block_size;
        let live = format!("class_blocks{{size=\"{size}\",state=\"live\"}} 100\n");
        assert!(text.contains(&live), "{text}");
        assert_eq!(text.matches("class_spans{").count(), 1, "{text}");
    }
}
