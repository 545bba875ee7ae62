//! Checks pieces and writes them, on blocking threads. Whoever hashed a piece writes it, while it is in that core's cache.
//! Two batches of pieces may be worked on at once; one that touches what was spilled is alone, so that what is spilled later
//! lies on top. Pieces are hashed several at once, with each other or with the whole file's prefix.

use std::collections::VecDeque;
use std::sync::Arc;

use shoal_common::{Bitfield, PieceIndex, Sha1};
use shoal_sha1::{Hasher, LANES, update_all};
use tokio_util::sync::CancellationToken;

use crate::buffer::{PieceData, Spill};
use crate::content::Verification;
use crate::digest::Prefix;
use crate::disk::DiskError;
use crate::part::PartContext;
use crate::pool::{BLOCK_BYTES, Block};

/// Most bytes of a batch. Its memory is freed, and its pieces are offered to others, only when all of it is done.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

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
    /// What was lent, further on.
    pub(crate) prefix: Option<Prefix>,
}

/// Takes the next batch off the queue: at least one job if there is any. What lies first in the file comes first, so that
/// its digest goes along; jobs of one piece stay in their order.
pub(crate) fn next_batch(queue: &mut VecDeque<Job>) -> Vec<Job> {
    queue.make_contiguous().sort_by_key(Job::piece);
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some(job) = queue.pop_front()
    {
        bytes += job.bytes();
        batch.push(job);
    }
    batch
}

impl Checked {
    /// Gives the prefix a piece that it covers soon.
    fn keep_cached(&self, prefix: &mut Prefix) {
        if let Self::Written(data) = self {
            prefix.keep(data.clone());
        }
    }
}

impl Job {
    fn piece(&self) -> PieceIndex {
        match self {
            Self::Check(data) => data.piece,
            Self::Spill(spill) => spill.piece,
        }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let blocks = match self {
            Self::Check(data) => &data.blocks,
            Self::Spill(spill) => &spill.blocks,
        };
        blocks.len() * BLOCK_BYTES
    }
}

/// Whether a batch only takes pieces that are whole in memory, so that it can go beside another.
pub(crate) fn is_in_memory(batch: &[Job]) -> bool {
    batch.iter().all(|job| matches!(job, Job::Check(data) if data.spilled == 0))
}

impl PartContext {
    /// Does a batch, and covers with the prefix what comes next in the file and is in the batch or was `written` before.
    /// Blocking.
    pub(crate) fn work(&self, batch: Vec<Job>, mut prefix: Option<Prefix>, written: &Bitfield) -> Done {
        let (mut checked, mut pieces) = (Vec::new(), Vec::new());
        let mut result = Ok(());
        let mut jobs = batch.into_iter().peekable();
        while result.is_ok()
            && let Some(job) = jobs.next()
        {
            match job {
                Job::Spill(spill) => {
                    let offset = self.content.layout().offset(spill.piece) + u64::from(spill.offset);
                    result = self.part.write(offset, &spill.blocks);
                }
                Job::Check(data) => pieces.push(data),
            }
            // What is spilled later lies on top.
            if !matches!(jobs.peek(), Some(Job::Check(_))) && result.is_ok() {
                result = self.check(std::mem::take(&mut pieces), prefix.as_mut(), &mut checked);
            }
        }
        if let (Ok(()), Some(prefix)) = (&result, &mut prefix) {
            result = prefix.keep_up(written, self);
        }
        Done { checked, result, prefix }
    }

    /// Checks pieces, and writes those that are right.
    fn check(
        &self,
        mut pieces: Vec<PieceData>,
        mut prefix: Option<&mut Prefix>,
        checked: &mut Vec<Checked>,
    ) -> Result<(), DiskError> {
        if !self.content.hashes_pieces() {
            for data in pieces {
                checked.push(self.keep(data)?);
            }
            return Ok(());
        }
        pieces.sort_by_key(|data| std::cmp::Reverse(data.piece));
        while let Some(data) = pieces.pop() {
            let next = prefix.as_ref().and_then(|prefix| prefix.next());
            let in_turn = next == Some(data.piece) && data.spilled == 0;
            let cached = prefix.as_mut().filter(|_| !in_turn).and_then(|prefix| prefix.take_cached());
            match (&mut prefix, cached) {
                (Some(prefix), None) if in_turn => {
                    let (mut piece, mut whole) = (Hasher::default(), prefix.hasher().clone());
                    hash(&mut [(&mut piece, &data.blocks), (&mut whole, &data.blocks)]);
                    let done = self.keep_if_right(data, piece)?;
                    if let Checked::Written(data) = &done {
                        prefix.advance(whole, data.piece, Some(data.clone()));
                    }
                    checked.push(done);
                }
                (Some(prefix), Some(cached)) => {
                    let (mut piece, mut whole) = (self.begin(&data)?, prefix.hasher().clone());
                    hash(&mut [(&mut piece, &data.blocks), (&mut whole, &cached.blocks)]);
                    prefix.advance(whole, cached.piece, Some(cached));
                    let done = self.keep_if_right(data, piece)?;
                    done.keep_cached(prefix);
                    checked.push(done);
                }
                _ => {
                    let mut abreast = vec![data];
                    // The prefix's next piece waits, to be hashed together with it.
                    while abreast.len() < LANES
                        && let Some(data) = pieces.pop_if(|data| Some(data.piece) != next)
                    {
                        abreast.push(data);
                    }
                    let before = checked.len();
                    self.check_abreast(abreast, checked)?;
                    if let Some(prefix) = &mut prefix {
                        checked[before..].iter().for_each(|done| done.keep_cached(prefix));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks up to [`LANES`] pieces, and writes those that are right.
    fn check_abreast(&self, pieces: Vec<PieceData>, checked: &mut Vec<Checked>) -> Result<(), DiskError> {
        let hashers: Result<Vec<_>, _> = pieces.iter().map(|data| self.begin(data)).collect();
        let mut hashers = hashers?;
        let lanes = hashers.iter_mut().zip(&pieces).map(|(hasher, data)| (hasher, &data.blocks[..]));
        hash(&mut lanes.collect::<Vec<_>>());
        for (data, hasher) in pieces.into_iter().zip(hashers) {
            checked.push(self.keep_if_right(data, hasher)?);
        }
        Ok(())
    }

    /// A hasher that has taken what was spilled of a piece.
    fn begin(&self, data: &PieceData) -> Result<Hasher, DiskError> {
        let mut hasher = Hasher::default();
        let offset = self.content.layout().offset(data.piece);
        self.read(offset, u64::from(data.spilled), |bytes| hasher.update(bytes))?;
        Ok(hasher)
    }

    /// Lists and writes a piece if its digest is right.
    fn keep_if_right(&self, data: PieceData, hasher: Hasher) -> Result<Checked, DiskError> {
        if !self.content.matches(data.piece, &Sha1(hasher.finish())) {
            return Ok(Checked::Rejected(data.piece));
        }
        self.keep(data)
    }

    /// Lists and writes a piece.
    fn keep(&self, data: PieceData) -> Result<Checked, DiskError> {
        let offset = self.content.layout().offset(data.piece) + u64::from(data.spilled);
        self.journal.list(data.piece)?;
        self.part.write(offset, &data.blocks)?;
        Ok(Checked::Written(Arc::new(data)))
    }

    /// Checks what the partial file has of a piece.
    fn is_right(&self, piece: PieceIndex) -> Result<bool, DiskError> {
        let layout = self.content.layout();
        let (offset, length) = (layout.offset(piece), layout.length(piece));
        if let Verification::Aead(pieces) = self.content.verification() {
            let mut bytes = vec![0; length as usize];
            self.part.read(offset, &mut bytes)?;
            return Ok(pieces.is_right(piece, &bytes));
        }
        let mut hasher = Hasher::default();
        self.read(offset, u64::from(length), |bytes| hasher.update(bytes))?;
        Ok(self.content.matches(piece, &Sha1(hasher.finish())))
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
            if self.is_right(piece)? {
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

/// Hashes several pieces abreast, block by block.
fn hash(lanes: &mut [(&mut Hasher, &[Block])]) {
    let longest = lanes.iter().map(|(_, blocks)| blocks.len()).max().unwrap_or(0);
    for index in 0..longest {
        let blocks =
            lanes.iter_mut().filter_map(|(hasher, blocks)| Some((&mut **hasher, blocks.get(index)?.bytes())));
        update_all(&mut blocks.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests;
