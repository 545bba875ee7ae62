//! Reads a file once for its SHA-1 and BLAKE3, each on a thread of its own: SHA-1 is the slower, and alone decides.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use sha1::Digest as _;
use shoal_common::{Blake3, FileDigest, Sha1};

/// Read at once.
const BLOCK: u64 = 1024 * 1024;
/// Blocks that wait for the slower digest.
const AHEAD: usize = 4;

/// The digest of the first `size` bytes. Blocking; `progress` is told the bytes done and says whether to go on.
///
/// # Errors
/// When the file cannot be read, or is shorter, or `progress` says so.
pub(super) fn digest(file: &File, size: u64, progress: impl Fn(u64) -> bool) -> io::Result<FileDigest> {
    std::thread::scope(|scope| {
        let (to_sha1, blocks) = sync_channel::<Arc<Vec<u8>>>(AHEAD);
        let sha1 = scope.spawn(move || {
            let mut hasher = sha1::Sha1::new();
            blocks.iter().for_each(|block| hasher.update(&*block));
            Sha1(hasher.finalize().into())
        });
        let mut blake3 = blake3::Hasher::new();
        let mut done = 0;
        while done < size {
            let length = usize::try_from(BLOCK.min(size - done)).unwrap_or(usize::MAX);
            let mut block = vec![0; length];
            file.read_exact_at(&mut block, done)?;
            let block = Arc::new(block);
            // The receiver lives until this sender is dropped.
            let _ = to_sha1.send(block.clone());
            blake3.update(&block);
            done += length as u64;
            if !progress(done) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        drop(to_sha1);
        let sha1 = sha1.join().map_err(|_| io::Error::other("hashing failed"))?;
        Ok(FileDigest { sha1, blake3: Blake3(*blake3.finalize().as_bytes()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn both_digests_are_those_of_the_bytes() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let digest = digest(&file, bytes.len() as u64, |_| true).unwrap();
        assert_eq!((digest.sha1, digest.blake3), (Sha1::of(&bytes), Blake3::of(&bytes)));
        assert!(super::digest(&file, 3_000_001, |_| true).is_err(), "shorter than it was");
        assert!(super::digest(&file, 3_000_000, |_| false).is_err(), "stopped");
    }
}
