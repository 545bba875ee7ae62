//! Where log lines go: to stderr, or to a file of bounded size while a prompt owns the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What is logged on stderr, beside a program's own output, when RUST_LOG does not say: what a script's author must know.
pub const ERRORS: &str = "error";
/// A log file that has grown to this size becomes the older half, which is kept beside it.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging: into `file` if one is given, else to stderr. RUST_LOG says which lines are written, and `filter` in
/// the same words where it does not. A second call changes nothing.
///
/// # Errors
/// When the log file cannot be written.
pub fn start(format: LogFormat, filter: &str, file: Option<&Path>) -> io::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let (writer, colours) = match file {
        Some(file) => (BoxMakeWriter::new(Mutex::new(LogFile::open(file)?)), false),
        None => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    // Only a second call fails; the first one's choice stands.
    let _ = started;
    Ok(())
}

/// A log file that never grows beyond its bound.
struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written })
    }

    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.old"))?;
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written >= MAX_LOG_BYTES {
            self.turn()?;
        }
        let count = self.file.write(line)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_turned_over_when_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&folder.path().join("client.log")).unwrap();
        log.write_all(b"first\n").unwrap();
        log.written = MAX_LOG_BYTES;
        log.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read(folder.path().join("client.log")).unwrap(), b"second\n");
        assert_eq!(std::fs::read(folder.path().join("client.log.old")).unwrap(), b"first\n");
    }
}
