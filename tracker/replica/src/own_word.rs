//! What a peer says of the rows of others who can be asked themselves: this tracker knows what it wrote, and a connected
//! writer knows what that one wrote. Whoever covered numbers that were never given out would take what is written under them
//! later for what it holds already.

use crate::event::{Alarm, Now, Warning};
use crate::ledger::Trust;
use crate::limits::DOUBT_PINGS;
use crate::link::Link;
use crate::replica::Replica;
use crate::row::{Origin, TrackerNo};
use crate::rows::Rows;
use crate::vector::VersionVector;

impl Replica {
    /// Whether a number that a peer speaks of would be this tracker's own and was never given out. The peer lies, or passes
    /// on what it was told before it could know better: that is an alarm, and not believed.
    pub(crate) fn is_false_word(&mut self, peer: TrackerNo, origin: Origin, seq: u64, now: Now) -> bool {
        let is_false = origin == self.ledger.origin && seq > self.ledger.seq();
        if is_false {
            self.alarm_of(peer, Alarm::FalseWord { peer }, now.mono_ms);
        }
        is_false
    }

    /// What of a peer's vector counts: nothing about this tracker's own rows, and no more of another connected tracker's than
    /// that one itself said.
    pub(crate) fn believed(&self, peer: TrackerNo, vector: &VersionVector) -> VersionVector {
        let known = |origin: Origin, seq: u64| {
            let writer = self.links.iter().find(|(no, link)| **no != peer && link.origin() == Some(origin));
            let said = writer.map(|(_, link)| link.vector.at(origin).max(self.ledger.vector.at(origin)));
            said.map_or(seq, |said| seq.min(said))
        };
        let others = vector.iter().filter(|(origin, _)| *origin != self.ledger.origin);
        others.map(|(origin, seq)| (origin, known(origin, seq))).filter(|&(_, seq)| seq > 0).collect()
    }

    /// How far a row from its very writer is believed. Where more is covered than the writer ever said, what it sends may be
    /// new nevertheless.
    pub(crate) fn trust_in(&self, peer: TrackerNo, origin: Origin, trust: Trust) -> Trust {
        let link = self.links.get(&peer).filter(|link| link.origin() == Some(origin));
        let doubted = link.is_some_and(|link| self.ledger.vector.at(origin) > link.vector.at(origin));
        if doubted { Trust::Sender } else { trust }
    }

    /// A sign of life of a peer, which says before it how far it has come. If for several of these more of its rows are covered
    /// here than it wrote, somebody else made them up, and that is taken back. (What another tracker passed on may be ahead of
    /// what its writer said for a moment.)
    pub(crate) fn on_ping<R: Rows>(&mut self, rows: &mut R, peer: TrackerNo) -> Result<(), R::Error> {
        let covered = |origin: Origin| self.ledger.vector.at(origin);
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        let Some(origin) = link.origin() else { return Ok(()) };
        let said = link.vector.at(origin);
        if covered(origin) <= said {
            link.doubts = 0;
            return Ok(());
        }
        link.doubts += 1;
        if link.doubts < DOUBT_PINGS {
            return Ok(());
        }
        link.doubts = 0;
        link.told.lower(origin, 0);
        self.ledger.take_back(rows, origin, said)?;
        self.warn(Warning::TakenBack { peer });
        // They were told more.
        let others: Vec<TrackerNo> = self.links.keys().copied().filter(|&no| no != peer).collect();
        for other in others {
            if self.links.get(&other).is_some_and(Link::is_ready) {
                self.disconnect(other, crate::event::Reason::TakenBack);
            }
        }
        Ok(())
    }
}
