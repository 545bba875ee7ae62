//! Restores the terminal's settings at the program's end, because a line editor in a thread may have changed them.

use std::io::{self, IsTerminal, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Restores the settings of standard input's terminal when it is dropped, and ends a line that a prompt began.
#[derive(Debug)]
#[must_use]
pub struct Restored(Option<Termios>);

impl Restored {
    /// Remembers the present settings, if standard input is a terminal.
    pub fn at_end() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let Some(terminal) = &self.0 else { return };
        // They differ only while a line is being edited. A terminal that is gone needs no restoring.
        let editing = tcgetattr(io::stdin()).is_ok_and(|now| now.local_modes != terminal.local_modes);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, terminal);
        if editing && io::stdout().is_terminal() {
            let _ = writeln!(io::stdout());
        }
    }
}
