//! Writer ids that are new here. Each process start mints one, so that honest trackers bring a few a day; one that makes up
//! thousands must not fill the vectors, nor keep the others from comparing what they hold.

use crate::event::{Alarm, Now};
use crate::limits::MAX_ORIGINS;
use crate::link::Link;
use crate::replica::Replica;
use crate::row::{Origin, TrackerNo};
use crate::rows::Rows;

impl Replica {
    /// Whether something of this writer may be taken from a peer: of known ones always, and of a few new ones. If not, nothing of
    /// it counts in the round under way, so that it is asked for again.
    pub(crate) fn admits_writer(&mut self, peer: TrackerNo, origin: Origin, now: Now) -> bool {
        if self.ledger.knows(origin) {
            return true;
        }
        let own = self.links.get(&peer).and_then(Link::origin) == Some(origin);
        // Half of the room is for the trackers' own starts, whatever they pass on.
        let room = own || self.ledger.writers() < MAX_ORIGINS / 2;
        let (bounds, blank) = (self.bounds, self.ledger.was_blank);
        if room && self.conduct(peer).may_bring_writer(&bounds, (own, blank), now.mono_ms) {
            self.ledger.admit(origin);
            return true;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.refused.insert(origin);
        }
        self.alarm_of(peer, Alarm::ManyOrigins { peer }, now.mono_ms);
        false
    }

    /// Whether a peer and this tracker must hold the same rows: their vectors are equal, but for writers that were not admitted
    /// here and such of which nothing is held.
    pub(crate) fn is_level_with<R: Rows>(&self, rows: &R, peer: TrackerNo) -> Result<bool, R::Error> {
        let Some(link) = self.links.get(&peer) else { return Ok(false) };
        let (own, theirs) = (&self.ledger.vector, &link.vector);
        if own == theirs {
            return Ok(true);
        }
        let more = |&(origin, seq): &(Origin, u64)| !own.covers(origin, seq);
        if theirs.iter().filter(more).any(|(origin, _)| !link.refused.contains(&origin)) {
            return Ok(false);
        }
        for (origin, seq) in own.iter().filter(|&(origin, seq)| !theirs.covers(origin, seq)) {
            let first = rows.above(origin, theirs.at(origin), 1)?;
            if first.first().is_some_and(|row| row.seq <= seq) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
