//! Rows with impossible times that are held here get the present one, when an operator says that the clock is right: those of
//! a clock that was far ahead and was set right, and those that an earlier version took from a lying tracker.

use crate::event::{Now, Warning};
use crate::limits::{MAX_WRITE_BYTES, READ_ROWS, RESTAMP_ROWS};
use crate::replica::Replica;
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
    /// Begins to write anew, with the present time, every row held here whose time is impossible by this tracker's clock, which
    /// must be right. To be said to every tracker, for they may hold the same rows. Done in the background;
    /// [`Warning::Restamped`] says when it is complete.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn restamp<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        self.restamping = Some(Restamping::default());
        self.ledger.trust_clock(rows, now)
    }

    /// Whether what is written here bears times so far ahead of this tracker's clock that others refuse it: the clock was
    /// set back, or is wrong.
    pub fn was_set_back(&self, now: Now) -> bool {
        self.ledger.was_set_back(now)
    }

    /// Looks at some rows more.
    pub(crate) fn restamp_some<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let Some(mut progress) = self.restamping.take() else { return Ok(()) };
        let from = self.ledger.seq();
        let (mut batch, mut seen) = (Vec::new(), 0);
        let complete = loop {
            let page = rows.scan(Kind(progress.kind), &[], progress.after.as_deref(), READ_ROWS)?;
            let last = page.len() < READ_ROWS;
            seen += page.len();
            for row in page {
                progress.after = Some(row.key.clone());
                if self.ledger.times.is_impossible(&row) {
                    batch.push(self.ledger.restamp(rows, row, now)?);
                }
            }
            if last {
                progress.after = None;
                match progress.kind.checked_add(1) {
                    Some(kind) => progress.kind = kind,
                    None => break true,
                }
            }
            // A page that holds any is published by itself, so that batches stay short.
            if seen >= RESTAMP_ROWS || !batch.is_empty() {
                break false;
            }
        };
        progress.rows += batch.len() as u64;
        self.publish_parts(from, batch, now);
        if complete {
            self.ledger.end_restamping();
            self.warn(Warning::Restamped { rows: progress.rows });
        } else {
            self.restamping = Some(progress);
        }
        Ok(())
    }

    /// Publishes rows that were just written, numbered in a row from above `from`, in frames that are not too long.
    fn publish_parts(&mut self, mut from: u64, batch: Vec<Row>, now: Now) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        let top = self.ledger.seq();
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
