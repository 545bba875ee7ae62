//! Notices that this machine was asleep, or this process stopped: every connection may be dead then without a sign, and
//! pauses that should have passed did not. Linux's CLOCK_BOOTTIME goes on during a sleep and CLOCK_MONOTONIC does not
//! (clock_gettime(2)). [`SleepWatch`] is pure; [`woke`] looks at the clocks for it.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How often the clocks are looked at. Timers do not run during a sleep, so this is also how soon one is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A shorter sleep leaves every connection as it was: no peer gives up so soon.
const SHORTEST_SLEEP: Duration = Duration::from_secs(2);
/// Looks further apart than this mean that the process was stopped or starved. Trackers drop a client that is silent that
/// long.
const STOPPED: Duration = Duration::from_secs(5);

/// What the clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Time since the start of the machine, without that in which it slept.
    pub monotonic: Duration,
    /// The same, with it.
    pub boot: Duration,
}

/// Where readings come from.
pub type Clock = Arc<dyn Fn() -> Reading + Send + Sync>;

/// The system's clocks.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| Reading {
        monotonic: duration(clock_gettime(ClockId::Monotonic)),
        boot: duration(clock_gettime(ClockId::Boottime)),
    })
}

/// Why everything has to be reconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The machine was asleep for this long.
    Slept(Duration),
    /// This process did not run for this long.
    Stopped(Duration),
}

/// Compares each reading with the one before.
#[derive(Debug)]
pub struct SleepWatch {
    last: Reading,
}

impl SleepWatch {
    /// Begins with a reading.
    #[must_use]
    pub fn new(first: Reading) -> Self {
        Self { last: first }
    }

    /// Takes the next reading, about a second later. Gives what happened in between, if it matters.
    pub fn look(&mut self, now: Reading) -> Option<Gap> {
        let last = std::mem::replace(&mut self.last, now);
        let awake = now.monotonic.saturating_sub(last.monotonic);
        let asleep = now.boot.saturating_sub(last.boot).saturating_sub(awake);
        if asleep >= SHORTEST_SLEEP {
            Some(Gap::Slept(asleep))
        } else if awake >= STOPPED {
            Some(Gap::Stopped(awake))
        } else {
            None
        }
    }
}

/// Completes after the next sleep or stop. Safe to drop.
pub async fn woke(watch: &mut SleepWatch, clock: &Clock) -> Gap {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(gap) = watch.look(clock()) {
            return gap;
        }
    }
}

fn duration(time: Timespec) -> Duration {
    // These clocks show no time before the machine's start.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic: u64, boot: u64) -> Reading {
        Reading { monotonic: Duration::from_secs(monotonic), boot: Duration::from_secs(boot) }
    }

    #[test]
    fn a_sleep_is_told_from_a_stop_and_both_from_time_that_passes() {
        let mut watch = SleepWatch::new(at(10, 100));
        for (reading, expected) in [
            (at(11, 101), None),
            (at(13, 104), None),
            (at(14, 150), Some(Gap::Slept(Duration::from_secs(45)))),
            (at(15, 151), None),
            (at(60, 196), Some(Gap::Stopped(Duration::from_secs(45)))),
            // Stopped, and asleep meanwhile.
            (at(70, 260), Some(Gap::Slept(Duration::from_secs(54)))),
            // A clock that goes backwards is a defect of the machine, and no sleep.
            (at(69, 250), None),
            (at(70, 251), None),
        ] {
            assert_eq!(watch.look(reading), expected, "{reading:?}");
        }
    }

    #[test]
    fn the_system_clocks_go_on_and_are_not_the_same_clock() {
        let clock = system_clock();
        let (first, second) = (clock(), clock());
        assert!(second.monotonic >= first.monotonic && second.boot >= first.boot);
        assert!(first.boot >= first.monotonic, "time asleep counts in one of them only");
    }
}
