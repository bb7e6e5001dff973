//! Collapsed stacks: one a line, outermost function first, then bytes. What flame graph
//! programs read.

use std::collections::BTreeMap;

use super::stacks::Stacks;

/// Bytes allocated by each stack, or with `live` those that were live at the end.
pub(crate) fn render(stacks: &Stacks, live: bool) -> String {
    let mut lines: BTreeMap<String, f64> = BTreeMap::new();
    for (stack, figures) in stacks.sorted() {
        let names = stack.iter().rev().map(|&number| {
            // The separator of the format.
            stacks.frames[number].function.replace(';', ":")
        });
        let name = names.collect::<Vec<_>>().join(";");
        let bytes = if live {
            figures.live_bytes
        } else {
            figures.allocated_bytes
        };
        // Stacks that differ in lines only have one name.
        *lines.entry(name).or_default() += bytes;
    }
    let shown = lines.iter().filter(|(_, bytes)| **bytes >= 0.5);
    shown
        .map(|(name, bytes)| format!("{name} {bytes:.0}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_run_from_the_outermost_function_to_bytes() {
        let stacks = super::super::stacks::tests::stacks();
        let text = render(&stacks, true);
        assert_eq!(
            text,
            "such file+0x40f 1582\nsuch file+0x41f;such file+0x40f 1582\n"
        );
        assert!(render(&stacks, false).contains("+0x40f 4746\n"), "{text}");
    }
}
