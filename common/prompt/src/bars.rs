//! Progress bars on a terminal, one below the other. Other lines go above them.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const STYLE: &str = "{prefix} [{bar:30}] {percent:>3}% {msg}";

/// Bars that are drawn now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bars(MultiProgress);

/// One bar. It is gone when it is dropped.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    bars: MultiProgress,
}

impl Bars {
    /// Adds a bar below the others.
    #[must_use]
    pub fn add(&self, prefix: &str) -> Bar {
        let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
        // A bar of length 0 would be drawn as full.
        let bar = self.0.add(ProgressBar::new(1).with_style(style.progress_chars("=> ")));
        bar.set_prefix(prefix.to_owned());
        Bar { bar, bars: self.0.clone() }
    }

    /// Writes lines above the bars.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Clears all bars.
    pub fn clear(&self) {
        // Nothing is left to clear when the terminal is gone.
        let _ = self.0.clear();
    }
}

impl Bar {
    /// Shows how far it is.
    pub fn set(&self, done: u64, total: u64, message: String) {
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Starts the measured rate from the beginning, for another step of the work.
    pub fn restart(&self) {
        self.bar.reset();
    }

    /// The measured rate in bytes per second, and the time that is left at that rate.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and not negative"
    )]
    pub fn pace(&self) -> (u64, Duration) {
        (self.bar.per_sec() as u64, self.bar.eta())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.bars.remove(&self.bar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_of_nothing_is_empty() {
        let bar = Bars::default().add("f");
        let drawn = |bar: &Bar| (bar.bar.position(), bar.bar.length());
        assert_eq!(drawn(&bar), (0, Some(1)));
        bar.set(0, 0, String::new());
        assert_eq!(drawn(&bar), (0, Some(1)));
        bar.set(5, 9, String::new());
        assert_eq!(drawn(&bar), (5, Some(9)));
    }
}
