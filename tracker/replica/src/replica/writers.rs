//! Writer ids that are new here. Each process start mints one, so honest trackers introduce a few per day. A
//! peer that makes up thousands must not fill the vectors, nor keep the others from comparing what they hold.

use super::Replica;
use super::peer_link::PeerLink;
use crate::event::{Alarm, Now};
use crate::limits::MAX_WRITERS;
use crate::row::{TrackerNo, WriterId};
use crate::rows::Rows;

impl Replica {
    /// Whether rows of this writer may be taken from a peer: always for known writers, and for a few new
    /// ones. If not, the running sync does not count for this writer, so that its rows are pulled again
    /// later.
    pub(crate) fn admits_writer(&mut self, peer: TrackerNo, writer: WriterId, now: Now) -> bool {
        if self.state.knows(writer) {
            return true;
        }
        let own = self.links.get(&peer).and_then(PeerLink::writer) == Some(writer);
        // Half of the room is reserved for the trackers' own starts, whatever they pass on.
        let room = own || self.state.writers() < MAX_WRITERS / 2;
        let (bounds, blank) = (self.bounds, self.state.was_blank);
        if room && self.reputation(peer).may_bring_writer(&bounds, (own, blank), now.mono_ms) {
            self.state.admit(writer);
            return true;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.refused.insert(writer);
        }
        self.alarm_of(peer, Alarm::ManyNewWriters { peer }, now.mono_ms);
        false
    }

    /// Whether a peer and this tracker must hold the same rows: their vectors are equal, except for writers
    /// that were not admitted here and writers without any row.
    pub(crate) fn is_level_with<R: Rows>(&self, rows: &R, peer: TrackerNo) -> Result<bool, R::Error> {
        let Some(link) = self.links.get(&peer) else { return Ok(false) };
        let (own, theirs) = (&self.state.vector, &link.vector);
        if own == theirs {
            return Ok(true);
        }
        let more = |&(writer, seq): &(WriterId, u64)| !own.covers(writer, seq);
        if theirs.iter().filter(more).any(|(writer, _)| !link.refused.contains(&writer)) {
            return Ok(false);
        }
        for (writer, seq) in own.iter().filter(|&(writer, seq)| !theirs.covers(writer, seq)) {
            let first = rows.above(writer, theirs.at(writer), 1)?;
            if first.first().is_some_and(|row| row.seq <= seq) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
