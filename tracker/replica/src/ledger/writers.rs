//! Which writers are known.

use super::Ledger;
use crate::limits::MAX_ORIGINS;
use crate::row::Origin;

impl Ledger {
    /// Whether a writer is known already.
    pub(crate) fn knows(&self, origin: Origin) -> bool {
        origin == self.origin
            || self.vector.at(origin) > 0
            || self.ahead.at(origin) > 0
            || self.admitted.contains(&origin)
    }

    /// How many writers are known.
    pub(crate) fn writers(&self) -> usize {
        self.vector.len() + self.admitted.len()
    }

    /// Rows of this writer may be taken.
    pub(crate) fn admit(&mut self, origin: Origin) {
        if self.admitted.len() < MAX_ORIGINS {
            self.admitted.insert(origin);
        }
    }
}
