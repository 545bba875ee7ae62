//! Files that hold a secret: of bounded length, and readable by their owner only.

use std::path::Path;

use anyhow::{Context, Result, bail};
use shoal_wipe::without_traces;
use zeroize::Zeroizing;

use crate::input::read_input;

/// Longest such file, in bytes.
const MAX_BYTES: u64 = 4_096;

/// Reads the file; `what` is its name in messages, such as "the join secret".
///
/// # Errors
/// In words: it cannot be read, others may read it, or it is too long.
pub fn read_key(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let file = std::fs::metadata(path).with_context(|| format!("cannot read {what} {shown}"))?;
    if file.is_dir() {
        bail!("{what} {shown} is a folder; name the file in it");
    }
    if shoal_disk::is_exposed(path, &file) {
        bail!("{what} {shown} can be read by others; run: chmod 600 {shown}");
    }
    if file.len() > MAX_BYTES {
        bail!("{what} {shown} is longer than {MAX_BYTES} bytes; make one with: openssl rand -hex 32");
    }
    let bytes = without_traces(|| read_input(path, MAX_BYTES))
        .with_context(|| format!("cannot read {what} {shown}"))?;
    Ok(Zeroizing::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef").unwrap();
        let read = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_key(&path, "the join secret")
        };
        assert_eq!(&**read(0o600).unwrap(), b"0123456789abcdef");
        assert!(read(0o644).unwrap_err().to_string().contains("chmod 600"));
        assert!(read_key(dir.path(), "the join secret").unwrap_err().to_string().contains("is a folder"));
        assert!(read_key(Path::new("/nowhere"), "the join secret").is_err());
    }
}
