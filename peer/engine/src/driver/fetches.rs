//! Running fetches, the sources they use and the buffers they fill. It decides nothing.

use std::collections::HashMap;
use std::time::Duration;

use shoal_common::PieceIndex;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::buffer::{Arrived, Filling, PieceBuf, PieceData, Sample, Spill};
use crate::driver::stats::Stats;
use crate::pool::{POOL_BLOCKS, Pool};
use crate::rate::{Limiter, Limiters};
use crate::resources::Resources;
use crate::source::AnySource;
use shoal_engine_core::RequestId;
use shoal_engine_core::{Have, Limits, PieceRun, SourceError, SourceId};

/// A source's holdings are looked at no more often than this: its peers announce what came within 25 ms together, and one that
/// announces piece by piece must not keep us busy. The first change is looked at at once.
const HAVE_PAUSE: Duration = Duration::from_millis(20);

/// What a fetch's task brought back.
pub(super) type Ended = Result<(Id, Result<(), SourceError>), JoinError>;

/// A source whose holdings changed, with the epoch of its watch.
pub(super) type Watched = (SourceId, u64, watch::Receiver<Have>);

/// What happens to fetches and sources.
pub(super) enum FetchEvent {
    /// A piece is whole.
    Arrived(Arrived),
    /// A fetch's task ended.
    Ended(Ended),
    /// A source holds other pieces.
    HaveChanged(Watched),
}

/// See the module.
pub(super) struct Fetches {
    pool: Pool,
    limiters: Limiters,
    sources: HashMap<SourceId, Connected>,
    requests: HashMap<RequestId, Running>,
    by_task: HashMap<Id, RequestId>,
    tasks: JoinSet<Result<(), SourceError>>,
    haves: JoinSet<Option<Watched>>,
    /// Distinguishes a source's watch from that of an earlier source with the same id.
    epoch: u64,
    arrived: mpsc::Receiver<Arrived>,
    arrived_sender: mpsc::Sender<Arrived>,
    /// The piece that the core is being asked about.
    stash: Option<Arrived>,
}

struct Connected {
    source: AnySource,
    epoch: u64,
    watching: AbortHandle,
}

struct Running {
    source: SourceId,
    filling: std::sync::Arc<Filling>,
    task: AbortHandle,
    started: Instant,
    /// Bytes that are in the statistics already.
    counted: u64,
    /// Bytes of pieces that were of use.
    kept: u64,
}

impl Fetches {
    pub(super) fn new(resources: &Resources, own: Limiter) -> Self {
        let (arrived_sender, arrived) = mpsc::channel(POOL_BLOCKS);
        Self {
            pool: resources.pool.clone(),
            limiters: Limiters { own, all: resources.limiter.clone() },
            sources: HashMap::new(),
            requests: HashMap::new(),
            by_task: HashMap::new(),
            tasks: JoinSet::new(),
            haves: JoinSet::new(),
            epoch: 0,
            arrived,
            arrived_sender,
            stash: None,
        }
    }

    pub(super) fn add_source(&mut self, id: SourceId, source: AnySource) -> (Limits, Have) {
        self.drop_source(id);
        self.epoch += 1;
        let limits = source.0.limits();
        let mut watch = source.0.have();
        let have = watch.borrow_and_update().clone();
        let watching = self.watch(id, self.epoch, watch, Instant::now());
        self.sources.insert(id, Connected { source, epoch: self.epoch, watching });
        (limits, have)
    }

    pub(super) fn drop_source(&mut self, id: SourceId) {
        if let Some(connected) = self.sources.remove(&id) {
            connected.watching.abort();
        }
    }

    fn watch(
        &mut self,
        id: SourceId,
        epoch: u64,
        mut watch: watch::Receiver<Have>,
        not_before: Instant,
    ) -> AbortHandle {
        self.haves.spawn(async move {
            watch.changed().await.ok()?;
            sleep_until(not_before).await;
            Some((id, epoch, watch))
        })
    }

    /// What a changed source holds now, if it is still in use; goes on watching it.
    pub(super) fn rewatch(&mut self, (id, epoch, mut watch): Watched) -> Option<(SourceId, Have)> {
        self.sources.get(&id).filter(|connected| connected.epoch == epoch)?;
        let have = watch.borrow_and_update().clone();
        let watching = self.watch(id, epoch, watch, Instant::now() + HAVE_PAUSE);
        self.sources.get_mut(&id)?.watching = watching;
        Some((id, have))
    }

    /// The next thing that happens. Safe to drop.
    pub(super) async fn next(&mut self) -> FetchEvent {
        loop {
            tokio::select! {
                Some(arrived) = self.arrived.recv() => return FetchEvent::Arrived(arrived),
                Some(ended) = self.tasks.join_next_with_id() => return FetchEvent::Ended(ended),
                // Otherwise the source will not change, or is gone.
                Some(watched) = self.haves.join_next() => if let Ok(Some(watched)) = watched {
                    return FetchEvent::HaveChanged(watched);
                },
                else => std::future::pending().await,
            }
        }
    }

    pub(super) fn start(&mut self, request: RequestId, id: SourceId, run: PieceRun) {
        let Some(connected) = self.sources.get(&id) else { return };
        let (buffer, filling) = PieceBuf::new(
            request,
            run.clone(),
            self.pool.clone(),
            self.limiters.clone(),
            self.arrived_sender.clone(),
        );
        let source = connected.source.clone();
        let fetch = async move { source.0.fetch(run, buffer).await.map(|_| ()) };
        let task = self.tasks.spawn(fetch.in_current_span());
        self.by_task.insert(task.id(), request);
        let running = Running { source: id, filling, task, started: Instant::now(), counted: 0, kept: 0 };
        self.requests.insert(request, running);
    }

    /// Gives a request up; its task ends in the background.
    pub(super) fn cancel(&mut self, request: RequestId, stats: &mut Stats) {
        self.sample(request, stats);
        if let Some(running) = self.requests.remove(&request) {
            running.filling.close();
            running.task.abort();
            stats.wasted(running.counted.saturating_sub(running.kept));
        }
    }

    /// A piece that arrived already.
    pub(super) fn try_arrived(&mut self) -> Option<Arrived> {
        self.arrived.try_recv().ok()
    }

    /// Holds a piece until the core has said whether it is of use.
    pub(super) fn stash(&mut self, arrived: Arrived) {
        self.stash = Some(arrived);
    }

    /// The stashed piece, of use.
    pub(super) fn keep(&mut self, piece: PieceIndex) -> Option<PieceData> {
        let arrived = self.stash.take_if(|arrived| arrived.data.piece == piece)?;
        if let Some(running) = self.requests.get_mut(&arrived.request) {
            let in_memory: u64 = arrived.data.blocks.iter().map(|block| block.bytes().len() as u64).sum();
            running.kept += u64::from(arrived.data.spilled) + in_memory;
        }
        Some(arrived.data)
    }

    pub(super) fn discard_stash(&mut self) {
        self.stash = None;
    }

    /// How a fetch ended, for the core; `None` if it was cancelled.
    pub(super) fn conclude(
        &mut self,
        ended: Ended,
        stats: &mut Stats,
    ) -> Option<(RequestId, Result<(), SourceError>)> {
        let (task, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => {
                (error.id(), Err(SourceError::Invalid("its code panicked".into())))
            }
            Err(error) => (error.id(), Ok(())),
        };
        let request = self.by_task.remove(&task)?;
        self.sample(request, stats);
        let running = self.requests.remove(&request)?;
        running.filling.close();
        stats.wasted(running.counted.saturating_sub(running.kept));
        Some((request, result))
    }

    /// Samples a request and counts its bytes.
    pub(super) fn sample(&mut self, request: RequestId, stats: &mut Stats) -> Option<Sample> {
        let running = self.requests.get_mut(&request)?;
        let sample = running.filling.sample();
        stats.fetched(running.source, sample.received - running.counted);
        running.counted = sample.received;
        Some(sample)
    }

    /// Samples all requests; gives those that moved, or that this side holds up.
    pub(super) fn sample_all(&mut self, stats: &mut Stats) -> Vec<(RequestId, Sample)> {
        let mut moved = Vec::new();
        for (&request, running) in &mut self.requests {
            let sample = running.filling.sample();
            if sample.received > running.counted || sample.held_up {
                stats.fetched(running.source, sample.received - running.counted);
                running.counted = sample.received;
                moved.push((request, sample));
            }
        }
        moved
    }

    /// Whether the rate limit or the pool holds any request up.
    pub(super) fn held_up(&self) -> bool {
        self.requests.values().any(|running| running.filling.sample().held_up)
    }

    /// The slower half, at least one, of the requests that hold memory.
    pub(super) fn slowest_half(&self) -> Vec<RequestId> {
        let now = Instant::now();
        let mut holding: Vec<(u128, RequestId)> = self
            .requests
            .iter()
            .filter(|(_, running)| running.filling.held_bytes() > 0)
            .map(|(&request, running)| {
                let age = now.saturating_duration_since(running.started).as_micros().max(1);
                (u128::from(running.filling.sample().received) * 1_000_000 / age, request)
            })
            .collect();
        holding.sort_unstable();
        let half = holding.len().div_ceil(2);
        holding.into_iter().take(half).map(|(_, request)| request).collect()
    }

    /// The piece that a request is receiving.
    pub(super) fn piece(&self, request: RequestId) -> Option<PieceIndex> {
        self.requests.get(&request)?.filling.piece()
    }

    /// Takes an unfinished piece's memory away; see [`Filling::spill`].
    pub(super) fn spill(&self, request: RequestId) -> Option<Spill> {
        self.requests.get(&request)?.filling.spill()
    }

    /// Ends all fetches and waits until their tasks are gone.
    pub(super) async fn stop(&mut self, stats: &mut Stats) {
        while let Some(&request) = self.requests.keys().next() {
            self.cancel(request, stats);
        }
        self.sources.clear();
        self.tasks.shutdown().await;
        self.haves.shutdown().await;
        // Pieces of cancelled requests hold memory of the pool.
        while self.try_arrived().is_some() {}
    }
}
