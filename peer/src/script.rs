//! Commands from a pipe or a file: read to the end, carried out one after another; a failed one does not stop the rest.

use std::io::{self, BufRead, Read};
use std::thread;

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
        let mut stdin = io::stdin().lock();
        loop {
            let line = read_line(&mut stdin).transpose();
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

/// One line without its end; of one that is too long, just enough to show that.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    let count = input.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && count as u64 == limit {
        skip_line(input)?;
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()))
}

/// Skips the rest of the line.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |at| at + 1);
        input.consume(count);
        if end.is_some() || count == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_are_too_long() {
        let long = "x".repeat(10 * MAX_LINE_BYTES);
        let mut input = io::Cursor::new(format!("one\r\n\n{long}\nlast"));
        let mut next = || read_line(&mut input).unwrap();
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().map(|line| line.len()), Some(MAX_LINE_BYTES + 1));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);
    }
}
