//! What the core remembers of a piece, a request and a source.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shoal_common::PieceIndex;

use crate::RequestId;
use crate::selector::ItemSet;
use crate::source::{PieceRun, SourceId};
use crate::window::RequestWindow;

/// A piece is in exactly one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Missing,
    /// Asked for, by a second request too in the endgame.
    Requested {
        by: RequestId,
        second: Option<RequestId>,
    },
    Received {
        from: SourceId,
    },
    Verified,
    Written,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceId,
    pub(super) run: PieceRun,
    /// Pieces of the run that arrived.
    pub(super) arrived: u32,
    /// Bytes of the run that came.
    pub(super) received: u64,
    pub(super) issued: Instant,
    /// What the source had delivered when the request was issued.
    pub(super) delivered_before: u64,
    /// How long it should take, as estimated when it was issued.
    pub(super) expected: Duration,
}

impl Request {
    pub(super) fn remaining(&self) -> u64 {
        self.run.length().saturating_sub(self.received)
    }

    /// The pieces that did not arrive yet.
    pub(super) fn pending(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + use<> {
        let run = self.run.clone();
        (self.arrived..run.count()).filter_map(move |position| run.at(position))
    }
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) window: RequestWindow,
    /// `None`: all pieces.
    pub(super) have: Option<ItemSet>,
    pub(super) requests: BTreeSet<RequestId>,
    /// When something was last heard of it, or asked of it after a pause.
    pub(super) active: Instant,
    pub(super) paused_until: Option<Instant>,
    /// Silences in a row.
    pub(super) silences: u32,
    /// Pieces that it will not serve before a time; at most `MAX_NOT_NOW`.
    pub(super) not_now: Vec<(PieceIndex, Instant)>,
    /// A piece that it would rather serve.
    pub(super) prefers: Option<PieceIndex>,
    /// There was nothing to ask it for when the set of missing pieces was of this generation.
    pub(super) exhausted: Option<u64>,
    /// No second copy is asked of it before this.
    pub(super) endgame_after: Option<Instant>,
    /// Nor is a straggler's piece before this.
    pub(super) straggler_after: Option<Instant>,
}

impl Source {
    pub(super) fn holds(&self, piece: PieceIndex) -> bool {
        self.have.as_ref().is_none_or(|have| have.has(piece.get()))
    }

    /// Whether it is another downloader.
    pub(super) fn is_partial(&self) -> bool {
        self.have.as_ref().is_some_and(|have| !have.is_empty())
    }

    /// Whether it has not asked to wait for this piece.
    pub(super) fn would_serve(&self, piece: PieceIndex) -> bool {
        self.not_now.iter().all(|&(refused, _)| refused != piece) && self.holds(piece)
    }
}
