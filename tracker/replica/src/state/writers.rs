//! The writers that are known here.

use super::ReplicaState;
use crate::limits::MAX_WRITERS;
use crate::row::WriterId;

impl ReplicaState {
    /// Whether a writer is known.
    pub(crate) fn knows(&self, writer: WriterId) -> bool {
        writer == self.writer
            || self.vector.at(writer) > 0
            || self.ahead.at(writer) > 0
            || self.admitted.contains(&writer)
    }

    /// How many writers are known.
    pub(crate) fn writers(&self) -> usize {
        self.vector.len() + self.admitted.len()
    }

    /// Allows rows of this writer to be taken.
    pub(crate) fn admit(&mut self, writer: WriterId) {
        if self.admitted.len() < MAX_WRITERS {
            self.admitted.insert(writer);
        }
    }
}
