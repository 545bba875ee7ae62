//! Has the pieces that came checked and written, two batches at a time: one is hashed while another goes to the disk.

use std::sync::Arc;

use crate::digest::Prefix;
use crate::driver::{Driver, Work};
use crate::progress::DownloadError;
use crate::writer::{BATCH_BYTES, Checked, Done, is_in_memory, next_batch};
use shoal_engine_core::Event;

/// Batches at once, where pieces are hashed and come out of order. Two cores take a file from four peers 1.13 times as fast with
/// two, and from one peer 0.95 times (docs/figures.md, "Downloads").
const BATCHES: usize = 2;

impl Driver {
    /// Whether the prefix is lent to the checking: where the pieces and the whole file are hashed, abreast.
    pub(super) fn goes_along(&self) -> bool {
        self.context.content.hashes_pieces() && self.context.content.computes_sha1()
    }

    /// Has the next batches checked and written.
    pub(super) fn start_writing(&mut self) {
        // From one source pieces come in order, and the whole file's SHA-1 goes along with each while it is in the cache. Where
        // nothing is hashed there is nothing to do beside the writing, of which the system does one at a time.
        let apart = self.context.content.hashes_pieces() && self.core.sources() > 1;
        let most = if apart { BATCHES } else { 1 };
        while self.batches < most && !self.alone {
            let batch = next_batch(&mut self.queue);
            let alone = !is_in_memory(&batch);
            if alone && self.batches > 0 {
                // The next batch is in the same order again.
                batch.into_iter().rev().for_each(|job| self.queue.push_front(job));
                return;
            }
            if batch.is_empty() {
                return;
            }
            (self.batches, self.alone) = (self.batches + 1, alone);
            let goes_along = self.goes_along();
            let along = |prefix: &mut Prefix| goes_along && !prefix.is_far(&self.written);
            let prefix = self.prefix.take_if(along);
            let (context, written) = (self.context.clone(), self.written.clone());
            self.work.spawn_blocking(move || Work::Written(context.work(batch, prefix, &written)));
        }
    }

    /// Whether pieces that came are still being checked or written.
    pub(super) fn is_working(&self) -> bool {
        self.batches > 0 || !self.queue.is_empty()
    }

    /// A batch comes back.
    pub(super) fn take_in(&mut self, done: Done) -> Result<(), DownloadError> {
        (self.batches, self.alone) = (self.batches - 1, false);
        if let Some(prefix) = done.prefix {
            self.take_back(prefix);
        }
        self.account(done.checked);
        Ok(done.result.map_err(Arc::new)?)
    }

    /// The prefix comes back from a job.
    pub(super) fn take_back(&mut self, mut prefix: Prefix) {
        self.for_prefix.drain(..).for_each(|data| prefix.keep(data));
        self.tail.follow(&mut prefix);
        self.covered_bytes = prefix.covered_bytes();
        self.prefix = Some(prefix);
    }

    fn account(&mut self, checked: Vec<Checked>) {
        let layout = self.context.content.layout().clone();
        let most_for_prefix = BATCH_BYTES.div_ceil(layout.piece_length() as usize);
        for piece in checked {
            match piece {
                Checked::Rejected(piece) => {
                    self.stats.wasted(u64::from(layout.length(piece)));
                    self.handle(Event::Rejected(piece));
                }
                Checked::Written(data) => {
                    let piece = data.piece;
                    self.written.insert(piece);
                    self.files.written(&layout, piece);
                    self.unsaved_bytes += u64::from(layout.length(piece));
                    match &mut self.prefix {
                        Some(prefix) => prefix.keep(data),
                        None if self.for_prefix.len() < most_for_prefix => self.for_prefix.push(data),
                        None => {}
                    }
                    self.handle(Event::Verified(piece));
                    self.handle(Event::Written(piece));
                }
            }
        }
        self.publish_verified();
    }
}
