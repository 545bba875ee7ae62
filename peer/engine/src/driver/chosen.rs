//! Which files of a folder are fetched: it may change while the download runs.

use std::sync::Arc;

use crate::chosen::Chosen;
use crate::driver::Driver;
use shoal_engine_core::Event;

impl Driver {
    /// Only these files are fetched from now on.
    pub(super) fn choose(&mut self, chosen: &Chosen) {
        let layout = self.context.content.layout().clone();
        self.chosen = Arc::new(chosen.pieces(&layout));
        self.stats.total = chosen.bytes(&layout);
        self.files.choose(chosen);
        self.handle(Event::Chosen(self.chosen.clone()));
    }

    /// Bytes of pieces that are to be fetched, and verified and written.
    pub(super) fn verified_bytes(&self) -> u64 {
        let layout = self.context.content.layout();
        if self.chosen.is_all() {
            self.written.bytes(layout)
        } else {
            self.written.and(&self.chosen).bytes(layout)
        }
    }
}
