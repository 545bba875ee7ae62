//! How many connections to a far peer are worth having, decided by what the last one brought.
//!
//! A lost packet halves the rate of a connection under the congestion control of most systems (CUBIC, RFC 9438), and the more
//! round trips it takes to grow again, the less of a long line one connection can use. Several share the losses. A line that
//! loses nothing is filled by one: the second brings nothing there, and no third is made.

use std::time::Duration;

use tokio::time::Instant;

use super::peers::CONNECTIONS;

/// A peer with a longer round trip is far. Nearer ones recover from a loss before it is felt.
const FAR: Duration = Duration::from_millis(20);
/// How long is measured, at least and in round trips.
const MEASURED: Duration = Duration::from_secs(1);
const MEASURED_ROUNDS: u32 = 10;
/// How long no other is made after one that brought nothing or could not be had.
const REST: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Parallel {
    /// When the rate is looked at next, since when it is measured, and what had come then. It is not measured right
    /// after a change.
    due: Instant,
    measured: Option<(Instant, u64)>,
    /// Bytes per second before the last connection was made.
    before: Option<u64>,
    failed: Option<Instant>,
}

impl Parallel {
    /// The first connection stands.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + MEASURED, measured: None, before: None, failed: None }
    }

    /// When to ask [`Self::wants_another`] next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether a fast peer may have a second connection: none was lost or refused lately.
    pub(super) fn may_have_second(&self, now: Instant) -> bool {
        self.failed.is_none_or(|at| now.saturating_duration_since(at) >= REST)
    }

    /// Whether another connection should be made beside `open` others that have brought `delivered` bytes so far. While
    /// the peer was `idle` nothing is learnt.
    pub(super) fn wants_another(
        &mut self,
        open: usize,
        delivered: u64,
        idle: bool,
        round_trip: Duration,
        now: Instant,
    ) -> bool {
        let period = MEASURED.max(round_trip.saturating_mul(MEASURED_ROUNDS));
        self.due = now + period;
        let measured = self.measured.replace((now, delivered));
        if round_trip < FAR || open >= CONNECTIONS {
            self.due = now + REST;
        }
        if idle || round_trip < FAR || open >= CONNECTIONS {
            self.measured = None;
            return false;
        }
        let Some((since, then)) = measured else { return false };
        let millis = now.saturating_duration_since(since).as_millis().max(1);
        let rate = u64::try_from(u128::from(delivered - then) * 1_000 / millis).unwrap_or(u64::MAX);
        let wanted = match self.before {
            Some(before) => brought_its_part(before, rate, open),
            // A second that was made for another reason says nothing about a third.
            None => open == 1,
        };
        self.measured = None;
        self.before = wanted.then_some(rate);
        if !wanted {
            self.due = now + REST;
        }
        wanted
    }

    /// A connection ended or could not be had.
    pub(super) fn failed(&mut self, now: Instant) {
        self.due = now + REST;
        self.measured = None;
        self.before = None;
        self.failed = Some(now);
    }
}

/// Whether the last of `open` connections brought at least half of what each of the others had brought `before` it.
fn brought_its_part(before: u64, rate: u64, open: usize) -> bool {
    let others = open.saturating_sub(1).max(1) as u64;
    rate.saturating_sub(before) >= before / others / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections there are after a minute in which `rate` is what so many bring together.
    fn connections(round_trip: u64, rate: impl Fn(u64) -> u64) -> usize {
        let start = Instant::now();
        let (mut parallel, mut open, mut delivered, mut now) = (Parallel::new(start), 1, 0, start);
        while now < start + REST {
            let due = parallel.due();
            delivered += rate(open) * u64::try_from((due - now).as_millis()).unwrap() / 1_000;
            now = due;
            let round_trip = Duration::from_millis(round_trip);
            open += u64::from(parallel.wants_another(
                usize::try_from(open).unwrap(),
                delivered,
                false,
                round_trip,
                now,
            ));
        }
        usize::try_from(open).unwrap()
    }

    #[test]
    fn a_lossy_line_gets_four_a_clean_one_two_and_a_near_peer_one() {
        assert_eq!(connections(100, |open| open * 250_000), CONNECTIONS);
        assert_eq!(connections(300, |open| open * 250_000), CONNECTIONS);
        assert_eq!(connections(100, |_| 12_500_000), 2);
        assert_eq!(connections(5, |open| open * 250_000), 1);
    }

    #[test]
    fn an_idle_peer_gets_no_other_and_a_failure_is_remembered() {
        let start = Instant::now();
        let far = Duration::from_millis(100);
        let mut parallel = Parallel::new(start);
        let mut now = start;
        for _ in 0..10 {
            now = parallel.due();
            assert!(!parallel.wants_another(1, 0, true, far, now));
        }
        parallel.failed(now);
        assert_eq!(parallel.due(), now + REST);
    }
}
