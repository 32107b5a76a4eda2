//! Progress on standard error, for a person who waits; nothing where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::measure::Progress;

/// A bar, or nothing when standard error is not a terminal.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A count of lines that are read, with no known end.
    pub(crate) fn reading(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} reading {msg}: {human_pos} lines"));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Operations to be done.
    pub(crate) fn replaying(operations: u64) -> Self {
        let bar = ProgressBar::new(operations);
        bar.set_style(style("{bar:30} {percent:>3} %  {msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    #[cfg(feature = "peers")]
    pub(crate) fn says(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn doing(&self, backend: &str, what: &str) {
        self.0.set_message(format!("{backend} ({what})"));
    }

    fn done(&self, operations: u64) {
        self.0.inc(operations);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}
