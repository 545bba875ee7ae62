//! The whole file's digests, computed as the file grows. They follow the prefix of written pieces. Pieces that have just
//! arrived are taken from memory, the others are read back, so with pieces in order nothing is read twice.
//!
//! SHA-1 is serial and the most expensive, so it is computed beside the checking of pieces, several messages at once
//! ([`shoal_sha1`]): the [`Prefix`] is lent to the one who checks. The [`Tail`] follows it on another thread and adds BLAKE3
//! and SHA-256 where they are compared. No digest is computed that nobody knows or asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use shoal_common::{Bitfield, Digests, Layout, OtherDigestsHasher, PieceIndex, Sha1};
use shoal_sha1::Hasher;

use crate::buffer::PieceData;
use crate::content::Content;
use crate::disk::DiskError;
use crate::part::PartContext;
use crate::pool::BLOCK_BYTES;

/// Memory of the pool for pieces that wait for the pieces before them: enough for several sources to deliver a little out of
/// order, while three quarters of the pool stay for receiving.
const CACHED_BYTES: usize = 8 * 1024 * 1024;
/// The same for the other digests; BLAKE3 is faster than SHA-1, which it follows.
const TAIL_BYTES: usize = 8 * 1024 * 1024;
/// What one step covers at most, so that pausing never waits long for one. More than a batch brings, so that what is covered
/// beside it catches up.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes that are read back beside the checking when they were written shortly before: they are in the page cache.
const NEAR_BYTES: u64 = 64 * 1024 * 1024;

/// A piece that SHA-1 has covered and the other digests have not, in memory if it still is.
type Covered = (PieceIndex, Option<Arc<PieceData>>);

/// How far the whole file's SHA-1 has come. The driver owns it and lends it to one blocking job at a time.
#[derive(Debug)]
pub(crate) struct Prefix {
    layout: Layout,
    sha1: Hasher,
    /// Whether the SHA-1 is computed; if not, the prefix only leads the other digests.
    hashes: bool,
    /// The first piece that is not covered.
    next: u32,
    /// Pieces that are needed soon and still in memory; they are right.
    cached: BTreeMap<u32, Arc<PieceData>>,
    cached_bytes: usize,
    covered: Vec<Covered>,
}

impl Prefix {
    pub(crate) fn new(content: &Content) -> Self {
        let (layout, hashes) = (content.layout().clone(), content.computes_sha1());
        let nothing = !hashes && OtherDigestsHasher::confirming(content.digest()).is_idle();
        let next = if nothing { layout.pieces() } else { 0 };
        let (cached, covered) = (BTreeMap::new(), Vec::new());
        Self { layout, sha1: Hasher::default(), hashes, next, cached, cached_bytes: 0, covered }
    }

    /// The piece that is to be covered next.
    pub(crate) fn next(&self) -> Option<PieceIndex> {
        self.layout.piece(self.next)
    }

    /// The digest of what is covered so far.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.sha1
    }

    /// A piece is right; keeps it in memory if it is covered soon.
    pub(crate) fn keep(&mut self, data: Arc<PieceData>) {
        let bytes = data.blocks.len() * BLOCK_BYTES;
        let ahead = self.layout.offset(data.piece).checked_sub(self.covered_bytes());
        let is_soon = ahead.is_some_and(|ahead| ahead < CACHED_BYTES as u64);
        let is_new = !self.cached.contains_key(&data.piece.get());
        if is_soon && is_new && data.spilled == 0 && self.cached_bytes + bytes <= CACHED_BYTES {
            self.cached_bytes += bytes;
            self.cached.insert(data.piece.get(), data);
        }
    }

    /// Gives up what is held in memory.
    pub(crate) fn drop_cached(&mut self) {
        self.cached.clear();
        self.cached_bytes = 0;
    }

    /// Whether the next piece is written and can be covered.
    pub(crate) fn is_behind(&self, written: &Bitfield) -> bool {
        self.next().is_some_and(|piece| written.has(piece))
    }

    /// Whether so much of what is written has to be read back that the checking should not wait for it.
    pub(crate) fn is_far(&self, written: &Bitfield) -> bool {
        let uncovered = written.count().saturating_sub(self.next);
        self.is_cold(written) && u64::from(uncovered) * u64::from(self.layout.piece_length()) > NEAR_BYTES
    }

    fn is_cold(&self, written: &Bitfield) -> bool {
        self.is_behind(written) && !self.cached.contains_key(&self.next)
    }

    /// The next piece, if it is in memory.
    pub(crate) fn take_cached(&mut self) -> Option<Arc<PieceData>> {
        let data = self.cached.remove(&self.next)?;
        self.cached_bytes -= data.blocks.len() * BLOCK_BYTES;
        Some(data)
    }

    /// The next piece was hashed too: `sha1` covers it.
    pub(crate) fn advance(&mut self, sha1: Hasher, piece: PieceIndex, data: Option<Arc<PieceData>>) {
        self.sha1 = sha1;
        self.next += 1;
        self.covered.push((piece, data));
    }

    /// Covers what is written, from memory or from the disk, some of it at a time. Blocking.
    pub(crate) fn catch_up(mut self, written: &Bitfield, context: &PartContext) -> Result<Self, DiskError> {
        self.cover(context, |prefix| prefix.is_behind(written))?;
        Ok(self)
    }

    /// As [`catch_up`](Self::catch_up), beside a batch that is checked: what has to be read back, and what crowds the
    /// memory. The rest goes along with the checking of pieces to come, at half the price.
    pub(crate) fn keep_up(&mut self, written: &Bitfield, context: &PartContext) -> Result<(), DiskError> {
        self.cover(context, |prefix| {
            let crowded = prefix.cached_bytes > CACHED_BYTES / 2 && prefix.cached.contains_key(&prefix.next);
            crowded || prefix.is_cold(written)
        })
    }

    /// Covers pieces that are written, one after the other, for as long as `more` says so and a step lasts.
    fn cover(&mut self, context: &PartContext, more: impl Fn(&Self) -> bool) -> Result<(), DiskError> {
        let mut bytes = 0;
        while bytes < STEP_BYTES
            && more(self)
            && let Some(piece) = self.next()
        {
            let mut sha1 = self.sha1.clone();
            let data = self.take_cached();
            let length = u64::from(self.layout.length(piece));
            match &data {
                // The others read it themselves.
                _ if !self.hashes => {}
                Some(data) => data.blocks.iter().for_each(|block| sha1.update(block.bytes())),
                None => context.read(self.layout.offset(piece), length, |bytes| sha1.update(bytes))?,
            }
            self.advance(sha1, piece, data);
            bytes += length;
        }
        Ok(())
    }

    /// Bytes of the file that are covered.
    pub(crate) fn covered_bytes(&self) -> u64 {
        self.next().map_or(self.layout.size(), |piece| self.layout.offset(piece))
    }

    /// Whether everything is covered.
    pub(crate) fn is_done(&self) -> bool {
        self.next == self.layout.pieces()
    }

    /// The SHA-1 of what is covered, if it is computed.
    pub(crate) fn sha1(&self) -> Option<Sha1> {
        self.hashes.then(|| Sha1(self.sha1.clone().finish()))
    }
}

/// How far the whole file's other digests have come: they take what SHA-1 has covered.
#[derive(Debug)]
pub(crate) struct Tail {
    /// `None` while a step has it.
    hasher: Option<OtherDigestsHasher>,
    waiting: VecDeque<Covered>,
}

/// A stretch of pieces for the other digests to take in, on a blocking thread.
#[derive(Debug)]
pub(crate) struct Step {
    hasher: OtherDigestsHasher,
    pieces: Vec<Covered>,
}

impl Tail {
    pub(crate) fn new(expected: &Digests) -> Self {
        Self { hasher: Some(OtherDigestsHasher::confirming(expected)), waiting: VecDeque::new() }
    }

    /// Takes from a prefix what it has covered.
    pub(crate) fn follow(&mut self, prefix: &mut Prefix) {
        let idle = self.hasher.as_ref().is_some_and(OtherDigestsHasher::is_idle);
        // Nothing to compute: nothing waits.
        for (piece, data) in prefix.covered.drain(..).filter(|_| !idle) {
            let bytes = |data: &Arc<PieceData>| data.blocks.len() * BLOCK_BYTES;
            let waiting: usize = self.waiting.iter().filter_map(|(_, data)| data.as_ref()).map(bytes).sum();
            let data = data.filter(|data| waiting + bytes(data) <= TAIL_BYTES);
            self.waiting.push_back((piece, data));
        }
    }

    /// Gives up what is held in memory.
    pub(crate) fn drop_cached(&mut self) {
        self.waiting.iter_mut().for_each(|(_, data)| *data = None);
    }

    /// The next step, if none is under way and something waits.
    pub(crate) fn step(&mut self, layout: &Layout) -> Option<Step> {
        self.waiting.front()?;
        let hasher = self.hasher.take()?;
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < STEP_BYTES
            && let Some((piece, data)) = self.waiting.pop_front()
        {
            bytes += u64::from(layout.length(piece));
            pieces.push((piece, data));
        }
        Some(Step { hasher, pieces })
    }

    /// A step came back.
    pub(crate) fn stepped(&mut self, hasher: OtherDigestsHasher) {
        self.hasher = Some(hasher);
    }

    /// The digests of all that was followed, beside its SHA-1, once nothing waits and no step is under way.
    pub(crate) fn finish(&self, sha1: Option<Sha1>) -> Option<Digests> {
        self.waiting.is_empty().then_some(self.hasher.as_ref()?.finish(sha1))
    }
}

impl Step {
    /// Takes the pieces in. Blocking.
    pub(crate) fn work(mut self, context: &PartContext) -> Result<OtherDigestsHasher, DiskError> {
        let layout = context.content.layout();
        for (piece, data) in self.pieces {
            match data {
                Some(data) => data.blocks.iter().for_each(|block| self.hasher.update(block.bytes())),
                None => {
                    let length = u64::from(layout.length(piece));
                    context.read(layout.offset(piece), length, |bytes| self.hasher.update(bytes))?;
                }
            }
        }
        Ok(self.hasher)
    }
}
