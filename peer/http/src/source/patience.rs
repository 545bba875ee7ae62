//! How long a failing server is tried again: while another of the same download delivers, and for a time after the last
//! one did. A restarted server is back within seconds, and one that stays away costs next to nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::PieceIndex;

/// First pause after a failure. Then it is left alone as long again as it has been failing, so that the pauses double.
const FIRST_PAUSE: Duration = Duration::from_millis(150);
/// Longest of these pauses: a user who waits for a server to come back hardly notices more.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What every server may take for the beginning of an answer: then another request may do better.
pub(super) const SHORTEST_ANSWER: Duration = Duration::from_millis(4_500);

/// How long servers that fail are tried again; shared by all servers of one download. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Patience(Arc<RetryLimit>);

#[derive(Debug)]
struct RetryLimit {
    limit: Duration,
    started: Instant,
    /// Milliseconds from the start to when a piece last came from any of the servers.
    delivered: AtomicU64,
}

impl Patience {
    /// Gives a server up when it has failed, and no other has delivered, for as long as `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self(Arc::new(RetryLimit { limit, started: Instant::now(), delivered: AtomicU64::new(0) }))
    }

    /// Whether nothing came from any server for as long as the limit.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.nothing_came_for() >= self.0.limit
    }

    fn delivered(&self) {
        let millis = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.delivered.store(millis, Ordering::Relaxed);
    }

    fn nothing_came_for(&self) -> Duration {
        self.0
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.0.delivered.load(Ordering::Relaxed)))
    }
}

/// How one server stands: well, or failing.
#[derive(Debug)]
pub struct Standing {
    patience: Patience,
    failing: Mutex<Option<Failing>>,
    first_piece: OnceLock<PieceIndex>,
    refused: AtomicBool,
    more: AtomicBool,
    /// Milliseconds that the next answer may take to begin.
    answer_within: AtomicU64,
}

/// A server that has failed since it last delivered a piece.
#[derive(Debug, Clone)]
pub struct Failing {
    /// When that began.
    pub since: Instant,
    /// What went wrong last.
    pub reason: String,
}

impl Standing {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            failing: Mutex::new(None),
            first_piece: OnceLock::new(),
            refused: AtomicBool::new(false),
            more: AtomicBool::new(false),
            answer_within: AtomicU64::new(4_500),
        }
    }

    /// What is wrong; `None` if nothing is.
    pub fn failing(&self) -> Option<Failing> {
        self.lock().clone()
    }

    /// The first piece that came whole from the server, whether it was right or not.
    pub fn first_piece(&self) -> Option<PieceIndex> {
        self.first_piece.get().copied()
    }

    /// Whether the server was not asked, or not followed, because of where that leads.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the server sent more bytes than the file was said to have.
    pub fn has_sent_more(&self) -> bool {
        self.more.load(Ordering::Relaxed)
    }

    pub(super) fn sent_more(&self) {
        self.more.store(true, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, piece: PieceIndex) {
        self.patience.delivered();
        self.first_piece.get_or_init(|| piece);
        *self.lock() = None;
    }

    /// How long the server may think before its answer begins: longer each time that this was too short, as far as the
    /// user's patience goes.
    pub(super) fn answer_within(&self) -> Duration {
        Duration::from_millis(self.answer_within.load(Ordering::Relaxed))
    }

    /// It was seen to take `time`, or not to have answered within that: the next answer may take twice as long.
    pub(super) fn thought(&self, time: Duration) {
        let wanted = time.saturating_mul(2).min(self.patience.0.limit.max(SHORTEST_ANSWER));
        let millis = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
        self.answer_within.fetch_max(millis, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// The server failed again: how long to leave it alone, or `None` if it is to be given up.
    pub(super) fn failed(&self, reason: &str) -> Option<Duration> {
        let mut failing = self.lock();
        let now = Instant::now();
        let since = failing.as_ref().map_or(now, |failing| failing.since);
        *failing = Some(Failing { since, reason: reason.to_owned() });
        let so_far = now.saturating_duration_since(since);
        let over = so_far.min(self.patience.nothing_came_for()) >= self.patience.0.limit;
        (!over).then(|| so_far.clamp(FIRST_PAUSE, LONGEST_PAUSE))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
