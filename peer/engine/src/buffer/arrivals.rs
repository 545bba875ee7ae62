//! What a source reports of a request beside its bytes: that bytes came which cannot be appended yet, or that it waits for an
//! answer to begin. Such a source does not count as silent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::buffer::Filling;

/// Reports bytes of a request that cannot be appended yet, because a sealed piece opens as a whole.
#[derive(Debug, Clone)]
pub struct Arrivals(Arc<Filling>);

impl Arrivals {
    pub(super) fn new(filling: Arc<Filling>) -> Self {
        Self(filling)
    }

    /// So many bytes of the run came so far, in all.
    pub fn received(&self, bytes: u64) {
        let mut state = self.0.state();
        if bytes > 0 {
            state.first_byte.get_or_insert_with(Instant::now);
        }
        state.received = state.received.max(bytes.min(self.0.run.length()));
    }

    /// While the value lives the source counts as at work although nothing comes: it has asked, and bounds by itself how
    /// long it waits for the answer to begin.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.0.held_up.store(true, Ordering::Relaxed);
        Waiting(self.0.clone())
    }
}

/// See [`Arrivals::waiting`].
#[derive(Debug)]
pub struct Waiting(Arc<Filling>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.held_up.store(false, Ordering::Relaxed);
    }
}
