//! How one peer behaves, remembered over its links: what it did wrong, and for how long it is left alone. Pure arithmetic; the
//! replica acts on it.

use std::collections::HashMap;

use crate::event::{Alarm, Output, Reason};
use crate::limits::{ALARM_PAUSE_MS, FORGIVE_MS, MAX_SHUN_MS, REPAIR_PAUSE_MS};
use crate::replica::Replica;
use crate::row::TrackerNo;

/// What is remembered of one peer.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    shunned_until_ms: u64,
    repairs: Offences,
    repair_after_ms: u64,
    /// Before that no alarm of the same sort is repeated.
    quiet: HashMap<std::mem::Discriminant<Alarm>, u64>,
}

/// How often something happened lately.
#[derive(Debug, Default)]
struct Offences {
    count: u32,
    last_ms: u64,
}

impl Offences {
    /// One more; returns how long to wait: `first_ms`, doubled with each, up to `most_ms`.
    fn add(&mut self, first_ms: u64, most_ms: u64, now_ms: u64) -> u64 {
        if now_ms >= self.last_ms + FORGIVE_MS {
            self.count = 0;
        }
        self.last_ms = now_ms;
        self.count = self.count.saturating_add(1);
        (first_ms << (self.count - 1).min(20)).min(most_ms)
    }
}

impl Conduct {
    /// For how long it is still left alone.
    pub(crate) fn shunned_for(&self, now_ms: u64) -> Option<u64> {
        self.shunned_until_ms.checked_sub(now_ms).filter(|&ms| ms > 0)
    }

    /// Whether its buckets may be compared now; if so, not again for a while.
    pub(crate) fn may_repair(&mut self, now_ms: u64) -> bool {
        let may = now_ms >= self.repair_after_ms;
        if may {
            self.repair_after_ms = now_ms + self.repairs.add(REPAIR_PAUSE_MS, MAX_SHUN_MS, now_ms);
        }
        may
    }

    /// Its digest is what it must be.
    pub(crate) fn is_level(&mut self) {
        self.repairs.count = 0;
        self.repair_after_ms = 0;
    }
}

impl Replica {
    /// What is remembered of a peer.
    pub(crate) fn conduct(&mut self, peer: TrackerNo) -> &mut Conduct {
        self.conduct.entry(peer).or_default()
    }

    /// An alarm about a peer, unless it was raised a short time ago.
    pub(crate) fn alarm_of(&mut self, peer: TrackerNo, alarm: Alarm, now_ms: u64) {
        let until = self.conduct(peer).quiet.entry(std::mem::discriminant(&alarm)).or_default();
        if now_ms >= *until {
            *until = now_ms + ALARM_PAUSE_MS;
            self.outputs.push_back(Output::Alarm(alarm));
        }
    }

    /// Ends the link with a peer and raises none for so long.
    pub(crate) fn shun(&mut self, peer: TrackerNo, reason: Reason, ms: u64, now_ms: u64) {
        self.conduct(peer).shunned_until_ms = now_ms + ms;
        // First, so that the driver raises no link in between.
        self.outputs.push_back(Output::Shun { peer, ms });
        self.disconnect(peer, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_forgiven_after_a_day() {
        let mut offences = Offences::default();
        let waits: Vec<u64> = (0..4).map(|_| offences.add(1_000, 5_000, 0)).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 5_000]);
        assert_eq!(offences.add(1_000, 5_000, FORGIVE_MS), 1_000);
    }
}
