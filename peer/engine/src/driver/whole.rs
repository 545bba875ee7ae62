//! What is done when all pieces are there and the whole file's digest is wrong.

use std::sync::Arc;

use shoal_common::{Bitfield, Digests};

use crate::digest::{Prefix, Tail};
use crate::driver::{Driver, Work};
use crate::progress::DownloadError;
use shoal_engine_core::Event;

impl Driver {
    /// The whole is wrong and nobody can say which piece: nothing of it is to be relied on when it is started again.
    pub(super) fn wrong_whole(&mut self, got: Digests) -> DownloadError {
        self.written = Bitfield::none(self.place.content.layout());
        DownloadError::WrongWhole { expected: Box::new(*self.place.content.digest()), got: Box::new(got) }
    }

    /// All pieces were right when they were written, and the whole is not: finds out whether the disk is to blame.
    pub(super) fn recheck(&mut self, digest: &Digests) {
        tracing::warn!(got = %digest, expected = %self.place.content.digest(), "wrong digest; checking all pieces again");
        self.rechecking = true;
        let (place, stop) = (self.place.clone(), self.stop_work.clone());
        self.work.spawn_blocking(move || {
            let all: Vec<_> = place.content.layout().iter().collect();
            Work::Rechecked(place.rehash(&all, &stop))
        });
    }

    pub(super) fn rechecked(&mut self, right: &Bitfield) -> Result<(), DownloadError> {
        if right.is_all() {
            self.place.journal.doubt().map_err(Arc::new)?;
            return Err(DownloadError::Digest { expected: Box::new(*self.place.content.digest()) });
        }
        let layout = *self.place.content.layout();
        for piece in layout.iter().filter(|&piece| !right.has(piece)) {
            self.written.remove(piece);
            self.tell(Event::Lost(piece));
        }
        self.prefix = Some(Prefix::new(layout));
        self.covered_bytes = 0;
        self.tail = Tail::new(self.place.content.digest());
        self.publish_verified();
        Ok(())
    }
}
