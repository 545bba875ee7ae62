//! Questions to a user at a terminal, or to a pipe in its place.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use shoal_common::Password;
use shoal_console::password;

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Local files that are listed at most.
const MAX_LOCAL: usize = 1_000;

/// Whether a user sits at a terminal.
pub(super) fn attended() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks for a line; `None` at the end of input.
pub(super) async fn line(prompt: &'static str) -> io::Result<Option<String>> {
    blocking(move || {
        if attended() {
            let mut editor = DefaultEditor::new().map_err(io::Error::other)?;
            return match editor.readline(prompt) {
                Ok(line) => Ok(Some(line)),
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(None),
                Err(error) => Err(io::Error::other(error)),
            };
        }
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
        Ok((read > 0).then(|| String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned()))
    })
    .await
}

/// Asks for a password without showing it; `None` if it was not given.
pub(super) async fn secret(prompt: &'static str) -> io::Result<Option<Password>> {
    if attended() {
        return blocking(move || password::read(prompt)).await;
    }
    Ok(line("").await?.map(Password::new))
}

/// The files of the current folder, by name.
pub(super) fn local_files() -> Vec<String> {
    let listed = std::fs::read_dir(Path::new(".")).into_iter().flatten().flatten();
    let files = listed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<String> =
        files.filter_map(|entry| entry.file_name().into_string().ok()).take(MAX_LOCAL).collect();
    names.sort();
    names
}

/// Shows a question without ending the line.
pub(super) fn show(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
