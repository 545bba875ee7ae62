//! The terminal's settings, as they were when the program began: a line editor in a thread may have changed them when it ends.

use std::io::{self, IsTerminal, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Gives the terminal of standard input its settings back when it is dropped, and ends a line that a prompt began.
#[derive(Debug)]
#[must_use]
pub struct Restored(Option<Termios>);

impl Restored {
    /// Remembers the settings as they are; nothing where standard input is no terminal.
    pub fn at_end() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let Some(terminal) = &self.0 else { return };
        // Only a line that is being edited has them changed. A terminal that is gone needs no mending.
        let editing = tcgetattr(io::stdin()).is_ok_and(|now| now.local_modes != terminal.local_modes);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, terminal);
        if editing && io::stdout().is_terminal() {
            let _ = writeln!(io::stdout());
        }
    }
}
