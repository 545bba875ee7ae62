//! The trackers' side of the encrypted store: a [`Depot`] that decides, kept in step with the records and with time.
//!
//! Called by the service for nodes and clients. The records are the truth about what is stored; what nodes hold is
//! memory only, and every tracker hears it from every node itself.

mod admission;
mod depot;
#[cfg(test)]
mod depot_tests;
mod expelled;
mod files;
mod nodes;
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
pub(crate) use admission::{was_expelled, write_node};
pub use depot::{Depot, Mandate, Rules};
pub use nodes::Planned;

use crate::clock::wall_ms;
use crate::core::Core;
use crate::presence::Presence;
use admission::Waiting;
use records::Reader;

/// How often the depot looks at the records and the time: repair starts within a second of what calls for it.
const TICK: Duration = Duration::from_millis(200);
/// For how long after a tracker started blank or restored nothing is deleted unless an operator allows it.
const CAUTION_MS: u64 = 24 * 3_600_000;

/// Whether there are nodes, and none has said what it holds since this tracker started: it may not be in their files.
pub(crate) fn is_unheard(status: &StoreStatus) -> bool {
    !status.nodes.is_empty() && status.nodes.iter().all(|node| node.silent_ms.is_none())
}

impl Default for Rules {
    fn default() -> Self {
        Self { grace_ms: 3_600_000, repair_after_ms: 600_000 }
    }
}

/// What the records say beside the files, as of the last look.
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

/// The handle that everybody shares.
#[derive(Clone)]
pub struct Storage {
    core: Core,
    presence: Presence,
    me: TrackerNo,
    started: Instant,
    depot: Arc<Mutex<Depot>>,
    known: Arc<Mutex<Known>>,
    reader: Arc<tokio::sync::Mutex<Reader>>,
    secret: Option<Arc<NodeSecret>>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Storage {
    /// A depot that knows nothing yet; [`Storage::run`] fills it.
    #[must_use]
    pub fn new(
        core: Core,
        presence: Presence,
        me: TrackerNo,
        rules: Rules,
        secret: Option<NodeSecret>,
    ) -> Self {
        Self {
            core,
            presence,
            me,
            started: Instant::now(),
            depot: Arc::new(Mutex::new(Depot::new(rules, fastrand::u64(..)))),
            known: Arc::default(),
            reader: Arc::default(),
            secret: secret.map(Arc::new),
            waiting: Arc::default(),
        }
    }

    /// Keeps the depot in step until the tracker closes.
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
            // Counting copies may take milliseconds. It cannot panic but by a bug, which the next tick would meet again.
            let _ = tokio::task::spawn_blocking(move || storage.tick()).await;
        }
    }

    /// Takes in what the records say now. Dropping the future may leave a part for the next time.
    ///
    /// # Errors
    /// When the core cannot answer.
    pub async fn refresh(&self) -> Result<(), Refusal> {
        let mut reader = self.reader.lock().await;
        reader.refresh(self).await
    }

    fn tick(&self) {
        let known = self.known().clone();
        let held = self.why_held(&known);
        let (now, wall) = (self.now_ms(), wall_ms());
        let leased = |user: Uid| self.presence.has_lease(user);
        let mandate = Mandate {
            copies: known.loaded && self.orders_come_from(&known) == self.me.0,
            held,
            allowed_ms: known.allowed_ms.map(|at| now.saturating_sub(wall.saturating_sub(at))),
            leased: &leased,
        };
        self.depot().tick(&mandate, now);
    }

    /// The lowest-numbered tracker of those that are connected.
    fn orders_come_from(&self, known: &Known) -> u8 {
        let connected = known.members.iter().filter(|member| member.connected).map(|member| member.no.0);
        connected.chain([self.me.0]).min().unwrap_or(self.me.0)
    }

    /// Why this tracker has nothing deleted now, in words.
    fn why_held(&self, known: &Known) -> Option<String> {
        for member in &known.members {
            let number = member.no;
            if !member.connected {
                return Some(format!("tracker {number} is not connected"));
            }
            if !member.in_sync || !self.presence.is_told_by(number.0) {
                return Some(format!("tracker {number} is not in step yet"));
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

    /// How the store is. While no node has said what it holds, no copy counts as missing.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let ordered_by = self.orders_come_from(&self.known());
        let status = StoreStatus { ordered_by, ..self.depot().status(self.now_ms()) };
        match is_unheard(&status) {
            true => StoreStatus { missing_copies: 0, lost_chunks: 0, ..status },
            false => status,
        }
    }

    /// The depot. To be held for a few lines, never across an await.
    pub(crate) fn depot(&self) -> MutexGuard<'_, Depot> {
        // A panic while it was held leaves counts that the next recount mends.
        self.depot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The depot's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Where the records are written.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }
}
