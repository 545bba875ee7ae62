//! Checks pieces and writes them, on a blocking thread: the only writer of a partial file, so that what is written later
//! lies on top. Takes what has come together as a batch; the driver starts one batch at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use sha1::Digest as _;
use shoal_common::{Bitfield, PieceIndex, Sha1};
use tokio_util::sync::CancellationToken;

use crate::buffer::{PieceData, Spill};
use crate::content::Content;
use crate::disk::{DiskError, Journal, PartFile};
use crate::pool::BLOCK_BYTES;

/// What a batch holds at most: its memory is free, and its pieces offered to others, only when the whole is done.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Check a piece, list it and write it.
    Check(PieceData),
    /// Put a slow piece's first bytes in their place, unchecked and unlisted.
    Spill(Spill),
}

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum Checked {
    /// It is right, and written.
    Written(Arc<PieceData>),
    /// It is wrong.
    Rejected(PieceIndex),
}

/// What became of a batch: the pieces that were dealt with before the error, if there was one.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) checked: Vec<Checked>,
    pub(crate) result: Result<(), DiskError>,
}

/// What the writer works on; the same for all batches of a download.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub(crate) content: Content,
    pub(crate) part: PartFile,
    pub(crate) journal: Journal,
}

/// Takes the next batch off the queue: at least one job if there is any.
pub(crate) fn next_batch(queue: &mut VecDeque<Job>) -> Vec<Job> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some(job) = queue.pop_front()
    {
        bytes += job.blocks() * BLOCK_BYTES;
        batch.push(job);
    }
    batch
}

impl Job {
    fn blocks(&self) -> usize {
        match self {
            Self::Check(data) => data.blocks.len(),
            Self::Spill(spill) => spill.blocks.len(),
        }
    }
}

impl Workplace {
    /// Does a batch. Blocking.
    pub(crate) fn work(&self, batch: Vec<Job>) -> Done {
        let mut checked = Vec::new();
        for job in batch {
            let done = match job {
                Job::Spill(spill) => {
                    let offset = self.content.layout().offset(spill.piece) + u64::from(spill.offset);
                    self.part.write(offset, &spill.blocks).map(|()| None)
                }
                Job::Check(data) => self.check(data).map(Some),
            };
            match done {
                Ok(piece) => checked.extend(piece),
                Err(error) => return Done { checked, result: Err(error) },
            }
        }
        Done { checked, result: Ok(()) }
    }

    fn check(&self, data: PieceData) -> Result<Checked, DiskError> {
        let offset = self.content.layout().offset(data.piece);
        let mut hasher = sha1::Sha1::new();
        self.read(offset, u64::from(data.spilled), |bytes| hasher.update(bytes))?;
        data.blocks.iter().for_each(|block| hasher.update(block.bytes()));
        if !self.content.matches(data.piece, &Sha1(hasher.finalize().into())) {
            return Ok(Checked::Rejected(data.piece));
        }
        self.journal.list(data.piece)?;
        self.part.write(offset + u64::from(data.spilled), &data.blocks)?;
        Ok(Checked::Written(Arc::new(data)))
    }

    /// Hashes pieces of the partial file; those that are right. Blocking; stops early when cancelled.
    pub(crate) fn rehash(
        &self,
        pieces: &[PieceIndex],
        cancelled: &CancellationToken,
    ) -> Result<Bitfield, DiskError> {
        let layout = self.content.layout();
        let mut right = Bitfield::none(layout);
        for &piece in pieces {
            if cancelled.is_cancelled() {
                break;
            }
            let mut hasher = sha1::Sha1::new();
            self.read(layout.offset(piece), u64::from(layout.length(piece)), |bytes| hasher.update(bytes))?;
            if self.content.matches(piece, &Sha1(hasher.finalize().into())) {
                right.insert(piece);
            }
        }
        Ok(right)
    }

    /// Reads a range of the partial file block by block.
    pub(crate) fn read(
        &self,
        offset: u64,
        length: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), DiskError> {
        let mut buffer = vec![0; BLOCK_BYTES.min(usize::try_from(length).unwrap_or(BLOCK_BYTES))];
        let mut done = 0;
        while done < length {
            let count = buffer.len().min(usize::try_from(length - done).unwrap_or(BLOCK_BYTES));
            self.part.read(offset + done, &mut buffer[..count])?;
            take(&buffer[..count]);
            done += count as u64;
        }
        Ok(())
    }
}
