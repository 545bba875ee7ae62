//! The giving side of a round: rows above the puller's vector in short reads, a frame for each that it has room for, and
//! END with the vector of the very transaction in which nothing was left.

use crate::event::Reason;
use crate::frame::{Frame, Pull};
use crate::ledger::Ledger;
use crate::limits::{BUCKETS, MAX_ROUND_CREDIT, MAX_ROWS_PER_FRAME, READ_ROWS, ROUND_FRAME_BYTES};
use crate::replica::Replica;
use crate::row::{Kind, Row, TrackerNo};
use crate::rows::Rows;
use crate::vector::VersionVector;

/// A round that a peer pulls.
#[derive(Debug)]
pub(crate) struct Serving {
    round: u64,
    credit: u32,
    cursor: Cursor,
}

#[derive(Debug)]
enum Cursor {
    /// Up to where rows were sent, by origin.
    Vector(VersionVector),
    /// Buckets still to be sent, the last first, and the last row sent of that one.
    Buckets { left: Vec<u16>, after: Option<(Kind, Vec<u8>)> },
}

impl Replica {
    /// A peer asks for a round. One that it asked for before is forgotten.
    pub(crate) fn on_pull<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        pull: &Pull,
    ) -> Result<(), R::Error> {
        // What it would be sent may have been deleted there.
        let held = self.links.get(&peer).is_some_and(|link| link.fresh);
        if self.needs_fresh_round() || held {
            self.send(peer, Frame::Busy { round: pull.round });
            return Ok(());
        }
        let cursor = match &pull.sums {
            Some(sums) => {
                Cursor::Buckets { left: differing_buckets(&rows.bucket_sums()?, sums), after: None }
            }
            None if pull.fresh => Cursor::Vector(VersionVector::default()),
            None => Cursor::Vector(self.links.get(&peer).map(|link| link.vector.clone()).unwrap_or_default()),
        };
        if let Some(link) = self.links.get_mut(&peer) {
            link.serving = Some(Serving { round: pull.round, credit: pull.credit, cursor });
        }
        self.serve(rows, peer)
    }

    /// The puller has room again.
    pub(crate) fn on_more<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        round: u64,
        frames: u32,
    ) -> Result<(), R::Error> {
        let serving = self.links.get_mut(&peer).and_then(|link| link.serving.as_mut());
        let Some(serving) = serving.filter(|serving| serving.round == round) else {
            return Ok(());
        };
        serving.credit = serving.credit.saturating_add(frames);
        if serving.credit > MAX_ROUND_CREDIT {
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        self.serve(rows, peer)
    }

    fn serve<R: Rows>(&mut self, rows: &R, peer: TrackerNo) -> Result<(), R::Error> {
        let Some(mut serving) = self.links.get_mut(&peer).and_then(|link| link.serving.take()) else {
            return Ok(());
        };
        let round = serving.round;
        while serving.credit > 0 {
            let mut part = Part::default();
            let complete = match &mut serving.cursor {
                Cursor::Vector(sent) => read_above(&self.ledger, rows, sent, &mut part)?,
                Cursor::Buckets { left, after } => read_buckets(rows, left, after, &mut part)?,
            };
            if !part.rows.is_empty() {
                serving.credit -= 1;
                self.send(peer, Frame::Rows { round, rows: part.rows });
            }
            if complete {
                let extra = read_ahead(&self.ledger, rows)?;
                if !extra.rows.is_empty() {
                    self.send(peer, Frame::Rows { round, rows: extra.rows });
                }
                self.tell(peer);
                self.send(peer, Frame::End { round });
                return Ok(());
            }
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.serving = Some(serving);
        }
        Ok(())
    }
}

/// The rows of one frame.
#[derive(Debug, Default)]
struct Part {
    rows: Vec<Row>,
    bytes: usize,
}

impl Part {
    fn is_full(&self) -> bool {
        self.bytes >= ROUND_FRAME_BYTES || self.rows.len() >= MAX_ROWS_PER_FRAME
    }

    fn push(&mut self, row: Row) {
        self.bytes += row.weight();
        self.rows.push(row);
    }
}

/// Reads on from `sent`, up to the own vector: what lies beyond it may still get neighbours below it. Says whether
/// nothing is left in this transaction.
fn read_above<R: Rows>(
    ledger: &Ledger,
    rows: &R,
    sent: &mut VersionVector,
    part: &mut Part,
) -> Result<bool, R::Error> {
    for (origin, top) in ledger.vector.iter() {
        while sent.at(origin) < top {
            if part.is_full() {
                return Ok(false);
            }
            let page = rows.above(origin, sent.at(origin), READ_ROWS)?;
            let read = page.len();
            let mut taken = 0;
            for row in page.into_iter().take_while(|row| row.seq <= top) {
                if part.is_full() {
                    return Ok(false);
                }
                taken += 1;
                sent.raise(origin, row.seq);
                part.push(row);
            }
            if taken < read || read < READ_ROWS {
                sent.raise(origin, top);
            }
        }
    }
    Ok(true)
}

/// Some of what is held beyond the own vector. END does not speak for these rows, but a row that such a one superseded
/// would otherwise be missed until the gap closes.
fn read_ahead<R: Rows>(ledger: &Ledger, rows: &R) -> Result<Part, R::Error> {
    let mut part = Part::default();
    for origin in ledger.ahead() {
        for row in rows.above(origin, ledger.vector.at(origin), READ_ROWS)? {
            if part.is_full() {
                return Ok(part);
            }
            part.push(row);
        }
    }
    Ok(part)
}

fn read_buckets<R: Rows>(
    rows: &R,
    left: &mut Vec<u16>,
    after: &mut Option<(Kind, Vec<u8>)>,
    part: &mut Part,
) -> Result<bool, R::Error> {
    while let Some(&bucket) = left.last() {
        if part.is_full() {
            return Ok(false);
        }
        let start = after.as_ref().map(|(kind, key)| (*kind, key.as_slice()));
        let page = rows.bucket_rows(bucket, start, READ_ROWS)?;
        let read = page.len();
        for row in page {
            if part.is_full() {
                return Ok(false);
            }
            *after = Some((row.kind, row.key.clone()));
            part.push(row);
        }
        if read < READ_ROWS {
            left.pop();
            *after = None;
        }
    }
    Ok(true)
}

/// Bucket sums as they travel.
pub(crate) fn encode_sums(sums: &[u128]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

fn differing_buckets(own: &[u128], theirs: &[u8]) -> Vec<u16> {
    let pairs = own.iter().zip(theirs.chunks_exact(16)).zip(0..).take(BUCKETS);
    pairs.filter(|((own, theirs), _)| own.to_le_bytes() != **theirs).map(|(_, bucket)| bucket).collect()
}
