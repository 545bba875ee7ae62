//! Runs one download in one task, which owns the core. It reports events to the core and executes the core's commands.
//! Fetches are tasks of one set; checking, writing and digesting run on blocking threads; progress is a watched value. The
//! driver decides nothing about sources or pieces.

mod batches;
mod chosen;
mod ending;
mod fetches;
mod files;
mod opening;
mod stats;
mod whole;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fastrand::Rng;
use shoal_common::{Bitfield, Digests, OtherDigestsHasher};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::buffer::PieceData;
use crate::chosen::Chosen;
use crate::content::{Content, Target};
use crate::digest::{Prefix, Tail};
use crate::disk::{DiskError, OpenPart};
use crate::driver::fetches::{FetchEvent, Fetches};
use crate::driver::files::{Files, FilesChecked};
use crate::driver::stats::Stats;
use crate::part::PartContext;
use crate::progress::{DownloadError, Outcome, Phase, Progress};
use crate::rate::Limiter;
use crate::resources::{ActiveGuard, Control, Resources};
use crate::source::SourceChange;
use crate::writer::{Done, Job};
use shoal_engine_core::{Command, DownloadCore, DropReason, Event};

/// How often requests are sampled while any is in flight: a tenth of what a slow peer needs for a small piece.
const SAMPLE_EVERY: Duration = Duration::from_millis(25);
/// How often progress is published, and how often the driver wakes while nothing is in flight.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// A checkpoint is due after this time, which bounds what a power loss costs.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// The same where after a crash only a checkpoint says which pieces are there.
const UNCHECKED_CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint is also due after this many bytes, which bounds rehashing after a crash to half a second.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// What a download starts with.
pub(crate) struct Start {
    pub(crate) resources: Arc<Resources>,
    /// Its own rate limit.
    pub(crate) limiter: Limiter,
    pub(crate) content: Content,
    pub(crate) target: Target,
    pub(crate) sources: mpsc::Receiver<SourceChange>,
    /// Which files of a folder are fetched.
    pub(crate) chosen: watch::Receiver<Chosen>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) verified: watch::Sender<Arc<Bitfield>>,
    pub(crate) part: Arc<OnceLock<OpenPart>>,
}

/// How the main loop ended.
enum End {
    /// Everything is written and the whole file's digest is right.
    Whole(Box<Digests>),
    Stopped(Control),
    Failed(DownloadError),
}

/// What a blocking thread brings back.
enum Work {
    Written(Done),
    Covered(Result<Prefix, DiskError>),
    Followed(Result<OtherDigestsHasher, DiskError>),
    Checkpointed(Result<(), DiskError>),
    /// The pieces that are right on the disk.
    Rechecked(Result<Bitfield, DiskError>),
    /// Of files of a folder.
    FilesChecked(Result<FilesChecked, DiskError>),
    /// These have their names.
    FilesPlaced(Result<Vec<usize>, DiskError>),
}

struct Driver {
    resources: Arc<Resources>,
    limiter: Limiter,
    active: ActiveGuard,
    context: Arc<PartContext>,
    core: DownloadCore,
    sources: Option<mpsc::Receiver<SourceChange>>,
    fetches: Fetches,
    /// Jobs that wait to be checked; bounded by the pool, whose blocks they hold.
    queue: VecDeque<Job>,
    work: JoinSet<Work>,
    /// Batches that are being checked and written.
    batches: usize,
    /// Whether one of them must be alone.
    alone: bool,
    checkpointing: bool,
    rechecking: bool,
    /// `None` while a job has it.
    prefix: Option<Prefix>,
    /// Pieces that were written meanwhile, for it to keep; no more than a batch.
    for_prefix: Vec<Arc<PieceData>>,
    /// Bytes that the prefix covered when it was last here.
    covered_bytes: u64,
    tail: Tail,
    files: Files,
    /// The pieces that are to be fetched.
    chosen: Arc<Bitfield>,
    written: Bitfield,
    unsaved_bytes: u64,
    saved: Instant,
    stop_work: CancellationToken,
    stats: Stats,
    published: Instant,
    progress: watch::Sender<Progress>,
    verified: watch::Sender<Arc<Bitfield>>,
}

/// Runs the download to its end and leaves no task behind.
pub(crate) async fn run(start: Start) -> Outcome {
    let Start { resources, limiter, content, target, sources, mut chosen, .. } = start;
    let Start { mut control, progress, verified, part, .. } = start;
    let active = resources.activate();
    let stop_work = CancellationToken::new();
    let first = chosen.borrow_and_update().clone();
    let what = (&content, &target, &first);
    let (context, written) = match opening::open(what, part, &stop_work, &mut control).await {
        Ok(opened) => opened,
        Err(error) => return Outcome::Failed(error),
    };
    let (layout, context) = (content.layout().clone(), Arc::new(context));
    let tail = Tail::new(content.digest());
    let now = Instant::now();
    let files = Files::new(&context, &written);
    let stats = Stats::new(resources.clone(), layout.size(), now);
    let mut driver = Driver {
        core: DownloadCore::new(layout.clone(), &written, resources.budget(), Rng::new()),
        fetches: Fetches::new(&resources, limiter.clone()),
        limiter,
        active,
        resources,
        context,
        sources: Some(sources),
        queue: VecDeque::new(),
        work: JoinSet::new(),
        batches: 0,
        alone: false,
        checkpointing: false,
        rechecking: false,
        prefix: Some(Prefix::new(&content)),
        for_prefix: Vec::new(),
        covered_bytes: 0,
        tail,
        files,
        chosen: Arc::new(Bitfield::all(&layout)),
        written,
        unsaved_bytes: 0,
        saved: now,
        stop_work,
        stats,
        published: now,
        progress,
        verified,
    };
    driver.choose(&first);
    driver.publish_verified();
    let end = driver.main_loop(&mut control, &mut chosen).await;
    driver.end(end, &target).await
}

/// Waits until the caller wants the download to end.
async fn stopped(control: &mut watch::Receiver<Control>) -> Control {
    // A dropped handle ends the download like a pause.
    control.wait_for(|&wish| wish != Control::Run).await.map_or(Control::Pause, |wish| *wish)
}

impl Driver {
    async fn main_loop(
        &mut self,
        control: &mut watch::Receiver<Control>,
        chosen: &mut watch::Receiver<Chosen>,
    ) -> End {
        let mut pressure = self.resources.pool.pressure();
        let mut tick = Instant::now();
        loop {
            if let Some(end) = self.advance() {
                return end;
            }
            tokio::select! {
                wish = stopped(control) => return End::Stopped(wish),
                Ok(()) = chosen.changed() => {
                    let now = chosen.borrow_and_update().clone();
                    self.choose(&now);
                }
                change = next_change(&mut self.sources) => self.change_sources(change),
                event = self.fetches.next() => match event {
                    FetchEvent::Arrived(arrived) => self.arrived(arrived),
                    FetchEvent::Ended(ended) => self.ended(ended),
                    FetchEvent::HaveChanged(watched) => {
                        if let Some((source, have)) = self.fetches.rewatch(watched) {
                            self.handle(Event::HaveChanged { source, have });
                        }
                    }
                },
                Some(done) = self.work.join_next() => {
                    if let Err(error) = self.worked(done) {
                        return End::Failed(error);
                    }
                }
                Ok(()) = pressure.changed() => self.relieve(),
                () = tokio::time::sleep_until(tick) => {
                    self.tick();
                    tick = Instant::now() + if self.core.is_busy() { SAMPLE_EVERY } else { PUBLISH_EVERY };
                }
            }
            if self.core.is_busy() {
                tick = tick.min(Instant::now() + SAMPLE_EVERY);
            }
        }
    }

    /// Starts what can be started; gives the end when nothing is left to do.
    fn advance(&mut self) -> Option<End> {
        self.start_writing();
        // While pieces come to be hashed, the prefix goes along.
        let alone = self.core.is_complete() || !self.goes_along();
        let behind =
            |prefix: &mut Prefix| prefix.is_behind(&self.written) && (alone || prefix.is_far(&self.written));
        if let Some(prefix) = self.prefix.take_if(behind) {
            let (context, written) = (self.context.clone(), self.written.clone());
            self.work.spawn_blocking(move || Work::Covered(prefix.catch_up(&written, &context)));
        }
        if let Some(step) = self.tail.step(self.context.content.layout()) {
            let context = self.context.clone();
            self.work.spawn_blocking(move || Work::Followed(step.work(&context)));
        }
        self.check_files();
        self.place_files();
        let due = self.unsaved_bytes >= CHECKPOINT_BYTES
            || (self.unsaved_bytes > 0 && self.saved.elapsed() >= self.checkpoint_every());
        if due && !self.checkpointing {
            self.checkpointing = true;
            self.unsaved_bytes = 0;
            self.saved = Instant::now();
            let (context, written) = (self.context.clone(), self.written.clone());
            self.work.spawn_blocking(move || Work::Checkpointed(checkpoint(&context, &written)));
        }
        if self.core.is_complete() && !self.rechecking {
            if !self.files.are_placed() {
                return None;
            }
            let prefix = self.prefix.as_ref().filter(|prefix| prefix.is_done())?;
            let digest = self.tail.finish(prefix.sha1())?;
            if self.context.content.digest().confirmed_by(&digest) {
                return Some(End::Whole(Box::new(digest)));
            }
            if !self.context.content.is_checked() {
                return Some(End::Failed(self.wrong_whole(digest)));
            }
            self.recheck(&digest);
        } else if self.sources.is_none()
            && self.core.sources() == 0
            && !self.is_working()
            && !self.core.is_complete()
        {
            let missing = self.stats.total - self.verified_bytes();
            return Some(End::Failed(DownloadError::NoSources { missing }));
        }
        None
    }

    /// Reports an event to the core and executes its commands.
    fn handle(&mut self, event: Event) {
        self.core.handle(event, Instant::now().into_std());
        while let Some(command) = self.core.poll_command() {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Fetch { request, source, run } => self.fetches.start(request, source, run),
            Command::Cancel { request } => self.fetches.cancel(request, &mut self.stats),
            Command::Check { piece } => {
                if let Some(data) = self.fetches.keep(piece) {
                    self.queue.push_back(Job::Check(data));
                }
            }
            Command::Drop { source, reason } => {
                match &reason {
                    DropReason::Banned(reason) => tracing::warn!(source = source.0, reason, "source banned"),
                    DropReason::Gone(reason) => tracing::debug!(source = source.0, reason, "source gone"),
                    DropReason::Removed => {}
                }
                self.fetches.drop_source(source);
                self.stats.dropped(source, reason);
            }
        }
    }

    fn change_sources(&mut self, change: Option<SourceChange>) {
        match change {
            None => self.sources = None,
            Some(SourceChange::Add(id, source)) => {
                let (limits, have) = self.fetches.add_source(id, source);
                self.stats.added(id);
                self.handle(Event::SourceAdded { source: id, limits, have });
            }
            Some(SourceChange::Remove(id)) => self.handle(Event::SourceRemoved { source: id }),
            Some(SourceChange::OthersDownloading(others)) => self.handle(Event::OthersDownloading(others)),
        }
    }

    fn arrived(&mut self, arrived: crate::buffer::Arrived) {
        let (request, piece) = (arrived.request, arrived.data.piece);
        let first_byte = self.fetches.sample(request, &mut self.stats).and_then(|sample| sample.first_byte);
        self.fetches.stash(arrived);
        self.handle(Event::Arrived { request, piece, first_byte: first_byte.map(Instant::into_std) });
        self.fetches.discard_stash();
    }

    fn ended(&mut self, ended: fetches::Ended) {
        // Its pieces were sent before it ended.
        while let Some(arrived) = self.fetches.try_arrived() {
            self.arrived(arrived);
        }
        if let Some((request, result)) = self.fetches.conclude(ended, &mut self.stats) {
            self.handle(Event::Finished { request, result });
        }
    }

    fn tick(&mut self) {
        for (request, sample) in self.fetches.sample_all(&mut self.stats) {
            self.handle(Event::Progress {
                request,
                received: sample.received,
                first_byte: sample.first_byte.map(Instant::into_std),
                held_up: sample.held_up,
            });
        }
        self.handle(Event::Budget(self.resources.budget()));
        self.active.set_moving(self.core.requests() > 0);
        self.handle(Event::RateLimit(self.resources.rate_share(&self.limiter)));
        self.handle(Event::Tick);
        self.publish();
    }

    /// The pool is empty: bytes of slow pieces are written to the disk, or given up where another request has the piece too.
    fn relieve(&mut self) {
        self.tail.drop_cached();
        self.for_prefix.clear();
        if let Some(prefix) = &mut self.prefix {
            prefix.drop_cached();
        }
        for request in self.fetches.slowest_half() {
            let Some(piece) = self.fetches.piece(request) else { continue };
            if self.core.is_sole(piece, request) {
                self.queue.extend(self.fetches.spill(request).map(Job::Spill));
            } else {
                self.fetches.cancel(request, &mut self.stats);
                let result = Err(shoal_engine_core::SourceError::Busy(PUBLISH_EVERY));
                self.handle(Event::Finished { request, result });
            }
        }
    }

    fn worked(&mut self, done: Result<Work, JoinError>) -> Result<(), DownloadError> {
        match done.map_err(|_| DownloadError::Stopped)? {
            Work::Written(done) => self.take_in(done)?,
            Work::Covered(prefix) => self.take_back(prefix.map_err(Arc::new)?),
            Work::Followed(hasher) => self.tail.stepped(hasher.map_err(Arc::new)?),
            Work::Checkpointed(result) => {
                self.checkpointing = false;
                result.map_err(Arc::new)?;
            }
            Work::FilesPlaced(placed) => self.files.placed(&placed.map_err(Arc::new)?),
            Work::FilesChecked(checked) => self.files_checked(checked.map_err(Arc::new)?)?,
            Work::Rechecked(right) => {
                self.rechecking = false;
                // After a stop it says nothing of the pieces that it did not reach.
                if !self.stop_work.is_cancelled() {
                    self.rechecked(&right.map_err(Arc::new)?)?;
                }
            }
        }
        Ok(())
    }

    /// Without piece digests only a checkpoint says which pieces are there.
    fn checkpoint_every(&self) -> Duration {
        if self.context.content.is_checked() { CHECKPOINT_EVERY } else { UNCHECKED_CHECKPOINT_EVERY }
    }

    fn publish_verified(&self) {
        let written = &self.written;
        self.verified.send_if_modified(|bits| {
            let changed = **bits != *written;
            if changed {
                *bits = Arc::new(written.clone());
            }
            changed
        });
    }

    fn publish(&mut self) {
        let phase = match () {
            () if self.core.is_complete() => Phase::Checking,
            () if self.core.requests() > 0 || self.is_working() => Phase::Downloading,
            () => Phase::Waiting,
        };
        if self.published.elapsed() >= PUBLISH_EVERY || self.progress.borrow().phase != phase {
            self.publish_as(phase);
        }
    }

    fn publish_as(&mut self, phase: Phase) {
        let limited = self.resources.rate_share(&self.limiter).is_some();
        let at_rate_limit = limited && self.fetches.held_up();
        let bottleneck =
            stats::bottleneck(phase, &self.core, &self.resources, self.queue.len(), at_rate_limit);
        let verified = self.verified_bytes();
        let covered = self.covered_bytes;
        self.published = Instant::now();
        let mut progress =
            self.stats.progress(phase, bottleneck, verified, covered, &self.core, Instant::now());
        progress.files = self.files.progress();
        self.progress.send_replace(progress);
    }
}

fn checkpoint(context: &PartContext, written: &Bitfield) -> Result<(), DiskError> {
    context.part.sync()?;
    context.part.must_be_in_place()?;
    context.journal.checkpoint(written)
}

/// The next change of the set of sources; `None` when there will be no more, and never again after that.
async fn next_change(sources: &mut Option<mpsc::Receiver<SourceChange>>) -> Option<SourceChange> {
    match sources {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}
