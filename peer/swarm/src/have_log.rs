//! The have log: which pieces of a file are offered to others, in the order in which they came, so that a peer that knows
//! of some is sent just the rest. Written by [`super::uploads`]; read by the connections that serve the file and by the
//! sources that download it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::{Bitfield, Layout, PieceIndex};
use tokio::sync::watch;

/// The pieces offered of one file. Empty until the file is served.
#[derive(Debug)]
pub(super) struct HaveLog {
    offered: Mutex<Offered>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Offered {
    /// Counts the times at which everything was taken back.
    era: u64,
    /// In order of arrival. Not kept for a file that was whole from the start.
    order: Vec<PieceIndex>,
    known: Option<Bitfield>,
    all: bool,
}

/// How far a reader has read the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HaveCursor {
    era: u64,
    count: usize,
}

impl HaveLog {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { offered: Mutex::default(), version: watch::Sender::new(0) })
    }

    /// Adds pieces; true if some are new.
    pub(super) fn extend(&self, layout: &Layout, pieces: &Bitfield) -> bool {
        let mut offered = self.offered();
        let Offered { order, known, all, .. } = &mut *offered;
        let known = known.get_or_insert_with(|| Bitfield::none(layout));
        let before = order.len();
        order.extend(pieces.iter(layout).filter(|&piece| known.insert(piece)));
        *all = known.is_all();
        let grown = order.len() > before;
        drop(offered);
        if grown {
            self.version.send_modify(|version| *version += 1);
        }
        grown
    }

    /// The whole file is offered. A reader of a part is given the rest.
    pub(super) fn complete(&self, layout: &Layout) -> bool {
        if self.offered().known.is_some() {
            return self.extend(layout, &Bitfield::all(layout));
        }
        self.offered().all = true;
        false
    }

    /// Nothing is offered any more.
    pub(super) fn clear(&self) {
        let mut offered = self.offered();
        *offered = Offered { era: offered.era + 1, ..Offered::default() };
        drop(offered);
        self.version.send_modify(|version| *version += 1);
    }

    pub(super) fn is_all(&self) -> bool {
        self.offered().all
    }

    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        let offered = self.offered();
        offered.all || offered.known.as_ref().is_some_and(|known| known.has(piece))
    }

    /// What is offered now, none for all of it, and a cursor behind it.
    pub(super) fn now(&self, layout: &Layout) -> (Option<Bitfield>, HaveCursor) {
        let offered = self.offered();
        let cursor = HaveCursor { era: offered.era, count: offered.order.len() };
        let pieces = (!offered.all).then(|| offered.known.clone().unwrap_or_else(|| Bitfield::none(layout)));
        (pieces, cursor)
    }

    /// What came since the cursor, which moves on.
    pub(super) fn since(&self, cursor: &mut HaveCursor) -> Vec<PieceIndex> {
        let offered = self.offered();
        if cursor.era != offered.era {
            *cursor = HaveCursor { era: offered.era, count: 0 };
        }
        let pieces = offered.order.get(cursor.count..).unwrap_or_default().to_vec();
        cursor.count = offered.order.len();
        pieces
    }

    /// A number that changes with every change.
    pub(super) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn offered(&self) -> MutexGuard<'_, Offered> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(5 * 65_536, 65_536).unwrap()
    }

    fn bits(pieces: &[u32]) -> Bitfield {
        let layout = layout();
        let mut bits = Bitfield::none(&layout);
        pieces.iter().for_each(|&piece| assert!(bits.insert(layout.piece(piece).unwrap())));
        bits
    }

    fn numbers(pieces: &[PieceIndex]) -> Vec<u32> {
        pieces.iter().map(|piece| piece.get()).collect()
    }

    #[test]
    fn each_reader_is_given_just_the_rest() {
        let log = HaveLog::new();
        let mut early = HaveCursor::default();
        assert!(log.extend(&layout(), &bits(&[3])));
        assert!(!log.extend(&layout(), &bits(&[3])));
        let (pieces, mut late) = log.now(&layout());
        assert_eq!(pieces, Some(bits(&[3])));
        log.extend(&layout(), &bits(&[1, 3]));
        assert_eq!(numbers(&log.since(&mut early)), [3, 1]);
        assert!(log.since(&mut early).is_empty());
        log.complete(&layout());
        assert_eq!(numbers(&log.since(&mut early)), [0, 2, 4]);
        assert_eq!(numbers(&log.since(&mut late)), [1, 0, 2, 4]);
        assert_eq!(log.now(&layout()).0, None);
    }

    #[test]
    fn a_file_that_was_whole_from_the_start_has_an_empty_log() {
        let log = HaveLog::new();
        assert!(!log.complete(&layout()));
        assert!(log.is_all() && log.has(layout().piece(4).unwrap()));
        assert!(log.since(&mut HaveCursor::default()).is_empty());
    }

    #[test]
    fn what_was_taken_back_is_given_again() {
        let log = HaveLog::new();
        let mut cursor = HaveCursor::default();
        log.extend(&layout(), &bits(&[3]));
        log.since(&mut cursor);
        log.clear();
        assert!(!log.has(layout().piece(3).unwrap()));
        log.extend(&layout(), &bits(&[2]));
        assert_eq!(numbers(&log.since(&mut cursor)), [2]);
    }
}
