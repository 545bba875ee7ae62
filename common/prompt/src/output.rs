//! Where lines are shown: on a terminal that may be drawing bars or be in the middle of a line, or down a pipe.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Bars, LinePrinter};

/// The output of a program. Cheap to clone.
#[derive(Clone, Default)]
pub struct Output(Arc<Surface>);

#[derive(Default)]
struct Surface {
    /// Shows lines above the one that is being edited.
    above: Mutex<Option<LinePrinter>>,
    /// Bars that are drawn now; lines go above them.
    bars: Mutex<Option<Bars>>,
}

/// Bars on an output. They are gone when this is dropped.
pub struct ShownBars {
    /// The bars.
    pub bars: Bars,
    output: Output,
}

impl Output {
    /// From now on [`above`](Self::above) shows its lines by `printer`.
    pub fn print_above(&self, printer: LinePrinter) {
        *lock(&self.0.above) = Some(printer);
    }

    /// Draws bars; one set at a time.
    #[must_use]
    pub fn show_bars(&self) -> ShownBars {
        let bars = Bars::default();
        *lock(&self.0.bars) = Some(bars.clone());
        ShownBars { bars, output: self.clone() }
    }

    /// Shows text on stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn out(&self, text: &str) -> io::Result<()> {
        self.beside_bars(|| writeln!(io::stdout().lock(), "{text}"))
    }

    /// Shows text on stderr.
    ///
    /// # Errors
    /// When stderr is closed.
    pub fn err(&self, text: &str) -> io::Result<()> {
        self.beside_bars(|| writeln!(io::stderr().lock(), "{text}"))
    }

    /// Shows text above the line that is being edited; on stdout where none is.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn above(&self, text: &str) -> io::Result<()> {
        if lock(&self.0.bars).is_none()
            && let Some(printer) = lock(&self.0.above).as_mut()
        {
            printer(format!("{text}\n"));
            return Ok(());
        }
        self.out(text)
    }

    fn beside_bars(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let bars = lock(&self.0.bars).clone();
        match bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

impl Drop for ShownBars {
    fn drop(&mut self) {
        *lock(&self.output.0.bars) = None;
        self.bars.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
