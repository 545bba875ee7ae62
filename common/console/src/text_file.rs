//! Reads small text files that a user names.

use std::io;
use std::path::Path;

use crate::input::read_input;

/// Reads a text file of at most so many bytes. A device without end is refused after that many.
///
/// # Errors
/// When it cannot be read, is longer, or is no text in UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let bytes = read_input(path, max_bytes)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_text(&path, 4)
        };
        assert_eq!(read(b"four").unwrap(), "four");
        assert_eq!(read(b"fiver").unwrap_err().to_string(), "it is longer than 4 bytes");
        assert_eq!(read(b"\xff").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_text(Path::new("/dev/zero"), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read_text(folder.path(), 4).is_err());
    }
}
