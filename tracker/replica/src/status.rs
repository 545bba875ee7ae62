//! How things stand with the other trackers, for an operator.

use crate::event::{MemberStatus, Now};
use crate::replica::Replica;
use crate::row::TrackerNo;
use crate::vector::VersionVector;

impl Replica {
    /// How things stand with each other configured tracker, by number.
    pub fn status(&self, now: Now) -> Vec<MemberStatus> {
        let own = &self.ledger.vector;
        let others = self.ledger.configured.iter().filter(|&&no| no != self.ledger.me);
        let status = |&no: &TrackerNo| {
            let link = self.links.get(&no);
            let ready = link.filter(|link| link.is_ready());
            let theirs = ready.map(|link| &link.vector).or(self.known.get(&no));
            let nothing = VersionVector::default();
            let lag_rows = theirs.unwrap_or(&nothing).lag_behind(own);
            let behind_rows = theirs.map_or(0, |theirs| own.lag_behind(theirs));
            let level = lag_rows == 0 && behind_rows == 0 && self.blobs.is_complete();
            MemberStatus {
                no,
                connected: ready.is_some(),
                in_sync: level && ready.is_some_and(|link| link.pulled),
                lag_rows,
                behind_rows,
                silent_ms: link.map(|link| now.mono_ms.saturating_sub(link.heard_ms)),
                heard_out: self.ended.contains(&no),
                awaited: self.conduct.get(&no).is_none_or(|peer| peer.is_waited_for(now.mono_ms)),
                held_removal: self.held_rows_of(no),
            }
        };
        others.map(status).collect()
    }
}
