//! The figures that a download shows: bytes, rates, rows, and what limits it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::progress::{Bottleneck, Phase, Progress, SHOWN_DROPPED, SourceRow, SourceState};
use crate::resources::Resources;
use shoal_engine_core::SourceId;
use shoal_engine_core::{DownloadCore, DropReason};

/// The time over which rates are taken: long enough to be readable, short enough to follow a change.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Time between two sampling points of a rate.
const RATE_STEP: Duration = Duration::from_millis(250);
/// With this many jobs in the writer's queue the disk is the bottleneck.
const BUSY_QUEUE: usize = 16;

/// See the module.
pub(super) struct Stats {
    resources: Arc<Resources>,
    /// Bytes that are to be fetched in all.
    pub(super) total: u64,
    fetched: Meter,
    wasted: u64,
    sources: BTreeMap<SourceId, Meter>,
    dropped: VecDeque<SourceRow>,
    /// When there was last something to fetch, and the bytes that had come.
    moved: (Instant, u64),
    /// When something came last, or there was nothing to fetch, and the bytes that had come.
    came: (Instant, u64),
}

/// Counts bytes and measures their rate.
struct Meter {
    bytes: u64,
    points: VecDeque<(Instant, u64)>,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { bytes: 0, points: VecDeque::from([(now, 0)]) }
    }

    /// Bytes per second over the last seconds.
    fn rate(&mut self, now: Instant) -> u64 {
        if self.points.back().is_none_or(|&(at, _)| now.saturating_duration_since(at) >= RATE_STEP) {
            self.points.push_back((now, self.bytes));
        }
        while self.points.len() > 2
            && self.points.get(1).is_some_and(|&(at, _)| now.saturating_duration_since(at) >= RATE_OVER)
        {
            self.points.pop_front();
        }
        let Some(&(since, before)) = self.points.front() else { return 0 };
        let nanos = now.saturating_duration_since(since).max(Duration::from_millis(1)).as_nanos();
        u64::try_from(u128::from(self.bytes - before) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

impl Stats {
    pub(super) fn new(resources: Arc<Resources>, total: u64, now: Instant) -> Self {
        Self {
            resources,
            total,
            fetched: Meter::new(now),
            wasted: 0,
            sources: BTreeMap::new(),
            dropped: VecDeque::new(),
            moved: (now, 0),
            came: (now, 0),
        }
    }

    pub(super) fn added(&mut self, source: SourceId) {
        self.dropped.retain(|row| row.id != source);
        self.sources.entry(source).or_insert_with(|| Meter::new(Instant::now()));
    }

    pub(super) fn dropped(&mut self, source: SourceId, reason: DropReason) {
        let Some(meter) = self.sources.remove(&source) else { return };
        let state = match reason {
            DropReason::Gone(reason) => SourceState::Gone(reason),
            DropReason::Banned(reason) => SourceState::Banned(reason),
            DropReason::Removed => return,
        };
        self.dropped.push_back(SourceRow {
            id: source,
            state,
            fetched_bytes: meter.bytes,
            rate: 0,
            requests: 0,
            holds: 0,
            silent: false,
            patient: false,
        });
        if self.dropped.len() > SHOWN_DROPPED {
            self.dropped.pop_front();
        }
    }

    pub(super) fn fetched(&mut self, source: SourceId, bytes: u64) {
        self.fetched.bytes += bytes;
        self.resources.fetched.fetch_add(bytes, Ordering::Relaxed);
        if let Some(meter) = self.sources.get_mut(&source) {
            meter.bytes += bytes;
        }
    }

    pub(super) fn wasted(&mut self, bytes: u64) {
        self.wasted += bytes;
    }

    pub(super) fn progress(
        &mut self,
        phase: Phase,
        limit: Bottleneck,
        verified_bytes: u64,
        digested_bytes: u64,
        core: &DownloadCore,
        now: Instant,
    ) -> Progress {
        let rate = self.fetched.rate(now);
        let missing = self.total - verified_bytes;
        if phase != Phase::Waiting || self.moved.1 != self.fetched.bytes {
            self.moved = (now, self.fetched.bytes);
        }
        if phase != Phase::Downloading || self.came.1 != self.fetched.bytes {
            self.came = (now, self.fetched.bytes);
        }
        let live = self.sources.iter_mut().filter_map(|(&id, meter)| {
            let status = core.source(id)?;
            let state = match () {
                () if status.requests > 0 => SourceState::Active,
                () if status.backing_off => SourceState::BackingOff,
                () => SourceState::Idle,
            };
            let rate = meter.rate(now);
            Some(SourceRow {
                id,
                state,
                fetched_bytes: meter.bytes,
                rate,
                requests: status.requests,
                holds: status.holds,
                silent: status.silent,
                patient: status.backing_off && !status.silent,
            })
        });
        let rows: Arc<[SourceRow]> = live.chain(self.dropped.iter().cloned()).collect();
        Progress {
            phase,
            limit,
            total: self.total,
            verified_bytes,
            fetched_bytes: self.fetched.bytes,
            wasted_bytes: self.wasted,
            digested_bytes,
            rate,
            unheld: core.unheld(),
            quiet: now.saturating_duration_since(self.came.0),
            idle: now.saturating_duration_since(self.moved.0),
            eta: (rate > 0 && missing > 0).then(|| Duration::from_secs(missing.div_ceil(rate))),
            sources: rows.iter().filter(|row| row.delivers()).count(),
            rows,
            files: None,
        }
    }
}

/// What keeps a download from being faster.
pub(super) fn bottleneck(
    phase: Phase,
    core: &DownloadCore,
    resources: &Resources,
    queued: usize,
    at_rate_limit: bool,
) -> Bottleneck {
    match phase {
        Phase::Waiting if core.is_busy() => Bottleneck::SourcesBusy,
        Phase::Waiting => Bottleneck::NoSource,
        Phase::Downloading if queued >= BUSY_QUEUE || resources.pool.available() == 0 => Bottleneck::Disk,
        Phase::Downloading if at_rate_limit => Bottleneck::RateLimit,
        Phase::Downloading => Bottleneck::Sources,
        Phase::Opening | Phase::Checking | Phase::Finishing | Phase::Ended => Bottleneck::Idle,
    }
}
