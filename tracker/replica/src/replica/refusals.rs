//! Rows from peers that do not prove themselves. They are counted and reported to the operator at intervals,
//! and they do not cause repeated comparisons of buckets.

use super::Replica;
use crate::event::{Alarm, Now, Output};
use crate::limits::{REFUSAL_ALARM_MS, REFUSAL_RETRY_MS};
use crate::row::{Row, TrackerNo};

/// The rows refused from one peer.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Refused rows since this process began.
    count: u64,
    /// No other alarm about this peer is raised before this.
    quiet_until_ms: u64,
    /// Rows were refused in the repair that is running.
    in_repair: bool,
    /// The difference between the two trackers' sums that refused rows explain, once a repair has shown it.
    difference: Option<Option<u128>>,
    /// The difference is checked again after this, because a time that was far ahead may not be any more.
    stale_ms: u64,
}

impl Replica {
    /// Counts a refused row and raises an alarm.
    pub(crate) fn note_refusal(&mut self, peer: TrackerNo, row: &Row, now: Now) {
        let refusals = self.refusals.entry(peer).or_default();
        refusals.count += 1;
        refusals.in_repair = true;
        if now.mono_ms < refusals.quiet_until_ms {
            return;
        }
        refusals.quiet_until_ms = now.mono_ms + REFUSAL_ALARM_MS;
        let refused = refusals.count;
        self.outputs.push_back(Output::Alarm(if self.state.times.is_impossible(row) {
            Alarm::BadTime { peer, ms: row.stamp.max(row.born).ms() }
        } else {
            Alarm::Refused { peer, kind: row.kind, key: row.key.clone(), refused }
        }));
    }

    /// Whether a difference between two trackers' sums requires a comparison of buckets. After a repair that
    /// met refused rows the same difference remains and proves nothing new.
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
