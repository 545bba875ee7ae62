//! The holders of one file as sources of its download: puts them into use as [`super::choice`] decides, watches how each
//! stands, and gives the engine those that live. Owned by the download's task; it knows nothing of trackers.

use std::collections::{HashMap, HashSet};

use shoal_common::Layout;
use shoal_common::tracker_api::Holder;
use shoal_engine::{AnySource, Bottleneck, Progress, SourceChange, SourceId, SourceState};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::choice::{Choice, Step};
use shoal_session::text;
use shoal_swarm::{FileKey, Liveness, Swarm};

/// A source that is never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banned {
    /// Who it is.
    pub source: String,
    /// What it did.
    pub reason: String,
}

/// See the module.
#[derive(Debug)]
pub struct Sources {
    swarm: Swarm,
    key: FileKey,
    layout: Layout,
    changes: mpsc::Sender<SourceChange>,
    choice: Choice,
    in_use: HashMap<SourceId, Use>,
    /// Why a holder's last source came to nothing; bounded by the holders that are known.
    failures: HashMap<SourceId, String>,
    /// One watch a source in use, and some of sources that are not any more.
    watches: JoinSet<Option<Seen>>,
    /// Tells a source from earlier ones of the same holder.
    uses: u64,
}

/// A source in use.
#[derive(Debug)]
struct Use {
    number: u64,
    now: Liveness,
}

/// A source that stands otherwise than before.
#[derive(Debug)]
pub struct Seen {
    id: SourceId,
    number: u64,
    now: Liveness,
    /// It could be asked for pieces until now.
    lost: bool,
    liveness: watch::Receiver<Liveness>,
}

impl Seen {
    /// Whether it could be asked for pieces until now.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.lost
    }
}

impl Sources {
    /// No holder is known yet. `changes` leads to the engine.
    #[must_use]
    pub fn new(swarm: Swarm, key: FileKey, layout: Layout, changes: mpsc::Sender<SourceChange>) -> Self {
        Self {
            swarm,
            key,
            layout,
            changes,
            choice: Choice::default(),
            in_use: HashMap::new(),
            failures: HashMap::new(),
            watches: JoinSet::new(),
            uses: 0,
        }
    }

    /// The trackers named these holders: all that there are, or a random choice of very many. Follow with
    /// [`Sources::choose`].
    pub fn offered(&mut self, holders: Vec<Holder>) {
        self.choice.offered(holders);
        let known: HashSet<SourceId> = self.choice.pending().map(|pending| pending.id).collect();
        self.failures.retain(|id, _| known.contains(id));
    }

    /// Puts holders into use, and out of it; whose time has come is tried again. To be called a few times a second.
    pub async fn choose(&mut self, progress: &Progress) {
        // Whoever else was asked, no more would come.
        let patient = matches!(progress.limit, Bottleneck::RateLimit | Bottleneck::Idle);
        for step in self.choice.turn(&progress.rows, patient, Instant::now()) {
            match step {
                Step::Add(id, holder) => self.add(id, &holder).await,
                Step::Remove(id) => self.remove(id).await,
                Step::Replace(id, holder) => {
                    self.swarm.doubt(holder.peer);
                    self.remove(id).await;
                    self.add(id, &holder).await;
                }
            }
        }
    }

    /// Waits until a source stands otherwise than before; to be given to [`Sources::take`]. Safe to drop.
    pub async fn changed(&mut self) -> Seen {
        loop {
            match self.watches.join_next().await {
                Some(Ok(Some(seen))) if self.is_current(&seen) => return seen,
                // A source that is not in use any more.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Does what follows from how a source stands now; gives one that is banned for it.
    pub async fn take(&mut self, seen: Seen) -> Option<Banned> {
        let Seen { id, number, now, liveness, .. } = seen;
        tracing::debug!(source = id.0, ?now, "a source stands otherwise");
        if let Some(entry) = self.in_use.get_mut(&id) {
            entry.now = now.clone();
        }
        match now {
            Liveness::Connecting => {}
            Liveness::Open => {
                self.failures.remove(&id);
                self.choice.opened(id, Instant::now());
            }
            Liveness::Gone(reason) => {
                self.failures.insert(id, reason);
                self.choice.gone(id, Instant::now());
                self.remove(id).await;
                return None;
            }
            Liveness::Invalid(reason) => {
                self.remove(id).await;
                return self.choice.banned(id).map(|source| Banned { source, reason });
            }
        }
        self.watch(id, number, liveness);
        None
    }

    /// Notices sources that the engine found lying; those that were not known for it.
    pub fn look(&mut self, progress: &Progress) -> Vec<Banned> {
        let mut liars = Vec::new();
        for row in progress.rows.iter() {
            let SourceState::Banned(reason) = &row.state else { continue };
            self.in_use.remove(&row.id);
            if let Some(source) = self.choice.banned(row.id) {
                liars.push(Banned { source, reason: reason.clone() });
            }
        }
        liars
    }

    /// Whoever waits for its next try is tried with the next [`Sources::choose`].
    pub fn hurry(&mut self) {
        self.choice.hurry();
    }

    /// What is waited for while no source can be asked for pieces; `None` if no holder is known.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let mut pending: Vec<_> = self.choice.pending().collect();
        pending.sort_by(|one, other| one.holder.user.as_str().cmp(other.holder.user.as_str()));
        // Rather one of which something is known.
        let first = pending.iter().find(|one| self.failures.contains_key(&one.id)).or(pending.first())?;
        let user = &first.holder.user;
        let words = match (self.failures.get(&first.id), first.again) {
            (None, _) => format!("connecting to {user}"),
            (Some(reason), None) => format!("{user} {reason}; being tried again"),
            (Some(reason), Some(again)) => {
                let left = again.saturating_duration_since(Instant::now()).as_secs() + 1;
                format!("{user} {reason}; tried again in {left} s")
            }
        };
        let others = pending.len() - 1;
        let words = if others > 0 { format!("{words} (and {others} more)") } else { words };
        Some(text::error_line(&words))
    }

    async fn add(&mut self, id: SourceId, holder: &Holder) {
        let addresses: Vec<_> = holder.address.parse().into_iter().collect();
        let source = self.swarm.source(self.key, holder.peer, &addresses, self.layout);
        self.uses += 1;
        self.in_use.insert(id, Use { number: self.uses, now: Liveness::Connecting });
        self.watch(id, self.uses, source.liveness());
        self.tell(SourceChange::Add(id, AnySource::new(source))).await;
    }

    async fn remove(&mut self, id: SourceId) {
        self.in_use.remove(&id);
        self.tell(SourceChange::Remove(id)).await;
    }

    /// The engine that does not listen any more is about to end.
    async fn tell(&self, change: SourceChange) {
        let _ = self.changes.send(change).await;
    }

    /// Waits, in a task of its own, until a source stands otherwise than is known.
    fn watch(&mut self, id: SourceId, number: u64, mut liveness: watch::Receiver<Liveness>) {
        let Some(Use { now: known, .. }) = self.in_use.get(&id) else { return };
        let known = known.clone();
        self.watches.spawn(async move {
            let now = liveness.wait_for(|now| *now != known).await.ok()?.clone();
            let lost = known == Liveness::Open;
            Some(Seen { id, number, now, lost, liveness })
        });
    }

    fn is_current(&self, seen: &Seen) -> bool {
        self.in_use.get(&seen.id).is_some_and(|entry| entry.number == seen.number)
    }
}
