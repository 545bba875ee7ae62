//! The trackers' side of the encrypted store: a [`RepairPlanner`] that decides, and what feeds it with records and the time.
//!
//! The service calls it for nodes and clients. The records say what is stored. What nodes hold is kept in memory only: every
//! node reports it to every tracker.

mod admission;
mod expelled;
mod files;
mod nodes;
mod planner;
#[cfg(test)]
mod planner_tests;
mod records;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::Uid;
use shoal_common::join::NodeSecret;
use shoal_common::tracker_api::Refusal;
use shoal_common::tracker_api::storage::StoreStatus;
use shoal_replica::{MemberStatus, TrackerNo};
use tokio_util::sync::CancellationToken;

pub use admission::{Admitted, Applicant};
pub(crate) use admission::{Place, not_reached, was_expelled, write_node};
pub use nodes::Planned;
pub use planner::{Permissions, RepairPlanner, Rules};

use crate::clock::wall_ms;
use crate::database::Database;
use crate::presence::Presence;
use admission::Waiting;
use records::Reader;

/// How often the planner takes in the records and the time, so that repair starts within a second.
const TICK: Duration = Duration::from_millis(200);
/// How long nothing is deleted after a tracker started blank or restored, unless an operator allows it.
const CAUTION_MS: u64 = 24 * 3_600_000;

/// Whether there are nodes, and none has reported since this tracker started. It may not be in their tracker files.
pub(crate) fn is_unheard(status: &StoreStatus) -> bool {
    !status.nodes.is_empty() && status.nodes.iter().all(|node| node.silent_ms.is_none())
}

impl Default for Rules {
    fn default() -> Self {
        Self { grace_ms: 3_600_000, repair_after_ms: 600_000 }
    }
}

/// What the records say besides the files, as last read.
#[derive(Debug, Clone, Default)]
struct Known {
    members: Vec<MemberStatus>,
    /// When trackers last started without what they held, by number, in wall-clock milliseconds.
    cautions: Vec<(u8, u64)>,
    /// When an operator last allowed deletions.
    allowed_ms: Option<u64>,
    /// Whether all records have been read once.
    loaded: bool,
}

/// A handle; all clones are one.
#[derive(Clone)]
pub struct Storage {
    database: Database,
    presence: Presence,
    me: TrackerNo,
    started: Instant,
    planner: Arc<Mutex<RepairPlanner>>,
    known: Arc<Mutex<Known>>,
    reader: Arc<tokio::sync::Mutex<Reader>>,
    secret: Option<Arc<NodeSecret>>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Storage {
    /// With a planner that knows nothing yet; [`Storage::run`] fills it.
    #[must_use]
    pub fn new(
        database: Database,
        presence: Presence,
        me: TrackerNo,
        rules: Rules,
        secret: Option<NodeSecret>,
    ) -> Self {
        Self {
            database,
            presence,
            me,
            started: Instant::now(),
            planner: Arc::new(Mutex::new(RepairPlanner::new(rules, fastrand::u64(..)))),
            known: Arc::default(),
            reader: Arc::default(),
            secret: secret.map(Arc::new),
            waiting: Arc::default(),
        }
    }

    /// Feeds the planner until the tracker closes.
    pub async fn run(self, closing: CancellationToken) {
        let mut due = tokio::time::interval(TICK);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = due.tick() => {}
            }
            if let Err(refusal) = self.refresh().await {
                tracing::debug!("the stored files' records cannot be read now: {}", refusal.text);
                continue;
            }
            let storage = self.clone();
            // Counting copies may take milliseconds. A panic is a bug, which the next tick would meet again.
            let _ = tokio::task::spawn_blocking(move || storage.tick()).await;
        }
    }

    /// Reads the records as they are now. Dropping the future leaves a part for the next time.
    ///
    /// # Errors
    /// When the database thread cannot answer.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        let mut reader = self.reader.lock().await;
        reader.refresh(self).await
    }

    fn tick(&self) {
        let known = self.known().clone();
        let held = self.why_held(&known);
        let (now, wall) = (self.now_ms(), wall_ms());
        let leased = |user: Uid| self.presence.has_lease(user);
        let permissions = Permissions {
            copies: known.loaded && self.orders_come_from(&known) == self.me.0,
            held,
            allowed_ms: known.allowed_ms.map(|at| now.saturating_sub(wall.saturating_sub(at))),
            leased: &leased,
        };
        self.planner().tick(&permissions, now);
    }

    /// The lowest-numbered tracker of those that are connected.
    fn orders_come_from(&self, known: &Known) -> u8 {
        let connected = known.members.iter().filter(|member| member.connected).map(|member| member.no.0);
        connected.chain([self.me.0]).min().unwrap_or(self.me.0)
    }

    /// Why this tracker orders no deletions now, in words.
    fn why_held(&self, known: &Known) -> Option<String> {
        for member in &known.members {
            let number = member.no;
            if !member.connected {
                return Some(format!("tracker {number} is not connected"));
            }
            if !member.in_sync || !self.presence.has_reported(number.0) {
                return Some(format!("tracker {number} is not in sync yet"));
            }
        }
        if !known.loaded {
            return Some("this tracker is still reading its records".into());
        }
        let wall = wall_ms();
        for &(number, since) in &known.cautions {
            let over = wall >= since.saturating_add(CAUTION_MS);
            if !over && known.allowed_ms.is_none_or(|allowed| allowed < since) {
                let hours = since.saturating_add(CAUTION_MS).saturating_sub(wall).div_ceil(3_600_000);
                return Some(format!(
                    "tracker {number} started without what it held before; deletions go on in {hours} h, or when an \
                     operator types allow-deletions at a tracker's prompt"
                ));
            }
        }
        None
    }

    /// The store's status. While no node has reported, no copy counts as missing.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let ordered_by = self.orders_come_from(&self.known());
        let status = StoreStatus { ordered_by, ..self.planner().status(self.now_ms()) };
        match is_unheard(&status) {
            true => StoreStatus { missing_copies: 0, lost_chunks: 0, ..status },
            false => status,
        }
    }

    /// The planner. To be held for a few lines, never across an await.
    pub(crate) fn planner(&self) -> MutexGuard<'_, RepairPlanner> {
        // A panic while it was held leaves counts that the next recount corrects.
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The planner's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Where the records are written.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }
}
