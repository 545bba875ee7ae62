//! Who may be connected to us at once. Anybody can make a key and complete a handshake, so what strangers can take is
//! bounded apart from what members have, and nobody is kept out by somebody else's dead connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shoal_common::PeerId;
use tokio_util::sync::CancellationToken;

/// Connections to us at most: each costs a socket and half a megabyte of buffers. When all are taken, whoever has most
/// gives one to a newcomer that would else have none.
const MAX_GUESTS: usize = 256;
/// Of those, connections that have not shown a ticket yet; the oldest gives way.
const MAX_STRANGERS: usize = 32;
/// Connections of one peer: its two, and two that are on their way out. The oldest gives way.
const MAX_PER_PEER: usize = 4;

/// The connections to us, oldest first.
#[derive(Debug, Default)]
pub(super) struct Guests {
    seats: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    peer: PeerId,
    is_member: Arc<AtomicBool>,
    end: CancellationToken,
}

impl Guests {
    /// Gives a newcomer a place, and ends others' connections for it if need be: those whose `end` token is cancelled
    /// here are to be closed. `None` if there is no place. The newcomer's `end` is to be cancelled when it leaves.
    pub(super) fn admit(&mut self, peer: PeerId, end: CancellationToken) -> Option<Arc<AtomicBool>> {
        self.seats.retain(|seat| !seat.end.is_cancelled());
        self.make_room(MAX_PER_PEER, |seat| seat.peer == peer);
        self.make_room(MAX_STRANGERS, |seat| !seat.is_member.load(Ordering::Relaxed));
        if self.seats.len() >= MAX_GUESTS && !self.take_from_the_richest(peer) {
            return None;
        }
        let is_member = Arc::new(AtomicBool::new(false));
        self.seats.push(Seat { peer, is_member: is_member.clone(), end });
        Some(is_member)
    }

    /// Ends the last connection of the peer that has most, if that has two more than this one.
    fn take_from_the_richest(&mut self, newcomer: PeerId) -> bool {
        let mut counts: HashMap<PeerId, usize> = HashMap::new();
        self.seats.iter().for_each(|seat| *counts.entry(seat.peer).or_default() += 1);
        let own = counts.get(&newcomer).copied().unwrap_or(0);
        let Some((richest, most)) = counts.into_iter().max_by_key(|&(_, count)| count) else { return false };
        let last = self.seats.iter().rposition(|seat| seat.peer == richest);
        match last {
            Some(last) if most >= own + 2 => {
                self.seats.remove(last).end.cancel();
                true
            }
            _ => false,
        }
    }

    fn make_room(&mut self, most: usize, of: impl Fn(&Seat) -> bool) {
        let count = self.seats.iter().filter(|seat| of(seat)).count();
        if count >= most
            && let Some(oldest) = self.seats.iter().position(of)
        {
            self.seats.remove(oldest).end.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(guests: &mut Guests, peer: u8) -> Option<(Arc<AtomicBool>, CancellationToken)> {
        let end = CancellationToken::new();
        Some((guests.admit(PeerId([peer; 32]), end.clone())?, end))
    }

    #[test]
    fn a_peers_oldest_connection_gives_way() {
        let mut guests = Guests::default();
        let all: Vec<_> = (0..=MAX_PER_PEER).map(|_| admit(&mut guests, 1).unwrap()).collect();
        let ended: Vec<bool> = all.iter().map(|(_, end)| end.is_cancelled()).collect();
        assert_eq!(ended, [true, false, false, false, false]);
    }

    #[test]
    fn strangers_take_each_others_places_and_not_members() {
        let mut guests = Guests::default();
        let members: Vec<_> = (0..100)
            .map(|n| {
                let member = admit(&mut guests, n).unwrap();
                member.0.store(true, Ordering::Relaxed);
                member
            })
            .collect();
        let strangers: Vec<_> = (100..250).map(|n| admit(&mut guests, n).unwrap()).collect();
        assert!(members.iter().all(|(_, end)| !end.is_cancelled()));
        let left = strangers.iter().filter(|(_, end)| !end.is_cancelled()).count();
        assert_eq!(left, MAX_STRANGERS);
    }

    #[test]
    fn when_all_is_taken_those_who_have_two_share_with_those_who_have_none() {
        let mut guests = Guests::default();
        let second: Vec<_> = (0..=127)
            .flat_map(|n| [n, n])
            .map(|n| {
                let (is_member, end) = admit(&mut guests, n).unwrap();
                is_member.store(true, Ordering::Relaxed);
                end
            })
            .collect();
        for n in 128..=255 {
            admit(&mut guests, n).unwrap().0.store(true, Ordering::Relaxed);
        }
        let kept =
            |first: usize| second.iter().skip(first).step_by(2).filter(|end| !end.is_cancelled()).count();
        assert_eq!((kept(0), kept(1)), (128, 0), "everybody has one");
        assert!(admit(&mut guests, 5).is_none());
    }

    #[test]
    fn there_is_an_end_to_it_and_whoever_leaves_makes_room() {
        let mut guests = Guests::default();
        let mut last = None;
        for n in 0..=255 {
            let (is_member, end) = admit(&mut guests, n).unwrap();
            is_member.store(true, Ordering::Relaxed);
            last = Some(end);
        }
        assert!(guests.admit(PeerId([7; 32]), CancellationToken::new()).is_none());
        last.unwrap().cancel();
        assert!(admit(&mut guests, 7).is_some());
    }
}
