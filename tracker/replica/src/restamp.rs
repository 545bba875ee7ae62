//! Rows with impossible times that are held here get the present one: those of a clock that was hours ahead and was set
//! right since, and, when an operator wants it, those that an earlier version took from a lying tracker.

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
    /// Begins to write anew, with the present time, every row held here whose time is far ahead. Done in the background;
    /// [`Warning::Restamped`] says when it is complete.
    pub fn restamp(&mut self) {
        self.restamping.get_or_insert_default();
        self.ledger.times.is_confirmed = true;
    }

    /// What time it is, and whether half of the others or more say so too.
    pub(crate) fn look_at_clock(&mut self, now: Now) {
        let ready = self.links.values().filter(|link| link.is_ready()).count();
        let confirmed = ready > 0 && 2 * ready + 1 >= self.ledger.configured.len();
        self.ledger.times.at(now);
        self.ledger.times.is_confirmed = confirmed || self.restamping.is_some();
    }

    /// Looks at some rows more.
    pub(crate) fn restamp_some<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if self.ledger.was_set_back() {
            self.restamp();
        }
        let Some(mut progress) = self.restamping.take() else { return Ok(()) };
        let from = self.ledger.seq();
        let (mut batch, mut bytes, mut seen) = (Vec::new(), 0, 0);
        let complete = loop {
            let page = rows.scan(Kind(progress.kind), &[], progress.after.as_deref(), READ_ROWS)?;
            let last = page.len() < READ_ROWS;
            seen += page.len();
            for row in page {
                progress.after = Some(row.key.clone());
                if self.ledger.is_impossible(&row) {
                    bytes += row.weight();
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
            // A page of the largest rows is too much for one frame, so pages that hold any are published one by one.
            if seen >= RESTAMP_ROWS || bytes > 0 {
                break false;
            }
        };
        progress.rows += batch.len() as u64;
        self.publish_parts(from, batch, now);
        if complete {
            self.ledger.end_restamping(rows, now)?;
            if progress.rows > 0 {
                self.warn(Warning::Restamped { rows: progress.rows });
            }
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
                self.publish_range(from, to, std::mem::take(&mut part), None, now);
                (from, bytes) = (to, 0);
            }
            bytes += row.weight();
            part.push(row);
        }
        self.publish_range(from, top, part, None, now);
    }
}
