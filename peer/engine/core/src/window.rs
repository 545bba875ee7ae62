//! The request window of one source: how fast it delivers, how long it takes to answer, and from these how much to have in
//! flight.
//!
//! The window is the larger of two. One covers the answering time at the present rate, so that a source near by is never
//! idle. The other covers [`GAIN`] bandwidth-delay products at the best rate of late. A line that loses packets delivers
//! nothing until what was lost is sent again and everything at once then, so a window of one product stands still with it
//! and shrinks; more let the source go on sending meanwhile. (BBR's congestion window is two, draft-cardwell-iccrg-bbr;
//! requests need a way to the source besides.) The beginning is TCP's slow start, one step ahead of the source's own.

use std::time::{Duration, Instant};

use crate::source::{Limits, Run};

/// Most bytes in flight at one source: a gigabyte per second over 16 ms.
const MAX_WINDOW: u64 = 16 * 1024 * 1024;
/// The least that a complete source is asked for at once. On a slow connection one piece at a time is enough for a peer, but
/// a seeder that chooses what to give needs a choice (swarm model, rule 2).
const SEEDER_LEAST: u64 = 128 * 1024;
/// Bandwidth-delay products in flight: one on its way, one while a lost packet is sent again, a half for requests on their
/// way, and a half for what the source's own window is ahead. Of 2, 2.5 and 3 it was the fastest with and without loss
/// (100 Mbit/s, 100 ms and 300 ms; docs/figures.md).
const GAIN: u32 = 3;
/// The same where others download too: what one source sends late, others send meanwhile, and its line is shared by all who
/// ask it, so that what each has in its queue adds up.
const SHARED_GAIN: u32 = 2;
/// Bandwidth-delay products in flight while the source still becomes faster with every round: what it sends doubles in a
/// round, and so does what it sends in the next, before the requests of this one reach it.
const STARTING_GAIN: u32 = 4;
/// The beginning is over when the best rate has grown by less than a quarter in this many rounds (BBR's full pipe).
const FULL_ROUNDS: u32 = 4;
/// A rate is measured over this time, at least and in round trips: what came late and all at once, because a packet before
/// it was lost, is spread over the time in which it should have come.
const MEASURED: Duration = Duration::from_millis(100);
const MEASURED_ROUNDS: u32 = 4;
/// How long a rate counts as the best of late, at least and in round trips.
const PEAK_TIME: Duration = Duration::from_secs(2);
const PEAK_ROUNDS: u32 = 20;
/// How far requests reach ahead beyond the answering time: a busy process may be late by this much.
const SLACK: Duration = Duration::from_millis(25);
/// Length of a run of pieces in time: long enough that a request's cost does not matter, short enough that no source holds
/// much of the file's rest.
const RUN_TIME: Duration = Duration::from_secs(1);
/// A run lasts at least this many answering times: a server that thinks for seconds over each request is asked for more at
/// once.
const ANSWERING_TIMES: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct RequestWindow {
    limits: Limits,
    /// Bytes per second, smoothed.
    rate: Option<u64>,
    peak: Peak,
    start: Option<Start>,
    /// Shortest time from a request to its first byte. The least, because requests queue behind each other.
    latency: Option<Duration>,
    /// All bytes delivered.
    delivered: u64,
    in_flight: u64,
}

/// What a download wants of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// The source has all pieces.
    pub(super) complete: bool,
    /// Others download the same file.
    pub(super) shared: bool,
    /// Bytes per second that the download may take, however fast the source was while others took less.
    pub(super) limit: Option<u64>,
}

impl Demand {
    fn limited(self, rate: u64) -> u64 {
        rate.min(self.limit.unwrap_or(u64::MAX))
    }
}

/// Measures what comes in each period of some length.
#[derive(Debug, Default)]
struct Meter {
    began: Option<Instant>,
    came: u64,
}

impl Meter {
    /// Adds `bytes`; gives the rate in bytes per second when a period of that length is over.
    fn add(&mut self, bytes: u64, period: Duration, now: Instant) -> Option<u64> {
        self.came += bytes;
        let elapsed = now.saturating_duration_since(*self.began.get_or_insert(now));
        if elapsed < period {
            return None;
        }
        self.began = Some(now);
        Some(per_second(std::mem::take(&mut self.came), elapsed))
    }
}

/// The best rate of late, in bytes per second: a running maximum over two halves of the time.
#[derive(Debug, Default)]
struct Peak {
    meter: Meter,
    before: u64,
    now: u64,
    since: Option<Instant>,
}

impl Peak {
    fn get(&self) -> u64 {
        self.before.max(self.now)
    }

    fn add(&mut self, bytes: u64, round_trip: Duration, now: Instant) {
        let Some(rate) = self.meter.add(bytes, MEASURED.max(round_trip.saturating_mul(MEASURED_ROUNDS)), now)
        else {
            return;
        };
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PEAK_TIME.max(round_trip.saturating_mul(PEAK_ROUNDS)) / 2 {
            (self.before, self.now, self.since) = (self.now, 0, Some(now));
        }
        self.now = self.now.max(rate);
    }
}

/// The beginning, in which the window grows by what is delivered, as a congestion window does in slow start. The source must
/// never be short of requests in it: BBR does not leave its startup, and floods the line, while it is limited by us.
#[derive(Debug, Default)]
struct Start {
    grown: u64,
    meter: Meter,
    /// The best rate of a round so far, in bytes per second, and rounds since it grew by a quarter.
    best: u64,
    full: u32,
}

impl Start {
    /// Whether the beginning goes on after `bytes` more.
    fn goes_on(&mut self, bytes: u64, round_trip: Duration, now: Instant) -> bool {
        self.grown += bytes;
        if let Some(rate) = self.meter.add(bytes, round_trip.max(SLACK), now) {
            self.full = if rate / 5 >= self.best / 4 { 0 } else { self.full + 1 };
            self.best = self.best.max(rate);
        }
        self.full < FULL_ROUNDS
    }
}

impl RequestWindow {
    pub(super) fn new(limits: Limits) -> Self {
        let peak = Peak::default();
        Self {
            limits,
            rate: None,
            peak,
            start: Some(Start::default()),
            latency: None,
            delivered: 0,
            in_flight: 0,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.delivered
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether a request of `bytes` may be added to `requests` others.
    pub(super) fn may_ask(&self, requests: usize, bytes: u64, demand: Demand) -> bool {
        if self.in_flight == 0 && requests == 0 {
            return true;
        }
        let after = self.in_flight.saturating_add(bytes);
        if requests >= self.limits.max_in_flight
            || after > self.limits.max_in_flight_bytes
            || after > MAX_WINDOW
        {
            return false;
        }
        if requests < self.limits.min_in_flight {
            return true;
        }
        let reach = self.latency.unwrap_or_default() + SLACK;
        let needed = self.rate.map_or(0, |rate| bytes_in(demand.limited(rate), reach));
        self.in_flight < needed || (demand.complete && after <= SEEDER_LEAST) || after <= self.probed(demand)
    }

    /// How many bytes to have in flight on a long line: less by what every seeder is asked for, so that a slow source has no
    /// more in its queue than without.
    fn probed(&self, demand: Demand) -> u64 {
        let round_trip = self.latency.unwrap_or_default();
        let (gain, starting) = if demand.shared { (SHARED_GAIN, SHARED_GAIN) } else { (GAIN, STARTING_GAIN) };
        let (rate, gain, most) = match &self.start {
            None => (self.peak.get(), gain, u64::MAX),
            Some(start) => (start.best, starting, start.grown),
        };
        if demand.limit.is_some_and(|limit| limit <= rate.saturating_add(rate / 4)) {
            // Not the line but the limit holds it back: more would only wait for it, before others' turns.
            return 0;
        }
        let window = bytes_in(rate, round_trip.saturating_mul(gain)).min(most);
        window.saturating_sub(SEEDER_LEAST)
    }

    /// Whether a request may span several pieces.
    pub(super) fn takes_runs(&self) -> bool {
        matches!(self.limits.run, Run::UpTo(_))
    }

    /// How many bytes the next request should span, `room` at most, and in how many pieces at most. One piece is always right.
    pub(super) fn run(&self, room: u64) -> (u64, u32) {
        match self.limits.run {
            Run::Single => (0, 1),
            Run::UpTo(most) => {
                let window = self.limits.max_in_flight_bytes.min(MAX_WINDOW);
                let own_room = window.saturating_sub(self.in_flight);
                let time = RUN_TIME.max(self.latency.unwrap_or_default().saturating_mul(ANSWERING_TIMES));
                let rate = self.rate.map_or(0, |rate| bytes_in(rate, time));
                ((rate.min(window) / self.streams() as u64).min(room).min(own_room), most.max(1))
            }
        }
    }

    /// Requests that share its rate and its window.
    pub(super) fn streams(&self) -> usize {
        self.limits.min_in_flight.max(1)
    }

    /// How long a request of `bytes` would take if it were issued now; `None` before anything was delivered.
    pub(super) fn expected(&self, bytes: u64) -> Option<Duration> {
        Some(self.latency.unwrap_or_default() + time_for(self.in_flight.saturating_add(bytes), self.rate?))
    }

    /// Bytes in flight that every source may be asked for beyond the budget: one piece.
    pub(super) fn exempt(&self, piece_length: u32) -> u64 {
        self.in_flight.min(piece_length.into())
    }

    /// Bytes in flight that come within `time`; all of them while nothing is known of the source.
    pub(super) fn soon(&self, time: Duration) -> u64 {
        self.rate.map_or(self.in_flight, |rate| self.in_flight.min(bytes_in(rate, time)))
    }

    pub(super) fn asked(&mut self, bytes: u64) {
        self.in_flight += bytes;
    }

    /// A request ended before `bytes` of it came.
    pub(super) fn ended(&mut self, bytes: u64) {
        self.in_flight -= bytes;
    }

    pub(super) fn delivered(&mut self, bytes: u64, now: Instant) {
        self.delivered += bytes;
        self.in_flight -= bytes;
        let round_trip = self.latency.unwrap_or_default();
        self.peak.add(bytes, round_trip, now);
        self.start.take_if(|start| !start.goes_on(bytes, round_trip, now));
    }

    /// A request's first byte came `after` it was issued.
    pub(super) fn answered(&mut self, after: Duration) {
        self.latency = Some(self.latency.map_or(after, |latency| latency.min(after)));
    }

    /// A piece came `took` after its request was issued, when `before` bytes had been delivered. What came in between
    /// is the rate, however many requests were in flight (as in BBR's delivery rate, RFC draft-cardwell-iccrg-bbr).
    pub(super) fn measured(&mut self, before: u64, took: Duration) {
        let bytes = self.delivered - before;
        let sample = per_second(bytes, took);
        self.rate = Some(match self.rate {
            None => sample,
            // Upwards fast, because the depth follows the rate; downwards slowly, because single pieces come late.
            Some(rate) if sample > rate => rate + (sample - rate) / 2,
            Some(rate) => rate - (rate - sample) / 8,
        });
    }

    /// The source was silent: the measurements are no longer valid.
    pub(super) fn forget(&mut self) {
        self.rate = None;
        self.latency = None;
        self.peak = Peak::default();
        self.start = Some(Start::default());
    }
}

/// Bytes that come in `time` at `rate` bytes per second.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The rate at which `bytes` come in `time`, in bytes per second.
fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}

/// How long `bytes` take at `rate` bytes per second; a day at most.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    const DAY: u64 = 24 * 3600 * 1_000_000_000;
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(DAY))
}

#[cfg(test)]
mod lines;

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn window(run: Run) -> RequestWindow {
        RequestWindow::new(Limits {
            max_in_flight: 256,
            min_in_flight: 1,
            max_in_flight_bytes: u64::MAX,
            run,
        })
    }

    /// How many pieces of that length the next request should span.
    fn pieces(window: &RequestWindow, length: u64, room: u64) -> u32 {
        let (bytes, most) = window.run(room);
        u32::try_from(bytes / length).unwrap().clamp(1, most)
    }

    /// How many bytes are in flight when no more may be asked for.
    fn depth(window: &mut RequestWindow, piece: u64, complete: bool) -> u64 {
        let mut requests = 0;
        while window.may_ask(requests, piece, Demand { complete, shared: false, limit: None }) {
            window.asked(piece);
            requests += 1;
        }
        window.in_flight
    }

    #[test]
    fn an_unknown_source_gets_one_piece_and_a_seeder_a_choice() {
        assert_eq!(depth(&mut window(Run::Single), 64 * KIB, false), 64 * KIB);
        assert_eq!(depth(&mut window(Run::Single), 64 * KIB, true), 128 * KIB);
        assert_eq!(depth(&mut window(Run::Single), 1024 * KIB, true), 1024 * KIB);
    }

    #[test]
    fn the_depth_follows_rate_and_answering_time() {
        // (bytes per second, milliseconds to the first byte, piece, depth)
        for (rate, latency, piece, expected) in [
            (600_000, 10, 64 * KIB, 64 * KIB),
            (5_000_000, 10, 64 * KIB, 192 * KIB),
            (5_000_000, 75, 64 * KIB, 512 * KIB),
            (1_000_000_000, 1, 1024 * KIB, 16 * 1024 * KIB),
        ] {
            let mut window = window(Run::Single);
            window.answered(Duration::from_millis(latency));
            window.asked(rate);
            window.delivered(rate, Instant::now());
            window.measured(0, Duration::from_secs(1));
            assert_eq!(depth(&mut window, piece, false), expected, "{rate} bytes a second, {latency} ms");
        }
    }

    #[test]
    fn limits_of_the_source_hold() {
        let mut few =
            RequestWindow::new(Limits { run: Run::Single, max_in_flight: 2, ..window(Run::Single).limits });
        few.rate = Some(1 << 40);
        assert_eq!(depth(&mut few, KIB, false), 2 * KIB);
        let mut small = RequestWindow::new(Limits {
            max_in_flight: 0,
            min_in_flight: 0,
            max_in_flight_bytes: 0,
            run: Run::UpTo(0),
        });
        small.rate = Some(1 << 40);
        assert_eq!((depth(&mut small, KIB, false), pieces(&small, 1024, u64::MAX)), (KIB, 1));
    }

    #[test]
    fn runs_last_about_a_second() {
        let mut window = window(Run::UpTo(100));
        assert_eq!(pieces(&window, 65_536, u64::MAX), 1);
        window.rate = Some(655_360);
        assert_eq!(pieces(&window, 65_536, u64::MAX), 10);
        assert_eq!(pieces(&window, 65_536, 200_000), 3);
        window.rate = Some(u64::MAX);
        assert_eq!(pieces(&window, 65_536, u64::MAX), 100);
    }

    #[test]
    fn a_server_that_thinks_over_every_request_is_asked_for_more_each_time() {
        let mut window = window(Run::UpTo(4_096));
        let mut runs = Vec::new();
        for _ in 0..4 {
            let run = pieces(&window, 65_536, u64::MAX);
            let (bytes, before) = (u64::from(run) * 65_536, window.total());
            window.asked(bytes);
            window.answered(Duration::from_secs(6));
            window.delivered(bytes, Instant::now());
            window.measured(before, Duration::from_secs(6));
            runs.push(run);
        }
        assert!(runs[0] == 1 && runs[3] >= 16, "{runs:?}");
    }

    #[test]
    fn what_is_wanted_at_least_is_in_flight_and_shares_the_rate() {
        let limits = Limits { max_in_flight: 8, min_in_flight: 8, ..window(Run::UpTo(4_096)).limits };
        let mut eight = RequestWindow::new(limits);
        assert_eq!(depth(&mut eight, 64 * KIB, true), 8 * 64 * KIB);
        let mut eight = RequestWindow::new(limits);
        eight.rate = Some(80 * 64 * KIB);
        assert_eq!(pieces(&eight, 65_536, u64::MAX), 10);
        // Nor does the window go to the first few.
        eight.rate = Some(1 << 40);
        assert_eq!(u64::from(pieces(&eight, 65_536, u64::MAX)) * 64 * KIB, MAX_WINDOW / 8);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut window = window(Run::Single);
        window.asked(u64::MAX);
        window.delivered(u64::MAX, Instant::now());
        window.measured(0, Duration::ZERO);
        assert_eq!(window.expected(u64::MAX), Some(Duration::from_secs(1)));
        assert_eq!(time_for(u64::MAX, 0), Duration::from_secs(24 * 3600));
    }
}
