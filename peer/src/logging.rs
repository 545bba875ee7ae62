//! Where log lines go: to stderr, or to a file of bounded size while a prompt owns the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// The log file in the data directory; an older half is kept beside it.
const LOG_FILE: &str = "client.log";
/// A log file that has grown to this size becomes the older half.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// What is logged when RUST_LOG does not say. On stderr only what a script's author must know.
const FILE_FILTER: &str = "info";
const STDERR_FILTER: &str = "error";

/// Starts logging: into a file of `folder` if one is given, else to stderr. A second call changes nothing.
///
/// # Errors
/// When the log file cannot be written.
pub fn start(format: LogFormat, folder: Option<&Path>) -> io::Result<()> {
    let default = if folder.is_some() { FILE_FILTER } else { STDERR_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let started = match (folder, format) {
        (Some(folder), LogFormat::Text) => {
            builder.with_ansi(false).with_writer(Mutex::new(LogFile::open(folder)?)).try_init()
        }
        (Some(folder), LogFormat::Json) => {
            builder.json().with_writer(Mutex::new(LogFile::open(folder)?)).try_init()
        }
        (None, LogFormat::Text) => {
            builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).try_init()
        }
        (None, LogFormat::Json) => builder.json().with_writer(io::stderr).try_init(),
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
    fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(LOG_FILE);
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written })
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
        let mut log = LogFile::open(folder.path()).unwrap();
        log.write_all(b"first\n").unwrap();
        log.written = MAX_LOG_BYTES;
        log.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read(folder.path().join("client.log")).unwrap(), b"second\n");
        assert_eq!(std::fs::read(folder.path().join("client.log.old")).unwrap(), b"first\n");
    }
}
