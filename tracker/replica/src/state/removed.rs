//! How many rows were removed here lately on one tracker's word, with no other tracker to ask.

use super::{META_REMOVED, ReplicaState, number};
use crate::event::Now;
use crate::limits::DAY_MS;
use crate::rows::Rows;

impl ReplicaState {
    /// Whether `count` more rows may be removed today, given `most` per day. Records them if so.
    pub(crate) fn may_remove<R: Rows>(
        &mut self,
        rows: &mut R,
        count: u64,
        most: u64,
        now: Now,
    ) -> Result<bool, R::Error> {
        let kept = rows.meta(META_REMOVED)?.unwrap_or_default();
        let (before, since) = match kept.split_first_chunk::<8>() {
            Some((before, since)) => (u64::from_be_bytes(*before), number(since).unwrap_or(0)),
            None => (0, 0),
        };
        let today = now.wall_ms.abs_diff(since) < DAY_MS;
        let (before, since) = if today { (before, since) } else { (0, now.wall_ms) };
        let sum = before.saturating_add(count);
        if sum > most {
            return Ok(false);
        }
        rows.put_meta(META_REMOVED, &[sum.to_be_bytes(), since.to_be_bytes()].concat())?;
        Ok(true)
    }
}
