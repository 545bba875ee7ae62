//! Checks what a peer says about the rows of other writers. This tracker knows what it wrote, and a connected
//! writer knows what it wrote. If numbers were covered that were never used, rows written later under them
//! would be taken for rows that are held already.

use super::Replica;
use super::peer_link::PeerLink;
use crate::event::{Alarm, Now, Warning};
use crate::limits::DOUBT_PINGS;
use crate::row::{TrackerNo, WriterId};
use crate::rows::Rows;
use crate::state::Trust;
use crate::vector::VersionVector;

impl Replica {
    /// Whether a peer attributes a row to this tracker that it never wrote. The peer lies, or passes on what
    /// another one made up. It is not believed, and an alarm is raised.
    pub(crate) fn is_false_attribution(
        &mut self,
        peer: TrackerNo,
        writer: WriterId,
        seq: u64,
        now: Now,
    ) -> bool {
        let is_false = writer == self.state.writer && seq > self.state.seq();
        if is_false {
            self.alarm_of(peer, Alarm::FalseAttribution { peer }, now.mono_ms);
        }
        is_false
    }

    /// The part of a peer's vector that counts: nothing about this tracker's own rows, and no more about
    /// another connected tracker's rows than that one announced itself.
    pub(crate) fn believed(&self, peer: TrackerNo, vector: &VersionVector) -> VersionVector {
        let known = |writer: WriterId, seq: u64| {
            let its_link = self.links.iter().find(|(no, link)| **no != peer && link.writer() == Some(writer));
            let said = its_link.map(|(_, link)| link.vector.at(writer).max(self.state.vector.at(writer)));
            said.map_or(seq, |said| seq.min(said))
        };
        let others = vector.iter().filter(|(writer, _)| *writer != self.state.writer);
        others.map(|(writer, seq)| (writer, known(writer, seq))).filter(|&(_, seq)| seq > 0).collect()
    }

    /// How far a row from its own writer is trusted. If more is covered than the writer ever announced, its
    /// rows may be new nevertheless.
    pub(crate) fn trust_in(&self, peer: TrackerNo, writer: WriterId, trust: Trust) -> Trust {
        let link = self.links.get(&peer).filter(|link| link.writer() == Some(writer));
        let doubted = link.is_some_and(|link| self.state.vector.at(writer) > link.vector.at(writer));
        if doubted { Trust::Sender } else { trust }
    }

    /// A PING of a peer, which announces its vector first. If during several PINGs more of its rows are
    /// covered here than it wrote, another tracker made them up, and this is taken back. (For a moment, what
    /// another tracker passed on may be ahead of what its writer announced.)
    pub(crate) fn on_ping<R: Rows>(&mut self, rows: &mut R, peer: TrackerNo) -> Result<(), R::Error> {
        let covered = |writer: WriterId| self.state.vector.at(writer);
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        let Some(writer) = link.writer() else { return Ok(()) };
        let said = link.vector.at(writer);
        if covered(writer) <= said {
            link.doubts = 0;
            return Ok(());
        }
        link.doubts += 1;
        if link.doubts < DOUBT_PINGS {
            return Ok(());
        }
        link.doubts = 0;
        link.announced.lower(writer, 0);
        self.state.take_back(rows, writer, said)?;
        self.warn(Warning::TakenBack { peer });
        // The others were announced too much.
        let others: Vec<TrackerNo> = self.links.keys().copied().filter(|&no| no != peer).collect();
        for other in others {
            if self.links.get(&other).is_some_and(PeerLink::is_ready) {
                self.disconnect(other, crate::event::Reason::TakenBack);
            }
        }
        Ok(())
    }
}
