//! How much was removed here lately by one tracker's word, with nobody else to ask.

use super::{Ledger, META_REMOVED, number};
use crate::event::Now;
use crate::rows::Rows;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

impl Ledger {
    /// Whether so many rows more may be removed today, if it may be `most` in a day; notes them if so.
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
