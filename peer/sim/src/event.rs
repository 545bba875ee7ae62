//! The events of a simulated swarm and their queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
    entries: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Duration, what: SimEvent) {
        self.order += 1;
        self.entries.push(Reverse(Entry { at, order: self.order, what }));
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, SimEvent)> {
        let Reverse(entry) = self.entries.pop()?;
        Some((entry.at, entry.what))
    }
}

struct Entry {
    at: Duration,
    order: u64,
    what: SimEvent,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
