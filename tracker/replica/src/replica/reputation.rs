//! What is remembered of each peer across its links: failures, and for how long it is avoided after them.
//! Pure arithmetic; the replica acts on it.

use std::collections::HashMap;

use super::Replica;
use crate::event::{Alarm, Bounds, Output, Reason};
use crate::limits::{
    ALARM_PAUSE_MS, BLANK_FACTOR, DAY_MS, FORGIVE_MS, MAX_READ_PAUSE_MS, MAX_SHUN_MS, MAX_SYNC_PAUSE_MS,
    REPAIR_PAUSE_MS, SYNC_PAUSE_MS, UNWAITED_MS,
};
use crate::row::TrackerNo;

/// What is remembered of one peer.
#[derive(Debug, Default)]
pub(crate) struct Reputation {
    shunned_until_ms: u64,
    unacknowledged: Offences,
    unwaited_until_ms: u64,
    /// It has to acknowledge a write that does not wait for it before writes wait for it again.
    owes_ack: bool,
    failed_syncs: Offences,
    /// No sync with it starts before this.
    pub(crate) sync_after_ms: u64,
    /// When the last sync with it started: peers take turns.
    pub(crate) last_sync_ms: u64,
    repairs: Offences,
    repair_after_ms: u64,
    writers: Budget,
    /// For its own process starts, so that the ids that it passes on cannot exhaust them.
    starts: Budget,
    burst: Budget,
    day: Budget,
    /// No alarm of the same type is repeated before this.
    quiet: HashMap<std::mem::Discriminant<Alarm>, u64>,
}

/// How often something happened lately.
#[derive(Debug, Default)]
struct Offences {
    count: u32,
    last_ms: u64,
}

impl Offences {
    /// Counts one more. Returns how long to wait: `first_ms`, doubled each time, up to `most_ms`.
    fn add(&mut self, first_ms: u64, most_ms: u64, now_ms: u64) -> u64 {
        if now_ms >= self.last_ms + FORGIVE_MS {
            self.count = 0;
        }
        self.last_ms = now_ms;
        self.count = self.count.saturating_add(1);
        (first_ms << (self.count - 1).min(20)).min(most_ms)
    }
}

/// How much of an allowance that refills with time is spent.
#[derive(Debug, Default)]
struct Budget {
    spent: u64,
    at_ms: u64,
}

impl Budget {
    /// The amount spent now; `amount` of it refills per `period_ms`.
    fn spent(&mut self, (amount, period_ms): (u64, u64), now_ms: u64) -> &mut u64 {
        let elapsed = u128::from(now_ms.saturating_sub(self.at_ms));
        let back = u64::try_from(elapsed * u128::from(amount) / u128::from(period_ms)).unwrap_or(u64::MAX);
        if back > 0 || self.spent == 0 {
            self.spent = self.spent.saturating_sub(back);
            self.at_ms = now_ms;
        }
        &mut self.spent
    }
}

impl Reputation {
    /// For how long no link with it is raised.
    pub(crate) fn shunned_for(&self, now_ms: u64) -> Option<u64> {
        self.shunned_until_ms.checked_sub(now_ms).filter(|&ms| ms > 0)
    }

    /// Whether writes wait for it.
    pub(crate) fn is_waited_for(&self, now_ms: u64) -> bool {
        now_ms >= self.unwaited_until_ms && !self.owes_ack
    }

    /// It acknowledged a write.
    pub(crate) fn acknowledged(&mut self, now_ms: u64) {
        self.owes_ack &= now_ms < self.unwaited_until_ms;
    }

    /// It did not acknowledge a write in time. The first time may be a short delay.
    pub(crate) fn failed_to_acknowledge(&mut self, now_ms: u64) {
        let ms = self.unacknowledged.add(UNWAITED_MS, MAX_SHUN_MS, now_ms);
        self.unwaited_until_ms = now_ms + ms;
        self.owes_ack = self.unacknowledged.count > 1;
    }

    /// A sync with it failed.
    pub(crate) fn sync_failed(&mut self, now_ms: u64) {
        self.sync_after_ms = now_ms + self.failed_syncs.add(SYNC_PAUSE_MS, MAX_SYNC_PAUSE_MS, now_ms);
    }

    /// Whether no sync with it may start now.
    pub(crate) fn is_backing_off(&self, now_ms: u64) -> bool {
        now_ms < self.sync_after_ms
    }

    /// A sync with it was completed.
    pub(crate) fn sync_succeeded(&mut self) {
        self.failed_syncs.count = 0;
    }

    /// Whether it may introduce one more writer id: its own, or one that it passes on.
    pub(crate) fn may_bring_writer(
        &mut self,
        bounds: &Bounds,
        (own, blank): (bool, bool),
        now_ms: u64,
    ) -> bool {
        let factor = if blank { BLANK_FACTOR } else { 1 };
        let a_day = if own { 2 * bounds.writers_per_day } else { bounds.writers_per_day };
        let budget = if own { &mut self.starts } else { &mut self.writers };
        let spent = budget.spent((a_day, DAY_MS), now_ms);
        let may = *spent < a_day * factor;
        *spent += u64::from(may);
        may
    }

    /// It caused this many bytes to be written to this disk. Returns for how long nothing is read from it, if
    /// it is over its budget. Nothing is refused, because an honest tracker passes on what a lying one had it
    /// write.
    fn wrote(&mut self, bytes: u64, bounds: &Bounds, blank: bool, now_ms: u64) -> Option<u64> {
        let factor = if blank { BLANK_FACTOR } else { 1 };
        let day = self.day.spent((bounds.bytes_per_day, DAY_MS), now_ms);
        *day = day.saturating_add(bytes);
        let over_day = *day > bounds.bytes_per_day.saturating_mul(factor);
        let burst = self.burst.spent((bounds.bytes_per_s, 1_000), now_ms);
        *burst = burst.saturating_add(bytes);
        let over = burst.saturating_sub(bounds.bytes_burst.saturating_mul(factor));
        let ms = over.saturating_mul(1_000) / bounds.bytes_per_s.max(1);
        match (over_day, over) {
            (true, _) => Some(MAX_READ_PAUSE_MS),
            (false, 0) => None,
            (false, _) => Some(ms.clamp(1, MAX_READ_PAUSE_MS)),
        }
    }

    /// Whether its buckets may be compared now. If so, not again for a while.
    pub(crate) fn may_repair(&mut self, now_ms: u64) -> bool {
        let may = now_ms >= self.repair_after_ms;
        if may {
            self.repair_after_ms = now_ms + self.repairs.add(REPAIR_PAUSE_MS, MAX_SHUN_MS, now_ms);
        }
        may
    }

    /// Its digest is the expected one.
    pub(crate) fn is_level(&mut self) {
        self.repairs.count = 0;
        self.repair_after_ms = 0;
    }
}

impl Replica {
    /// What is remembered of a peer.
    pub(crate) fn reputation(&mut self, peer: TrackerNo) -> &mut Reputation {
        self.reputations.entry(peer).or_default()
    }

    /// Raises an alarm about a peer, unless the same one was raised a short time ago.
    pub(crate) fn alarm_of(&mut self, peer: TrackerNo, alarm: Alarm, now_ms: u64) {
        let until = self.reputation(peer).quiet.entry(std::mem::discriminant(&alarm)).or_default();
        if now_ms >= *until {
            *until = now_ms + ALARM_PAUSE_MS;
            self.outputs.push_back(Output::Alarm(alarm));
        }
    }

    /// A peer caused this many bytes to be written to this disk.
    pub(crate) fn charge(&mut self, peer: TrackerNo, bytes: usize, now_ms: u64) {
        let (bounds, blank) = (self.bounds, self.state.was_blank);
        if let Some(ms) = self.reputation(peer).wrote(bytes as u64, &bounds, blank, now_ms) {
            self.alarm_of(peer, Alarm::Flood { peer }, now_ms);
            self.outputs.push_back(Output::Pause { peer, ms });
        }
    }

    /// Ends the link with a peer and raises none for this long.
    pub(crate) fn shun(&mut self, peer: TrackerNo, reason: Reason, ms: u64, now_ms: u64) {
        self.reputation(peer).shunned_until_ms = now_ms + ms;
        // Before the disconnect, so that the driver raises no link in between.
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

    #[test]
    fn a_peer_over_its_budget_is_slowed() {
        let bounds =
            Bounds { bytes_burst: 1_000, bytes_per_s: 100, bytes_per_day: 5_000, ..Bounds::default() };
        let mut peer = Reputation::default();
        assert_eq!(peer.wrote(1_000, &bounds, false, 0), None);
        assert_eq!(peer.wrote(10, &bounds, false, 0), Some(100));
        assert_eq!(peer.wrote(10, &bounds, false, 1_000), None);
        assert_eq!(peer.wrote(4_000, &bounds, false, 1_000), Some(MAX_READ_PAUSE_MS));
        assert_eq!(peer.wrote(10, &bounds, false, DAY_MS), None);
        assert_eq!(Reputation::default().wrote(10_000, &bounds, true, 0), None);
    }

    #[test]
    fn writer_ids_come_back_with_the_days() {
        let bounds = Bounds { writers_per_day: 4, ..Bounds::default() };
        let mut peer = Reputation::default();
        let taken = |peer: &mut Reputation, at| {
            (0..9).filter(|_| peer.may_bring_writer(&bounds, (false, false), at)).count()
        };
        assert_eq!(taken(&mut peer, 0), 4);
        assert_eq!(taken(&mut peer, DAY_MS / 2), 2);
    }

    #[test]
    fn a_peer_that_failed_to_acknowledge_is_waited_for_again_only_after_it_did() {
        let mut peer = Reputation::default();
        assert!(peer.is_waited_for(0));
        peer.failed_to_acknowledge(0);
        assert!(!peer.is_waited_for(999) && peer.is_waited_for(1_000));
        peer.failed_to_acknowledge(1_000);
        assert!(!peer.is_waited_for(100_000));
        peer.acknowledged(2_000);
        assert!(!peer.is_waited_for(100_000), "it acknowledged too early for that to count");
        peer.acknowledged(3_000);
        assert!(peer.is_waited_for(3_000));
    }
}
