//! The state of the other trackers, for an operator.

use super::Replica;
use crate::event::{MemberStatus, Now};
use crate::row::TrackerNo;
use crate::vector::VersionVector;

impl Replica {
    /// The state of each other configured tracker, by number.
    pub fn status(&self, now: Now) -> Vec<MemberStatus> {
        let own = &self.state.vector;
        let others = self.state.configured.iter().filter(|&&no| no != self.state.me);
        let status = |&no: &TrackerNo| {
            let link = self.links.get(&no);
            let ready = link.filter(|link| link.is_ready());
            let theirs = ready.map(|link| &link.vector).or(self.last_vectors.get(&no));
            let nothing = VersionVector::default();
            let lag_rows = theirs.unwrap_or(&nothing).lag_behind(own);
            let behind_rows = theirs.map_or(0, |theirs| own.lag_behind(theirs));
            let level = lag_rows == 0 && behind_rows == 0 && self.blobs.is_complete();
            MemberStatus {
                no,
                connected: ready.is_some(),
                in_sync: level && ready.is_some_and(|link| link.synced),
                lag_rows,
                behind_rows,
                silent_ms: link.map(|link| now.mono_ms.saturating_sub(link.heard_ms)),
                synced_since_start: self.synced_peers.contains(&no),
                awaited: self.reputations.get(&no).is_none_or(|peer| peer.is_waited_for(now.mono_ms)),
                held_removal: self.held_rows_of(no),
            }
        };
        others.map(status).collect()
    }
}
