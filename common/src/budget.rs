//! Shares out the files and sockets that this process may have open at once. Pure.
//!
//! It matters only where the system allows few. There downloads take turns and further connections are neither made nor
//! accepted, so that the store, the trackers and commands always find what they need.

/// Never shared out: standard streams, the runtime, the log, the store, the listener, the connections to trackers
/// with their successors, and one file or folder that a command or a checkpoint opens. An idle client has about twenty.
const RESERVE: u64 = 32;
/// Shared out at least, even if there is less: it is better to meet the limit at times than to do nothing.
const LEAST: u64 = 16;
/// The files of a download: the partial file, its state, and the next state while it is being written.
const FILES_OF_A_DOWNLOAD: usize = 3;

/// How many of each may be open. Each is 1 at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Downloads that work at the same time.
    pub downloads: usize,
    /// Connections to other peers.
    pub outbound: usize,
    /// Connections from other peers.
    pub inbound: usize,
    /// Connections from others that have not proven their key.
    pub pending: usize,
    /// Shared files that are kept open.
    pub shared_files: usize,
}

impl Budget {
    /// The budget of a process that may have so many files open.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let rest = limit.saturating_sub(RESERVE).max(LEAST);
        let part = |eighths: u64| usize::try_from(rest * eighths / 8).unwrap_or(usize::MAX).max(1);
        Self {
            downloads: part(2).div_euclid(FILES_OF_A_DOWNLOAD).max(1),
            outbound: part(2),
            inbound: part(2),
            pending: part(1),
            shared_files: part(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_something_and_all_together_no_more_than_there_is() {
        for limit in [48, 64, 100, 256, 1_024, 4_096, 65_536, 1 << 30] {
            let Budget { downloads, outbound, inbound, pending, shared_files } = Budget::of(limit);
            let least = [downloads, outbound, inbound, pending, shared_files].into_iter().min();
            assert!(least >= Some(1), "{limit}");
            let all = 3 * downloads + outbound + inbound + pending + shared_files;
            assert!(all as u64 + RESERVE <= limit, "{limit}: {all}");
        }
        assert!(Budget::of(0).downloads >= 1, "little is better than nothing");
        let usual = Budget::of(65_536);
        assert!(usual.downloads > 4_000 && usual.outbound > 4_000 && usual.inbound > 4_000);
    }
}
