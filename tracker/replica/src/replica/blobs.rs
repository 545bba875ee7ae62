//! Blobs that rows name and that are not held yet. They are requested by hash, chunk by chunk, from any
//! connected tracker, and kept only if the content has the hash.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deferred, DeferredItem, Replica};
use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Chunk, Frame};
use crate::limits::{
    BLOB_CHUNK_BYTES, BLOB_CHUNK_MS, BLOB_CHUNKS_AHEAD, BLOB_LOST_MS, BLOB_RETRY_MS, MAX_BLOB_FETCHES,
    MAX_BLOB_FETCHES_PER_PEER, MAX_MISSING_BLOBS, SWEEP_MS,
};
use crate::row::{BlobHash, TrackerNo};
use crate::rows::Rows;

/// What is missing and what is being fetched.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    /// Missing blobs, and the peer that is likely to have each. Every blob that something waits for is among
    /// them.
    wanted: BTreeMap<BlobHash, Option<TrackerNo>>,
    /// Whether rows in the store may name further missing blobs.
    more: bool,
    fetches: BTreeMap<BlobHash, Fetch>,
    /// Peers that said since the last lookup that they do not have the blob.
    gone: BTreeSet<(BlobHash, TrackerNo)>,
    /// Since when no peer has had the blob.
    lost: BTreeMap<BlobHash, u64>,
    next_lookup_ms: u64,
    next_warning_ms: u64,
}

/// A blob that is being fetched.
#[derive(Debug)]
struct Fetch {
    from: TrackerNo,
    content: Vec<u8>,
    total: Option<u64>,
    /// The offset up to which it was requested.
    asked: u64,
    /// When the next chunk must have arrived.
    deadline_ms: u64,
}

const CHUNK: u64 = BLOB_CHUNK_BYTES as u64;

impl Blobs {
    /// Something waits for a blob that is named by a row from `peer`.
    pub(crate) fn want(&mut self, hash: BlobHash, peer: TrackerNo) {
        self.wanted.insert(hash, Some(peer));
    }

    /// Whether a blob is still missing.
    pub(crate) fn is_wanted(&self, hash: BlobHash) -> bool {
        self.wanted.contains_key(&hash)
    }

    /// A blob is held now.
    pub(crate) fn arrived(&mut self, hash: BlobHash) {
        self.wanted.remove(&hash);
        self.fetches.remove(&hash);
        self.lost.remove(&hash);
    }

    /// A peer is gone, and with it what it was sending.
    pub(crate) fn forget_peer(&mut self, peer: TrackerNo) {
        self.fetches.retain(|_, fetch| fetch.from != peer);
        self.gone.retain(|(_, tracker)| *tracker != peer);
    }

    /// When to look for missing blobs again, if any are known.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        let lookup = (self.more || !self.wanted.is_empty()).then_some(self.next_lookup_ms);
        lookup.into_iter().chain(self.fetches.values().map(|fetch| fetch.deadline_ms)).min()
    }

    /// Cancels fetches that are late: another peer may have the blob, and other blobs get their turn.
    fn give_up_late(&mut self, now_ms: u64) {
        let late: Vec<_> = self.fetches.extract_if(.., |_, fetch| now_ms >= fetch.deadline_ms).collect();
        self.gone.extend(late.into_iter().map(|(hash, fetch)| (hash, fetch.from)));
    }

    /// Whether no blob is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.wanted.is_empty() && !self.more
    }
}

impl Replica {
    /// Looks up again what is missing. A peer that did not have a blob may have it now, and a row that was
    /// superseded while it waited needs none. Rows enter the store only after their blobs, so a store that
    /// lacks one was damaged.
    pub(crate) fn look_for_missing<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        self.note_lost(now);
        let lost = &self.blobs.lost;
        let is_lost =
            |hash: &BlobHash| lost.get(hash).is_some_and(|&since| now.mono_ms >= since + BLOB_LOST_MS);
        for wait in &mut self.deferred {
            if let DeferredItem::Row { row, trust } = &wait.what {
                let lacking = self.state.lacks(rows, row, *trust)?;
                wait.hashes = lacking.into_iter().filter(|hash| !is_lost(hash)).collect();
            }
        }
        let of_rows: BTreeSet<BlobHash> =
            self.deferred.iter().filter_map(row_hashes).flatten().copied().collect();
        let mut wanted = BTreeMap::new();
        for wait in &mut self.deferred {
            if matches!(wait.what, DeferredItem::End { .. }) {
                wait.hashes.retain(|hash| of_rows.contains(hash));
            }
            wanted.extend(wait.hashes.iter().map(|&hash| (hash, Some(wait.peer))));
        }
        let blobs = &mut self.blobs;
        let mut listed = rows.missing_blobs(MAX_MISSING_BLOBS + 1)?;
        blobs.more = listed.len() > MAX_MISSING_BLOBS;
        listed.truncate(MAX_MISSING_BLOBS);
        for hash in listed {
            wanted.entry(hash).or_insert(None);
        }
        blobs.wanted = wanted;
        blobs.fetches.retain(|hash, _| blobs.wanted.contains_key(hash));
        blobs.lost.retain(|hash, _| blobs.wanted.contains_key(hash));
        blobs.gone.clear();
        blobs.next_lookup_ms = now.mono_ms + BLOB_RETRY_MS;
        Ok(())
    }

    /// Records the blobs that no connected tracker has had since the last lookup.
    fn note_lost(&mut self, now: Now) {
        let ready = self.ready_peers();
        let blobs = &mut self.blobs;
        for &hash in blobs.wanted.keys() {
            if !ready.is_empty() && ready.iter().all(|&peer| blobs.gone.contains(&(hash, peer))) {
                blobs.lost.entry(hash).or_insert(now.mono_ms);
            } else {
                blobs.lost.remove(&hash);
            }
        }
        if let Some((&hash, _)) = blobs.lost.first_key_value()
            && now.mono_ms >= blobs.next_warning_ms
        {
            blobs.next_warning_ms = now.mono_ms + SWEEP_MS;
            self.outputs.push_back(Output::Warning(Warning::BlobUnavailable { hash }));
        }
    }

    /// Requests missing blobs, up to the limit of concurrent fetches.
    pub(crate) fn fetch_blobs<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        self.blobs.give_up_late(now.mono_ms);
        if self.blobs.next_timeout().is_some_and(|due| now.mono_ms >= due) {
            self.look_for_missing(rows, now)?;
        }
        while self.blobs.fetches.len() < MAX_BLOB_FETCHES {
            let Some((hash, from)) = self.next_fetch() else {
                return Ok(());
            };
            let deadline_ms = now.mono_ms + BLOB_CHUNK_MS;
            let fetch = Fetch { from, content: Vec::new(), total: None, asked: CHUNK, deadline_ms };
            self.blobs.fetches.insert(hash, fetch);
            self.send(from, Frame::Want { hash, offset: 0 });
        }
        Ok(())
    }

    fn next_fetch(&self) -> Option<(BlobHash, TrackerNo)> {
        let blobs = &self.blobs;
        let busy = |peer: TrackerNo| {
            blobs.fetches.values().filter(|fetch| fetch.from == peer).count() >= MAX_BLOB_FETCHES_PER_PEER
        };
        let can = |hash: BlobHash, peer: TrackerNo| {
            self.links.get(&peer).is_some_and(|link| link.is_ready())
                && !blobs.gone.contains(&(hash, peer))
                && !busy(peer)
        };
        blobs.wanted.iter().filter(|(hash, _)| !blobs.fetches.contains_key(hash)).find_map(
            |(&hash, &hint)| {
                let source =
                    hint.into_iter().chain(self.links.keys().copied()).find(|&peer| can(hash, peer))?;
                Some((hash, source))
            },
        )
    }

    /// A chunk arrived.
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
        fetch.deadline_ms = now.mono_ms + BLOB_CHUNK_MS;
        let held = fetch.content.len() as u64;
        self.note_progress(peer, chunk.data.len() as u64, now);
        let Some(fetch) = self.blobs.fetches.get_mut(&chunk.hash) else { return Ok(()) };
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
            self.charge(peer, usize::try_from(held).unwrap_or(usize::MAX), now.mono_ms);
        } else {
            self.outputs.push_back(Output::Alarm(Alarm::BadBlob { peer, hash: chunk.hash }));
            self.disconnect(peer, Reason::Malformed);
        }
        Ok(())
    }

    /// A peer does not have the blob that it was asked for.
    pub(crate) fn on_gone(&mut self, peer: TrackerNo, hash: BlobHash) {
        if self.blobs.fetches.get(&hash).is_some_and(|fetch| fetch.from == peer) {
            self.blobs.fetches.remove(&hash);
            self.blobs.gone.insert((hash, peer));
        }
    }

    /// A peer requests a chunk.
    pub(crate) fn on_want<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        (hash, offset): (BlobHash, u64),
        now: Now,
    ) -> Result<(), R::Error> {
        if let Some(link) = self.links.get_mut(&peer) {
            link.worked_ms = now.mono_ms;
        }
        let frame = match (rows.blob_len(hash)?, rows.read_blob(hash, offset, BLOB_CHUNK_BYTES)?) {
            (Some(total), Some(data)) => Frame::Chunk(Chunk { hash, offset: offset.min(total), total, data }),
            _ => Frame::Gone { hash },
        };
        self.send(peer, frame);
        Ok(())
    }
}

fn row_hashes(wait: &Deferred) -> Option<&BTreeSet<BlobHash>> {
    matches!(wait.what, DeferredItem::Row { .. }).then_some(&wait.hashes)
}
