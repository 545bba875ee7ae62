//! The memory of all piece buffers of a process: blocks that are taken as bytes arrive, with one bound for all files and
//! sources.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_common::limits::MIN_PIECE_LENGTH;
use shoal_engine_core::POOL_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Size of a block: the smallest piece, so that no piece wastes memory but the last of a file.
pub(crate) const BLOCK_BYTES: usize = MIN_PIECE_LENGTH as usize;
/// Blocks of the pool.
pub(crate) const POOL_BLOCKS: usize = POOL_BYTES / BLOCK_BYTES;
/// How long a request waits for a block before downloads are asked to spill. At the full rate the whole pool is reused within
/// 50 ms, so a longer wait means that slow pieces hold it.
const PRESSURE_AFTER: Duration = Duration::from_millis(50);

/// The pool of blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
struct PoolShared {
    blocks: usize,
    permits: Arc<Semaphore>,
    /// Blocks that were used before; the one used last comes first, its memory is warm.
    free: Mutex<Vec<Box<[u8]>>>,
    pressure: watch::Sender<u64>,
}

impl Pool {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            shared: Arc::new(PoolShared {
                blocks,
                permits: Arc::new(Semaphore::new(blocks)),
                free: Mutex::default(),
                pressure: watch::Sender::new(0),
            }),
        }
    }

    /// Changes whenever a request waited too long for a block.
    pub(crate) fn pressure(&self) -> watch::Receiver<u64> {
        self.shared.pressure.subscribe()
    }

    /// All of its memory, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.shared.blocks * BLOCK_BYTES) as u64
    }

    /// Free blocks.
    pub(crate) fn available(&self) -> usize {
        self.shared.permits.available_permits()
    }

    /// Frees unused memory, for when nothing is downloaded.
    pub(crate) fn shrink(&self) {
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Blocks that are kept for later.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes a block, waiting for one if need be. Dropping the future takes nothing.
    pub(crate) async fn block(&self) -> Block {
        let mut acquire = std::pin::pin!(self.shared.permits.clone().acquire_owned());
        let permit = loop {
            match tokio::time::timeout(PRESSURE_AFTER, &mut acquire).await {
                Ok(permit) => break permit.ok(),
                Err(_) => self.shared.pressure.send_modify(|count| *count += 1),
            }
        };
        let reused = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = reused.unwrap_or_else(|| vec![0; BLOCK_BYTES].into());
        Block { bytes, filled: 0, pool: self.shared.clone(), _permit: permit }
    }
}

/// A block of the pool; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Box<[u8]>,
    filled: usize,
    pool: Arc<PoolShared>,
    /// Always there: the semaphore is never closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Block {
    /// What was put into it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Whether anything can still be put into it.
    pub(crate) fn has_room(&self) -> bool {
        self.filled < self.bytes.len()
    }

    /// Lets `write` put at most `most` bytes behind those that are there; it says how many it put.
    pub(crate) fn put<T>(&mut self, most: usize, write: impl FnOnce(&mut [u8]) -> (usize, T)) -> (usize, T) {
        let end = self.bytes.len().min(self.filled.saturating_add(most));
        let (count, result) = write(&mut self.bytes[self.filled..end]);
        self.filled += count;
        (count, result)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
