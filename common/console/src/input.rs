//! Reads small files that a user names, whole: a file, a device, or a pipe that another program writes to, such as a shell's
//! `<(…)`. It does not wait for a pipe without a writer.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// How long to wait for a pipe's writer: the other program may just be starting.
const WRITER_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two looks at a pipe.
const LOOK: Duration = Duration::from_millis(10);

/// Reads a file of at most so many bytes. A device without end is refused after that many.
///
/// # Errors
/// When it cannot be read, is longer, or is a pipe without a writer.
pub fn read_input(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_socket() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a socket and not a file"));
    }
    let mut bytes = Vec::new();
    let most = max_bytes.saturating_add(1);
    if kind.is_fifo() {
        read_pipe(path, most, &mut bytes)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {max_bytes} bytes")));
    }
    Ok(bytes)
}

fn read_pipe(path: &Path, most: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let nonblock = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
    let pipe = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let (opened, mut written) = (Instant::now(), false);
    let mut pipe = pipe.take(most);
    loop {
        // Bytes before an error stay in `bytes`.
        match pipe.read_to_end(bytes) {
            Ok(_) if written || !bytes.is_empty() => return Ok(()),
            Ok(_) if opened.elapsed() >= WRITER_WITHIN => {
                return Err(io::Error::new(ErrorKind::TimedOut, "it is a pipe that nobody writes to"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => written = true,
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pipe(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for_without_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(folder.path());
        let error = read_input(&path, 100).unwrap_err();
        assert!(error.to_string().contains("nobody writes to"), "{error}");
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = File::options().write(true).open(to).unwrap();
            pipe.write_all(b"some ").unwrap();
            // Longer than a look, so that the reader finds nothing in between.
            std::thread::sleep(4 * LOOK);
            pipe.write_all(b"text").unwrap();
        });
        assert_eq!(read_input(&path, 100).unwrap(), b"some text");
        writer.join().unwrap();
    }

    #[test]
    fn sockets_are_named_and_folders_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(read_input(&path, 100).unwrap_err().to_string().contains("a socket"));
        assert!(read_input(folder.path(), 100).is_err());
        assert_eq!(read_input(Path::new("/dev/zero"), 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
