//! Gives the present time to held rows whose time is impossible, when an operator says that the clock is
//! right. Such rows come from a clock that was far ahead and was corrected, or from a lying tracker by way of
//! an earlier version.

use super::Replica;
use crate::event::{Now, Warning};
use crate::limits::{MAX_WRITE_BYTES, READ_ROWS, RESTAMP_ROWS};
use crate::row::{Kind, Row};
use crate::rows::Rows;

/// How far restamping has come.
#[derive(Debug, Default)]
pub(crate) struct Restamping {
    kind: u8,
    after: Option<Vec<u8>>,
    rows: u64,
}

impl Replica {
    /// Begins to rewrite, with the present time, every row held here whose time is impossible by this
    /// tracker's clock, which must be right. Every tracker needs this, because all may hold the same rows. It
    /// runs in the background; [`Warning::Restamped`] reports its end.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn restamp<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        self.restamping = Some(Restamping::default());
        self.state.trust_clock(rows, now)
    }

    /// Whether this tracker writes times so far ahead of its clock that others refuse them: its clock was set
    /// back, or is wrong.
    pub fn was_set_back(&self, now: Now) -> bool {
        self.state.was_set_back(now)
    }

    /// Processes the next rows.
    pub(crate) fn restamp_some<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let Some(mut progress) = self.restamping.take() else { return Ok(()) };
        let from = self.state.seq();
        let (mut batch, mut seen) = (Vec::new(), 0);
        let complete = loop {
            let page = rows.scan(Kind(progress.kind), &[], progress.after.as_deref(), READ_ROWS)?;
            let last = page.len() < READ_ROWS;
            seen += page.len();
            for row in page {
                progress.after = Some(row.key.clone());
                if self.state.times.is_impossible(&row) {
                    batch.push(self.state.restamp(rows, row, now)?);
                }
            }
            if last {
                progress.after = None;
                match progress.kind.checked_add(1) {
                    Some(kind) => progress.kind = kind,
                    None => break true,
                }
            }
            // The rows of a page are published at once, so that batches stay short.
            if seen >= RESTAMP_ROWS || !batch.is_empty() {
                break false;
            }
        };
        progress.rows += batch.len() as u64;
        self.publish_parts(from, batch, now);
        if complete {
            self.state.end_restamping();
            self.warn(Warning::Restamped { rows: progress.rows });
        } else {
            self.restamping = Some(progress);
        }
        Ok(())
    }

    /// Publishes newly written rows, numbered consecutively above `from`, in frames of bounded length.
    fn publish_parts(&mut self, mut from: u64, batch: Vec<Row>, now: Now) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        let top = self.state.seq();
        for row in batch {
            if !part.is_empty() && bytes + row.weight() > MAX_WRITE_BYTES {
                let to = row.seq - 1;
                self.publish_range((from, to), std::mem::take(&mut part), None, now);
                (from, bytes) = (to, 0);
            }
            bytes += row.weight();
            part.push(row);
        }
        self.publish_range((from, top), part, None, now);
    }
}
