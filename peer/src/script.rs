//! Commands from a pipe or a file: read to the end, carried out one after another; a failed one does not stop the rest.

use std::io;
use std::thread;

use shoal_console::lines::read_line;
use tokio::sync::mpsc;

use crate::command::Context;
use crate::command::MAX_LINE_BYTES;
use crate::runner::{self, Next};

/// Lines that are read ahead.
const READ_AHEAD: usize = 4;

/// Runs the lines of stdin until `quit` or their end; true if all of them succeeded. Safe to drop.
///
/// # Errors
/// When stdin cannot be read or the output is closed.
pub(crate) async fn run(context: &Context) -> io::Result<bool> {
    let (sender, mut lines) = mpsc::channel(READ_AHEAD);
    // A thread of its own: a read from a pipe cannot be cancelled, and must not keep the program from leaving.
    thread::Builder::new().name("script".to_owned()).spawn(move || {
        loop {
            let line = read_line(MAX_LINE_BYTES).transpose();
            let Some(line) = line else { return };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    })?;
    let mut succeeded = true;
    while let Some(line) = lines.recv().await {
        match runner::run(context, &line?).await? {
            Next::Continue => {}
            Next::Failed => succeeded = false,
            Next::Quit => break,
        }
    }
    Ok(succeeded)
}
