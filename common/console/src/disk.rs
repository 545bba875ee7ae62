//! What the binaries ask of the disk: room.

use std::path::Path;

/// Bytes that this process may still write where `path` is; `None` if the file system does not say. Blocks on the disk.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    if disk.f_blocks == 0 {
        // File systems in user space may know nothing of their space.
        return None;
    }
    // Others cannot use what is reserved for root.
    let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    Some(blocks.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_says_what_room_it_has() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).is_some_and(|free| free > 0));
    }
}
