//! How one peer behaves, remembered over its links: what it did wrong, what it still may cause, and for how long it is
//! left alone. Pure arithmetic; the replica acts on it.

use std::collections::HashMap;

use crate::event::{Alarm, Bounds, Output, Reason};
use crate::limits::{
    ALARM_PAUSE_MS, BLANK_FACTOR, FORGIVE_MS, MANY_DELETIONS, MAX_PULL_PAUSE_MS, MAX_READ_PAUSE_MS,
    MAX_SHUN_MS, PULL_PAUSE_MS, REPAIR_PAUSE_MS, SHUN_MS, UNWAITED_MS,
};
use crate::replica::Replica;
use crate::row::TrackerNo;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// What is remembered of one peer.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    offences: Offences,
    shunned_until_ms: u64,
    unacknowledged: Offences,
    unwaited_until_ms: u64,
    /// Has to acknowledge something unwaited before it is waited for again.
    owes_ack: bool,
    fruitless: Offences,
    /// Not to be pulled from before.
    pub(crate) pull_after_ms: u64,
    /// When it was last pulled from: peers take turns.
    pub(crate) pulled_ms: u64,
    repairs: Offences,
    repair_after_ms: u64,
    origins: Budget,
    burst: Budget,
    day: Budget,
    deletions: Budget,
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

/// What was spent of an allowance that comes back with time.
#[derive(Debug, Default)]
struct Budget {
    spent: u64,
    at_ms: u64,
}

impl Budget {
    /// Spends; `amount` of it comes back per `period_ms`. Returns what is spent now.
    fn spend(&mut self, spent: u64, (amount, period_ms): (u64, u64), now_ms: u64) -> u64 {
        let elapsed = u128::from(now_ms.saturating_sub(self.at_ms));
        let back = u64::try_from(elapsed * u128::from(amount) / u128::from(period_ms)).unwrap_or(u64::MAX);
        if back > 0 || self.spent == 0 {
            self.spent = self.spent.saturating_sub(back);
            self.at_ms = now_ms;
        }
        self.spent = self.spent.saturating_add(spent);
        self.spent
    }

    fn give_back(&mut self, amount: u64) {
        self.spent = self.spent.saturating_sub(amount);
    }
}

impl Conduct {
    /// For how long it is still left alone.
    pub(crate) fn shunned_for(&self, now_ms: u64) -> Option<u64> {
        self.shunned_until_ms.checked_sub(now_ms).filter(|&ms| ms > 0)
    }

    /// Whether writes wait for it.
    pub(crate) fn is_waited_for(&self, now_ms: u64) -> bool {
        now_ms >= self.unwaited_until_ms && !self.owes_ack
    }

    /// It acknowledged something.
    pub(crate) fn acknowledged(&mut self, now_ms: u64) {
        self.owes_ack &= now_ms < self.unwaited_until_ms;
    }

    /// It did not acknowledge a write in time. The first time may be a hiccup.
    pub(crate) fn failed_to_acknowledge(&mut self, now_ms: u64) {
        let ms = self.unacknowledged.add(UNWAITED_MS, MAX_SHUN_MS, now_ms);
        self.unwaited_until_ms = now_ms + ms;
        self.owes_ack = self.unacknowledged.count > 1;
    }

    /// A round from it came to nothing, or not to everything that it spoke of.
    pub(crate) fn pulled_in_vain(&mut self, now_ms: u64) {
        self.pull_after_ms = now_ms + self.fruitless.add(PULL_PAUSE_MS, MAX_PULL_PAUSE_MS, now_ms);
    }

    /// A round from it was complete.
    pub(crate) fn pulled_well(&mut self) {
        self.fruitless.count = 0;
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

    /// Whether it may bring one more writer id.
    pub(crate) fn may_bring_origin(&mut self, bounds: &Bounds, blank: bool, now_ms: u64) -> bool {
        let most = bounds.origins_per_day * if blank { BLANK_FACTOR } else { 1 };
        let may = self.origins.spend(1, (bounds.origins_per_day, DAY_MS), now_ms) <= most;
        if !may {
            self.origins.give_back(1);
        }
        may
    }
}

/// What becomes of bytes that a peer had written.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Slow(u64),
    Over,
}

impl Conduct {
    fn write(&mut self, bytes: u64, bounds: &Bounds, blank: bool, now_ms: u64) -> Verdict {
        let factor = if blank { BLANK_FACTOR } else { 1 };
        let day = self.day.spend(bytes, (bounds.bytes_per_day, DAY_MS), now_ms);
        let burst = self.burst.spend(bytes, (bounds.bytes_per_s, 1_000), now_ms);
        let over = burst.saturating_sub(bounds.bytes_burst * factor);
        if day > bounds.bytes_per_day * factor {
            Verdict::Over
        } else if over > 0 {
            let ms = over.saturating_mul(1_000) / bounds.bytes_per_s.max(1);
            Verdict::Slow(ms.clamp(1, MAX_READ_PAUSE_MS))
        } else {
            Verdict::Fine
        }
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

    /// A peer broke a rule: its link ends, and none is raised for a while that grows.
    pub(crate) fn offended(&mut self, peer: TrackerNo, reason: Reason, now_ms: u64) {
        let conduct = self.conduct(peer);
        let ms = conduct.offences.add(SHUN_MS, MAX_SHUN_MS, now_ms);
        self.shun(peer, reason, ms, now_ms);
    }

    /// Ends the link with a peer and raises none for so long.
    pub(crate) fn shun(&mut self, peer: TrackerNo, reason: Reason, ms: u64, now_ms: u64) {
        self.conduct(peer).shunned_until_ms = now_ms + ms;
        // First, so that the driver raises no link in between.
        self.outputs.push_back(Output::Shun { peer, ms });
        self.disconnect(peer, reason);
    }

    /// A peer had so many bytes written to this disk; says whether its link still stands.
    pub(crate) fn charge(&mut self, peer: TrackerNo, bytes: usize, now_ms: u64) -> bool {
        let (bounds, blank) = (self.ledger.bounds, self.ledger.was_blank);
        match self.conduct(peer).write(bytes as u64, &bounds, blank, now_ms) {
            Verdict::Fine => true,
            Verdict::Slow(ms) => {
                self.alarm_of(peer, Alarm::Flood { peer }, now_ms);
                self.outputs.push_back(Output::Pause { peer, ms });
                true
            }
            Verdict::Over => {
                self.alarm_of(peer, Alarm::Flood { peer }, now_ms);
                self.offended(peer, Reason::OverBudget, now_ms);
                false
            }
        }
    }

    /// A row was deleted by way of a peer. Nothing is held back, because users delete much at times; but it is told.
    pub(crate) fn note_deletion(&mut self, peer: TrackerNo, now_ms: u64) {
        let rows = self.conduct(peer).deletions.spend(1, (MANY_DELETIONS, DAY_MS), now_ms);
        if rows > MANY_DELETIONS {
            self.alarm_of(peer, Alarm::ManyDeletions { peer, rows }, now_ms);
        }
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
    fn who_failed_to_acknowledge_is_waited_for_again_only_after_it_did() {
        let mut peer = Conduct::default();
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

    #[test]
    fn a_peer_over_its_budget_is_slowed_and_at_last_refused() {
        let bounds =
            Bounds { bytes_burst: 1_000, bytes_per_s: 100, bytes_per_day: 5_000, ..Bounds::default() };
        let mut peer = Conduct::default();
        assert_eq!(peer.write(1_000, &bounds, false, 0), Verdict::Fine);
        assert_eq!(peer.write(10, &bounds, false, 0), Verdict::Slow(100));
        assert_eq!(peer.write(10, &bounds, false, 1_000), Verdict::Fine);
        assert_eq!(peer.write(4_000, &bounds, false, 1_000), Verdict::Over);
        assert_eq!(peer.write(10, &bounds, false, DAY_MS), Verdict::Fine);
        assert_eq!(Conduct::default().write(30_000, &bounds, true, 0), Verdict::Fine);
    }

    #[test]
    fn writer_ids_come_back_with_the_days() {
        let bounds = Bounds { origins_per_day: 4, ..Bounds::default() };
        let mut peer = Conduct::default();
        let taken =
            |peer: &mut Conduct, at| (0..9).filter(|_| peer.may_bring_origin(&bounds, false, at)).count();
        assert_eq!(taken(&mut peer, 0), 4);
        assert_eq!(taken(&mut peer, DAY_MS / 2), 2);
    }
}
