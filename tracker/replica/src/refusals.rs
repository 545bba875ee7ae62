//! Rows from peers that do not prove themselves: counted, told to the operator now and then, and no reason to compare
//! buckets again and again.

use crate::event::{Alarm, Now, Output};
use crate::limits::{REFUSAL_ALARM_MS, REFUSAL_RETRY_MS};
use crate::replica::Replica;
use crate::row::{Row, TrackerNo};

/// What was refused from one peer.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Rows since this process began.
    count: u64,
    /// Before this no other alarm about this peer is raised.
    quiet_until_ms: u64,
    /// Rows refused in the repair that is under way.
    in_repair: bool,
    /// How the two trackers' sums differ because of what was refused, once a repair has shown that.
    difference: Option<Option<u128>>,
    /// From then on it is looked at again: a time that was far ahead may not be any more.
    stale_ms: u64,
}

impl Replica {
    /// A row from this peer was refused.
    pub(crate) fn note_refusal(&mut self, peer: TrackerNo, row: &Row, now: Now) {
        let refusals = self.refusals.entry(peer).or_default();
        refusals.count += 1;
        refusals.in_repair = true;
        if now.mono_ms < refusals.quiet_until_ms {
            return;
        }
        refusals.quiet_until_ms = now.mono_ms + REFUSAL_ALARM_MS;
        let refused = refusals.count;
        self.outputs.push_back(Output::Alarm(if self.ledger.times.is_impossible(row) {
            Alarm::BadTime { peer, ms: row.stamp.max(row.born).ms() }
        } else {
            Alarm::Refused { peer, kind: row.kind, key: row.key.clone(), refused }
        }));
    }

    /// Whether two trackers' sums, which differ by this much, have to be compared bucket by bucket. Once a repair met
    /// rows that are refused here the same difference remains and proves nothing new.
    pub(crate) fn needs_repair(&mut self, peer: TrackerNo, difference: u128, now: Now) -> bool {
        let Some(refusals) = self.refusals.get_mut(&peer) else { return true };
        match refusals.difference.filter(|_| now.mono_ms < refusals.stale_ms) {
            Some(Some(known)) if known == difference => false,
            Some(None) => {
                refusals.difference = Some(Some(difference));
                false
            }
            _ => {
                refusals.in_repair = false;
                refusals.difference = None;
                true
            }
        }
    }

    /// A repair with this peer has ended.
    pub(crate) fn repair_ended(&mut self, peer: TrackerNo, now: Now) {
        if let Some(refusals) = self.refusals.get_mut(&peer)
            && std::mem::take(&mut refusals.in_repair)
        {
            refusals.difference = Some(None);
            refusals.stale_ms = now.mono_ms + REFUSAL_RETRY_MS;
        }
    }
}
