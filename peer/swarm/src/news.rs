//! Which pieces of a file are offered to others, in the order in which they came, so that everybody who was told some
//! of them can be told just the rest. Written by [`super::uploads`]; read by the connections that serve the file and by
//! the sources that download it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::{Bitfield, Layout, PieceIndex};
use tokio::sync::watch;

/// The pieces offered of one file. Empty until the file is served.
#[derive(Debug)]
pub(super) struct News {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the times at which everything was taken back.
    era: u64,
    /// In order of arrival. Not kept for a file that was whole from the start.
    order: Vec<PieceIndex>,
    known: Option<Bitfield>,
    all: bool,
}

/// How far somebody was told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    era: u64,
    count: usize,
}

impl News {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), version: watch::Sender::new(0) })
    }

    /// Adds pieces; true if some are new.
    pub(super) fn extend(&self, layout: &Layout, pieces: &Bitfield) -> bool {
        let mut state = self.state();
        let State { order, known, all, .. } = &mut *state;
        let known = known.get_or_insert_with(|| Bitfield::none(layout));
        let before = order.len();
        order.extend(pieces.iter(layout).filter(|&piece| known.insert(piece)));
        *all = known.is_all();
        let grown = order.len() > before;
        drop(state);
        if grown {
            self.version.send_modify(|version| *version += 1);
        }
        grown
    }

    /// The whole file is offered. Whoever was told of a part is told of the rest.
    pub(super) fn complete(&self, layout: &Layout) -> bool {
        if self.state().known.is_some() {
            return self.extend(layout, &Bitfield::all(layout));
        }
        self.state().all = true;
        false
    }

    /// Nothing is offered any more.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        *state = State { era: state.era + 1, ..State::default() };
        drop(state);
        self.version.send_modify(|version| *version += 1);
    }

    pub(super) fn is_all(&self) -> bool {
        self.state().all
    }

    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        let state = self.state();
        state.all || state.known.as_ref().is_some_and(|known| known.has(piece))
    }

    /// What is offered now, none for all of it, and from where on it is news.
    pub(super) fn now(&self, layout: &Layout) -> (Option<Bitfield>, Told) {
        let state = self.state();
        let told = Told { era: state.era, count: state.order.len() };
        let pieces = (!state.all).then(|| state.known.clone().unwrap_or_else(|| Bitfield::none(layout)));
        (pieces, told)
    }

    /// What came since, and notes that it is told.
    pub(super) fn since(&self, told: &mut Told) -> Vec<PieceIndex> {
        let state = self.state();
        if told.era != state.era {
            *told = Told { era: state.era, count: 0 };
        }
        let pieces = state.order.get(told.count..).unwrap_or_default().to_vec();
        told.count = state.order.len();
        pieces
    }

    /// A number that changes with every change.
    pub(super) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn each_is_told_just_the_rest() {
        let news = News::new();
        let mut early = Told::default();
        assert!(news.extend(&layout(), &bits(&[3])));
        assert!(!news.extend(&layout(), &bits(&[3])));
        let (pieces, mut late) = news.now(&layout());
        assert_eq!(pieces, Some(bits(&[3])));
        news.extend(&layout(), &bits(&[1, 3]));
        assert_eq!(numbers(&news.since(&mut early)), [3, 1]);
        assert!(news.since(&mut early).is_empty());
        news.complete(&layout());
        assert_eq!(numbers(&news.since(&mut early)), [0, 2, 4]);
        assert_eq!(numbers(&news.since(&mut late)), [1, 0, 2, 4]);
        assert_eq!(news.now(&layout()).0, None);
    }

    #[test]
    fn a_file_that_was_whole_from_the_start_is_no_news() {
        let news = News::new();
        assert!(!news.complete(&layout()));
        assert!(news.is_all() && news.has(layout().piece(4).unwrap()));
        assert!(news.since(&mut Told::default()).is_empty());
    }

    #[test]
    fn what_was_taken_back_is_told_anew() {
        let news = News::new();
        let mut told = Told::default();
        news.extend(&layout(), &bits(&[3]));
        news.since(&mut told);
        news.clear();
        assert!(!news.has(layout().piece(3).unwrap()));
        news.extend(&layout(), &bits(&[2]));
        assert_eq!(numbers(&news.since(&mut told)), [2]);
    }
}
