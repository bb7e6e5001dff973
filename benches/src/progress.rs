//! The progress bar, on standard error and only where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `steps` steps.
pub(crate) fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    // The template is a constant that a test parses.
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar
}

const TEMPLATE: &str = "{elapsed_precise} [{bar:32}] {pos}/{len}, {eta} left  {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
