//! The bin: what the trackers had deleted stays for a while, and is held again as soon as it is needed.
//!
//! A chunk in the bin stays where it is; a record in a journal says that it is not held any more. So neither a folder nor a
//! bucket moves anything, and a crash at any moment leaves the chunk held or in the bin. Chunks in the bin take their room:
//! the bin is never emptied early, or a full node could be made to forget.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_common::tracker_api::storage::OwnedChunk;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::index::{ChunkIndex, Discarded};
use super::journal::{Entry, Journal, Record};
use super::{Backend, BackendError, Chunks, Found, PARTS, failed};
use crate::wire::Failure;

/// Bounds on how often the bin is looked through.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(60);
/// A chunk's time is set so much later than now: after the time at which it may have gone into the bin.
const TICK: Duration = Duration::from_millis(1);
/// Void records beyond as many as there are good ones, before the journal is rewritten.
const VOID: usize = 1_024;

/// What the bin goes by.
#[derive(Debug, Clone)]
pub struct BinRules {
    /// The file that says what is in it.
    pub journal: PathBuf,
    /// For how long a chunk stays in it.
    pub keep: Duration,
    /// Percentage of the chunks that may go into it per day, and at least one chunk; 100 or more for no bound.
    pub daily_percent: u8,
    /// Whether all of it is held again from the start.
    pub restore: bool,
}

/// Why chunks cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// They cannot be listed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The list of the bin cannot be used.
    #[error("cannot use the list of deleted chunks {}: {error}; without that file, all chunks count as held", .path.display())]
    Journal {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Chunks {
    /// Opens what the backend has, for at most `capacity` bytes.
    ///
    /// # Errors
    /// When the backend cannot be listed, or the bin's journal not used.
    pub async fn open(backend: Arc<dyn Backend>, capacity: u64, rules: BinRules) -> Result<Self, OpenError> {
        let BinRules { journal: path, keep, daily_percent, restore } = rules;
        let found = backend.list().await?;
        let mut index = ChunkIndex::new(capacity, daily_percent);
        let opened = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let (mut journal, records) = Journal::open(&path)?;
                let restored = fill(&mut index, found, &records, restore);
                let rewritten = journal.rewrite(&standing(&index));
                if let Err(error) = &rewritten {
                    // A full disk, for instance. The old list says the same.
                    tracing::warn!(%error, path = %path.display(), "the list of deleted chunks was not shortened");
                }
                Ok((index, journal, if rewritten.is_ok() { Vec::new() } else { restored }))
            }
        });
        let opened = opened.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let (index, journal, still_listed) =
            opened.map_err(|error| OpenError::Journal { path: path.clone(), error })?;
        if !still_listed.is_empty() && !backend.touch(still_listed, SystemTime::now() + TICK).await? {
            let error = std::io::Error::other("what is to be held again stays in it");
            return Err(OpenError::Journal { path, error });
        }
        let chunks = Self {
            backend,
            index: Arc::new(Mutex::new(index)),
            journal: Arc::new(tokio::sync::Mutex::new(journal)),
            keep,
            parts: (0..PARTS).map(|_| tokio::sync::Mutex::new(())).collect(),
            version: watch::Sender::new(0),
        };
        chunks.measure_once().await;
        Ok(chunks)
    }

    /// Which of these chunks are held. Those count as stored now and are reported again; one that was in the bin is held
    /// again, durably.
    ///
    /// # Errors
    /// [`Failure::Storage`] where neither the bin's journal nor a chunk's time can be written.
    pub async fn keep(&self, chunks: &[OwnedChunk]) -> Result<Vec<bool>, Failure> {
        let now = SystemTime::now();
        if chunks.iter().any(|chunk| self.index().is_binned(chunk)) {
            let journal = self.journal.clone().lock_owned().await;
            let binned: Vec<OwnedChunk> = {
                let index = self.index();
                chunks.iter().copied().filter(|chunk| index.is_binned(chunk)).collect()
            };
            let _journal = match append(journal, records(Entry::Restored, &binned, now_ms())).await {
                Ok(journal) => journal,
                Err(failure) => {
                    let journal = self.journal.clone().lock_owned().await;
                    // One that was written after it went into the bin is not in it, whatever the journal says.
                    match self.backend.touch(binned.clone(), now + TICK).await {
                        Ok(true) => journal,
                        _ => return Err(failure),
                    }
                }
            };
            let mut index = self.index();
            for chunk in &binned {
                index.restore(chunk, Some(now));
                tracing::info!(owner = %chunk.owner, chunk = %chunk.chunk, "needed again: out of the bin");
            }
        }
        let held: Vec<bool> = {
            let mut index = self.index();
            chunks.iter().map(|chunk| index.touch(chunk, now)).collect()
        };
        if held.contains(&true) {
            self.changed();
            let touched = chunks.iter().zip(&held).filter(|(_, held)| **held).map(|(chunk, _)| *chunk);
            // For the next start only: until then the index knows it.
            if let Err(error) = self.backend.touch(touched.collect(), now + TICK).await {
                tracing::warn!(%error, "that chunks were asked for is forgotten at the next start");
            }
        }
        Ok(held)
    }

    /// Puts chunks into the bin, but for those that were stored less than `min_age` ago or are beyond the day's share; what
    /// became of each, in order. Dropping the future may leave them held after a restart.
    ///
    /// # Errors
    /// [`Failure::Storage`] where the bin's journal cannot be written; all stay held then.
    pub async fn discard(&self, chunks: &[OwnedChunk], min_age: Duration) -> Result<Vec<Discarded>, Failure> {
        let now_ms = now_ms();
        let before = SystemTime::now().checked_sub(min_age);
        let journal = self.journal.clone().lock_owned().await;
        let done: Vec<Discarded> = {
            let mut index = self.index();
            chunks.iter().map(|chunk| index.discard(chunk, before, now_ms)).collect()
        };
        let binned: Vec<OwnedChunk> = chunks
            .iter()
            .zip(&done)
            .filter(|(_, done)| **done == Discarded::Binned)
            .map(|(chunk, _)| *chunk)
            .collect();
        if binned.is_empty() {
            return Ok(done);
        }
        let written = append(journal, records(Entry::Binned, &binned, now_ms)).await;
        if written.is_err() {
            let mut index = self.index();
            binned.iter().for_each(|chunk| index.take_back(chunk, now_ms));
        }
        self.changed();
        written.map(|_| done)
    }

    /// Chunks in the bin.
    #[must_use]
    pub fn bin_len(&self) -> usize {
        self.index().bin_len()
    }

    /// Removes what has been in the bin for long enough, until `stop`.
    pub async fn keep_bin(self, stop: CancellationToken) {
        let every = (self.keep / 10).clamp(SOONEST, LATEST);
        let work = async {
            loop {
                tokio::time::sleep(every).await;
                self.empty_bin().await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Removes what has been in the bin for long enough.
    async fn empty_bin(&self) {
        let keep_ms = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        let Some(until_ms) = now_ms().checked_sub(keep_ms) else { return };
        let due = self.index().binned_until(until_ms);
        for chunk in due {
            // Held until its record is written: a chunk that is stored again, and put into the bin again, comes after it.
            let _turn = self.part(&chunk).lock().await;
            // Held during the removal, so that nothing takes the chunk out of the bin.
            let journal = self.journal.clone().lock_owned().await;
            if !self.index().is_binned(&chunk) {
                continue;
            }
            match self.backend.delete(chunk).await {
                Ok(()) => {
                    self.forget_binned(journal, chunk).await;
                    tracing::info!(owner = %chunk.owner, chunk = %chunk.chunk, "deleted: its time in the bin is over");
                }
                // It is tried again.
                Err(error) => drop(failed("delete", chunk, &error)),
            }
        }
        let journal = self.journal.clone().lock_owned().await;
        let standing = standing(&self.index());
        if journal.len() > 2 * standing.len() + VOID
            && let Err(error) = on_disk(journal, move |journal| journal.rewrite(&standing)).await
        {
            tracing::warn!(%error, "the list of deleted chunks was not shortened");
        }
    }

    /// Notes that a chunk is gone from the bin for good; the caller has the lock of its part. A record that cannot be written is
    /// not needed as long as the chunk does not come back before the next start, and void then by its age.
    pub(super) async fn forget_binned(&self, journal: OwnedMutexGuard<Journal>, chunk: OwnedChunk) {
        self.index().remove_binned(&chunk);
        // It was logged.
        let _ = append(journal, records(Entry::Removed, &[chunk], now_ms())).await;
    }
}

/// Adds records; when it returns they are durable, and nobody else has used the journal meanwhile.
async fn append(
    journal: OwnedMutexGuard<Journal>,
    records: Vec<Record>,
) -> Result<OwnedMutexGuard<Journal>, Failure> {
    on_disk(journal, move |journal| journal.append(&records)).await.map_err(|error| {
        tracing::error!(%error, "cannot write the list of deleted chunks");
        Failure::Storage
    })
}

/// Works on the journal off the reactor. The lock goes along, so that a future that is dropped does not free it early.
async fn on_disk(
    mut journal: OwnedMutexGuard<Journal>,
    work: impl FnOnce(&mut Journal) -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<OwnedMutexGuard<Journal>> {
    let done = tokio::task::spawn_blocking(move || work(&mut journal).map(|()| journal)).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Fills the index from what is there and what the journal says of it.
/// Gives what was in the bin and is held again.
fn fill(index: &mut ChunkIndex, found: Vec<Found>, journal: &[Record], restore: bool) -> Vec<OwnedChunk> {
    let mut restored = Vec::new();
    let mut binned = std::collections::HashMap::new();
    for record in journal {
        match record.entry {
            Entry::Binned => {
                index.count_binned(record.at_ms);
                binned.insert(record.chunk, record.at_ms);
            }
            Entry::Counted => index.count_binned(record.at_ms),
            Entry::Restored | Entry::Removed => drop(binned.remove(&record.chunk)),
        }
    }
    for found in found {
        // A chunk written after it went into the bin was stored again.
        match binned.get(&found.chunk).filter(|since_ms| ms(found.stored) <= **since_ms) {
            None => index.found(found),
            Some(_) if restore => {
                restored.push(found.chunk);
                index.found(Found { stored: SystemTime::now(), ..found });
            }
            Some(since_ms) => index.found_binned(found, *since_ms),
        }
    }
    restored
}

/// The records that say how the bin stands.
fn standing(index: &ChunkIndex) -> Vec<Record> {
    let (binned, day) = index.bin(now_ms());
    let nothing =
        OwnedChunk { owner: shoal_common::Uid([0; 16]), chunk: shoal_common::storage::ChunkId([0; 32]) };
    let binned = binned.into_iter().map(|(chunk, at_ms)| Record { entry: Entry::Binned, chunk, at_ms });
    let day = day.into_iter().map(|at_ms| Record { entry: Entry::Counted, chunk: nothing, at_ms });
    binned.chain(day).collect()
}

fn records(entry: Entry, chunks: &[OwnedChunk], at_ms: u64) -> Vec<Record> {
    chunks.iter().map(|chunk| Record { entry, chunk: *chunk, at_ms }).collect()
}

fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
