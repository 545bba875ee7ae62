//! The events of a simulated swarm and their queue.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_common::PieceIndex;
use shoal_engine_core::SourceError;

use crate::peer::Number;

/// An event at some time.
#[derive(Debug)]
pub(crate) enum SimEvent {
    Joins(Number),
    Vanishes(Number),
    Requested {
        by: Number,
        of: Number,
        piece: PieceIndex,
    },
    Cancelled {
        by: Number,
        of: Number,
        piece: PieceIndex,
    },
    /// A block left the uplink.
    BlockSent(Number),
    Received {
        by: Number,
        from: Number,
        piece: PieceIndex,
        bytes: u64,
        whole: bool,
    },
    Refused {
        by: Number,
        from: Number,
        piece: PieceIndex,
        error: SourceError,
    },
    /// A leecher announces its new pieces.
    Flush(Number),
    /// A leecher handles its neighbours' announcements.
    Hears(Number),
    Tick(Number),
    PolicyTick(Number),
}

/// Events by time; those of the same time in the order in which they were queued.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<(Duration, u64), SimEvent>,
    order: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Duration, what: SimEvent) {
        self.order += 1;
        self.entries.insert((at, self.order), what);
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, SimEvent)> {
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }
}
