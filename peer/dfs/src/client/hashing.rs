//! Reads a file once for its SHA-1 and BLAKE3, and for BLAKE3 of each of its pieces, each on a thread of its own: SHA-1 is the
//! slowest, and alone decides.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use sha1::Digest as _;
use shoal_common::{Blake3, FileDigest, Layout, Sha1};

/// Read at once.
const BLOCK: u64 = 1024 * 1024;
/// Blocks that wait for the slower digest.
const AHEAD: usize = 4;

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) digest: FileDigest,
    /// BLAKE3 of each piece, in order.
    pub(super) pieces: Vec<Blake3>,
}

/// The digest of the first `size` bytes. Blocking; `progress` is told the bytes done and says whether to go on.
///
/// # Errors
/// When the file cannot be read, or is shorter, or `progress` says so.
pub(super) fn digest(file: &File, size: u64, progress: impl Fn(u64) -> bool) -> io::Result<FileDigest> {
    read(file, size, None, progress).map(|hashed| hashed.digest)
}

/// As [`digest`], of a file cut in that way, with the digests of its pieces.
///
/// # Errors
/// As [`digest`].
pub(super) fn pieces(file: &File, layout: &Layout, progress: impl Fn(u64) -> bool) -> io::Result<Hashed> {
    read(file, layout.size(), Some(layout), progress)
}

fn read(
    file: &File,
    size: u64,
    layout: Option<&Layout>,
    progress: impl Fn(u64) -> bool,
) -> io::Result<Hashed> {
    std::thread::scope(|scope| {
        let (to_pieces, blocks) = sync_channel::<Arc<Vec<u8>>>(AHEAD);
        let pieces = scope.spawn(move || layout.map_or_else(Vec::new, |layout| of_pieces(layout, &blocks)));
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
            if layout.is_some() {
                let _ = to_pieces.send(block.clone());
            }
            blake3.update(&block);
            done += length as u64;
            if !progress(done) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        drop((to_sha1, to_pieces));
        let sha1 = sha1.join().map_err(|_| io::Error::other("hashing failed"))?;
        let pieces = pieces.join().map_err(|_| io::Error::other("hashing failed"))?;
        let digest = FileDigest { sha1, blake3: Blake3(*blake3.finalize().as_bytes()) };
        Ok(Hashed { digest, pieces })
    })
}

/// BLAKE3 of each piece of what comes in blocks.
fn of_pieces(layout: &Layout, blocks: &Receiver<Arc<Vec<u8>>>) -> Vec<Blake3> {
    let mut lengths = layout.iter().map(|piece| layout.length(piece) as usize);
    let mut left = lengths.next().unwrap_or(0);
    let (mut hasher, mut done) = (blake3::Hasher::new(), Vec::new());
    for block in blocks {
        let mut rest = &block[..];
        while !rest.is_empty() && left > 0 {
            let (now, later) = rest.split_at(left.min(rest.len()));
            hasher.update(now);
            (rest, left) = (later, left - now.len());
            if left == 0 {
                done.push(Blake3(*hasher.finalize().as_bytes()));
                hasher.reset();
                left = lengths.next().unwrap_or(0);
            }
        }
    }
    done
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
        let layout = Layout::stored(bytes.len() as u64).unwrap();
        let hashed = super::pieces(&file, &layout, |_| true).unwrap();
        assert_eq!(hashed.digest, digest);
        let each: Vec<Blake3> = bytes.chunks(layout.piece_length() as usize).map(Blake3::of).collect();
        assert_eq!(hashed.pieces, each);
        let none = super::pieces(&file, &Layout::stored(0).unwrap(), |_| true).unwrap();
        assert_eq!(none.pieces, []);
        assert!(super::digest(&file, 3_000_001, |_| true).is_err(), "shorter than it was");
        assert!(super::digest(&file, 3_000_000, |_| false).is_err(), "stopped");
    }
}
