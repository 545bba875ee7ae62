//! The serving side of an anti-entropy sync: rows above the puller's vector in short reads, a frame for each
//! unit of credit, and END with the vector of the transaction in which no row was left.

use super::Replica;
use crate::event::Reason;
use crate::frame::{Frame, Pull};
use crate::limits::{BUCKETS, MAX_ROWS_PER_FRAME, MAX_SYNC_CREDIT, READ_ROWS, SYNC_FRAME_BYTES};
use crate::row::{Kind, Row, TrackerNo};
use crate::rows::Rows;
use crate::state::ReplicaState;
use crate::vector::VersionVector;

/// A sync that a peer pulls.
#[derive(Debug)]
pub(crate) struct Serving {
    sync_id: u64,
    credit: u32,
    cursor: Cursor,
}

#[derive(Debug)]
enum Cursor {
    /// The numbers up to which rows were sent, by writer.
    Vector(VersionVector),
    /// Buckets still to be sent, in reverse order, and the last row sent of the current one.
    Buckets { left: Vec<u16>, after: Option<(Kind, Vec<u8>)> },
}

impl Replica {
    /// A peer asks for a sync. An earlier one that it asked for is dropped.
    pub(crate) fn on_pull<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        pull: &Pull,
    ) -> Result<(), R::Error> {
        // The rows to be sent may have been deleted at that peer.
        let held = self.links.get(&peer).is_some_and(|link| link.needs_full_sync);
        if self.is_full_sync_pending() || held {
            self.send(peer, Frame::Busy { sync_id: pull.sync_id });
            return Ok(());
        }
        let cursor = match &pull.sums {
            Some(sums) => {
                Cursor::Buckets { left: differing_buckets(&rows.bucket_sums()?, sums), after: None }
            }
            None if pull.full => Cursor::Vector(VersionVector::default()),
            None => Cursor::Vector(self.links.get(&peer).map(|link| link.vector.clone()).unwrap_or_default()),
        };
        if let Some(link) = self.links.get_mut(&peer) {
            link.serving = Some(Serving { sync_id: pull.sync_id, credit: pull.credit, cursor });
        }
        self.serve(rows, peer)
    }

    /// The puller has room for more frames.
    pub(crate) fn on_more<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        sync_id: u64,
        frames: u32,
    ) -> Result<(), R::Error> {
        let serving = self.links.get_mut(&peer).and_then(|link| link.serving.as_mut());
        let Some(serving) = serving.filter(|serving| serving.sync_id == sync_id) else {
            return Ok(());
        };
        serving.credit = serving.credit.saturating_add(frames);
        if serving.credit > MAX_SYNC_CREDIT {
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        self.serve(rows, peer)
    }

    fn serve<R: Rows>(&mut self, rows: &R, peer: TrackerNo) -> Result<(), R::Error> {
        let Some(mut serving) = self.links.get_mut(&peer).and_then(|link| link.serving.take()) else {
            return Ok(());
        };
        let sync_id = serving.sync_id;
        while serving.credit > 0 {
            let mut part = Part::default();
            let complete = match &mut serving.cursor {
                Cursor::Vector(sent) => read_above(&self.state, rows, sent, &mut part)?,
                Cursor::Buckets { left, after } => read_buckets(rows, left, after, &mut part)?,
            };
            if !part.rows.is_empty() {
                serving.credit -= 1;
                self.send(peer, Frame::Rows { sync_id, rows: part.rows });
            }
            if complete {
                let extra = read_ahead(&self.state, rows)?;
                if !extra.rows.is_empty() {
                    self.send(peer, Frame::Rows { sync_id, rows: extra.rows });
                }
                self.announce_vector(peer);
                self.send(peer, Frame::End { sync_id });
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
        self.bytes >= SYNC_FRAME_BYTES || self.rows.len() >= MAX_ROWS_PER_FRAME
    }

    fn push(&mut self, row: Row) {
        self.bytes += row.weight();
        self.rows.push(row);
    }
}

/// Continues reading from `sent` up to the local vector: rows beyond it may still get neighbours below them.
/// Returns whether no row is left in this transaction.
fn read_above<R: Rows>(
    state: &ReplicaState,
    rows: &R,
    sent: &mut VersionVector,
    part: &mut Part,
) -> Result<bool, R::Error> {
    for (writer, top) in state.vector.iter() {
        while sent.at(writer) < top {
            if part.is_full() {
                return Ok(false);
            }
            let page = rows.above(writer, sent.at(writer), READ_ROWS)?;
            let read = page.len();
            let mut taken = 0;
            for row in page.into_iter().take_while(|row| row.seq <= top) {
                if part.is_full() {
                    return Ok(false);
                }
                taken += 1;
                sent.raise(writer, row.seq);
                part.push(row);
            }
            if taken < read || read < READ_ROWS {
                sent.raise(writer, top);
            }
        }
    }
    Ok(true)
}

/// Some of the rows beyond the local vector. END does not cover them, but a row that one of them superseded
/// would otherwise be missed until the gap closes.
fn read_ahead<R: Rows>(state: &ReplicaState, rows: &R) -> Result<Part, R::Error> {
    let mut part = Part::default();
    for writer in state.ahead() {
        for row in rows.above(writer, state.vector.at(writer), READ_ROWS)? {
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

/// Bucket sums as sent in a frame.
pub(crate) fn encode_sums(sums: &[u128]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

fn differing_buckets(own: &[u128], theirs: &[u8]) -> Vec<u16> {
    let pairs = own.iter().zip(theirs.chunks_exact(16)).zip(0..).take(BUCKETS);
    pairs.filter(|((own, theirs), _)| own.to_le_bytes() != **theirs).map(|(_, bucket)| bucket).collect()
}
