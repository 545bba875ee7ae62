//! Blobs that rows name and that are not held yet: asked for by hash, chunk by chunk, from any connected tracker, and
//! kept only when the content has the hash.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Chunk, Frame};
use crate::limits::{
    BLOB_CHUNK_BYTES, BLOB_CHUNKS_AHEAD, BLOB_RETRY_MS, MAX_BLOB_FETCHES, MAX_MISSING_BLOBS, SWEEP_MS,
};
use crate::replica::Replica;
use crate::row::{BlobHash, TrackerNo};
use crate::rows::Rows;

/// What is missing and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    /// Named by a row and not held, as far as is known; what a wait is for is always among them.
    pub(crate) missing: BTreeSet<BlobHash>,
    /// Whether the store may name further ones.
    more: bool,
    fetches: BTreeMap<BlobHash, Fetch>,
    /// Who is likely to have it: who sent the row.
    hints: BTreeMap<BlobHash, TrackerNo>,
    /// Who said that it does not have it.
    gone: BTreeSet<(BlobHash, TrackerNo)>,
    next_lookup_ms: u64,
    next_warning_ms: u64,
}

/// A blob on its way.
#[derive(Debug)]
struct Fetch {
    from: TrackerNo,
    content: Vec<u8>,
    total: Option<u64>,
    /// Up to here it was asked for.
    asked: u64,
}

const CHUNK: u64 = BLOB_CHUNK_BYTES as u64;

impl Blobs {
    /// A row from `peer` names a blob that is not held.
    pub(crate) fn is_missing(&mut self, hash: BlobHash, peer: TrackerNo) {
        self.missing.insert(hash);
        self.hints.insert(hash, peer);
    }

    /// A blob is held now.
    pub(crate) fn arrived(&mut self, hash: BlobHash) {
        self.missing.remove(&hash);
        self.hints.remove(&hash);
        self.fetches.remove(&hash);
    }

    /// A peer is gone, and with it what it was sending.
    pub(crate) fn forget_peer(&mut self, peer: TrackerNo) {
        self.fetches.retain(|_, fetch| fetch.from != peer);
        self.gone.retain(|(_, tracker)| *tracker != peer);
    }

    /// When to look for missing blobs again, if any are known.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        (self.more || !self.missing.is_empty()).then_some(self.next_lookup_ms)
    }

    /// Whether none is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && !self.more
    }
}

impl Replica {
    /// Looks up again what is missing: a row that was superseded needs its blob no more, and who did not have one may
    /// have it now.
    pub(crate) fn look_for_missing<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        let blobs = &mut self.blobs;
        let mut listed = rows.missing_blobs(MAX_MISSING_BLOBS + 1)?;
        blobs.more = listed.len() > MAX_MISSING_BLOBS;
        listed.truncate(MAX_MISSING_BLOBS);
        if blobs.more {
            blobs.missing.extend(listed);
        } else {
            blobs.missing = listed.into_iter().collect();
            blobs.hints.retain(|hash, _| blobs.missing.contains(hash));
            blobs.fetches.retain(|hash, _| blobs.missing.contains(hash));
        }
        blobs.next_lookup_ms = now.mono_ms + BLOB_RETRY_MS;
        let nobody = blobs.fetches.is_empty() && !blobs.gone.is_empty();
        if nobody
            && now.mono_ms >= blobs.next_warning_ms
            && let Some(&hash) = blobs.missing.first()
        {
            blobs.next_warning_ms = now.mono_ms + SWEEP_MS;
            self.outputs.push_back(Output::Warning(Warning::BlobUnavailable { hash }));
        }
        self.blobs.gone.clear();
        Ok(())
    }

    /// Asks for missing blobs, as many at once as are allowed.
    pub(crate) fn fetch_blobs<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        if self.blobs.more && self.blobs.missing.is_empty() || self.is_lookup_due(now) {
            self.look_for_missing(rows, now)?;
        }
        while self.blobs.fetches.len() < MAX_BLOB_FETCHES {
            let Some((hash, from)) = self.next_fetch() else {
                return Ok(());
            };
            self.blobs.fetches.insert(hash, Fetch { from, content: Vec::new(), total: None, asked: CHUNK });
            self.send(from, Frame::Want { hash, offset: 0 });
        }
        Ok(())
    }

    fn is_lookup_due(&self, now: Now) -> bool {
        self.blobs.next_timeout().is_some_and(|due| now.mono_ms >= due)
    }

    fn next_fetch(&self) -> Option<(BlobHash, TrackerNo)> {
        let blobs = &self.blobs;
        let can = |hash: BlobHash, peer: TrackerNo| {
            self.links.get(&peer).is_some_and(|link| link.is_ready()) && !blobs.gone.contains(&(hash, peer))
        };
        blobs.missing.iter().filter(|hash| !blobs.fetches.contains_key(hash)).find_map(|&hash| {
            let hint = blobs.hints.get(&hash).copied();
            let source = hint.into_iter().chain(self.links.keys().copied()).find(|&peer| can(hash, peer))?;
            Some((hash, source))
        })
    }

    /// A chunk came.
    pub(crate) fn on_chunk<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        chunk: Chunk,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(fetch) = self.blobs.fetches.get_mut(&chunk.hash).filter(|fetch| fetch.from == peer) else {
            return Ok(());
        };
        let start = fetch.content.len() as u64;
        let total = *fetch.total.get_or_insert(chunk.total);
        let due = CHUNK.min(total.saturating_sub(start));
        if chunk.offset != start || chunk.total != total || chunk.data.len() as u64 != due {
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        fetch.content.extend_from_slice(&chunk.data);
        let held = fetch.content.len() as u64;
        if held < total {
            let mut wanted = Vec::new();
            while fetch.asked < total.min(held + CHUNK * BLOB_CHUNKS_AHEAD as u64) {
                wanted.push(Frame::Want { hash: chunk.hash, offset: fetch.asked });
                fetch.asked += CHUNK;
            }
            wanted.into_iter().for_each(|frame| self.send(peer, frame));
            return Ok(());
        }
        if BlobHash::of(&fetch.content) == chunk.hash {
            rows.put_blob(chunk.hash, &fetch.content)?;
            self.blobs.arrived(chunk.hash);
            self.give_credit(now);
        } else {
            self.outputs.push_back(Output::Alarm(Alarm::BadBlob { peer, hash: chunk.hash }));
            self.disconnect(peer, Reason::Malformed);
        }
        Ok(())
    }

    /// A peer does not have what it was asked for.
    pub(crate) fn on_gone(&mut self, peer: TrackerNo, hash: BlobHash) {
        if self.blobs.fetches.get(&hash).is_some_and(|fetch| fetch.from == peer) {
            self.blobs.fetches.remove(&hash);
            self.blobs.gone.insert((hash, peer));
        }
    }

    /// A peer asks for a chunk.
    pub(crate) fn on_want<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        hash: BlobHash,
        offset: u64,
    ) -> Result<(), R::Error> {
        let frame = match (rows.blob_len(hash)?, rows.read_blob(hash, offset, BLOB_CHUNK_BYTES)?) {
            (Some(total), Some(data)) => Frame::Chunk(Chunk { hash, offset: offset.min(total), total, data }),
            _ => Frame::Gone { hash },
        };
        self.send(peer, frame);
        Ok(())
    }
}
