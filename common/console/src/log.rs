//! Logging: to stderr, or to a file of bounded size while a prompt owns the terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::secrets::private_file;

/// What is logged on stderr beside a program's own output by default: what the author of a script must know.
pub const ERRORS: &str = "error";
/// A log file of this size becomes the older half, which is kept beside it.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging: into `file` if one is given, else to stderr. RUST_LOG selects the lines, or `filter`, in the same syntax, by
/// default. Directives of RUST_LOG that cannot be read are named on stderr. A second call changes nothing.
///
/// # Errors
/// When the log file cannot be written.
pub fn start(format: LogFormat, filter: &str, file: Option<&Path>) -> io::Result<()> {
    let filter = choose_filter(std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref(), filter);
    let (writer, colours) = match file {
        Some(file) => (BoxMakeWriter::new(Mutex::new(LogFile::open(file)?)), false),
        None => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    // Only a second call fails; the first one stays.
    let _ = started;
    Ok(())
}

fn choose_filter(said: Option<&str>, default: &str) -> EnvFilter {
    let Some(said) = said else { return EnvFilter::new(default) };
    if let Ok(filter) = EnvFilter::try_new(said) {
        return filter;
    }
    let (sound, wrong) = sort_directives(said);
    // Not as a log line, which a filter might drop.
    eprintln!(
        "warning: RUST_LOG: {wrong:?} makes no sense and is left out; write for example: {default},shoal_net=debug"
    );
    EnvFilter::new(if sound.is_empty() { default } else { &sound })
}

/// The directives of a filter that can be read, and those that cannot.
fn sort_directives(said: &str) -> (String, String) {
    let (sound, wrong): (Vec<&str>, Vec<&str>) =
        said.split(',').partition(|directive| directive.parse::<Directive>().is_ok());
    (sound.join(","), wrong.join(","))
}

/// A log file of bounded size.
struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = private_file(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written })
    }

    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.old"))?;
        self.file = private_file(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written >= MAX_LOG_BYTES {
            // Without room or a descriptor for another one it goes on growing.
            let _ = self.turn();
        }
        // A line that cannot be written is lost. An error would appear at the user's prompt for each line while the disk is full.
        let count = self.file.write(line).unwrap_or(line.len());
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
    fn a_directive_that_makes_no_sense_is_told_from_those_that_do() {
        let sorted = sort_directives("info,libp2p=loud,shoal_net=debug,x=loud");
        assert_eq!(sorted, ("info,shoal_net=debug".into(), "libp2p=loud,x=loud".into()));
        assert_eq!(choose_filter(Some("libp2p=loud"), "warn").to_string(), "warn");
        assert_eq!(choose_filter(Some("info,x=loud"), "warn").to_string(), "info");
    }

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

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let file = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut log = LogFile { path: "/dev/full".into(), file, written: 0 };
        log.write_all(b"lost\n").unwrap();
    }
}
