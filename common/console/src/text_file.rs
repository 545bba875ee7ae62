//! Small text files that a person names: read whole, whatever the name leads to.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a text file of at most so many bytes; a device that never ends is refused as soon as it gave more.
///
/// # Errors
/// When it cannot be read, is longer, or is no text in UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(max_bytes.saturating_add(1)).read_to_string(&mut text)?;
    if read as u64 > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {max_bytes} bytes"),
        ));
    }
    Ok(text)
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
