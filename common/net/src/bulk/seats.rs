//! How many bulk connections others may hold open to us: a counted seat goes with each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_common::PeerId;

/// The seats of one listener.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    total: usize,
    per_peer: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<PeerId, usize>,
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    peer: PeerId,
    taken: Arc<Mutex<Taken>>,
}

impl Seats {
    pub(super) fn new(total: usize, per_peer: usize) -> Self {
        Self { total, per_peer, taken: Arc::default() }
    }

    /// `None` when all seats, or all of this peer, are taken.
    pub(super) fn take(&self, peer: PeerId) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.total >= self.total || mine >= self.per_peer {
            return None;
        }
        taken.total += 1;
        taken.by_peer.insert(peer, mine + 1);
        Some(Seat { peer, taken: self.taken.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Entry::Occupied(mut mine) = taken.by_peer.entry(self.peer) {
            *mine.get_mut() -= 1;
            if *mine.get() == 0 {
                mine.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_for_all_and_for_each_and_freed() {
        let seats = Seats::new(3, 2);
        let (alice, bob) = (PeerId([1; 32]), PeerId([2; 32]));
        let first = seats.take(alice).unwrap();
        let second = seats.take(alice).unwrap();
        assert!(seats.take(alice).is_none(), "alice has hers");
        let third = seats.take(bob).unwrap();
        assert!(seats.take(bob).is_none(), "all are taken");
        drop(first);
        assert!(seats.take(bob).is_some());
        drop((second, third));
        let taken = seats.taken.lock().unwrap();
        assert!(taken.total == 0 && taken.by_peer.is_empty());
    }
}
