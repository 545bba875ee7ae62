//! A node's chunks: what is held, how much room there is, and the backend that keeps the bytes.
//!
//! Whatever is listed as held was checked against its id and made durable first. Capacity is reserved before bytes are
//! written, so that it holds to the byte however many come at once. Every change is numbered, so that each is
//! reported to each tracker once.

mod bin;
mod folder;
mod index;
mod journal;
mod object;
mod scrub;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use shoal_common::Uid;
use shoal_common::storage::{ChunkId, MAX_SEALED_CHUNK};
use shoal_common::tracker_api::storage::OwnedChunk;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use bin::{BinRules, OpenError};
pub use folder::Folder;
pub use index::{Change, Changes, Discarded, Room};
pub use object::ObjectBackend;
pub use scrub::{Scrub, Scrubbed, scrub};

use crate::wire::Failure;
use index::ChunkIndex;
use journal::Journal;

/// Chunks are written and removed one at a time in each of so many parts, told by their id: what writes one never meets
/// what removes it, and few wait for others.
const PARTS: usize = 256;

/// How often it is measured what the disk has left.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Why the backend could not do something.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It has no such chunk.
    #[error("there is no such chunk")]
    NotFound,
    /// It has no room, whatever the capacity says.
    #[error("no space is left")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A chunk that a backend found when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub chunk: OwnedChunk,
    /// Its length in bytes.
    pub length: u32,
    /// When it was stored.
    pub stored: SystemTime,
}

/// What keeps the bytes. Dropping a future may leave its work to go on, and never half a chunk under its name.
pub trait Backend: Send + Sync + 'static {
    /// Everything that is there; remains of what was interrupted are removed.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, BackendError>>;
    /// Keeps a chunk; done when it is durable.
    fn put(&self, chunk: OwnedChunk, bytes: Bytes) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Reads a range of a chunk, whole: fewer bytes are an error.
    fn read(&self, chunk: OwnedChunk, offset: u32, length: u32)
    -> BoxFuture<'_, Result<Bytes, BackendError>>;
    /// Removes a chunk; one that is not there is removed.
    fn delete(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Notes durably that these chunks count as stored at that time; false where a backend has no place for it. One that is
    /// not there is passed over.
    fn touch(&self, chunks: Vec<OwnedChunk>, at: SystemTime) -> BoxFuture<'_, Result<bool, BackendError>>;
    /// Bytes that it has left, where it can tell.
    fn left(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::ready(None))
    }
    /// Moves a rotten chunk out of the way, where an operator can look at it.
    fn set_aside(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>>;
}

/// A node's chunks. Cheap to clone.
#[derive(Clone)]
pub struct Chunks {
    backend: Arc<dyn Backend>,
    index: Arc<Mutex<ChunkIndex>>,
    /// What is in the bin, on disk. Its lock is taken after that of a part.
    journal: Arc<tokio::sync::Mutex<Journal>>,
    keep: Duration,
    parts: Arc<[tokio::sync::Mutex<()>]>,
    version: watch::Sender<u64>,
}

impl Chunks {
    /// How much room there is.
    #[must_use]
    pub fn room(&self) -> Room {
        self.index().room()
    }

    /// Whether a chunk is held.
    #[must_use]
    pub fn holds(&self, chunk: &OwnedChunk) -> bool {
        self.index().length(chunk).is_some()
    }

    /// Length of a chunk that is held.
    #[must_use]
    pub fn length(&self, chunk: &OwnedChunk) -> Option<u32> {
        self.index().length(chunk)
    }

    /// Everything that is held, and the number of the last change.
    #[must_use]
    pub fn snapshot(&self) -> (Vec<OwnedChunk>, u64) {
        self.index().snapshot()
    }

    /// What changed after the change of that number; `None` when that is too long ago to be known.
    #[must_use]
    pub fn changes_after(&self, number: u64, most: usize) -> Option<Changes> {
        self.index().changes_after(number, most)
    }

    /// The number of the last change, as it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Checks a chunk and keeps it; done when it is durable. Dropping the future may leave it stored.
    ///
    /// # Errors
    /// [`Failure::Damaged`], [`Failure::Full`] or [`Failure::Storage`].
    pub async fn put(&self, chunk: OwnedChunk, bytes: Bytes) -> Result<(), Failure> {
        self.take(None, chunk, bytes).await
    }

    /// As [`put`](Self::put), if its owner's chunks, with this one, take no more than that many bytes and are not too many for
    /// one user.
    ///
    /// # Errors
    /// [`Failure::Quota`] and those of [`put`](Self::put).
    pub async fn put_within(&self, allowance: u64, chunk: OwnedChunk, bytes: Bytes) -> Result<(), Failure> {
        self.take(Some(allowance), chunk, bytes).await
    }

    async fn take(&self, allowance: Option<u64>, chunk: OwnedChunk, bytes: Bytes) -> Result<(), Failure> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| (1..=MAX_SEALED_CHUNK).contains(length));
        let Some(length) = length else { return Err(Failure::Damaged) };
        if !is_intact(chunk.chunk, bytes.clone()).await {
            return Err(Failure::Damaged);
        }
        let _turn = self.part(&chunk).lock().await;
        if self.keep(&[chunk]).await? == [true] {
            return Ok(());
        }
        let reservation = Reservation::new(self, (chunk.owner, length), allowance)?;
        self.backend.put(chunk, bytes).await.map_err(|error| match error {
            BackendError::Full => {
                // Until it is measured again.
                self.index().measured(0);
                Failure::Full
            }
            error => failed("keep", chunk, &error),
        })?;
        reservation.commit(Found { chunk, length, stored: SystemTime::now() });
        self.changed();
        Ok(())
    }

    /// Reads a range of a chunk.
    ///
    /// # Errors
    /// [`Failure::NotFound`] or [`Failure::Storage`].
    pub async fn read(&self, chunk: OwnedChunk, offset: u32, length: u32) -> Result<Bytes, Failure> {
        // What is read is needed: it comes out of the bin. Where that cannot be noted, it is read all the same.
        let binned = self.index().is_binned(&chunk);
        let kept = !binned || self.keep(&[chunk]).await.is_ok();
        let whole = if kept { self.length(&chunk) } else { self.index().length_anywhere(&chunk) };
        let whole = whole.ok_or(Failure::NotFound)?;
        if length == 0 || offset.checked_add(length).is_none_or(|end| end > whole) {
            return Err(Failure::NotFound);
        }
        match self.backend.read(chunk, offset, length).await {
            Ok(bytes) => Ok(bytes),
            Err(BackendError::NotFound) => {
                tracing::warn!(?chunk, "a chunk has disappeared");
                self.lose(&chunk);
                Err(Failure::NotFound)
            }
            Err(error) => Err(failed("read", chunk, &error)),
        }
    }

    /// Whether a chunk, held or in the bin, ends with these bytes; false if there is none.
    ///
    /// # Errors
    /// [`Failure::Storage`] when it cannot be read now.
    pub async fn ends_with(&self, chunk: OwnedChunk, end: &[u8; 32]) -> Result<bool, Failure> {
        let length = self.index().length_anywhere(&chunk);
        let Some(offset) = length.and_then(|length| length.checked_sub(32)) else { return Ok(false) };
        match self.backend.read(chunk, offset, 32).await {
            Ok(bytes) => Ok(bytes[..] == end[..]),
            Err(BackendError::NotFound) => Ok(false),
            Err(error) => Err(failed("read", chunk, &error)),
        }
    }

    /// Deletes a chunk at once, from the bin too; false if there is no such chunk.
    ///
    /// # Errors
    /// [`Failure::Storage`].
    pub async fn delete(&self, chunk: OwnedChunk) -> Result<bool, Failure> {
        let _turn = self.part(&chunk).lock().await;
        // It is not held any more, whatever becomes of the file; a remainder is found at the next start.
        if !self.lose(&chunk) {
            // Held during the removal, so that nothing takes the chunk out of the bin.
            let journal = self.journal.clone().lock_owned().await;
            if self.index().is_binned(&chunk) {
                self.backend.delete(chunk).await.map_err(|error| failed("delete", chunk, &error))?;
                self.forget_binned(journal, chunk).await;
                return Ok(true);
            }
            if !self.lose(&chunk) {
                return Ok(false);
            }
        }
        self.backend.delete(chunk).await.map_err(|error| failed("delete", chunk, &error))?;
        Ok(true)
    }

    /// Reads a chunk again; one that is not what its id says is set aside and not held any more: false.
    ///
    /// # Errors
    /// [`Failure::Storage`] when it cannot be read now.
    pub async fn verify(&self, chunk: OwnedChunk) -> Result<bool, Failure> {
        let Some(length) = self.length(&chunk) else { return Ok(false) };
        let bytes = match self.backend.read(chunk, 0, length).await {
            Ok(bytes) => Some(bytes),
            Err(BackendError::NotFound) => None,
            Err(error) => return Err(failed("read", chunk, &error)),
        };
        if let Some(bytes) = &bytes
            && is_intact(chunk.chunk, bytes.clone()).await
        {
            return Ok(true);
        }
        tracing::warn!(
            ?chunk,
            found = bytes.is_some(),
            "a chunk is rotten; it is reported to be copied again"
        );
        if !self.lose(&chunk) {
            return Ok(false);
        }
        if bytes.is_some() {
            self.backend.set_aside(chunk).await.map_err(|error| failed("set aside", chunk, &error))?;
        }
        Ok(false)
    }

    /// Measures at intervals what the disk has left, until `stop`.
    pub async fn measure(self, stop: CancellationToken) {
        let work = async {
            loop {
                tokio::time::sleep(MEASURE_EVERY).await;
                self.measure_once().await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn measure_once(&self) {
        let left = self.backend.left().await;
        self.index().measured(left.unwrap_or(u64::MAX));
    }

    /// Has something reported to the trackers that is no change of what is held.
    pub fn report(&self, change: Change) {
        self.index().note(change);
        self.changed();
    }

    fn lose(&self, chunk: &OwnedChunk) -> bool {
        let lost = self.index().forget(chunk);
        if lost {
            self.changed();
        }
        lost
    }

    fn part(&self, chunk: &OwnedChunk) -> &tokio::sync::Mutex<()> {
        &self.parts[usize::from(chunk.chunk.0[0]) % PARTS]
    }

    fn changed(&self) {
        let number = self.index().number();
        self.version.send_replace(number);
    }

    fn index(&self) -> MutexGuard<'_, ChunkIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chunks").field(&self.room()).finish()
    }
}

/// Room for a chunk that is being written.
struct Reservation<'a> {
    chunks: &'a Chunks,
    owner: Uid,
    length: u32,
}

impl<'a> Reservation<'a> {
    fn new(chunks: &'a Chunks, (owner, length): (Uid, u32), allowance: Option<u64>) -> Result<Self, Failure> {
        chunks.index().reserve(owner, length, allowance)?;
        Ok(Self { chunks, owner, length })
    }

    fn commit(self, found: Found) {
        self.chunks.index().stored(found);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.chunks.index().release(self.owner, self.length);
    }
}

async fn is_intact(id: ChunkId, bytes: Bytes) -> bool {
    tokio::task::spawn_blocking(move || ChunkId::of(&bytes) == id).await.unwrap_or(false)
}

fn failed(action: &str, chunk: OwnedChunk, error: &BackendError) -> Failure {
    tracing::error!(owner = %chunk.owner, chunk = %chunk.chunk, %error, "cannot {action} a chunk");
    Failure::Storage
}

#[cfg(test)]
mod tests;
