//! The whole file's digest, computed as the file grows: it follows the prefix of pieces that are written, takes those
//! that have just arrived from memory and reads the others back, so that with pieces in order nothing is read twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_common::{Bitfield, FileDigest, FileHasher, Layout, PieceIndex};

use crate::buffer::PieceData;
use crate::disk::DiskError;
use crate::pool::BLOCK_BYTES;
use crate::writer::Workplace;

/// Memory of the pool that pieces may hold while they wait for the digest: enough for pieces of several sources to come
/// a little out of order, and three quarters of the pool stay for receiving.
const WARM_BYTES: usize = 8 * 1024 * 1024;
/// What one step covers at most, so that pausing never waits long for one.
const STEP_BYTES: u64 = 8 * 1024 * 1024;

/// How far the digest has come.
#[derive(Debug)]
pub(crate) struct Follower {
    layout: Layout,
    /// `None` while a step has it.
    hasher: Option<FileHasher>,
    /// The first piece that is not covered.
    next: u32,
    /// Pieces that are needed soon and still in memory.
    warm: BTreeMap<u32, Arc<PieceData>>,
    warm_bytes: usize,
}

/// A stretch of pieces for the digest to take in, on a blocking thread.
#[derive(Debug)]
pub(crate) struct Step {
    hasher: FileHasher,
    pieces: Vec<(PieceIndex, Option<Arc<PieceData>>)>,
}

impl Follower {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, hasher: Some(FileHasher::default()), next: 0, warm: BTreeMap::new(), warm_bytes: 0 }
    }

    /// A piece was written; keeps it in memory if its turn comes soon.
    pub(crate) fn written(&mut self, data: Arc<PieceData>) {
        let bytes = data.blocks.len() * BLOCK_BYTES;
        let index = data.piece.get();
        let ahead = u64::from(index.saturating_sub(self.next)) * u64::from(self.layout.piece_length());
        if index >= self.next
            && data.spilled == 0
            && ahead < WARM_BYTES as u64
            && self.warm_bytes + bytes <= WARM_BYTES
        {
            self.warm_bytes += bytes;
            self.warm.insert(index, data);
        }
    }

    /// Gives up what is held in memory.
    pub(crate) fn cool(&mut self) {
        self.warm.clear();
        self.warm_bytes = 0;
    }

    /// The next step, if no step is under way and the piece is written.
    pub(crate) fn step(&mut self, written: &Bitfield) -> Option<Step> {
        let ready = |piece: &PieceIndex| written.has(*piece);
        let first = self.layout.piece(self.next).filter(ready)?;
        let hasher = self.hasher.take()?;
        let mut pieces = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(piece) = next.filter(ready) {
            if bytes >= STEP_BYTES {
                break;
            }
            let data = self.warm.remove(&piece.get());
            self.warm_bytes -= data.as_ref().map_or(0, |data| data.blocks.len() * BLOCK_BYTES);
            bytes += u64::from(self.layout.length(piece));
            pieces.push((piece, data));
            self.next += 1;
            next = self.layout.piece(self.next);
        }
        Some(Step { hasher, pieces })
    }

    /// A step came back.
    pub(crate) fn stepped(&mut self, hasher: FileHasher) {
        self.hasher = Some(hasher);
    }

    /// Bytes of the file that are covered, or about to be by the step under way.
    pub(crate) fn covered(&self) -> u64 {
        self.layout.piece(self.next).map_or(self.layout.size(), |piece| self.layout.offset(piece))
    }

    /// The digest, once it covers everything.
    pub(crate) fn finish(&mut self) -> Option<FileDigest> {
        if self.next < self.layout.pieces() {
            return None;
        }
        Some(self.hasher.take()?.finish())
    }
}

impl Step {
    /// Takes the pieces in. Blocking.
    pub(crate) fn work(mut self, place: &Workplace) -> Result<FileHasher, DiskError> {
        let layout = place.content.layout();
        for (piece, data) in self.pieces {
            match data {
                Some(data) => data.blocks.iter().for_each(|block| self.hasher.update(block.bytes())),
                None => {
                    let length = u64::from(layout.length(piece));
                    place.read(layout.offset(piece), length, |bytes| self.hasher.update(bytes))?;
                }
            }
        }
        Ok(self.hasher)
    }
}
