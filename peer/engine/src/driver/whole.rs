//! Handles a wrong digest of the whole file after all pieces were written.

use std::sync::Arc;

use shoal_common::{Bitfield, Digests};

use crate::digest::{Prefix, Tail};
use crate::driver::{Driver, Work};
use crate::progress::DownloadError;
use shoal_engine_core::Event;

impl Driver {
    /// The file is wrong and there is no way to tell which piece: the next start must not rely on any of them.
    pub(super) fn wrong_whole(&mut self, got: Digests) -> DownloadError {
        self.written = Bitfield::none(self.context.content.layout());
        DownloadError::WrongWhole { expected: Box::new(*self.context.content.digest()), got: Box::new(got) }
    }

    /// All pieces were right when they were written, and the file is not: checks whether the disk is to blame.
    pub(super) fn recheck(&mut self, digest: &Digests) {
        tracing::warn!(got = %digest, expected = %self.context.content.digest(), "wrong digest; checking all pieces again");
        self.rechecking = true;
        let (context, stop) = (self.context.clone(), self.stop_work.clone());
        self.work.spawn_blocking(move || {
            let all: Vec<_> = context.content.layout().iter().collect();
            Work::Rechecked(context.rehash(&all, &stop))
        });
    }

    pub(super) fn rechecked(&mut self, right: &Bitfield) -> Result<(), DownloadError> {
        if right.is_all() {
            self.context.journal.doubt().map_err(Arc::new)?;
            return Err(DownloadError::Digest { expected: Box::new(*self.context.content.digest()) });
        }
        let layout = self.context.content.layout().clone();
        for piece in layout.iter().filter(|&piece| !right.has(piece)) {
            self.written.remove(piece);
            self.handle(Event::Lost(piece));
        }
        self.prefix = Some(Prefix::new(&self.context.content));
        self.covered_bytes = 0;
        self.tail = Tail::new(self.context.content.digest());
        self.publish_verified();
        Ok(())
    }
}
